"""The scale of a training: of slides that lack genes, or of all counts; how many slides and spots measured each gene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sthggep._inputs._section import read_counts
from sthggep._table._all_counts import AllCounts
from sthggep._table._mixed_panels import PanelScale

if TYPE_CHECKING:
    from sthggep._inputs._section import Scale, Section
    from sthggep._training._task import TrainingTask
    from sthggep.model._record import TrainingRecord


def fit_scale(task: TrainingTask) -> Scale:
    """Fit the scale of the training slides; ``None`` for the counts of a panel of which all slides hold all genes."""
    if task.all_counts:
        return AllCounts()
    if not task.mixed:
        return None
    layer = task.options.layer
    measured = [read_counts(slide, task.genes, layer, may_lack=True) for slide in task.slides_of_counts()]
    if not np.stack([each.held for each in measured]).any(axis=0).all():
        # Sections without images say how abundant the genes are that no slide holds
        measured += [read_counts(slide, task.genes, layer, may_lack=True) for slide in task.extra_sections]
    return PanelScale.of(measured)


def record_genes(record: TrainingRecord, task: TrainingTask, sections: Sequence[Section]) -> TrainingRecord:
    """Record on how many slides and spots each gene was measured, where slides may lack genes."""
    if not task.mixed:
        return record
    held = [~section.target.isnan().any(dim=0) for section in sections]
    n_spots = [int(section.train.sum()) for section in sections]
    return replace(
        record,
        gene_n_sections=[int(sum(each)) for each in zip(*(columns.long().tolist() for columns in held), strict=True)],
        gene_n_spots=[
            int(sum(each))
            for each in zip(
                *((columns.long() * n).tolist() for columns, n in zip(held, n_spots, strict=True)), strict=True
            )
        ],
    )
