"""Which of the pictures of a section is the H&E: masks and stains are left out, and pictures that differ are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import listing
from sthggep._image._values import check_integers
from sthggep._log import ONCE, log
from sthggep._slides._colors import MOST_PIXELS, SAMPLES_ACROSS

if TYPE_CHECKING:
    from sthggep._image._level import Level

COLOR, GRAY, MASK, STAINS = "color", "gray", "a mask", "stains"
SIZES_AGREE = 0.02
# Mean difference, in gray values, of two pictures at the size of a stamp
LOOK_ALIKE = 15.0
_STAMP = 16
MOST_COMPARED = 2.5e7  # pixels of a lazy image; more take too long to decode for a check
_FEWEST_OPAQUE = 0.9


def kind_of(shape: Sequence[int], dtype: np.dtype[np.generic], n_channels: int) -> str:
    """Tell an image in color from gray, masks and stains by its type and its channels."""
    if dtype.kind not in "uif" or (n_channels == 1 and dtype.kind in "ui" and dtype.itemsize > 2):
        return MASK
    if len(shape) not in (2, 3) or n_channels not in (1, 3, 4):
        return STAINS
    return GRAY if n_channels == 1 else COLOR


def likely_keys(kinds: Mapping[str, str], where: str) -> list[str]:
    """Return the keys of the images in color, else those in gray; the rest is logged and left out."""
    wanted = COLOR if COLOR in kinds.values() else GRAY
    keys = [key for key, kind in kinds.items() if kind == wanted]
    others = [f"{key!r} ({kind})" for key, kind in kinds.items() if kind != wanted]
    if keys and others:
        text = "%s: sthggep reads %s and leaves out %s. Pass `image_key=` for another choice."
        log.info(text, where, listing(keys), ", ".join(others), extra=ONCE)
    return keys


def check_one_image(pictures: Mapping[str, Level], where: str) -> None:
    """Reject pictures that are no resolutions of one image: sizes that disagree, or different contents."""
    ordered = sorted(pictures, key=lambda key: -pictures[key].scale[0])
    for finer, coarser in pairwise(ordered):
        fault = difference(pictures[finer], pictures[coarser])
        if fault:
            msg = (
                f"{where}: the images {finer!r} and {coarser!r} are no resolutions of one image: {fault}. Pass `image_key=` "
                f"(one of {listing(pictures)}) and, if its coordinates are others, `spatial_key=`."
            )
            raise ValueError(msg)


def difference(finer: Level, coarser: Level) -> str:
    """Say how two pictures differ if they are no resolutions of one image, else nothing."""
    return size_difference(finer, coarser) or color_difference(finer, coarser)


def size_difference(finer: Level, coarser: Level) -> str:
    """Say how large two pictures are if one shows more of the slide than the other."""
    sizes = [np.array(level.shape) / level.scale[::-1] for level in (finer, coarser)]
    # A side of the coarser one is rounded to whole pixels
    slack = np.maximum(SIZES_AGREE * sizes[0], 1 / np.array(coarser.scale[::-1]))
    if (np.abs(sizes[0] - sizes[1]) <= slack).all():
        return ""
    (height, width), (other_height, other_width) = sizes
    return (
        f"in full-resolution pixels, one is {width:.0f} x {height:.0f} large and the other {other_width:.0f} x "
        f"{other_height:.0f}"
    )


def color_difference(finer: Level, coarser: Level) -> str:
    """Say how far the colors of two pictures are from each other if they show different things."""
    lazy = [level for level in (finer, coarser) if level.blocks is not None]
    if any(float(np.prod(level.shape)) > MOST_COMPARED for level in lazy):
        return ""
    distance = float(np.abs(_stamp(finer) - _stamp(coarser)).mean())
    return f"their colors differ by {distance:.0f} gray values on average" if distance > LOOK_ALIKE else ""


def _stamp(level: Level) -> NDArray[np.float64]:
    """Means of the colors over a coarse grid."""
    pixels = level.sample(SAMPLES_ACROSS).astype(np.float64)
    rows, columns = (np.linspace(0, side, min(_STAMP, side) + 1).astype(int)[:-1] for side in pixels.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0), columns, axis=1)
    counts = np.outer(np.diff([*rows, pixels.shape[0]]), np.diff([*columns, pixels.shape[1]]))
    means = np.full((_STAMP, _STAMP, 3), 255.0)
    means[: len(rows), : len(columns)] = sums / counts[..., None]
    return means


def check_values(level: Level, where: str) -> None:
    """Reject an image of 8 bits whose values are only 0 and 1; a level checks other types when it scales them."""
    if level.array.dtype != np.uint8 or float(np.prod(level.shape)) > MOST_PIXELS:
        return
    try:
        check_integers(float(level.sample(SAMPLES_ACROSS).max()), np.dtype(np.uint8))
    except ValueError as error:
        msg = f"{where}: {error}"
        raise ValueError(msg) from None


def check_alpha(level: Level, where: str) -> None:
    """Reject a fourth channel that nobody calls alpha and that is none: alpha is nearly everywhere 0 or the largest value."""
    alpha = level.fourth_channel()
    if alpha is None or not alpha.size:
        return
    largest = 255 if alpha.dtype == np.uint8 else alpha.max()
    clear = float((alpha == 0).mean())
    if clear == 1 or float((alpha == largest).mean()) + clear < _FEWEST_OPAQUE:
        msg = (
            f"{where} has four channels, and the fourth is no alpha: its values are {alpha.min():g} to {alpha.max():g}. "
            "Pass the three color channels (red, green, blue) alone."
        )
        raise ValueError(msg)
