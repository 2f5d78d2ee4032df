"""Values that metadata hold, whatever a file or a join has made of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sthggep._checks import positive
from sthggep._image._microns import as_number, mpp_in_metadata
from sthggep._log import NOTEBOOK, ONCE, log


def as_length(value: object, what: str) -> float:
    """Return a positive number, also one that a file keeps as text or as an array of one value."""
    try:
        return positive(as_number(value), what)
    except (TypeError, ValueError) as error:
        msg = f"{what} must be a positive number, found {value!r}."
        raise ValueError(msg) from error


def length_or_none(value: object, place: str) -> float | None:
    """Return a positive number of metadata; what is none is left out, and logged unless it is ``None``."""
    if value is None:
        return None
    try:
        return as_length(value, place)
    except ValueError as error:
        log.warning("%s sthggep does not use it.", error, extra=ONCE | NOTEBOOK)
        return None


def first_mpp(statements: Mapping[str, object]) -> tuple[float | None, str]:
    """Return the microns per pixel at the first place that states any, else why the first statement is of no use.

    The fault is for later: the argument ``mpp=`` and the distance of the spots overrule what the metadata state.
    """
    faults = []
    for place, value in statements.items():
        if value is None:
            continue
        try:
            return mpp_in_metadata(value, place), ""
        except ValueError as error:
            faults.append(str(error))
    return None, next(iter(faults), "")


def is_text(value: object) -> bool:
    """Whether a value is text, also as an array of one text."""
    array = np.asarray(value) if isinstance(value, str | np.ndarray) else None
    return array is not None and array.size == 1 and array.dtype.kind in "UTO" and isinstance(array.item(), str)
