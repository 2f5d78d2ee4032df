"""Which spots the networks tie to each other, on arrays as dense as those they learned from and on denser ones."""

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


def neighborhoods(slide: Slide, n_neighbors: int, pitch_um: float | None = None) -> tuple[Neighbors, Neighbors]:
    """Spots that each spot attends to, and those that its hyperedge holds.

    Both are those at about the distances that the networks have learned: where the spots stand denser than ``pitch_um``,
    their array is several coarser ones, interleaved, and a spot's neighbors are of its own.
    """
    near = _nearest(slide, n_neighbors, pitch_um=pitch_um)
    return near, _nearest(slide, HYPEREDGE_SPOTS, pitch_um=pitch_um, max_distance=HYPEREDGE_REACH)


def separate(slide: Slide, pitch_um: float | None = None) -> list[NDArray[np.intp]]:
    """Spots in groups that have no neighborhood in common: the coarser arrays, else all together."""
    factor = slide.denser_than(pitch_um)
    if factor == 1:
        return [np.arange(slide.n_spots)]
    return [np.asarray(part) for part in sublattices(slide.array_xy(), factor)]  # type: ignore[arg-type]


def _nearest(slide: Slide, k: int, *, pitch_um: float | None = None, max_distance: float | None = None) -> Neighbors:
    """The ``k`` nearest of each spot, among those of its own lattice where several coarser ones are interleaved."""
    factor = slide.denser_than(pitch_um)
    xy = positions(slide) / factor
    if factor == 1:
        return spatial_neighbors(xy, k, max_distance=max_distance)
    rows = torch.full((slide.n_spots, k), -1, dtype=torch.int64)
    offsets = torch.zeros((slide.n_spots, k, 2))
    for part in sublattices(slide.array_xy(), factor):  # type: ignore[arg-type]
        found, at = spatial_neighbors(xy[part], k, max_distance=max_distance), torch.from_numpy(part)
        rows[at] = torch.where(found.rows < 0, -1, at[found.rows])
        offsets[at] = found.offsets
    return Neighbors(rows, offsets)


def positions(slide: Slide) -> NDArray[np.float64]:
    """Centers in units of the spot pitch, around the section's middle."""
    return np.asarray((slide.xy - slide.xy.mean(axis=0)) / slide.pitch(), dtype=np.float64)
