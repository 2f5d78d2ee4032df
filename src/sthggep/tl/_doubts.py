"""Reasons to doubt a prediction: tissue of the training, or other colors, resolution or genes than in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import FEW_SHARED, listing, other_species, warn_user
from sthggep._log import log
from sthggep._slides._colors import FAR, MOST_PIXELS, ColorRange, image_mpp, read_colors, tissue_colors
from sthggep._slides._faults import FAULTS, find_faults
from sthggep._slides._fingerprint import ModelFingerprint, model_fingerprint
from sthggep._slides._measured import has_code
from sthggep._slides._placement import warn_of_misplaced
from sthggep._table._counts import covers_panel
from sthggep._table._evidence import UNLIKE
from sthggep._table._gene_names import find_genes

if TYPE_CHECKING:
    from anndata import AnnData

    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP

NOVEL = 0.95
FAULTY = 0.05  # share of a section's spots
LEAST_SHOWN = 0.01
# Largest factor between the resolutions of an image and of the training images
SHARPNESS = 1.5


def warn_of_doubts(model: HGGEP, slides: Sequence[Slide], table: AnnData) -> list[str]:
    """Warn of reasons to doubt the prediction; return the names of the sections that the model was trained on."""
    if model.inputs.needs_image:
        for slide in slides:
            warn_of_misplaced(slide)
        for message in (*_other_colors(model, slides), *_other_sharpness(model, slides)):
            warn_user(message)
    held = [] if model.targets is not None or not table.n_vars else find_genes(table.var, model.genes)
    few = model.targets is None and table.n_vars and len(held) < FEW_SHARED * len(model.genes)
    species = other_species(model.genes, table.var_names) if few else ""
    if few and (species or not held):
        question = "Are tissue and species those of the training, and gene names of the same kind?"
        msg = (
            f"{len(held) or 'None'} of the model's {len(model.genes)} genes (such as {listing(model.genes, 3)}) are among the {table.n_vars} of "
            f"this table ({listing(table.var_names, 3)}). {species or question} Counts of this table cannot score the prediction."
        )
        warn_user(msg)
    elif (
        model.targets is None
        and table.n_vars
        and not covers_panel(held, model.genes, mixed=bool(model.training.gene_n_sections))
    ):
        log.info(
            "The table holds %d of the model's %d genes. `sthggep.tl.evaluate` cannot score the prediction by its counts: that takes "
            "half of the genes.",
            len(held),
            len(model.genes),
        )
    names = learned_from(model, slides)
    if names:
        warn_user(_trained_on_message(names, "The prediction is of"))
    return names


def _other_colors(model: HGGEP, slides: Sequence[Slide]) -> Iterator[str]:
    """A message for each section whose tissue has colors outside the range of the training sections."""
    training_colors = read_colors(model.training.colors)
    if not training_colors:
        return
    training = ColorRange.of(training_colors)
    for slide in slides:
        colors = tissue_colors(slide)
        if colors is not None and (distance := training.distance(colors)) > FAR:
            yield (
                f"Section {slide.name!r}: its tissue has other colors than the model was trained on, by {distance:.0f} CIELAB "
                f"units (mean L*, a*, b* of {_rounded(colors.mean)}; training sections {_rounded(training.low)} to "
                f"{_rounded(training.high)}). Is stain, scanner or tissue another one? See `sthggep.pl.colors(data, model)`."
            )


def _rounded(lab: Iterable[float]) -> str:
    """A color as text."""
    return ", ".join(f"{value:.0f}" for value in lab)


def _other_sharpness(model: HGGEP, slides: Sequence[Slide]) -> Iterator[str]:
    """A message for each section whose image is coarser or finer than in training, if patches show it."""
    sizes = model.inputs.fields_of_view
    trained = [mpp for mpp in model.training.image_mpp or model.training.mpp if mpp]
    if not sizes or not trained:
        return
    smallest = min(sizes)
    # Patches average finer detail away
    needed = smallest / model.inputs.size_px
    low, high = max(min(trained), needed), max(*trained, needed)
    for slide in slides:
        mpp = image_mpp(slide)
        if mpp is None or low / SHARPNESS < max(mpp, needed) < high * SHARPNESS:
            continue
        how = "more blurred" if mpp > high else "sharper"
        between = f"{low:.3g}" if high / low < 1.05 else f"{low:.3g} to {high:.3g}"
        yield (
            f"Section {slide.name!r}: its image has {mpp:.3g} µm/px, so patches of {smallest:g} µm are {how} than those "
            f"that the model was trained on, at {between} µm/px. Pass an image of about that resolution if there is one."
        )


def warn_of_unlike_tissue(slides: Sequence[Slide], novelty: NDArray[np.float32], training: Sequence[str]) -> None:
    """Warn of each section whose tissue is unlike that of the training, by the novelty of the rows of the table.

    Of a section that is like it elsewhere, warn if the image shows pen, glass, folds or blur at many of its novel spots.
    """
    for slide in slides:
        values = novelty[slide.rows]
        known = values[np.isfinite(values)]
        if not len(known):
            continue
        faults, share = _faults_of_novel(slide, values > NOVEL)
        if known.mean() > UNLIKE:
            beyond = (known > NOVEL).mean()
            warn_user(
                f"Section {slide.name!r}: its image is unlike the tissue that the model was trained on ({listing(training, 3)}). Its spots "
                f"are more unusual than {known.mean():.0%} of training tissue that was held out, on average; like tissue is "
                f"at 20 to 75 %. {beyond:.0%} of them lie beyond 95 % of it.{faults and f' The image shows {faults}.'} Correlations that "
                "were measured in training may not hold here: see `sthggep.tl.trust(data)`, and measure some spots if you can: "
                "`sthggep.tl.predict(data, model, measured=...)` learns from them."
            )
        elif share > FAULTY:
            warn_user(
                f"Section {slide.name!r}: some of its spots are unlike the tissue that the model was trained on, and there the image "
                f"shows {faults}. The model reads that as tissue. `sthggep.pp.image_faults(data)` marks such spots; remove them."
            )


def _faults_of_novel(slide: Slide, novel: NDArray[np.bool_]) -> tuple[str, float]:
    """Faults of the image at a section's novel spots, in words with shares of its spots, and the share of all together."""
    # A twentieth of like tissue is novel: the image is not read again for that
    if novel.mean() < FAULTY or not slide.levels or np.prod(slide.levels[-1].shape, dtype=float) > MOST_PIXELS:
        return "", 0.0
    faults = find_faults(slide)[novel]
    shares = {name: (faults == name).sum() / slide.n_spots for name in FAULTS}
    seen = {name: share for name, share in shares.items() if share >= LEAST_SHOWN}
    text = ", ".join(f"{name} ({share:.0%} of the spots)" for name, share in sorted(seen.items(), key=lambda s: -s[1]))
    return text, sum(seen.values())


def learned_from(model: HGGEP, slides: Sequence[Slide]) -> list[str]:
    """Names of the sections that the model was trained on as a whole, recognized by image and spots, not by name."""
    training = [each for each in _fingerprints(model) if each.measured is None]
    if not training:
        return []
    fingerprints = {slide.name: model_fingerprint(slide) for slide in slides}
    return [name for name, mark in fingerprints.items() if any(mark.same_tissue(each) for each in training)]


def measured_spots(model: HGGEP, slides: Sequence[Slide]) -> dict[str, NDArray[np.bool_]]:
    """Spots that the model was trained on, of sections that it was trained on in part, recognized by their names."""
    training = [each for each in _fingerprints(model) if each.measured is not None]
    masks = {}
    for slide in slides if training else ():
        if not slide.adata.n_vars:  # pseudo-spots may have the names of spots
            continue
        mark = model_fingerprint(slide)
        codes = [str(each.measured) for each in training if mark.same_tissue(each)]
        if codes:
            masks[slide.name] = has_code(slide.adata.obs_names[slide.rows], "".join(codes))
    return masks


def _fingerprints(model: HGGEP) -> list[ModelFingerprint]:
    """Read the fingerprints of the training sections."""
    return [ModelFingerprint.from_dict(entry) for entry in model.training.fingerprints]


def warn_of_earlier_training(parent: HGGEP, slides: Sequence[Slide]) -> None:
    """Warn that what a fine-tuning holds out is not new to the model."""
    if names := learned_from(parent, slides):
        warn_user(
            f"The model was trained on {listing(names)} before: what validation holds out of this tissue is not new to it, and "
            "`held_out_pearson` does not hold for new tissue."
        )


def warn_of_training_tissue(sections: Mapping[str, bool | None]) -> None:
    """Warn of sections that the model was trained on, and of those of which that is not known."""
    if names := [name for name, trained_on in sections.items() if trained_on]:
        warn_user(_trained_on_message(names, "The score is of"))
    if unknown := [name for name, trained_on in sections.items() if trained_on is None]:
        msg = (
            f"Whether the model was trained on {listing(unknown)} is not known, since obs holds no column that says so of all "
            "their spots. Was it dropped, or were spots added? Call `sthggep.tl.predict` again."
        )
        warn_user(msg)


def _trained_on_message(names: Sequence[str], what: str) -> str:
    """The message that the model was trained on these sections."""
    return (
        f"{what} tissue that the model was trained on ({listing(names)}): scores on it do not hold for new tissue. "
        "Call `sthggep.tl.cross_validate` for held-out scores, or, with one section, train on a part of its spots (`measured=` of "
        "`sthggep.tl.fit`): the others are scored."
    )
