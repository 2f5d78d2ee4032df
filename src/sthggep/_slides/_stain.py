"""Stain of a slide's tissue, and slides that are looked at in the stain of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import counted, listing, one_of, warn_user
from sthggep._image._recolor import MAPS, Recoloring, StainStatistics
from sthggep._slides._colors import tissue_pixels

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

METHODS = tuple(MAPS)
# Of some 260,000 that are looked at: a slide with less tissue says too little of its stain
FEWEST_PIXELS = 500
FLAT = 0.1  # CIELAB units: a picture of one color


def check_stain(name: str | None) -> str | None:
    """Refuse a stain normalization that there is not."""
    return None if name is None else one_of(name, METHODS, "stain normalization (`stain`, or None)")


def stain_of(slide: Slide, method: str) -> StainStatistics | None:
    """Stain of the tissue under and between the spots, from a bounded look at the slide; ``None`` where it cannot be told."""
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
    """Directions of hematoxylin and eosin, and how much of each there is at the 99th percentile."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from squidpy.experimental.im import fit_stain_reference

    # Squidpy's normalization estimates on the very image that it changes, so that of it the estimate alone serves patches
    picture = Image2DModel.parse(pixels.T[:, None, :], dims=("c", "y", "x"))
    tissue = Labels2DModel.parse(np.ones((1, len(pixels)), dtype=np.uint8), dims=("y", "x"))
    sdata = SpatialData(images={"tissue": picture}, labels={"tissue_tissue": tissue})
    try:
        found = fit_stain_reference(sdata, "tissue", method="macenko")
    except RuntimeError:  # a direction is more than 45 degrees from hematoxylin's or eosin's
        return None
    return {"stains": [_plain(row) for row in found.stain_matrix.T[:2]], "strength": _plain(found.max_concentrations)}


def _plain(values: Any) -> list[float]:
    return [round(float(value), 5) for value in values]


def fit_reference(slides: Sequence[Slide], method: str | None) -> dict[str, Any] | None:
    """Mean stain of the slides that tell theirs, in plain types, for a model's record."""
    if method is None:
        return None
    found = [stain for slide in slides if (stain := stain_of(slide, method)) is not None]
    if not found:
        msg = (
            f"`stain={method!r}` needs to know the stain of a training slide, but none of {counted(slides, 'section')} "
            f"({listing((slide.name for slide in slides), 4)}) tells it: too little tissue, an image that is too "
            "large to be read whole, or a stain too unlike H&E. Pass another `stain`, or None."
        )
        raise ValueError(msg)
    means = {
        name: np.mean([np.asarray(stain[name], np.float64) for stain in found], axis=0).round(5).tolist()
        for name in found[0]
    }
    return {"method": method, **means}


def normalized(slide: Slide, reference: Mapping[str, Any] | None) -> Slide:
    """The slide, to be looked at in the stain of others; one that does not tell its own stays as it is, with a warning."""
    if reference is None:
        return slide
    method = check_reference(reference)
    source = stain_of(slide, method)
    if source is None:
        warn_user(
            f"Section {slide.name!r}: too little tissue, or too unlike H&E, to tell its stain (`stain={method!r}`). It is "
            "looked at in its own colors. See `sthggep.pl.patches(data)`."
        )
    goal = {name: value for name, value in reference.items() if name != "method"}
    return replace(slide, stain=Recoloring(method, goal, source))


def check_reference(reference: Mapping[str, Any]) -> str:
    """Method of a fitted normalization, or an error that says where there is one."""
    if not isinstance(reference, Mapping) or reference.get("method") not in METHODS:
        msg = f"`stain` must be the record of a fitted normalization, `model.stain`, found {reference!r}."
        raise ValueError(msg)
    return str(reference["method"])
