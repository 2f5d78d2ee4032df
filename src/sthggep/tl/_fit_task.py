"""The task of a training: the sections of the slides, the panel and the preset, checked before work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._checks import gene_list
from sthggep._encoders._freshness import refuse_stale
from sthggep._log import log
from sthggep._slides._measured import measured_alone, read_masks
from sthggep._slides._resolve import distinct_names, extra_sections_of, resolve
from sthggep._table._all_counts import needs_all_counts
from sthggep._table._counts import read_panel_counts
from sthggep._table._gene_names import has_all_genes
from sthggep._table._gene_sets import GeneSets, read_gene_sets, sets_of_panel
from sthggep._table._mixed_panels import read_held_counts
from sthggep._table._panel import choose_panel
from sthggep._table._targets import find_targets
from sthggep._training._choices import Choices, find_preset, with_choices, without_counts
from sthggep._training._refusals import (
    REFUSE,
    check_counts,
    check_inputs,
    read_genes,
    refuse_extra_counts,
    refuse_gene_options,
    refuse_incomplete,
    refuse_missing_genes,
    refuse_mixed_tuning,
    refuse_sets_without_validation,
    warn_of_small_panel,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide
    from sthggep._training._presets import Preset
    from sthggep._training._task import TrainingOptions, TrainingTask
    from sthggep.model import HGGEP


_ALL_COUNTS = "The panel of %d genes holds a small part of the counts: expression is scaled by all counts of a spot, not by the panel's, so that genes do not follow from each other. Values are not those of a larger panel."


@dataclass(frozen=True)
class TrainingData:
    """What the user passes to train on."""

    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData]
    genes: str | Sequence[str] | None
    targets: str | Sequence[str] | None
    expression: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None
    gene_sets: GeneSets | None = None
    measured: str | Sequence[bool] | Sequence[Sequence[bool]] | pd.Series | None = None
    min_counts: int = 1
    absent: str = "refuse"


def make_task(
    data: TrainingData,
    preset: str | Preset,
    model: HGGEP | str | Path | None,
    choices: Choices,
    options: TrainingOptions,
    places: Places,
) -> TrainingTask:
    """Read the sections of the slides, and find preset, targets and panel."""
    from sthggep._training._task import TrainingTask

    (genes, mixed), parent = read_genes(data.genes, data.absent), None
    refuse_sets_without_validation(data.gene_sets, options.validation)
    gene_sets = None if data.gene_sets is None else read_gene_sets(data.gene_sets)
    preset_name, content = find_preset(preset)
    if data.targets is not None:
        refuse_gene_options(
            genes=data.genes, model=model, expression=data.expression, layer=options.layer, gene_sets=data.gene_sets
        )
        content = without_counts(content)
    if data.expression is not None:
        refuse_extra_counts(content, new=model is None)
    if model is not None:
        refuse_mixed_tuning(mixed=mixed)
        from sthggep._training._fine_tuning import open_parent

        inputs = {name: getattr(choices, name) for name in ("obsm", "encoder", "size_um", "encoding", "flips", "stain")}
        parent, content, genes = open_parent(model, preset_name, genes, {**inputs, "weights": options.weights})
        preset_name = parent.preset
    content = with_choices(content, choices)
    objects = list(data.slides) if isinstance(data.slides, Sequence) else [data.slides]
    need_image = content.inputs.needs_image
    by_object = [resolve(slide, places, need_image=need_image) for slide in objects]
    sections = distinct_names([section for each in by_object for section in each])
    measured = _read_masks(data, objects, by_object, places.table_key)
    _check_inputs(sections, content.inputs, options.window, parent)
    for slide in objects:
        refuse_stale(slide, places, content.inputs.obsm)
    extra = extra_sections_of(data.expression, places)
    targets = None if data.targets is None else find_targets(data.targets, sections)
    if targets is not None:
        genes = targets.names
    if genes is None:
        genes = choose_panel(measured_alone(sections, measured), layer=options.layer, union=mixed)
    genes = gene_list(genes)
    of_panel = _known_sets(parent, genes) if gene_sets is None else sets_of_panel(gene_sets, genes)
    return TrainingTask(
        sections,
        genes,
        preset_name,
        content,
        options,
        parent,
        extra,
        targets,
        of_panel,
        measured=measured,
        min_counts=data.min_counts,
        mixed=mixed and targets is None,
        all_counts=_scales_by_all(data, genes, parent, measured_alone(sections, measured), options.layer),
    )


def _check_inputs(sections: Sequence[Slide], inputs: Inputs, window: int | str | None, parent: HGGEP | None) -> None:
    """Refuse images and features that the networks cannot read, before counts are read and a panel is chosen."""
    from sthggep._inputs._windows import check_window
    from sthggep.tl._request import check_fit

    check_inputs(sections, inputs)
    for slide in sections:
        check_window(inputs, slide, window)
        if parent is not None:
            check_fit(parent, slide)


def _scales_by_all(
    data: TrainingData, genes: Sequence[str], parent: HGGEP | None, slides: Sequence[Slide], layer: str | None
) -> bool:
    """Whether expression is scaled by all counts: of a small panel that the user named, or as in the model to fine-tune."""
    if parent is not None:
        return parent.training.all_counts
    if data.targets is not None or data.genes is None or isinstance(data.genes, str) or data.absent != REFUSE:
        return False
    if len(genes) < 2 or not all(has_all_genes(slide.adata.var, genes) for slide in slides):
        return False  # refused below
    return needs_all_counts(genes, slides, layer)


def _known_sets(parent: HGGEP | None, genes: Sequence[str]) -> dict[str, list[str]]:
    """Gene sets of the model to fine-tune of which all genes stay."""
    sets = {} if parent is None else parent.training.gene_sets
    return {name: members for name, members in sets.items() if set(genes).issuperset(members)}


def _read_masks(
    data: TrainingData,
    objects: Sequence[AnnData | SpatialData],
    by_object: Sequence[Sequence[Slide]],
    table_key: str,
) -> list[NDArray[np.bool_] | None]:
    """Read the measured spots of each section; nothing if the user names none."""
    if data.measured is None:
        return []
    if data.targets is not None:
        msg = "`measured` names spots whose counts may be used, but `targets` reads no counts. Leave `measured` out, or subset the slides."
        raise ValueError(msg)
    several = isinstance(data.slides, Sequence)
    masks: list[NDArray[np.bool_] | None] = [*read_masks(objects, by_object, data.measured, table_key, several=several)]
    if not any(mask is None or mask.any() for mask in masks):
        msg = "Training needs at least two spots with counts, but `measured` names no spot. Pass a column or mask that is True at the measured spots."
        raise ValueError(msg)
    return masks


def check_task(task: TrainingTask) -> None:
    """Refuse counts that the networks cannot learn from, and tissue that is held out and learned from."""
    from sthggep.tl._cross_validation._leaks import refuse_copies
    from sthggep.tl._doubts import warn_of_earlier_training

    layer = task.options.layer
    if task.targets is None:
        slides = task.slides_of_counts()
        if task.parent is None and not task.mixed:
            refuse_incomplete(task.genes, slides)
        if task.parent is not None:
            refuse_missing_genes(task.genes, slides)
        elif task.all_counts:
            log.info(_ALL_COUNTS, len(task.genes))
        else:
            warn_of_small_panel(task.genes, slides)
        mixed = task.extra_sections if task.mixed else ()
        extra = [
            (slide, read_held_counts(slide.adata, task.genes, layer=layer, rows=slide.rows).held) for slide in mixed
        ]
        check_counts(slides, task.genes, layer, min_counts=task.min_counts, mixed=task.mixed, extra=extra)
    for slide in () if task.mixed else task.extra_sections:
        read_panel_counts(slide.adata, task.genes, layer=layer, rows=slide.rows)
    refuse_copies(task.slides, task.options.validation, layer, task.extra_sections)
    if task.parent is not None and task.options.validation is not None:
        warn_of_earlier_training(task.parent, task.slides)
