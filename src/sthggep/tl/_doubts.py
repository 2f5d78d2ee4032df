"""What is wrong though nothing fails: tissue that the model has learned from, tissue or pictures it knows nothing of."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sthggep._checks import listing
from sthggep._slides._colors import FAR, ColorRange, image_mpp, read_colors, tissue_colors
from sthggep._slides._fingerprint import ModelFingerprint, model_fingerprint
from sthggep._slides._placement import warn_of_misplaced
from sthggep._table._gene_names import shares_genes

if TYPE_CHECKING:
    from anndata import AnnData

    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP

# How many times coarser or finer an image may be than those of the training
SHARPNESS = 1.5


def warn_of_doubts(model: HGGEP, slides: Sequence[Slide], table: AnnData) -> list[str]:
    """Warn of what a user would want to know before trusting the prediction; returns the sections learned from."""
    if model.inputs.needs_image:
        for slide in slides:
            warn_of_misplaced(slide)
        for message in (*_other_colors(model, slides), *_other_sharpness(model, slides)):
            warnings.warn(message, UserWarning, stacklevel=3)
    if model.targets is None and table.n_vars and not shares_genes(table.var, model.genes):
        msg = (
            f"None of the model's {len(model.genes)} genes (such as {listing(model.genes, 3)}) is among the {table.n_vars} of "
            f"this table ({listing(table.var_names, 3)}): other tissue or species, or other names for the genes?"
        )
        warnings.warn(msg, UserWarning, stacklevel=3)
    seen = learned_from(model, slides)
    if seen:
        warnings.warn(_seen(seen, "The prediction is of"), UserWarning, stacklevel=3)
    return seen


def _other_colors(model: HGGEP, slides: Sequence[Slide]) -> Iterator[str]:
    """Sections whose tissue has colors that no training section had."""
    seen = read_colors(model.training.colors)
    if not seen:
        return
    known = ColorRange.of(seen)
    for slide in slides:
        found = tissue_colors(slide)
        if found is not None and (distance := known.distance(found)) > FAR:
            yield (
                f"Section {slide.name!r}: its tissue has other colors than the model was trained on, by {distance:.0f} CIELAB "
                f"units (mean L*, a*, b* of {_shown(found.mean)}; training sections {_shown(known.low)} to "
                f"{_shown(known.high)}): another stain or scanner, or other tissue? See `sthggep.pl.colors(data, model)`."
            )


def _shown(lab: Iterable[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in lab)


def _other_sharpness(model: HGGEP, slides: Sequence[Slide]) -> Iterator[str]:
    """Sections whose image is coarser, or finer, than any that the model was trained on, where its patches show it."""
    sizes = [size for size in model.inputs.sizes_um if size is not None]
    trained = [mpp for mpp in model.training.image_mpp or model.training.mpp if mpp]
    if not sizes or not trained:
        return
    smallest = min(sizes)
    # Finer than that is averaged away when the patch is made
    needed = smallest / model.inputs.size_px
    low, high = max(min(trained), needed), max(*trained, needed)
    for slide in slides:
        mpp = image_mpp(slide)
        if mpp is None or low / SHARPNESS < max(mpp, needed) < high * SHARPNESS:
            continue
        how = "more blurred" if mpp > high else "sharper"
        between = f"{low:.3g}" if high / low < 1.05 else f"{low:.3g} to {high:.3g}"
        yield (
            f"Section {slide.name!r}: its image has {mpp:.3g} µm/px, so that patches of {smallest:g} µm are {how} than those "
            f"that the model was trained on, at {between} µm/px. Pass an image of about that resolution if there is one."
        )


def learned_from(model: HGGEP, slides: Sequence[Slide]) -> list[str]:
    """Names of the sections that the model was trained on, whatever they are called here."""
    known = [ModelFingerprint(**entry) for entry in model.training.fingerprints]
    if not known:
        return []
    found = {slide.name: model_fingerprint(slide) for slide in slides}
    return [name for name, own in found.items() if any(own.same_tissue(each) for each in known)]


def warn_of_seen(names: Sequence[str]) -> None:
    """Warn that scores of these sections say nothing about new tissue."""
    if names:
        warnings.warn(_seen(names, "The score is of"), UserWarning, stacklevel=3)


def _seen(names: Sequence[str], what: str) -> str:
    return (
        f"{what} tissue that the model has learned from ({listing(names)}): its score says nothing about new tissue. "
        "Held-out scores: `sthggep.tl.cross_validate`."
    )
