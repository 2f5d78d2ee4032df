"""Sections as tensors: what a network is fed and what it should predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sthggep._table._counts import log10_cp10k, read_panel_counts, size_factors
from sthggep.nn._section import CountsOnly, FeatureInputs, NetworkInputs, TrainingSample

if TYPE_CHECKING:
    from sthggep._inputs._windows import WindowInputs
    from sthggep._slides._slide import Slide

MANY_COUNTS = 1e6


class Section(NamedTuple):
    """One section: its windows (one where it is read whole), its targets, and which spots are used for what."""

    name: str
    windows: Sequence[WindowInputs]
    target: Tensor
    """``(n, genes)``."""
    counts: Tensor
    """Raw counts ``(n, genes)``; ``(n, 0)`` where the targets are not genes."""
    size_factors: Tensor
    """``(n,)``."""
    train: Tensor
    """Spots trained on, ``(n,)``."""
    validate: Tensor
    """Spots held out of training, ``(n,)``."""


class SectionWindow(NamedTuple):
    """A window of a section as one step of a training sees it; spots of the halo are in no mask."""

    section: int
    """Number of its section."""
    rows: Tensor
    """Spots of the section, ascending."""
    core: Tensor
    """Which of them this window predicts."""
    name: str
    inputs: NetworkInputs
    target: Tensor
    counts: Tensor
    size_factors: Tensor
    train: Tensor
    validate: Tensor

    @classmethod
    def of_whole(cls, name: str, inputs: NetworkInputs, *tensors: Tensor) -> SectionWindow:
        """A section that is one window; ``tensors`` are target, counts, size factors and the two masks."""
        n_spots = len(tensors[0])
        return cls(0, torch.arange(n_spots), torch.ones(n_spots, dtype=torch.bool), name, inputs, *tensors)

    @property
    def library_sizes(self) -> Tensor:
        """Counts of each spot; where the targets are not genes, so many that every spot has the same weight."""
        if self.counts.shape[1]:
            return self.counts.sum(dim=1)
        return torch.full((len(self.target),), MANY_COUNTS)

    def sample(self, mask: Tensor) -> TrainingSample:
        """What the closed form learns from the spots of ``mask``."""
        assert isinstance(self.inputs, FeatureInputs)
        return TrainingSample(self.inputs, self.target, self.library_sizes, mask)


def section_of_counts(
    slide: Slide, genes: Sequence[str], layer: str | None, windows: Sequence[WindowInputs]
) -> Section:
    """A section with its measured expression. Spots without counts are not trained on."""
    raw = read_panel_counts(slide.adata, genes, layer=layer, rows=slide.rows)
    filled = torch.from_numpy(raw.sum(axis=1) > 0)
    return Section(
        slide.name,
        windows,
        torch.from_numpy(log10_cp10k(raw)),
        torch.from_numpy(raw),
        torch.from_numpy(size_factors(raw)),
        filled,
        torch.zeros_like(filled),
    )


def section_of_targets(slide: Slide, values: NDArray[np.float32], windows: Sequence[WindowInputs]) -> Section:
    """A section with standardized targets that are not genes. All spots are trained on."""
    every = torch.ones(slide.n_spots, dtype=torch.bool)
    none, ones = torch.empty((slide.n_spots, 0)), torch.ones(slide.n_spots)
    return Section(slide.name, windows, torch.from_numpy(values), none, ones, every, ~every)


def counts_only(slide: Slide, genes: Sequence[str], layer: str | None) -> CountsOnly:
    """Expression of an extra section, whose image is not read."""
    raw = read_panel_counts(slide.adata, genes, layer=layer, rows=slide.rows)
    return CountsOnly(torch.from_numpy(log10_cp10k(raw)), torch.from_numpy(raw.sum(axis=1)))


def windows_of(sections: Sequence[Section]) -> list[SectionWindow]:
    """All windows of the sections, in their order."""
    out = []
    for number, section in enumerate(sections):
        for window, inputs, _ in section.windows:
            rows, core = torch.from_numpy(window.rows), torch.zeros(len(window.rows), dtype=torch.bool)
            core[torch.from_numpy(window.core)] = True
            # A section that is one window is not copied
            parts = (part if len(rows) == len(part) else part[rows] for part in section[2:])
            out.append(SectionWindow(number, rows, core, section.name, inputs, *parts))
    return out


def with_masks(windows: Sequence[SectionWindow], sections: Sequence[Section]) -> list[SectionWindow]:
    """The windows with the masks of these sections; spots of the halo stay in no mask."""
    return [
        window._replace(
            train=sections[window.section].train[window.rows] & window.core,
            validate=sections[window.section].validate[window.rows] & window.core,
        )
        for window in windows
    ]
