"""Stain of the tissue of a slide, and slides with normalized stain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import counted, listing, one_of, warn_user
from sthggep._image._recolor import MAPS, Recoloring, StainStatistics
from sthggep._slides._colors import tissue_pixels

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

METHODS = tuple(MAPS)
# Of a sample of some 260,000; less tissue does not determine the stain
FEWEST_PIXELS = 500
FLAT = 0.1  # CIELAB units: an image of one color


def check_stain(name: str | None) -> str | None:
    """Refuse an unknown stain normalization."""
    return None if name is None else one_of(name, METHODS, "stain normalization (`stain`, or None)")


def stain_of(slide: Slide, method: str) -> StainStatistics | None:
    """Estimate the stain of the tissue under and between the spots from a sample of pixels; ``None`` if it is too small."""
    pixels = tissue_pixels(slide)
    if pixels is None or len(pixels) < FEWEST_PIXELS:
        return None
    return _in_lab(pixels) if method == "reinhard" else _in_density(pixels)


def _in_lab(pixels: NDArray[np.uint8]) -> StainStatistics | None:
    from skimage.color import rgb2lab

    lab = rgb2lab(pixels)
    mean, spread = lab.mean(axis=0), lab.std(axis=0)
    return {"mean": _plain(mean), "spread": _plain(spread)} if spread.min() > FLAT else None


def _in_density(pixels: NDArray[np.uint8]) -> StainStatistics | None:
    """Estimate the directions of hematoxylin and eosin, and the 99th percentile of their amounts."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from squidpy.experimental.im import fit_stain_reference

    # Squidpy estimates on the image that it normalizes; for patches, only its estimate is of use
    picture = Image2DModel.parse(pixels.T[:, None, :], dims=("c", "y", "x"))
    tissue = Labels2DModel.parse(np.ones((1, len(pixels)), dtype=np.uint8), dims=("y", "x"))
    sdata = SpatialData(images={"tissue": picture}, labels={"tissue_tissue": tissue})
    try:
        fitted = fit_stain_reference(sdata, "tissue", method="macenko")
    except RuntimeError:  # a direction is more than 45 degrees from hematoxylin's or eosin's
        return None
    return {"stains": [_plain(row) for row in fitted.stain_matrix.T[:2]], "strength": _plain(fitted.max_concentrations)}


def _plain(values: NDArray[np.floating]) -> list[float]:
    return [round(float(value), 5) for value in values]


def fit_reference(slides: Sequence[Slide], method: str | None) -> dict[str, object] | None:
    """Average the stains of the slides, in plain types, for the record of a model."""
    if method is None:
        return None
    stains = [stain for slide in slides if (stain := stain_of(slide, method)) is not None]
    if not stains:
        msg = (
            f"`stain={method!r}` needs a training slide whose stain can be estimated, but from none of {counted(slides, 'section')} "
            f"({listing((slide.name for slide in slides), 4)}) could sthggep estimate it: too little tissue, "
            "an image too large to sample, or a stain too unlike H&E. Pass another `stain`, or leave it out."
        )
        raise ValueError(msg)
    means = {
        name: np.mean([np.asarray(stain[name], np.float64) for stain in stains], axis=0).round(5).tolist()
        for name in stains[0]
    }
    return {"method": method, **means}


def normalized(slide: Slide, reference: Mapping[str, object] | None) -> Slide:
    """Return the slide with its stain normalized; if its stain cannot be estimated, it stays as it is, with a warning."""
    if reference is None:
        return slide
    method = check_reference(reference)
    source = stain_of(slide, method)
    if source is None:
        warn_user(
            f"Section {slide.name!r}: too little tissue, or too unlike H&E, to estimate its stain (`stain={method!r}`). sthggep "
            "leaves its colors as they are. See `sthggep.pl.patches(data)`."
        )
    goal = {name: value for name, value in reference.items() if name != "method"}
    return replace(slide, stain=Recoloring(method, goal, source))


def check_reference(reference: Mapping[str, object]) -> str:
    """Return the method of a fitted normalization; an error says which record to pass."""
    if not isinstance(reference, Mapping) or reference.get("method") not in METHODS:
        msg = f"`stain` must be the record of a fitted normalization, `model.stain`, found {reference!r}."
        raise ValueError(msg)
    needed = ("mean", "spread") if reference["method"] == "reinhard" else ("stains", "strength")
    if absent := [name for name in needed if name not in reference]:
        msg = f"`stain` must be the record of a fitted normalization, `model.stain`; this one lacks {listing(absent)}."
        raise ValueError(msg)
    return str(reference["method"])
