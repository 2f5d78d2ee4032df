"""Neighbors and hyperedges of the spots, on arrays as dense as the training sections and on denser ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sthggep._slides._lattice import sublattices
from sthggep.nn import Neighbors, spatial_neighbors

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

# A spot and those next to it: the eight around it on a square array, the six on a hexagonal one
HYPEREDGE_SPOTS = 9
HYPEREDGE_REACH = 1.6  # pitches


def find_neighborhoods(slide: Slide, n_neighbors: int, pitch_um: float | None = None) -> tuple[Neighbors, Neighbors]:
    """Find the spots that each spot attends to, and the spots of its hyperedge.

    Distances are about those of the training sections: an array that is denser than ``pitch_um`` is read as several
    coarser lattices, interleaved, and a spot has neighbors in its own lattice only.
    """
    attended = _nearest(slide, n_neighbors, pitch_um=pitch_um)
    return attended, _nearest(slide, HYPEREDGE_SPOTS, pitch_um=pitch_um, max_distance=HYPEREDGE_REACH)


def separate_lattices(slide: Slide, pitch_um: float | None = None) -> list[NDArray[np.intp]]:
    """Spots of each coarser lattice, which share no neighborhood; all spots where the array is not denser."""
    factor = slide.denser_than(pitch_um)
    if factor == 1:
        return [np.arange(slide.n_spots)]
    return [np.asarray(part) for part in sublattices(slide.array_xy(), factor)]  # type: ignore[arg-type]


def _nearest(slide: Slide, k: int, *, pitch_um: float | None = None, max_distance: float | None = None) -> Neighbors:
    """The ``k`` nearest of each spot, in its own lattice where the array is several coarser ones."""
    factor = slide.denser_than(pitch_um)
    xy = pitch_positions(slide) / factor
    if factor == 1:
        return spatial_neighbors(xy, k, max_distance=max_distance)
    rows = torch.full((slide.n_spots, k), -1, dtype=torch.int64)
    offsets = torch.zeros((slide.n_spots, k, 2))
    for part in sublattices(slide.array_xy(), factor):  # type: ignore[arg-type]
        neighbors, spots = spatial_neighbors(xy[part], k, max_distance=max_distance), torch.from_numpy(part)
        rows[spots] = torch.where(neighbors.rows < 0, -1, spots[neighbors.rows])
        offsets[spots] = neighbors.offsets
    return Neighbors(rows, offsets)


def pitch_positions(slide: Slide) -> NDArray[np.float64]:
    """Spot centers in spot pitches, relative to the mean position of the section."""
    return np.asarray((slide.xy - slide.xy.mean(axis=0)) / slide.pitch(), dtype=np.float64)
