"""Sections as tensors: inputs, targets and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sthggep._table._all_counts import AllCounts, read_rest
from sthggep._table._counts import log10_cp10k, read_panel_counts, size_factors
from sthggep._table._mixed_panels import PanelCounts, PanelScale, read_held_counts
from sthggep.nn._incomplete import known_columns
from sthggep.nn._section import CountsOnly, FeatureInputs, NetworkInputs, TrainingSample

if TYPE_CHECKING:
    from sthggep._inputs._windows import WindowInputs
    from sthggep._slides._slide import Slide

MANY_COUNTS = 1e6
Scale: TypeAlias = PanelScale | AllCounts | None
"""The scale of expression: of slides that may lack genes, of all counts of a spot, or of the panel's counts."""


class Section(NamedTuple):
    """One section: its windows (one if the section is read whole), its targets, and its training and validation spots."""

    name: str
    windows: Sequence[WindowInputs]
    target: Tensor
    """``(n, genes)``; NaN in the genes that the section lacks."""
    counts: Tensor
    """Raw counts ``(n, genes)``, 0 in the genes that the section lacks; ``(n, 0)`` if the targets are not genes."""
    size_factors: Tensor
    """``(n,)``."""
    train: Tensor
    """Spots trained on, ``(n,)``."""
    validate: Tensor
    """Spots held out of training, ``(n,)``."""
    rest: Tensor | None = None
    """Counts of all other genes, ``(n,)``, if expression is scaled by all counts of a spot."""
    xy: Tensor | None = None
    """Positions of the spots, ``(n, 2)``, in pixels."""


class SectionWindow(NamedTuple):
    """A window of a section, the input of one training step; spots of the halo are in no mask."""

    section: int
    """Index of the section."""
    rows: Tensor
    """Spots of the section that the network reads, ascending."""
    core: Tensor
    """Mask of the spots that this window predicts."""
    name: str
    inputs: NetworkInputs
    target: Tensor
    counts: Tensor
    size_factors: Tensor
    train: Tensor
    validate: Tensor
    rest: Tensor | None = None
    xy: Tensor | None = None

    @classmethod
    def of_whole(cls, name: str, inputs: NetworkInputs, *tensors: Tensor) -> SectionWindow:
        """Make one window of a whole section; ``tensors`` are target, counts, size factors and the two masks."""
        n_spots = len(tensors[0])
        return cls(0, torch.arange(n_spots), torch.ones(n_spots, dtype=torch.bool), name, inputs, *tensors)

    @property
    def library_sizes(self) -> Tensor:
        """Counts of each spot; if the targets are not genes, one large number, which gives all spots the same weight."""
        if self.counts.shape[1]:
            return self.counts.sum(dim=1) if self.rest is None else self.counts.sum(dim=1) + self.rest
        return torch.full((len(self.target),), MANY_COUNTS)

    def sample(self, mask: Tensor) -> TrainingSample:
        """Return the training sample of the closed form, with the spots of ``mask``."""
        assert isinstance(self.inputs, FeatureInputs)
        return TrainingSample(self.inputs, self.target, self.library_sizes, mask)


def section_of_counts(
    slide: Slide,
    genes: Sequence[str],
    layer: str | None,
    windows: Sequence[WindowInputs],
    *,
    measured: NDArray[np.bool_] | None = None,
    min_counts: int = 1,
    scale: Scale = None,
) -> Section:
    """Make a section with its counts; spots without counts, or with fewer counts, are not in the training mask.

    Counts are read of the spots in ``measured`` alone. Default: of all. With a ``PanelScale`` the slide may lack genes.
    """
    read = read_on_scale(slide, genes, layer, scale, measured)
    has_counts = torch.from_numpy(total_counts(read) >= max(min_counts, 1))
    return Section(
        slide.name,
        windows,
        torch.from_numpy(scaled(read, scale)),
        torch.from_numpy(read.counts),
        torch.from_numpy(size_factors(read.counts, read.rest)),
        has_counts,
        torch.zeros_like(has_counts),
        None if read.rest is None else torch.from_numpy(read.rest),
        torch.from_numpy(slide.xy),
    )


def read_counts(
    slide: Slide,
    genes: Sequence[str],
    layer: str | None,
    measured: NDArray[np.bool_] | None = None,
    *,
    may_lack: bool,
    all_counts: bool = False,
) -> PanelCounts:
    """Read the panel's counts of a slide, 0 at spots that are not in ``measured``; a slide that ``may_lack`` genes, those it has.

    With ``all_counts``, also those of all other genes.
    """
    rows = slide.rows if measured is None else slide.rows[measured]
    if may_lack:
        raw, held, _ = read_held_counts(slide.adata, genes, layer=layer, rows=rows)
    else:
        raw, held = read_panel_counts(slide.adata, genes, layer=layer, rows=rows), np.ones(len(genes), dtype=bool)
    rest = read_rest(slide.adata, genes, raw, layer=layer, rows=rows) if all_counts else None
    if measured is None:
        return PanelCounts(raw, held, rest)
    counts = np.zeros((slide.n_spots, len(genes)), dtype=np.float32)
    counts[measured] = raw
    if rest is not None:
        rest, of_measured = np.zeros(slide.n_spots, dtype=np.float32), rest
        rest[measured] = of_measured
    return PanelCounts(counts, held, rest)


def read_on_scale(
    slide: Slide, genes: Sequence[str], layer: str | None, scale: Scale, measured: NDArray[np.bool_] | None = None
) -> PanelCounts:
    """Read the counts that a scale needs."""
    may_lack, all_counts = isinstance(scale, PanelScale), isinstance(scale, AllCounts)
    return read_counts(slide, genes, layer, measured, may_lack=may_lack, all_counts=all_counts)


def scaled(read: PanelCounts, scale: Scale) -> NDArray[np.float32]:
    """Scale counts to expression, ``(n, genes)``."""
    return log10_cp10k(read.counts) if scale is None else scale.expression(read)


def total_counts(read: PanelCounts) -> NDArray[np.float32]:
    """Sum the counts of each spot that are part of its scale."""
    of_panel: NDArray[np.float32] = read.counts.sum(axis=1)
    return of_panel if read.rest is None else of_panel + read.rest


def section_of_targets(slide: Slide, values: NDArray[np.float32], windows: Sequence[WindowInputs]) -> Section:
    """Make a section with standardized targets that are not genes; all spots are in the training mask."""
    every = torch.ones(slide.n_spots, dtype=torch.bool)
    no_counts, ones = torch.empty((slide.n_spots, 0)), torch.ones(slide.n_spots)
    xy = torch.from_numpy(slide.xy)
    return Section(slide.name, windows, torch.from_numpy(values), no_counts, ones, every, ~every, xy=xy)


def counts_only(slide: Slide, genes: Sequence[str], layer: str | None, scale: Scale = None) -> CountsOnly:
    """Read the expression of an extra section, without its image; with a ``PanelScale`` it may lack genes."""
    read = read_on_scale(slide, genes, layer, scale)
    return CountsOnly(torch.from_numpy(scaled(read, scale)), torch.from_numpy(total_counts(read)))


def windows_of(sections: Sequence[Section]) -> list[SectionWindow]:
    """List the windows of all sections, in the order of the sections."""
    listed = []
    for number, section in enumerate(sections):
        for window, inputs, _ in section.windows:
            rows, core = torch.from_numpy(window.rows), torch.zeros(len(window.rows), dtype=torch.bool)
            core[torch.from_numpy(window.core)] = True
            tensors = [section.target, section.counts, section.size_factors, section.train, section.validate]
            # Indexing copies: a window that is the whole section shares the section's tensors
            parts = [
                part if part is None or len(rows) == len(part) else part[rows]
                for part in (*tensors, section.rest, section.xy)
            ]
            listed.append(SectionWindow(number, rows, core, section.name, inputs, *parts))  # type: ignore[arg-type]
    return listed


def hide_untaught(windows: Sequence[SectionWindow]) -> list[SectionWindow]:
    """Take genes that no training spot teaches for unknown: what held-out tissue shows of these says nothing of a model."""
    if not any(window.target.isnan().any() for window in windows):
        return list(windows)
    training = [window for window in windows if window.train.any()]
    taught = torch.stack([known_columns(window.target) for window in training]).any(dim=0)
    return [window._replace(target=torch.where(taught, window.target, torch.nan)) for window in windows]


def with_masks(windows: Sequence[SectionWindow], sections: Sequence[Section]) -> list[SectionWindow]:
    """Give the windows the masks of these sections; spots of the halo stay in no mask."""
    return [
        window._replace(
            train=sections[window.section].train[window.rows] & window.core,
            validate=sections[window.section].validate[window.rows] & window.core,
        )
        for window in windows
    ]
