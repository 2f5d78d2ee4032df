"""The range of the stored values of an image: 0-1, 0-255, 0-65535, or that of a camera with 9 to 15 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import warn_user
from sthggep._log import log, once_about

if TYPE_CHECKING:
    from sthggep._image._arrays import Pixels

WHITE = 255
# Images in [0, 1] exceed 1 a little after resampling; one in 0-255 that stays below 1.5 would be black
_UNIT_MAX = 1.5
_OVERSHOOT = 1.25  # of floats above 255, likewise
_SIXTEEN = 65535
# Glass is nearly as bright as a camera's largest value; far below it, the number of bits is a guess
_NEAR_WHITE = 0.6


def factor_to_8_bits(windows: Iterable[Pixels], dtype: np.dtype[np.generic], section: str = "") -> float:
    """Return the factor that scales stored values to 0-255, judged on windows of the image; log it once a section."""
    lowest, largest = _extremes(windows)
    if lowest < -0.25 * max(largest, 1.0):  # resampling overshoots by less
        msg = (
            f"Expected image values from 0 to 1 or 0 to 255, found {lowest:g} to {largest:g}. Undo the normalization "
            "first, such as `(image + 1) / 2` of -1 to 1."
        )
        raise ValueError(msg)
    check_integers(largest, dtype)
    white = _white(largest, is_float=dtype.kind == "f")
    where = f"Section {section}: " if section else ""
    line = "%simage values (%s, up to %g in a sample) are read as 0-%d."
    log.info(line, where, dtype, largest, white, extra=once_about(f"{where}{dtype} 0-{white:g}"))
    if WHITE < white < _SIXTEEN and largest < _NEAR_WHITE * white:
        msg = (
            f"The image has values up to {largest:g} ({dtype}), which sthggep takes for {int(white).bit_length()} bits "
            f"(0-{white:.0f}). If that is wrong, the slide is too dark or too bright: convert it to 8 bits first."
        )
        warn_user(msg)
    return WHITE / white


def check_integers(largest: float, dtype: np.dtype[np.generic]) -> None:
    """Reject integers that are only 0 and 1: floats from 0 to 1 that lost their decimals, or a mask."""
    if dtype.kind in "ui" and largest == 1:
        msg = (
            f"Expected image values from 0 to 255, or from 0 to 1 as floats, found only 0 and 1 as {dtype}. If these were "
            "floats, convert the original image by `(image * 255).round().astype('uint8')`, or pass it as floats. If this is "
            "a mask, name the H&E image by `image_key=`."
        )
        raise ValueError(msg)


def _extremes(windows: Iterable[Pixels]) -> tuple[float, float]:
    lowest = largest = 0.0
    for window in windows:
        values = window.astype(np.float64)
        finite = values[np.isfinite(values)]
        if finite.size:
            lowest, largest = min(lowest, float(finite.min())), max(largest, float(finite.max()))
    return lowest, largest


def _white(largest: float, *, is_float: bool) -> float:
    """Value of white: 1, 255, or the largest of as many bits as the values need."""
    if is_float and largest <= _UNIT_MAX:
        return 1.0
    if largest <= WHITE * (_OVERSHOOT if is_float else 1):
        return float(WHITE)
    # Resampled floats exceed the largest value of their bits a little
    bits = int(np.ceil(np.log2((largest / 1.05 if is_float else largest) + 1)))
    if bits > 16:
        msg = (
            f"Expected image values of 8 to 16 bits (0-255 to 0-65535) or from 0 to 1, found values up to {largest:g}. "
            "Scale the image to 0-255 first; labels of a segmentation are not an H&E image."
        )
        raise ValueError(msg)
    return float(2**bits - 1)
