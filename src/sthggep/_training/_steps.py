"""Training steps: windows of sections, parts of large windows, and small ones more than once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sthggep._inputs._split import SpotDependencies, Window, make_window, renumber, split_spots
from sthggep.nn import spatial_incidence
from sthggep.nn._section import FeatureInputs
from sthggep.nn._stages import Moments, SectionStatistics, mean_and_spread

if TYPE_CHECKING:
    from torch import Tensor

    from sthggep._inputs._section import SectionWindow
    from sthggep.nn._stages import Hop

LEAST_SPOTS = 600  # of a part: the gradient of fewer spots is noise, that of many more costs time and tells little more


class TrainingSteps(Sequence["SectionWindow"]):
    """The windows of an epoch.

    Parameters
    ----------
    windows
        Windows with training spots.
    min_steps
        Fewest steps: fewer windows are split into parts of ``LEAST_SPOTS`` or more, and repeated.
    hops
        Steps through which the network's prediction depends on other spots; ``None`` if windows cannot be split.
    """

    def __init__(self, windows: Sequence[SectionWindow], min_steps: int, hops: Sequence[Hop] | None) -> None:
        most = -(-min_steps // max(1, len(windows)))
        parts: list[_Part] = [part for window in windows for part in _split(window, most, hops)]
        self._parts = parts * -(-min_steps // max(1, len(parts)))

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: int) -> SectionWindow:  # type: ignore[override]
        """Return a window, or the part of it; parts are copied when they are needed, so that all spots are held once."""
        return self._parts[number].window()


class _Part(NamedTuple):
    """A part of a window."""

    of: SectionWindow
    """The window, with statistics of the section."""
    spots: Window | None = None
    """Spots of the part; ``None`` for the whole window."""
    neighbors: Tensor | None = None
    incidence: Tensor | None = None

    def window(self) -> SectionWindow:
        """Make the part a window of its own."""
        if self.spots is None:
            return self.of
        rows = torch.from_numpy(self.spots.rows)
        core = torch.zeros(len(rows), dtype=torch.bool)
        core[torch.from_numpy(self.spots.core)] = True
        whole = self.of.inputs
        assert isinstance(whole, FeatureInputs)
        assert self.neighbors is not None
        features = [stage[rows] for stage in whole.features]
        inputs = FeatureInputs(
            features, self.neighbors, whole.offsets[rows], self.incidence, len(rows), whole.statistics
        )
        return self.of._replace(
            rows=self.of.rows[rows],
            core=self.of.core[rows] & core,
            inputs=inputs,
            target=self.of.target[rows],
            counts=self.of.counts[rows],
            size_factors=self.of.size_factors[rows],
            train=self.of.train[rows] & core,
            validate=self.of.validate[rows] & core,
            rest=None if self.of.rest is None else self.of.rest[rows],
            xy=None if self.of.xy is None else self.of.xy[rows],
        )


def _split(window: SectionWindow, most: int, hops: Sequence[Hop] | None) -> list[_Part]:
    """Split a window into compact parts of about equal numbers of training spots, each with the spots it depends on."""
    inputs, xy, spots = window.inputs, window.xy, np.flatnonzero(window.train.numpy())
    most = min(most, len(spots) // LEAST_SPOTS)
    if most < 2 or hops is None or not isinstance(inputs, FeatureInputs) or xy is None:
        return [_Part(window)]
    hyperedges = _hyperedges(inputs.incidence, len(window.rows))
    dependencies = SpotDependencies(inputs.neighbors.numpy(), hyperedges)
    window = window._replace(inputs=inputs._replace(statistics=_statistics(inputs)))
    parts = []
    for core in split_spots(xy.numpy()[spots], -(-len(spots) // most)):
        part = make_window(spots[core], dependencies.expand(spots[core], hops))
        neighbors, edges = (
            torch.from_numpy(renumber(linked[part.rows], part.rows)) for linked in (dependencies.neighbors, hyperedges)
        )
        incidence = None if inputs.incidence is None else spatial_incidence(edges)
        parts.append(_Part(window, part, neighbors, incidence))
    return parts


def _hyperedges(incidence: Tensor | None, n_spots: int) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """Spots of the hyperedge of each spot, -1 where there is none, from the incidence."""
    if incidence is None:
        return np.empty((n_spots, 0), dtype=np.intp)
    spots, edges = incidence.numpy()
    order = np.argsort(edges, kind="stable")
    size = np.bincount(edges, minlength=n_spots)
    column = np.arange(len(edges)) - np.repeat(np.cumsum(size) - size, size)
    hyperedges = np.full((n_spots, int(size.max(initial=0))), -1, dtype=np.intp)
    hyperedges[edges[order], column] = spots[order]
    return hyperedges


def _statistics(inputs: FeatureInputs) -> SectionStatistics:
    """Statistics of the section, by which its parts are scaled."""
    if inputs.statistics is not None:
        return inputs.statistics
    return SectionStatistics(tuple(Moments(len(x), *mean_and_spread(x.float())) for x in inputs.features))
