"""Sections as tensors: what a network is fed and what it should say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sthggep._table._counts import counts, log10_cp10k, size_factors
from sthggep.nn._programs import Measured

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

MANY_COUNTS = 1e6


class Section(NamedTuple):
    """One section, ready for the network: ``net(*inputs)``; ``inputs`` is a list where it is looked at in windows."""

    name: str
    inputs: Any
    target: Tensor
    counts: Tensor
    size_factors: Tensor
    train: Tensor
    validate: Tensor

    @property
    def library_sizes(self) -> Tensor:
        """Counts of each spot; where no counts are learned, so many that every spot is worth the same."""
        if self.counts.shape[1]:
            return self.counts.sum(dim=1)
        return torch.full((len(self.target),), MANY_COUNTS)


def labeled(slide: Slide, genes: Sequence[str], layer: str | None, inputs: Any) -> Section:
    """A section with its measured expression, all spots for training."""
    raw = counts(slide.adata, genes, layer=layer, rows=slide.rows)
    # A spot without counts has no expression to learn from
    filled = torch.from_numpy(raw.sum(axis=1) > 0)
    return Section(
        slide.name,
        inputs,
        torch.from_numpy(log10_cp10k(raw)),
        torch.from_numpy(raw),
        torch.from_numpy(size_factors(raw)),
        filled,
        torch.zeros_like(filled),
    )


def taught(slide: Slide, values: NDArray[np.float32], inputs: Any) -> Section:
    """A section with targets that are no counts, standardized, all spots for training."""
    every = torch.ones(slide.n_spots, dtype=torch.bool)
    none, ones = torch.empty((slide.n_spots, 0)), torch.ones(slide.n_spots)
    return Section(slide.name, inputs, torch.from_numpy(values), none, ones, every, ~every)


def measured(slide: Slide, genes: Sequence[str], layer: str | None) -> Measured:
    """Expression alone, of a section whose image is not looked at."""
    raw = counts(slide.adata, genes, layer=layer, rows=slide.rows)
    return Measured(torch.from_numpy(log10_cp10k(raw)), torch.from_numpy(raw.sum(axis=1)))


class Cut(NamedTuple):
    """A section, or a window of one, as a training sample."""

    number: int
    """Of its section."""
    rows: torch.Tensor | None
    """Spots of the section; ``None`` for all."""
    core: torch.Tensor | None
    """Which of them are this window's own."""
    section: Section


def cut(sections: Sequence[Section]) -> list[Cut]:
    """Sections whose inputs are windows, as those windows."""
    out = []
    for number, section in enumerate(sections):
        if not isinstance(section.inputs, list):
            out.append(Cut(number, None, None, section))
            continue
        for found, given in section.inputs:
            rows, core = torch.from_numpy(found.rows), torch.zeros(len(found.rows), dtype=torch.bool)
            core[torch.from_numpy(found.core)] = True
            parts = (part[rows] for part in section[2:])
            out.append(Cut(number, rows, core, Section(section.name, given, *parts)))
    return out


def masked(cuts: Sequence[Cut], sections: Sequence[Section]) -> list[Section]:
    """Samples with the masks of their sections; the halo of a window is only looked at."""
    out = []
    for number, rows, core, sample in cuts:
        whole = sections[number]
        if rows is None or core is None:
            out.append(whole)
        else:
            out.append(sample._replace(train=whole.train[rows] & core, validate=whole.validate[rows] & core))
    return out
