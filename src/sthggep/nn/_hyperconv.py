"""Hypergraph convolution, and the two-layer block built of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing


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


class Groups(NamedTuple):
    """Senders of each receiver, sorted by receiver."""

    senders: Tensor
    """``(nnz,)``."""
    starts: Tensor
    """``(receivers + 1,)``: where each receiver's senders start, and where the last one's end."""


def group_by_receiver(senders: Tensor, receivers: Tensor, n_receivers: int) -> Groups:
    """The edges from ``senders`` to ``receivers``, sorted by receiver; the order within a receiver stays."""
    if not (receivers[1:] >= receivers[:-1]).all():
        senders = senders[torch.argsort(receivers.int(), stable=True)]
    starts = receivers.new_zeros(n_receivers + 1)
    starts[1:] = torch.bincount(receivers, minlength=n_receivers).cumsum(0)
    return Groups(senders, starts)


class _GroupSum(torch.autograd.Function):
    """Sum of the senders' rows at each receiver; the gradient is the same sum the other way."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, groups: Groups, back: Groups) -> Tensor:
        ctx.back = back
        return F.embedding_bag(groups.senders, values, groups.starts, mode="sum", include_last_offset=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        senders, starts = ctx.back
        summed = F.embedding_bag(senders, gradients[0], starts, mode="sum", include_last_offset=True)
        return summed, None, None


class HypergraphMean(MessagePassing):  # type: ignore[misc]  # untyped
    r"""Mean of each hyperedge's spots, then each spot's weighted mean of its hyperedges: D⁻¹ H W B⁻¹ Hᵀ X.

    Messages are added up where they are, without a copy of every spot for every hyperedge that holds it. The order of
    each sum is that of the incidence, on any number of threads: results and gradients repeat bit for bit.

    Parameters
    ----------
    weights_in_degree_only
        Use the weights in D but not as W.
    """

    def __init__(self, *, weights_in_degree_only: bool = False) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.weights_in_degree_only = weights_in_degree_only

    def forward(self, values: Tensor, incidence: Tensor, n_hyperedges: int, weight: Tensor | None = None) -> Tensor:
        """Means ``(n, features)`` of ``values``, which :func:`propagate` describes."""
        spots, edges = incidence
        n = len(values)
        degrees, sizes = hyperedge_degrees(incidence, n, n_hyperedges, weight)
        scale = _inverse(sizes)
        if weight is not None and not self.weights_in_degree_only:
            scale = scale * weight.float()
        into, out_of = group_by_receiver(spots, edges, n_hyperedges), group_by_receiver(edges, spots, n)
        means = self.propagate(incidence, (n, n_hyperedges), x=values, groups=into, back=out_of) * scale.unsqueeze(1)
        mixed = self.propagate(incidence.flip(0), (n_hyperedges, n), x=means, groups=out_of, back=into)
        return mixed * _inverse(degrees).unsqueeze(1)

    def propagate(self, edge_index: Tensor, size: tuple[int, int] | None = None, **values: Any) -> Tensor:
        """Take one step along ``edge_index``, from senders to receivers.

        The base class does it. A class with a method of its own is not compiled from a template, which would leave a
        file in the temporary folder for every process.
        """
        out: Tensor = super().propagate(edge_index, size=size, **values)
        return out

    def message(self, x: Tensor) -> Tensor:
        """Send the senders' values as they are."""
        return x

    def aggregate(self, inputs: Tensor, groups: Groups, back: Groups) -> Tensor:
        """Sum the messages to each receiver."""
        out: Tensor = _GroupSum.apply(inputs, groups, back)  # type: ignore[no-untyped-call]
        return out


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
    mean: Tensor = HypergraphMean(weights_in_degree_only=weights_in_degree_only)(
        values, incidence, n_hyperedges, weight
    )
    return mean


class HypergraphConv(nn.Module):
    r"""Hypergraph convolution, :math:`D^{-1} H W B^{-1} H^\top X \Theta + b` (Feng et al. 2019; Bai et al. 2021).

    Each hyperedge takes the mean of its spots; each spot takes the weighted mean of its hyperedges. A spot that no
    hyperedge holds gets the bias alone. The sums are a ``torch_geometric.nn.MessagePassing``.
    ``torch_geometric.nn.HypergraphConv`` leaves W out of the product and uses the weights in D only;
    ``weights_in_degree_only`` repeats that for the authors' checkpoints.

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
        self.mean = HypergraphMean(weights_in_degree_only=weights_in_degree_only)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, incidence: Tensor, n_hyperedges: int, weight: Tensor | None = None) -> Tensor:
        """Convolve spots ``x`` over hyperedges; ``weight`` holds one positive number a hyperedge."""
        projected = F.linear(x, self.weight)
        # sums of many terms: float32 whatever the precision of the products
        with torch.autocast(x.device.type, enabled=False):
            mean: Tensor = self.mean(projected.float(), incidence, n_hyperedges, weight)
            return mean + self.bias.float()


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
