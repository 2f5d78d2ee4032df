"""A section in windows of a bounded number of spots, each with the spots around it that its predictions depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

Rows = NDArray[np.intp]


class Window(NamedTuple):
    """Spots that are looked at together."""

    rows: Rows
    """Spots of the section, ascending: those that are predicted, and the halo around them."""
    core: Rows
    """Which of ``rows`` are predicted."""


def whole_window(n_spots: int) -> Window:
    """The window that predicts a whole section."""
    every = np.arange(n_spots)
    return Window(every, every)


def window_of(core: Rows, rows: Rows) -> Window:
    """A window that predicts ``core`` and looks at ``rows``."""
    rows = np.union1d(core, rows)
    return Window(rows, np.searchsorted(rows, core))


def split_spots(xy: NDArray[np.float64], most: int) -> list[Rows]:
    """Parts of a section of at most ``most`` spots each, about equally many, compact: halved along the longer side."""

    def halved(rows: Rows, parts: int) -> list[Rows]:
        if parts == 1:
            return [np.sort(rows)]
        first = parts // 2
        order = np.argsort(xy[rows, np.argmax(np.ptp(xy[rows], axis=0))], kind="stable")
        at = len(rows) * first // parts
        return halved(rows[order[:at]], first) + halved(rows[order[at:]], parts - first)

    return halved(np.arange(len(xy)), -(-len(xy) // most))


class Ties:
    """Which spots a spot's prediction depends on, step by step.

    Parameters
    ----------
    neighbors
        Spots ``(n, k)`` that each attends to, -1 where there is none.
    hyperedges
        Spots ``(n, k)`` of the hyperedge of each, -1 where there is none.
    """

    def __init__(self, neighbors: Rows, hyperedges: Rows) -> None:
        self.neighbors, self.hyperedges = neighbors, hyperedges
        edge, place = np.nonzero(hyperedges >= 0)
        shape = (len(hyperedges), len(hyperedges))
        self._held_by = csr_matrix((np.ones(len(edge), np.int8), (hyperedges[edge, place], edge)), shape=shape)

    def around(self, core: Rows, hops: Sequence[Literal["hyperedges", "neighbors"]]) -> Rows:
        """Spots that ``core`` depends on through these steps, itself among them."""
        rows = core
        for hop in hops:
            if hop == "neighbors":
                reached = self.neighbors[rows]
            else:
                reached = self.hyperedges[np.unique(self._held_by[rows].indices)]
            rows = np.union1d(rows, reached[reached >= 0])
        return rows


def within(tree: cKDTree, core: Rows, distance: float) -> Rows:
    """Spots that are not farther than ``distance`` from one of ``core``."""
    found = tree.query_ball_point(tree.data[core], distance, return_sorted=False)
    return np.unique(np.concatenate([np.asarray(one, dtype=np.intp) for one in found]))


def renumbered(spots: Rows, rows: Rows) -> Rows:
    """Spots of the section as places in ``rows``, -1 for those that are not in it."""
    at = np.searchsorted(rows, spots).clip(max=len(rows) - 1)
    return np.where(rows[at] == spots, at, -1)
