"""Hypergraph convolution, and the two-layer block built of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GATHERED_VALUES = 1 << 23  # 32 MB


def hyperedge_degrees(incidence: Tensor, n: int, n_hyperedges: int, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weighted degree of the spots and size of the hyperedges.

    Parameters
    ----------
    incidence
        ``(2, nnz)``: row 0 the spot, row 1 the hyperedge that holds it.
    n
        Number of spots.
    n_hyperedges
        Number of hyperedges.
    weight
        One weight a hyperedge; ``None`` counts each as one.

    Returns
    -------
    Degrees ``(n,)`` and sizes ``(n_hyperedges,)``, float32.
    """
    spots, edges = incidence
    ones = torch.ones(len(spots), device=incidence.device)
    sizes = ones.new_zeros(n_hyperedges).index_add(0, edges, ones)
    degrees = ones.new_zeros(n).index_add(0, spots, ones if weight is None else weight.float()[edges])
    return degrees, sizes


def _inverse(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1 / x.clamp_min(torch.finfo(x.dtype).tiny), torch.zeros_like(x))


def propagate(
    values: Tensor,
    incidence: Tensor,
    n_hyperedges: int,
    weight: Tensor | None = None,
    *,
    weights_in_degree_only: bool = False,
) -> Tensor:
    """Mean of each hyperedge's spots, then each spot's weighted mean of its hyperedges: D⁻¹ H W B⁻¹ Hᵀ X.

    Parameters
    ----------
    values
        ``(n, features)``, float32.
    incidence
        ``(2, nnz)``: row 0 the spot, row 1 the hyperedge that holds it.
    n_hyperedges
        Number of hyperedges.
    weight
        One weight a hyperedge; ``None`` counts each as one.
    weights_in_degree_only
        Use the weights in D but not as W.

    Returns
    -------
    ``(n, features)``; zero for a spot that no hyperedge holds.
    """
    spots, edges = incidence
    degrees, sizes = hyperedge_degrees(incidence, len(values), n_hyperedges, weight)
    scale = _inverse(sizes)
    if weight is not None and not weights_in_degree_only:
        scale = scale * weight.float()
    # Wide features a few columns at a time: every spot of every hyperedge is gathered
    parts = torch.split(values, max(1, GATHERED_VALUES // max(1, len(spots))), dim=1)
    out = []
    for part in parts:
        means = part.new_zeros(n_hyperedges, part.shape[1]).index_add(0, edges, part[spots]) * scale.unsqueeze(1)
        mixed = torch.zeros_like(part).index_add(0, spots, means[edges])
        out.append(mixed * _inverse(degrees).unsqueeze(1))
    return torch.cat(out, dim=1) if len(out) > 1 else out[0]


class HypergraphConv(nn.Module):
    r"""Hypergraph convolution, :math:`D^{-1} H W B^{-1} H^\top X \Theta + b` (Feng et al. 2019; Bai et al. 2021).

    Each hyperedge takes the mean of its spots; each spot takes the weighted mean of its hyperedges. A spot that no
    hyperedge holds gets the bias alone. ``torch_geometric.nn.HypergraphConv`` leaves W out of the product and uses
    the weights in D only; ``weights_in_degree_only`` repeats that for the authors' checkpoints.

    Parameters
    ----------
    in_features
        Features of a spot.
    out_features
        Features after the convolution.
    weights_in_degree_only
        Use hyperedge weights in D but not as W.
    """

    def __init__(self, in_features: int, out_features: int, *, weights_in_degree_only: bool = False) -> None:
        super().__init__()
        self.weights_in_degree_only = weights_in_degree_only
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, incidence: Tensor, n_hyperedges: int, weight: Tensor | None = None) -> Tensor:
        """Convolve spots ``x`` over hyperedges; ``weight`` holds one positive number a hyperedge."""
        projected = F.linear(x, self.weight)
        # sums of many terms: float32 whatever the precision of the products
        with torch.autocast(x.device.type, enabled=False):
            values = projected.float()
            only = self.weights_in_degree_only
            spread = propagate(values, incidence, n_hyperedges, weight, weights_in_degree_only=only)
            return spread + self.bias.float()


class HypergraphBlock(nn.Module):
    """Two hypergraph convolutions added to their input.

    A spot that no hyperedge holds keeps its own features unchanged: the block adds nothing there.

    Parameters
    ----------
    dim
        Features in and out.
    hidden
        Features between the two convolutions.
    dropout
        Dropout between them, while training only.
    weights_in_degree_only
        As in ``HypergraphConv``.
    """

    def __init__(self, dim: int, hidden: int, dropout: float, *, weights_in_degree_only: bool = False) -> None:
        super().__init__()
        self.conv1 = HypergraphConv(dim, hidden, weights_in_degree_only=weights_in_degree_only)
        self.norm = nn.LayerNorm(hidden)
        self.drop = nn.Dropout(dropout)
        self.conv2 = HypergraphConv(hidden, dim, weights_in_degree_only=weights_in_degree_only)

    def forward(self, x: Tensor, incidence: Tensor, n_hyperedges: int, weight: Tensor | None = None) -> Tensor:
        """Refine spots ``x`` (spots, features) over the hyperedges of ``incidence``."""
        inner = self.norm(F.relu(self.conv1(x, incidence, n_hyperedges, weight)))
        update = self.conv2(self.drop(inner), incidence, n_hyperedges, weight)
        held = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
        held[incidence[0]] = True
        return x + torch.where(held, update, torch.zeros_like(update))
