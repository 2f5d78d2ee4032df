"""Pre-norm transformer blocks: attention over the whole section, or over the nearest spots only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Sequential):
    """Two linear layers with GELU, dropout after each.

    Parameters
    ----------
    dim
        Features in and out.
    hidden
        Features in between.
    dropout
        Probability of dropping a value.
    """

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.drop_up = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, dim)
        self.drop_down = nn.Dropout(dropout)


class SelfAttention(nn.Module):
    """Softmax attention of every spot over all spots of its section.

    Parameters
    ----------
    dim
        Features a spot.
    heads
        Attention heads.
    head_dim
        Features a head.
    dropout
        Dropout after the output projection.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the rows of ``x`` (spots, features)."""
        # (spots, 3 * heads * head_dim) -> three tensors (1, heads, spots, head_dim)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3).unsqueeze(1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.drop(self.out(mixed[0].transpose(0, 1).flatten(1)))
        return out


class TransformerBlock(nn.Module):
    """Attention over the section and a feed-forward layer, each normalised first and added to its input.

    Parameters
    ----------
    dim
        Features a spot.
    heads
        Attention heads.
    head_dim
        Features a head.
    hidden
        Features inside the feed-forward layer.
    dropout
        Dropout after the projection and inside the feed-forward layer.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, head_dim, dropout)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = FeedForward(dim, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Refine the rows of ``x`` (spots, features)."""
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.feed(self.feed_norm(x))
        return out


class DistanceBias(nn.Module):
    """A learnt bias a head for how far a neighbour is.

    Only the distance counts, not the direction: a section has no up, and the same tissue turned around must give
    the same prediction.

    Parameters
    ----------
    heads
        Attention heads.
    hidden
        Width of the small network.
    """

    def __init__(self, heads: int, hidden: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, hidden), nn.GELU(), nn.Linear(hidden, heads, bias=False))

    def forward(self, offsets: Tensor) -> Tensor:
        """Bias ``(spots, k, heads)`` of offsets ``(spots, k, 2)`` in units of the spot pitch."""
        distance = torch.linalg.vector_norm(offsets.float(), dim=-1, keepdim=True)
        bias: Tensor = self.net(torch.log1p(distance))
        return bias


class NeighborAttention(nn.Module):
    """Softmax attention of every spot over its nearest spots: linear cost, bounded view.

    Parameters
    ----------
    dim
        Features a spot, a multiple of ``heads``.
    heads
        Attention heads.
    dropout
        Dropout after the output projection.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.bias = DistanceBias(heads)
        self.out = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, neighbors: Tensor, offsets: Tensor) -> Tensor:
        """Attend from the rows of ``x`` to the rows in ``neighbors`` (spots, k), where -1 stands for nobody."""
        present = (neighbors >= 0).unsqueeze(-1)
        q = self.query(x).unflatten(-1, (self.heads, -1))
        # project first, gather after: each spot is projected once, not once a neighbour
        k, v = self.key_value(x)[neighbors.clamp_min(0)].unflatten(-1, (2, self.heads, -1)).unbind(2)
        logits = torch.einsum("nhd,nkhd->nkh", q, k).float() / q.shape[-1] ** 0.5 + self.bias(offsets).float()
        weights = logits.masked_fill(~present, torch.finfo(logits.dtype).min).softmax(dim=1)
        # a spot with nobody at all gets zero, not an average over padding
        mixed = torch.einsum("nkh,nkhd->nhd", (weights * present).to(v.dtype), v)
        out: Tensor = self.drop(self.out(mixed.flatten(1)))
        return out


class NeighborBlock(nn.Module):
    """Attention over the nearest spots and a feed-forward layer, each normalised first and added to its input.

    Parameters
    ----------
    dim
        Features a spot.
    heads
        Attention heads.
    hidden
        Features inside the feed-forward layer.
    dropout
        Dropout after the projection and inside the feed-forward layer.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = NeighborAttention(dim, heads, dropout)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = FeedForward(dim, hidden, dropout)

    def forward(self, x: Tensor, neighbors: Tensor, offsets: Tensor) -> Tensor:
        """Refine the rows of ``x`` from those of their neighbours."""
        x = x + self.attention(self.attention_norm(x), neighbors, offsets)
        out: Tensor = x + self.feed(self.feed_norm(x))
        return out
