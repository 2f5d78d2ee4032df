"""Windows of a section: a bounded number of spots, and the spots around them that their predictions depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

Rows = NDArray[np.intp]


class Window(NamedTuple):
    """Spots that a network reads together."""

    rows: Rows
    """Spots of the section, ascending: the predicted ones and the halo around them."""
    core: Rows
    """Positions in ``rows`` of the predicted spots."""


def whole_window(n_spots: int) -> Window:
    """Return the window that predicts a whole section."""
    every = np.arange(n_spots)
    return Window(every, every)


def make_window(core: Rows, rows: Rows) -> Window:
    """Make a window that predicts ``core`` and reads ``rows``."""
    rows = np.union1d(core, rows)
    return Window(rows, np.searchsorted(rows, core))


def split_spots(xy: NDArray[np.float64], most: int) -> list[Rows]:
    """Split a section into compact parts of about equal size, at most ``most`` spots each, by halving the longer side."""

    def halve(rows: Rows, parts: int) -> list[Rows]:
        if parts == 1:
            return [np.sort(rows)]
        first = parts // 2
        order = np.argsort(xy[rows, np.argmax(np.ptp(xy[rows], axis=0))], kind="stable")
        at = len(rows) * first // parts
        return halve(rows[order[:at]], first) + halve(rows[order[at:]], parts - first)

    return halve(np.arange(len(xy)), -(-len(xy) // most))


class SpotDependencies:
    """The spots that a spot's prediction depends on, step by step.

    Parameters
    ----------
    neighbors
        Spots ``(n, k)`` that each spot attends to, -1 where there is none.
    hyperedges
        Spots ``(n, k)`` of the hyperedge of each spot, -1 where there is none.
    """

    def __init__(self, neighbors: Rows, hyperedges: Rows) -> None:
        self.neighbors, self.hyperedges = neighbors, hyperedges
        edge, column = np.nonzero(hyperedges >= 0)
        shape = (len(hyperedges), len(hyperedges))
        self._incidence = csr_matrix((np.ones(len(edge), np.int8), (hyperedges[edge, column], edge)), shape=shape)

    def expand(self, core: Rows, hops: Sequence[Literal["hyperedges", "neighbors"]]) -> Rows:
        """Return ``core`` and the spots that it depends on through these steps."""
        rows = core
        for hop in hops:
            if hop == "neighbors":
                reached = self.neighbors[rows]
            else:
                reached = self.hyperedges[np.unique(self._incidence[rows].indices)]
            rows = np.union1d(rows, reached[reached >= 0])
        return rows


def find_within(tree: cKDTree, core: Rows, distance: float) -> Rows:
    """Find the spots at most ``distance`` from a spot of ``core``."""
    balls = tree.query_ball_point(tree.data[core], distance, return_sorted=False)
    return np.unique(np.concatenate([np.asarray(ball, dtype=np.intp) for ball in balls]))


def renumber(spots: Rows, rows: Rows) -> Rows:
    """Turn spots of the section into positions in ``rows``; a spot that is not in ``rows`` becomes -1."""
    at = np.searchsorted(rows, spots).clip(max=len(rows) - 1)
    return np.where(rows[at] == spots, at, -1)
