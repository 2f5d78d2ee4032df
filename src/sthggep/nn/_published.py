"""Graph and positions as the released code has them, for networks loaded from the authors' checkpoints."""

from __future__ import annotations

from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sthggep.nn._hypergraph import CHUNK_VALUES, as_positions, spatial_neighbors

TABLE_ROWS = 64


class PublishedHypergraph(NamedTuple):
    """Hyperedges of the released code."""

    incidence: Tensor
    """``(2, pairs)``: spot and hyperedge, by spot and falling score."""
    pair_weight: Tensor
    """``(pairs,)`` score of each pair."""
    hyperedge_weight: Tensor
    """``(n,)`` weight the convolution sees: hyperedge e has that of pair number e."""


def published_neighbors(array_xy: ArrayLike | Tensor, *, k: int = 8, max_distance: float = 2.0) -> Tensor:
    """Find neighbors by the rule of the released code: the nearest by array distance, ties in row order.

    Parameters
    ----------
    array_xy
        Integer array positions, one (x, y) a spot.
    k
        Neighbors a spot, itself not counted.
    max_distance
        Others farther than this are dropped.

    Returns
    -------
    Rows ``(n, k)``, the spot itself left out, padded with -1.
    """
    return spatial_neighbors(array_xy, k + 1, max_distance=max_distance, ties="row").rows[:, 1:]


def published_hypergraph(features: Tensor, neighbors: Tensor, *, n_selected: int = 4) -> PublishedHypergraph:
    r"""Make hyperedges by the rule of the released code, quirks included.

    Spot i scores every other spot j by :math:`A_{ij} / \sum_j A_{ij} + d_{ij} / \sum_j d_{ij}`, A being the
    neighbors and d the distance between features over the whole section, and selects the highest scores: the most
    dissimilar of its neighbors. The pair becomes spot i in hyperedge j, so hyperedge j holds who selected j. A spot
    without neighbors selects none (the released code divides zero by zero there).

    Parameters
    ----------
    features
        One row a spot.
    neighbors
        Rows ``(n, k)`` as ``published_neighbors`` gives them.
    n_selected
        Spots selected by each.

    Returns
    -------
    Incidence and weights. No gradient flows through them.
    """
    n = len(features)
    taken = min(n_selected, n - 1)
    scores, places = [features.new_zeros(0, taken)], [neighbors.new_zeros(0, taken)]
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        x = features.detach().float()
        x = x - x.mean(dim=0)  # distances stay, and lose fewer digits
        for rows in torch.split(torch.arange(n, device=x.device), max(1, CHUNK_VALUES // n)):
            score, place = _scores(x, rows, neighbors[rows]).topk(taken, dim=1)
            scores.append(score)
            places.append(place)
        lonely = (neighbors < 0).all(dim=1, keepdim=True)
        weight = torch.cat(scores).float().masked_fill(lonely, 1.0)
        spots = torch.arange(n, device=x.device).unsqueeze(1).expand(n, taken)
        occupied = ~lonely.expand(n, taken)
        incidence = torch.stack([spots[occupied], torch.cat(places)[occupied]])
        hyperedge_weight = weight.flatten()[:n] if taken else x.new_ones(n)
        return PublishedHypergraph(incidence, weight[occupied], hyperedge_weight)


def _scores(x: Tensor, rows: Tensor, neighbors: Tensor) -> Tensor:
    """Score all spots for each of ``rows``; the spot itself gets the lowest score."""
    itself = rows.unsqueeze(1)
    distance = torch.cdist(x[rows], x).scatter(1, itself, 0.0)
    scores = distance / distance.sum(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    present = (neighbors >= 0).float()
    share = present / present.sum(dim=1, keepdim=True).clamp_min(1.0)
    return scores.scatter_add(1, neighbors.clamp_min(0), share).scatter(1, itself, -torch.inf)


class TablePosition(nn.Module):
    """Absolute positions, one learned row for each array x and each array y.

    Parameters
    ----------
    dim
        Features a spot.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.x = nn.Embedding(TABLE_ROWS, dim)
        self.y = nn.Embedding(TABLE_ROWS, dim)

    def forward(self, positions: ArrayLike | Tensor) -> Tensor:
        """Position features of integer array positions ``(n, 2)``."""
        xy = torch.from_numpy(as_positions(positions))
        whole = xy.round()
        if not torch.equal(whole, xy):
            msg = (
                "Expected integer array positions (obs['array_x'], obs['array_y'] or array_col, array_row), "
                "found fractions: a reference network looks positions up in a table."
            )
            raise ValueError(msg)
        if whole.min() < 0 or whole.max() >= TABLE_ROWS:
            msg = (
                f"Expected array positions from 0 to {TABLE_ROWS - 1}, found {int(whole.min())} to {int(whole.max())}: "
                f"a reference network has tables of {TABLE_ROWS} rows and cannot place such a spot. "
                "Fit a new model, whose positions are relative to the section."
            )
            raise ValueError(msg)
        columns = whole.long().to(self.x.weight.device)
        out: Tensor = self.x(columns[:, 0]) + self.y(columns[:, 1])
        return out
