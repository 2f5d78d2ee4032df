"""The plan of a cross-validation: sections, folds and options, checked before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sthggep._checks import listing
from sthggep._disk._digest import digest
from sthggep._encoders._cache import image_fingerprint
from sthggep._encoders._freshness import refuse_stale
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._inputs._section import Scale, read_counts, read_on_scale, scaled
from sthggep._inputs._stages import frozen_stages
from sthggep._inputs._windows import check_window
from sthggep._slides._fingerprint import section_fingerprint
from sthggep._slides._patients import patient_of
from sthggep._slides._resolve import distinct_names, extra_sections_of, resolve
from sthggep._slides._stain import fit_reference, normalized
from sthggep._table._all_counts import AllCounts, needs_all_counts, with_rest
from sthggep._table._counts import find_measured_genes, read_panel_counts
from sthggep._table._gene_names import find_gene_columns, find_genes
from sthggep._table._mixed_panels import PanelScale, read_held_counts
from sthggep._table._panel import choose_panel
from sthggep._table._targets import find_targets, mean_and_std
from sthggep._table._user_features import hash_user_features
from sthggep._training._prepare import PreparedInputs, prepare
from sthggep._training._presets import PRESETS
from sthggep._training._refusals import (
    check_features,
    check_inputs,
    check_slides,
    refuse_extra_counts,
    refuse_gene_options,
    refuse_incomplete,
)
from sthggep._version import __version__
from sthggep.nn._section import FeatureInputs
from sthggep.tl._cross_validation._baselines import NEED_FEATURES, FeatureView
from sthggep.tl._cross_validation._folds import add_extra, groups_of, plan_folds, refuse_spellings
from sthggep.tl._cross_validation._leaks import describe_section, refuse_leaks, refuse_shared, what_is_shared

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._encoders._sweep import FeatureArray
    from sthggep._slides._fingerprint import SectionFingerprint
    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide
    from sthggep._table._targets import Targets, Values
    from sthggep.tl._cross_validation._folds import Fold
    from sthggep.tl._cross_validation._options import Options

BLOCKS = "blocks"  # folder of finished blocks of features, for all folds


class FoldInputs(NamedTuple):
    """Inputs of models and baselines for each section, without counts."""

    prepared: PreparedInputs
    views: list[FeatureView]
    """Features of each section, for the baselines."""
    block_folder: Path
    """Folder of features, for sections in several windows."""


@dataclass(frozen=True)
class Plan:
    """Sections and folds; no tissue is on both sides of a fold."""

    options: Options
    slides: list[Slide]
    fingerprints: list[SectionFingerprint]
    groups: list[str]
    folds: list[Fold]
    extra_sections: list[Slide]
    extra_fingerprints: list[SectionFingerprint]
    extra_groups: list[str]
    targets: Targets | None = None

    def measured(self, i: int, panel: Sequence[str], scale: Scale = None) -> tuple[Values, Values | None]:
        """Measured values of a section on the scale of the model, and its raw counts, unless targets replace genes.

        With the ``PanelScale`` of the fold's training sections, the section may lack genes, whose values are NaN. The counts
        of all other genes are in a last column if they are part of the scale.
        """
        slide = self.slides[i]
        if self.targets is not None:
            return self.targets.read(slide), None
        read = read_on_scale(slide, panel, self.options.training.layer, scale)
        return scaled(read, scale), with_rest(read.counts, read.rest)

    def scale(self, fold: Fold, panel: Sequence[str]) -> Scale:
        """Fit the scale of the fold's training sections; ``None`` for the counts of a panel of which all hold all genes."""
        layer = self.options.training.layer
        if self.targets is not None or (self.options.genes is None and not self.options.mixed):
            return None
        if not self.options.mixed:
            return AllCounts() if needs_all_counts(panel, [self.slides[i] for i in fold.train], layer) else None
        return PanelScale.of([read_counts(self.slides[i], panel, layer, may_lack=True) for i in fold.train])

    def panel(self, fold: Fold) -> list[str]:
        """Choose the panel of one fold from its training sections alone, and check that the model can learn it."""
        layer, inputs = self.options.training.layer, self.options.preset.inputs
        train = [self.slides[i] for i in fold.train]
        if self.targets is not None:
            check_inputs(train, inputs)
            mean_and_std([self.targets.read(slide) for slide in train], self.targets)
            return list(self.targets.names)
        panel = self.options.genes
        if self.options.mixed:
            return self._mixed_panel(fold, train)
        if panel is None:
            panel = choose_panel(train, layer=layer)
            for i in fold.test:
                panel = find_genes(self.slides[i].adata.var, panel)
        refuse_incomplete(panel, [*train, *(self.slides[i] for i in fold.test)])
        for i in fold.test:
            find_gene_columns(self.slides[i].adata.var, panel, f"var_names of section {self.slides[i].name!r}")
        check_slides(train, panel, layer, inputs)
        for i in fold.extra:
            slide = self.extra_sections[i]
            read_panel_counts(slide.adata, panel, layer=layer, rows=slide.rows)
        return panel

    def _mixed_panel(self, fold: Fold, train: Sequence[Slide]) -> list[str]:
        """Choose the panel of one fold where sections may lack genes: those that a training section holds."""
        layer, panel = self.options.training.layer, self.options.genes
        if panel is None:
            panel = choose_panel(train, layer=layer, union=True)
        else:
            held = {gene for slide in train for gene in find_measured_genes(slide.adata, panel, layer)}
            panel = [gene for gene in panel if gene in held]
        check_slides(train, panel, layer, self.options.preset.inputs, mixed=True)
        for slide in (*(self.slides[i] for i in fold.test), *(self.extra_sections[i] for i in fold.extra)):
            read_held_counts(slide.adata, panel, layer=layer, rows=slide.rows)
        return panel

    def check_features(self) -> None:
        """Refuse features that differ between sections, and sections without the mpp that baselines need."""
        check_features(self.slides, self.options.preset.inputs.obsm)
        for slide in self.slides if self.options.borrows_features else ():
            if slide.mpp is None:
                msg = (
                    f"Section {slide.name!r}: microns per pixel are not known, but the baselines "
                    f"{listing(NEED_FEATURES)} read features of fields of view in microns. Pass `mpp=` (microns per "
                    "full-resolution pixel), or `baselines=['mean']`."
                )
                raise ValueError(msg)

    def record(self) -> dict[str, object]:
        """What the results depend on, in plain types."""
        return {
            "version": __version__,
            "parameters": self.options.parameters(),
            "sections": {
                slide.name: {
                    "group": group,
                    "patient": patient_of(slide),
                    "content": fingerprint.content,
                    "image": image_fingerprint(slide.levels),
                    "mpp": slide.mpp,
                    "features": hash_user_features(slide, self.options.preset.inputs.obsm),
                    "targets": None if self.targets is None else digest(self.targets.read(slide)),
                }
                for slide, group, fingerprint in zip(self.slides, self.groups, self.fingerprints, strict=True)
            },
            "expression": [
                [slide.name, group, patient_of(slide), fingerprint.content]
                for slide, group, fingerprint in zip(
                    self.extra_sections, self.extra_groups, self.extra_fingerprints, strict=True
                )
            ],
        }

    @property
    def inputs_differ(self) -> bool:
        """Whether inputs differ between folds, since stain is normalized to that of the fold's training sections."""
        return self.options.preset.inputs.stain is not None

    def read_inputs(self, folder: Path, fold: Fold) -> FoldInputs:
        """Read the inputs of all sections for a fold, which are the same for all folds unless stain is normalized.

        The method makes ``folder`` for the features of sections in several windows.
        """
        options, training = self.options, self.options.training
        folder.mkdir(exist_ok=True)
        stain = fit_reference([self.slides[i] for i in fold.train], options.preset.inputs.stain)
        slides = [normalized(slide, stain) for slide in self.slides]
        prepared = prepare(slides, options.preset, training, folder=folder, block_folder=folder / BLOCKS)
        inputs, encoder = options.preset.inputs, prepared.encoder
        if options.borrows_features:
            inputs = PRESETS["default"].inputs
            encoder = FrozenEncoder(inputs.encoder, training.weights, training.compute.device)
        views = []
        for number, (slide, windows) in enumerate(zip(slides, prepared.windows, strict=True)):
            stages: Sequence[FeatureArray] = ()
            whole = windows[0].inputs if len(windows) == 1 else None
            if options.reads_features and isinstance(whole, FeatureInputs) and not options.borrows_features:
                stages = [stage.numpy() for stage in whole.features]
            elif options.reads_features:
                scratch = folder / f"features-{number}"
                scratch.mkdir()
                block_folder = folder / BLOCKS
                features = frozen_stages(
                    slide, inputs, encoder, training.compute, folder=scratch, block_folder=block_folder
                )
                stages = [stage.values for stage in features]
            views.append(FeatureView(slide.n_spots, stages))
        return FoldInputs(prepared, views, folder / BLOCKS)


def make_plan(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    options: Options,
    places: Places,
    *,
    expression: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
) -> Plan:
    """Find and group the sections, plan the folds, and refuse leaks."""
    if expression is not None:
        if options.targets is not None:
            refuse_gene_options(expression=expression)
        refuse_extra_counts(options.preset)
    objects = list(slides) if isinstance(slides, Sequence) else [slides]
    need_image = options.preset.inputs.needs_image
    sections = [slide for data in objects for slide in resolve(data, places, need_image=need_image)]
    named = distinct_names(sections)
    check_features(named, options.preset.inputs.obsm)
    for data in objects:
        refuse_stale(data, places, options.preset.inputs.obsm)
    groups = groups_of(named, options.group_key)
    extra = extra_sections_of(expression, places)
    extra_groups = groups_of(extra, options.group_key)
    refuse_spellings([*groups, *extra_groups], options.group_key)
    folds = plan_folds(named, groups, options.group_key)
    layer = options.training.layer
    fingerprints = [section_fingerprint(slide, slide.name, layer) for slide in sections]
    refuse_leaks(sections, fingerprints, groups)
    folds = add_extra(folds, sections, extra, extra_groups, options.group_key)
    extra_fingerprints = [section_fingerprint(slide, slide.name, layer) for slide in extra]
    targets = None if options.targets is None else find_targets(options.targets, sections)
    plan = Plan(options, named, fingerprints, groups, folds, extra, extra_fingerprints, extra_groups, targets)
    refuse_extra(plan)
    plan.check_features()
    for slide in named:
        check_window(options.preset.inputs, slide, options.training.window)
    return plan


def refuse_extra(plan: Plan) -> None:
    """Refuse extra sections with the tissue of a section that the model predicts after training on their counts."""
    leaks = []
    for fold in plan.folds:
        for i in fold.test:
            for j in fold.extra:
                if same := what_is_shared(plan.fingerprints[i], plan.extra_fingerprints[j]):
                    extra = describe_section(plan.extra_sections[j], plan.extra_groups[j])
                    leaks.append(
                        f"{describe_section(plan.slides[i], fold.group)} and, in `expression`, {extra} share {same}"
                    )
    refuse_shared(leaks)
