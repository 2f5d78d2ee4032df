"""Microns per pixel: the argument, values that metadata state, and units in all their spellings."""

from __future__ import annotations

import numbers
import unicodedata

import numpy as np

from sthggep._checks import positive

# Microns per pixel of slides; a value outside is a print resolution (72 dpi is 353 µm), millimeters or a slip
PLAUSIBLE = (0.05, 20.0)
# The argument may state what metadata may not, but no millimeters and no nanometers
POSSIBLE = (0.01, 100.0)
SQUARE = 1.05  # pixels whose sides differ by more are not square

_UM_PER = {"m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4}
_UM_PER |= {"inch": 25400.0, "ft": 304800.0, "mil": 25.4, "thou": 25.4, "pt": 25400 / 72}
_SPELLINGS = {"micron": "um", "mcm": "um", "in": "inch", '"': "inch", "inches": "inch", "angstrom": "å", "point": "pt"}
_PREFIXES = {"micro": "u", "nano": "n", "milli": "m", "centi": "c", "deci": "d", "pico": "p", "": ""}
for _long, _short in _PREFIXES.items():
    _SPELLINGS |= {f"{_long}meter": f"{_short}m", f"{_long}metre": f"{_short}m"}


def um_per(unit: object) -> float | None:
    """Microns in a unit of length; ``None`` for what is no unit of length, such as ``pixel``."""
    word = str(unit)
    for escaped in ("\\u00b5", "\\u00B5", "\\u03bc", "&#181;", "&micro;", "\u00c2\u00b5", "\ufffd"):
        word = word.replace(escaped, "\u00b5")
    # The micro sign and the Greek letter are one letter in this form
    word = unicodedata.normalize("NFKC", word).strip().rstrip(".").casefold().replace("\u03bc", "u")
    word = _SPELLINGS.get(word) or _SPELLINGS.get(word.removesuffix("s")) or word
    return _UM_PER.get(word)


def as_number(value: object) -> float:
    """Return a number that metadata keep as text, also with a decimal comma, or as an array of one value."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    array = np.asarray(value)
    if array.size != 1 or array.dtype == bool:
        msg = f"expected one number, found {value!r}"
        raise ValueError(msg)
    one = array.item()
    if isinstance(one, str) and one.count(",") == 1 and "." not in one:
        one = one.replace(",", ".")
    try:
        return float(one)
    except OverflowError as error:
        msg = "expected a number, found an integer larger than any length"
        raise ValueError(msg) from error


def check_mpp(value: object) -> float:
    """Return the argument ``mpp=`` as a number; reject text, pairs, and what is not positive."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        msg = f"`mpp` must be one number, the microns per full-resolution pixel (both sides alike), found {value!r}."
        raise TypeError(msg)
    return positive(value, "`mpp`")


def check_possible(mpp: float, measured: float | None = None) -> float:
    """Return the argument ``mpp=``; the error tells what the distance of the spots says, if it is known."""
    if not POSSIBLE[0] <= mpp <= POSSIBLE[1]:
        beside = f" By the distance of the spots it is {measured:.4g}." if measured else ""
        msg = (
            f"`mpp` must be the microns per full-resolution pixel, {POSSIBLE[0]:g} to {POSSIBLE[1]:g} (about 0.25 at 40x, "
            f"0.5 at 20x), found {mpp:g}. Is it in millimeters or nanometers?{beside}"
        )
        raise ValueError(msg)
    return mpp


def mpp_in_metadata(value: object, place: str) -> float:
    """Return microns per pixel that metadata state; a ValueError names the place and the cure."""
    sides = _sides(value)
    if not np.isfinite(sides).all() or not 1 <= len(sides) <= 2:
        msg = f"{place} is {value!r}, expected the microns per pixel as one number. Correct it, or pass `mpp=`."
        raise ValueError(msg)
    return square_mpp(sides[0], sides[-1], place)


def _sides(value: object) -> list[float]:
    """One number, or one for x and one for y; NaN for anything else."""
    try:
        return [as_number(side) for side in np.atleast_1d(np.asarray(value)).ravel()]
    except (TypeError, ValueError, OverflowError):
        return [np.nan]


def square_mpp(x: float, y: float, place: str) -> float:
    """Return microns per pixel from those along x and y; a ValueError says why there are none."""
    for side in (x, y):
        if not PLAUSIBLE[0] <= side <= PLAUSIBLE[1]:
            msg = (
                f"{place} states {side:.4g} microns per pixel, and slides have {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g}. "
                "Correct it, or pass `mpp=`."
            )
            raise ValueError(msg)
    if not 1 / SQUARE <= x / y <= SQUARE:
        msg = (
            f"{place} states pixels of {x:.4g} x {y:.4g} µm, which are not square. Resample the image to square pixels, "
            "or pass `mpp=` if that is wrong."
        )
        raise ValueError(msg)
    return x if x == y else float(np.sqrt(x * y))
