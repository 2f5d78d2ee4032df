"""What training refuses before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sthggep._checks import counted, listing, unique
from sthggep._encoders._record import has_uncolored_features
from sthggep._keys import feature_key
from sthggep._slides._placement import warn_of_misplaced
from sthggep._table._counts import read_panel_counts
from sthggep._table._gene_names import find_gene_columns
from sthggep._table._user_features import check_feature_names, read_feature_names, read_user_features

if TYPE_CHECKING:
    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP


def replaces_genes(**given: object) -> None:
    """Refuse what goes with counts beside targets that are none."""
    passed = [f"`{name}`" for name, value in given.items() if value is not None]
    if passed:
        msg = f"`targets` stand in place of genes and their counts, but {', '.join(passed)} passed. Leave that out."
        raise ValueError(msg)


def of_genes(parent: HGGEP) -> None:
    """Refuse to go on from a model that predicts something else."""
    if parent.targets is not None:
        msg = f"`model` predicts {parent.targets.where}, no genes: such a model cannot be gone on from. Train anew by `targets`."
        raise ValueError(msg)


def refuse_foreign_genes(genes: Sequence[str], slides: Sequence[Slide]) -> None:
    """Refuse genes of a model that a slide to be trained on lacks, and say whose genes they are."""
    for slide in slides:
        find_gene_columns(
            slide.adata.var, genes, f"var_names of section {slide.name!r} (fine-tuning learns the genes of `model`)"
        )


def learns_programs(preset: Preset, *, new: bool = True) -> None:
    """Refuse further sections' counts where nothing would be learned from them."""
    if not new or preset.network != "FeatureHGGEPNet":
        msg = "`expression` teaches gene programs, which only a new model of `preset='default'` learns. Leave it out."
        raise ValueError(msg)


def check_slides(slides: Sequence[Slide], genes: Sequence[str], layer: str | None, inputs: Inputs) -> None:
    """Refuse bad input before anything is computed."""
    check_counts(slides, genes, layer)
    check_inputs(slides, inputs)


def check_counts(slides: Sequence[Slide], genes: Sequence[str], layer: str | None) -> None:
    """Refuse a panel, or counts of it, that nothing can be learned from."""
    unique(genes, "The genes of the panel", "List each once.")
    if len(genes) == 1:
        gene = str(genes[0])
        msg = (
            f"The panel is one gene, {gene!r}. Expression is the share of the panel's counts, which of one gene alone is "
            "all: two genes are the fewest, and more say more. Train on a panel that holds it, and name it when you "
            f"predict: `sthggep.tl.predict(data, model, genes=[{gene!r}])`."
        )
        raise ValueError(msg)
    n_filled = sum(int(read_panel_counts(s.adata, genes, layer=layer, rows=s.rows).any(axis=1).sum()) for s in slides)
    if n_filled < 2:
        msg = f"Training needs at least two spots with counts in the panel, found {n_filled} in {counted(slides, 'section')}."
        raise ValueError(msg)


def check_inputs(slides: Sequence[Slide], inputs: Inputs) -> None:
    """Refuse slides that cannot be looked at."""
    for slide in slides if inputs.needs_image else ():
        if any(size is not None for size in inputs.sizes_um):
            slide.require_mpp()
        warn_of_misplaced(slide)
        refuse_own_colors(slide, inputs)
    check_features(slides, inputs.obsm)


def refuse_own_colors(slide: Slide, inputs: Inputs) -> None:
    """Refuse features that were made of a slide's own colors where normalized ones are learned from.

    To make them anew unasked could take hours, or find less of the image than there was.
    """
    if inputs.stain is None or inputs.kind != "features":
        return
    keys = [feature_key(inputs.encoder, size) for size in inputs.sizes_um if size is not None]
    plain = [key for key in keys if has_uncolored_features(slide.adata, key, inputs.encoder, slide.name)]
    if plain:
        msg = (
            f"Section {slide.name!r}: obsm holds {listing(plain)}, features of its own colors, but `stain={inputs.stain!r}` "
            f"learns from normalized ones. Delete them (`del slide.obsm[{plain[0]!r}]`) and make the same call: with the image "
            "at hand it computes its own. Or pass `stain=None`."
        )
        raise ValueError(msg)


def check_features(slides: Sequence[Slide], obsm: Sequence[str]) -> None:
    """Refuse features of the user's own that are not the same in every section."""
    for key in obsm:
        widths = {slide.name: read_user_features(slide, key).shape[1] for slide in slides}
        if len(set(widths.values())) > 1:
            msg = f"obsm[{key!r}] must hold the same features in every section, found widths {widths}."
            raise ValueError(msg)
        for slide in slides[1:]:
            check_feature_names(slide, key, read_feature_names(slides[0], key), f"section {slides[0].name!r}")
