"""A cross-validation before work starts: sections, folds, options, all checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sthggep._checks import listing
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._inputs._stages import frozen_stages
from sthggep._inputs._windows import check_window
from sthggep._slides._fingerprint import digest, signature
from sthggep._slides._resolve import distinct_names, further_sections, resolve
from sthggep._slides._stain import fit_reference, normalized
from sthggep._table._counts import counts, log10_cp10k
from sthggep._table._gene_names import gene_columns
from sthggep._table._panel import choose_panel
from sthggep._table._targets import find_targets, spread_of
from sthggep._table._user_features import features_id
from sthggep._training._prepare import Prepared, prepare
from sthggep._training._presets import PRESETS
from sthggep._training._refusals import check_features, check_inputs, check_slides, learns_programs, replaces_genes
from sthggep.tl._cross_validation._baselines import NEED_FEATURES, Seen
from sthggep.tl._cross_validation._folds import add_further, groups_of, patient_of, plan_folds
from sthggep.tl._cross_validation._leaks import describe_section, refuse_leaks, refuse_shared, what_is_shared

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._encoders._sweep import FeatureArray
    from sthggep._slides._fingerprint import Signature
    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide
    from sthggep._table._targets import Targets, Values
    from sthggep.tl._cross_validation._folds import Fold
    from sthggep.tl._cross_validation._options import Options

BLOCKS = "blocks"  # of features, kept while folds are run


class Looked(NamedTuple):
    """What models and baselines see of each section: no counts are in it."""

    prepared: Prepared
    seen: list[Seen]
    blocks: Path
    """Folder of features, of sections in windows."""


@dataclass(frozen=True)
class Plan:
    """Sections and folds, free of leaks."""

    options: Options
    slides: list[Slide]
    signatures: list[Signature]
    groups: list[str]
    folds: list[Fold]
    further: list[Slide]
    further_signatures: list[Signature]
    further_groups: list[str]
    targets: Targets | None = None

    def measured(self, i: int, panel: Sequence[str]) -> tuple[Values, Values | None]:
        """What was measured in a section, on the scale that is learned, and the counts behind it where there are any."""
        slide = self.slides[i]
        if self.targets is not None:
            return self.targets.read(slide), None
        raw = counts(slide.adata, panel, layer=self.options.training["layer"], rows=slide.rows)
        return log10_cp10k(raw), raw

    def panel(self, fold: Fold) -> list[str]:
        """The genes of one fold, from its training sections alone, and the check that they can be learned from."""
        layer, inputs = self.options.training["layer"], self.options.preset.inputs
        train = [self.slides[i] for i in fold.train]
        if self.targets is not None:
            check_inputs(train, inputs)
            spread_of([self.targets.read(slide) for slide in train], self.targets)
            return list(self.targets.names)
        panel = self.options.genes
        if panel is None:
            listed = set.intersection(*[set(map(str, self.slides[i].adata.var_names)) for i in fold.test])
            panel = [gene for gene in choose_panel(train, layer=layer) if gene in listed]
        for i in fold.test:
            gene_columns(self.slides[i].adata.var, panel, f"var_names of section {self.slides[i].name!r}")
        check_slides(train, panel, layer, inputs)
        for i in fold.further:
            slide = self.further[i]
            counts(slide.adata, panel, layer=layer, rows=slide.rows)
        return panel

    def check_features(self) -> None:
        """Refuse features that differ between sections, or microns per pixel that baselines need and nobody knows."""
        check_features(self.slides, self.options.preset.inputs.obsm)
        for slide in self.slides if self.options.borrows_features else ():
            if slide.mpp is None:
                msg = (
                    f"Section {slide.name!r}: microns per pixel are not known, and the baselines "
                    f"{listing(NEED_FEATURES)} look at features of fields of view in microns. Pass `mpp=` (microns per "
                    "full-resolution pixel), or `baselines=['mean']`."
                )
                raise ValueError(msg)

    def record(self) -> dict[str, Any]:
        """What the results depend on, in plain types."""
        from sthggep._version import __version__

        return {
            "version": __version__,
            "parameters": self.options.parameters(),
            "sections": {
                slide.name: {
                    "group": group,
                    "patient": patient_of(slide),
                    "content": marks.content,
                    "mpp": slide.mpp,
                    "features": features_id(slide, self.options.preset.inputs.obsm),
                    "targets": None if self.targets is None else digest(self.targets.read(slide)),
                }
                for slide, group, marks in zip(self.slides, self.groups, self.signatures, strict=True)
            },
            "expression": [
                [slide.name, group, patient_of(slide), marks.content]
                for slide, group, marks in zip(self.further, self.further_groups, self.further_signatures, strict=True)
            ],
        }

    @property
    def looks_anew(self) -> bool:
        """Whether sections look otherwise in each fold: their stain is brought to that of its training sections."""
        return self.options.preset.inputs.stain is not None

    def look(self, folder: Path, fold: Fold) -> Looked:
        """Look at all sections as a fold sees them, which is alike for all folds unless stain is normalized.

        Of sections that are gone through in windows, what is seen lies in ``folder``, which is made.
        """
        options, run = self.options, self.options.training
        folder.mkdir(exist_ok=True)
        stain = fit_reference([self.slides[i] for i in fold.train], options.preset.inputs.stain)
        slides = [normalized(slide, stain) for slide in self.slides]
        asked = {name: run[name] for name in ("batch_size", "device", "show", "window")}
        prepared = prepare(slides, options.preset, run["weights"], folder=folder, blocks=folder / BLOCKS, **asked)
        inputs, encoder = options.preset.inputs, prepared.encoder
        if options.borrows_features:
            inputs = PRESETS["default"].inputs
            encoder = FrozenEncoder(inputs.encoder, run["weights"], run["device"])
        seen = []
        for number, (slide, fed) in enumerate(zip(slides, prepared.inputs, strict=True)):
            stages: Sequence[FeatureArray] = ()
            if options.reads_features and not (isinstance(fed, list) or options.borrows_features):
                stages = [stage.numpy() for stage in fed[0]]
            elif options.reads_features:
                kept = folder / f"features-{number}"
                kept.mkdir()
                again = {"folder": kept, "blocks": folder / BLOCKS}
                stages = frozen_stages(slide, inputs, encoder, run["batch_size"], run["show"], **again)
            seen.append(Seen(slide.n_spots, stages))
        return Looked(prepared, seen, folder / BLOCKS)


def make_plan(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    options: Options,
    places: Places,
    *,
    expression: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
) -> Plan:
    """Find the sections, group them, and refuse what would leak."""
    if expression is not None:
        if options.targets is not None:
            replaces_genes(expression=expression)
        learns_programs(options.preset)
    given = list(slides) if isinstance(slides, Sequence) else [slides]
    need_image = options.preset.inputs.needs_image
    found = [slide for data in given for slide in resolve(data, places, need_image=need_image)]
    named = distinct_names(found)
    groups = groups_of(named, options.group_key)
    folds = plan_folds(named, groups, options.group_key)
    layer = options.training["layer"]
    signatures = [signature(slide, slide.name, layer) for slide in found]
    refuse_leaks(found, signatures, groups)
    further = further_sections(expression, places)
    further_groups = groups_of(further, options.group_key)
    folds = add_further(folds, found, further, further_groups, options.group_key)
    marks = [signature(slide, slide.name, layer) for slide in further]
    targets = None if options.targets is None else find_targets(options.targets, found)
    plan = Plan(options, named, signatures, groups, folds, further, marks, further_groups, targets)
    refuse_further(plan)
    plan.check_features()
    for slide in named:
        check_window(options.preset.inputs, slide, options.training["window"])
    return plan


def refuse_further(plan: Plan) -> None:
    """Refuse further sections that are the tissue of a section which is predicted after learning from their counts."""
    found = []
    for fold in plan.folds:
        for i in fold.test:
            for j in fold.further:
                if same := what_is_shared(plan.signatures[i], plan.further_signatures[j]):
                    further = describe_section(plan.further[j], plan.further_groups[j])
                    found.append(
                        f"{describe_section(plan.slides[i], fold.group)} and, in `expression`, {further} share {same}"
                    )
    refuse_shared(found)
