"""Pre-norm transformer blocks: attention over the whole section, or over the nearest spots only."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK_WEIGHTS = 1 << 24  # attention weights held at once (32 MB): more would wait for memory
FEWEST_ROWS = 16


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


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax attention with a few megabytes of weights at a time.

    torch's fused kernel, but for bfloat16 prediction on a CPU without matrix tiles: there plain products over chunks of
    spots take two thirds of its time.

    Parameters
    ----------
    q, k, v
        ``(sections, heads, spots, features)``.

    Returns
    -------
    Mixed values of the same shape.
    """
    rows = CHUNK_WEIGHTS // (k.shape[1] * k.shape[2])
    plain = q.device.type == "cpu" and q.dtype == torch.bfloat16 and not torch.is_grad_enabled() and not _has_tiles()
    if not plain or rows < FEWEST_ROWS:
        return F.scaled_dot_product_attention(q, k, v)
    return torch.stack([_attend_in_chunks(*one, rows) for one in zip(q, k, v, strict=True)])


def _attend_in_chunks(q: Tensor, k: Tensor, v: Tensor, rows: int) -> Tensor:
    """Attention ``(heads, spots, features)`` of one section, ``rows`` spots at a time."""
    # What all keys share adds the same to all of a spot's scores: without it they lose fewer digits
    keys = (k - k.float().mean(dim=1, keepdim=True)).to(q.dtype).contiguous().mT
    q, v, out = (q * q.shape[-1] ** -0.5).contiguous(), v.contiguous(), torch.empty_like(q)
    held = q.new_empty(len(q), min(rows, q.shape[1]), q.shape[1])
    for part, result in zip(torch.split(q, rows, dim=1), torch.split(out, rows, dim=1), strict=True):
        weights = held[:, : part.shape[1]]
        torch.bmm(part, keys, out=weights)
        torch.softmax(weights, dim=-1, out=weights)
        torch.bmm(weights, v, out=result)
    return out


@cache
def _has_tiles() -> bool:
    """Whether the CPU multiplies tiles (AMX), for which torch's fused kernel is made; unknown counts as yes."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)())


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
        """Attend over the rows of ``x`` (spots, features), or of each section of (sections, spots, features)."""
        # (sections, spots, 3 * heads * head_dim) -> three tensors (sections, heads, spots, head_dim)
        sections = x.unsqueeze(0) if x.ndim == 2 else x
        q, k, v = self.qkv(sections).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.drop(self.out(mixed))
        return out.reshape(x.shape)


class TransformerBlock(nn.Module):
    """Attention over the section and a feed-forward layer, each normalized first and added to its input.

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
        """Refine the rows of ``x``, as ``SelfAttention`` takes them."""
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.feed(self.feed_norm(x))
        return out


class DistanceBias(nn.Module):
    """A learned bias a head for how far a neighbor is.

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
        """Attend from the rows of ``x`` to the rows in ``neighbors`` (spots, k), where -1 stands for no neighbor."""
        present = (neighbors >= 0).unsqueeze(-1)
        q = self.query(x).unflatten(-1, (self.heads, -1))
        # project first, gather after: each spot is projected once, not once a neighbor
        k, v = self.key_value(x)[neighbors.clamp_min(0)].unflatten(-1, (2, self.heads, -1)).unbind(2)
        logits = torch.einsum("nhd,nkhd->nkh", q, k).float() / q.shape[-1] ** 0.5 + self.bias(offsets).float()
        weights = logits.masked_fill(~present, torch.finfo(logits.dtype).min).softmax(dim=1)
        # a spot without any neighbor gets zero, not an average over padding
        mixed = torch.einsum("nkh,nkhd->nhd", (weights * present).to(v.dtype), v)
        out: Tensor = self.drop(self.out(mixed.flatten(1)))
        return out


class NeighborBlock(nn.Module):
    """Attention over the nearest spots and a feed-forward layer, each normalized first and added to its input.

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
        """Refine the rows of ``x`` from those of their neighbors."""
        x = x + self.attention(self.attention_norm(x), neighbors, offsets)
        out: Tensor = x + self.feed(self.feed_norm(x))
        return out
