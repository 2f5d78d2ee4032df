"""Inputs of the networks for a section, and the samples from which their closed forms are solved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from sthggep.nn._stages import Moments, SectionStatistics


class FeatureInputs(NamedTuple):
    """Inputs of ``FeatureHGGEPNet`` for one section, or for a window of one: ``net(*inputs)``."""

    features: Sequence[Tensor]
    """``(n, width)`` of each stage."""
    neighbors: Tensor
    """``(n, k)`` rows of the nearest spots, -1 where there is none."""
    offsets: Tensor
    """``(n, k, 2)`` positions of the neighbors relative to the spot, in spot pitches."""
    incidence: Tensor | None
    """``(2, nnz)`` spot and hyperedge."""
    n_hyperedges: int | None
    """Number of hyperedges; ``None`` means one a spot."""
    statistics: SectionStatistics | None = None
    """Statistics of the whole section where these spots are a window of it."""


class PatchInputs(NamedTuple):
    """Inputs of ``HGGEPNet`` for one section, or for a window of one: ``net(*inputs)``."""

    patches: Tensor
    """``(n, 3, height, width)``, 0 to 255."""
    positions: NDArray[np.number]
    """``(n, 2)``, (x, y). A numpy array on the CPU: the network needs float64, which some accelerators lack."""


NetworkInputs = FeatureInputs | PatchInputs


class TrainingSample(NamedTuple):
    """A section, or a window of one, from which the closed form and the gene programs are solved."""

    inputs: FeatureInputs
    target: Tensor
    """Expression ``(n, genes)``; NaN in the genes that the section lacks."""
    library_sizes: Tensor
    """Counts of each spot in the panel, ``(n,)``."""
    mask: Tensor
    """Spots to learn from, ``(n,)``; the expression of the others is not read."""


class CountsOnly(NamedTuple):
    """Expression of an extra section whose image is not read."""

    target: Tensor
    """Expression ``(n, genes)``; NaN in the genes that the section lacks."""
    library_sizes: Tensor
    """Counts of each spot in the panel, ``(n,)``."""


def join_windows(parts: Sequence[Tensor], samples: Sequence[TrainingSample]) -> list[Tensor]:
    """One tensor a section: windows of a section follow each other and share one object of statistics.

    Parameters
    ----------
    parts
        One tensor a sample, spots first.
    samples
        The samples, in the same order.

    Returns
    -------
    Tensors in the order of the sections.
    """
    groups: list[list[Tensor]] = []
    last: SectionStatistics | None = None
    for part, sample in zip(parts, samples, strict=True):
        statistics = sample.inputs.statistics
        if statistics is not None and statistics is last:
            groups[-1].append(part)
        else:
            groups.append([part])
        last = statistics
    return [torch.cat(group) if len(group) > 1 else group[0] for group in groups]


def stage_of_samples(samples: Sequence[TrainingSample], stage: int) -> list[Tensor | Moments]:
    """One stage of each sample: its features, or the moments of the whole section where the sample is a window."""
    return [
        sample.inputs.features[stage] if sample.inputs.statistics is None else sample.inputs.statistics.stages[stage]
        for sample in samples
    ]
