"""Spatial neighbors and the incidence of hyperedges, computed on arrays rather than in loops.

An incidence is an integer tensor ``(2, nnz)``: row 0 the spot, row 1 the hyperedge that holds it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from torch import Tensor

CHUNK_VALUES = 1 << 24  # distances held at once (64 MB)


class Neighbors(NamedTuple):
    """Neighbors of every spot, itself first, nearest next."""

    rows: Tensor
    """``(n, k)`` rows of the neighbors, -1 where there are fewer."""
    offsets: Tensor
    """``(n, k, 2)`` position of the neighbor minus that of the spot, 0 where there is none."""


def as_positions(positions: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Positions as an ``(n, 2)`` float64 array.

    Parameters
    ----------
    positions
        One row (x, y) a spot, a tensor or anything numpy reads.

    Returns
    -------
    The array.

    Raises
    ------
    ValueError
        If the shape is another, or a value is not finite.
    """
    xy = np.asarray(positions.detach().cpu() if isinstance(positions, Tensor) else positions, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) == 0:
        msg = f"Expected positions of shape (spots, 2), one (x, y) a spot and at least one spot, found {xy.shape}."
        raise ValueError(msg)
    if not np.isfinite(xy).all():
        msg = f"Expected finite positions, found {int((~np.isfinite(xy).all(axis=1)).sum())} spots without one."
        raise ValueError(msg)
    return xy


def _pairs_within_reach(xy: NDArray[np.float64], k: int, max_distance: float | None) -> tuple[NDArray[np.intp], ...]:
    """Pairs (spot, other) up to the distance of the k-th nearest, everything tied with it included."""
    tree = cKDTree(xy)
    reach = tree.query(xy, k=[min(k, len(xy))])[0][:, 0]
    if max_distance is not None:
        reach = np.minimum(reach, max_distance)
    groups = tree.query_ball_point(xy, reach * (1 + 1e-6) + 1e-9)
    rows = np.repeat(np.arange(len(xy)), [len(group) for group in groups])
    return rows, np.concatenate([np.asarray(group, dtype=np.intp) for group in groups])


def spatial_neighbors(
    positions: ArrayLike | Tensor,
    k: int,
    *,
    max_distance: float | None = None,
    ties: Literal["offset", "row"] = "offset",
) -> Neighbors:
    """Find the ``k`` spots nearest to each spot, itself first.

    Parameters
    ----------
    positions
        One (x, y) a spot, in any unit; offsets come back in the same one.
    k
        Neighbors a spot, itself included.
    max_distance
        Others farther than this are left out, so a spot on its own has itself alone.
    ties
        Order among others at one distance: by ``"offset"`` (lower y, then lower x, first), which neither the order
        of the spots nor a shift of the section changes, or by ``"row"``, as the reference rule has it.

    Returns
    -------
    Rows ``(n, k)`` padded with -1, and offsets ``(n, k, 2)``.

    Raises
    ------
    ValueError
        If ``k`` is below 1 or the positions are not ``(n, 2)`` finite numbers.
    """
    if k < 1:
        msg = f"Expected k of at least 1 (the spot itself), found {k}."
        raise ValueError(msg)
    xy = as_positions(positions)
    rows, others = _pairs_within_reach(xy, k, max_distance)
    offsets = xy[others] - xy[rows]
    distance = np.round(np.hypot(offsets[:, 0], offsets[:, 1]), 6)
    distance[rows == others] = -1.0
    dx, dy = np.round(offsets, 6).T
    keys = (others, dx, dy, distance, rows) if ties == "offset" else (others, distance, rows)
    order = np.lexsort(keys)
    rows, others, offsets = rows[order], others[order], offsets[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    near = rank < k
    index = np.full((len(xy), k), -1, dtype=np.int64)
    table = np.zeros((len(xy), k, 2), dtype=np.float32)
    index[rows[near], rank[near]] = others[near]
    table[rows[near], rank[near]] = offsets[near]
    return Neighbors(torch.from_numpy(index), torch.from_numpy(table))


def spatial_incidence(neighbors: Tensor) -> Tensor:
    """Make hyperedges of nearby spots: hyperedge ``e`` holds spot ``e`` and its neighbors.

    Parameters
    ----------
    neighbors
        Rows ``(n, k)`` as ``spatial_neighbors`` gives them, -1 where there is none.

    Returns
    -------
    Incidence ``(2, nnz)``, n hyperedges.
    """
    edges = torch.arange(len(neighbors), device=neighbors.device).unsqueeze(1).expand_as(neighbors)
    held = neighbors >= 0
    return torch.stack([neighbors[held], edges[held]])


def similar_incidence(features: Tensor, neighbors: Tensor | None = None, *, n_selected: int = 4) -> Tensor:
    """Make hyperedges of similar spots: hyperedge ``e`` holds spot ``e`` and the neighbors most similar to it.

    Parameters
    ----------
    features
        One row a spot; likeness is the Euclidean distance between rows.
    neighbors
        Rows ``(n, k)`` among which each spot chooses, -1 where there is none; ``None`` lets it choose in the whole
        section.
    n_selected
        Spots chosen by each, itself not counted.

    Returns
    -------
    Incidence ``(2, nnz)``, n hyperedges. No gradient flows through the choice.
    """
    n = len(features)
    width = features.shape[1] * neighbors.shape[1] if neighbors is not None else n
    parts = []
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        x = features.detach().float()
        x = x - x.mean(dim=0)  # distances stay, and lose fewer digits
        for rows in torch.split(torch.arange(n, device=x.device), max(1, CHUNK_VALUES // width)):
            among = torch.arange(n, device=x.device).expand(len(rows), n) if neighbors is None else neighbors[rows]
            parts.append(_most_similar(x, rows, among, n_selected))
    return spatial_incidence(torch.cat(parts))


def _most_similar(x: Tensor, rows: Tensor, among: Tensor, n_selected: int) -> Tensor:
    """Find the most similar rows for each of ``rows``: itself first, -1 where no further row is left."""
    if among.shape[1] == len(x):
        distance = torch.cdist(x[rows], x).gather(1, among.clamp_min(0))
    else:
        distance = (x[among.clamp_min(0)] - x[rows].unsqueeze(1)).square().sum(-1)
    itself = among == rows.unsqueeze(1)
    distance = distance.masked_fill(itself | (among < 0), torch.inf)
    nearest, place = distance.topk(min(n_selected, among.shape[1]), dim=1, largest=False)
    chosen = among.gather(1, place).masked_fill(nearest.isinf(), -1)
    return torch.cat([rows.unsqueeze(1), chosen], dim=1)


def stack_incidences(*incidences: Tensor, n_hyperedges: int) -> Tensor:
    """Put several sets of hyperedges over the same spots into one incidence.

    Parameters
    ----------
    incidences
        Incidences ``(2, nnz)``.
    n_hyperedges
        Hyperedges in each of them.

    Returns
    -------
    Incidence with ``len(incidences) * n_hyperedges`` hyperedges.
    """
    shifted = [torch.stack([one[0], one[1] + i * n_hyperedges]) for i, one in enumerate(incidences)]
    return torch.cat(shifted, dim=1)
