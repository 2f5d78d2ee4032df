"""Microns per pixel, channel names and bits that the metadata of a TIFF series state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthggep._image._microns import PLAUSIBLE, as_number, square_mpp, um_per
from sthggep._image._ome import OmeImage, ome_image_of
from sthggep._log import ONCE, log

if TYPE_CHECKING:
    import tifffile

_APERIO_MPP = re.compile(r"\bMPP\s*=\s*([0-9.,]+(?:e[-+]?\d+)?)", re.IGNORECASE)
_NO_UNIT, _INCH, _CM = 1, 2, 3


def series_mpp(path: Path, tif: tifffile.TiffFile, number: int) -> float | None:
    """Return microns per pixel of a series: OME, Aperio's `MPP`, or the resolution tags; ``None`` if all are senseless."""
    for x, y, place in _statements(tif, number):
        mpp = usable_mpp(path, x, y, place)
        if mpp is not None:
            return mpp
    return None


def usable_mpp(path: Path, x: float, y: float, place: str) -> float | None:
    """Return microns per pixel from both sides of a pixel; log why they are of no use."""
    try:
        return square_mpp(x, y, f"{path} ({place})")
    except ValueError as error:
        # Programs that know of no microscope write a print resolution
        say = log.info if max(x, y) > PLAUSIBLE[1] else log.warning
        say("%s sthggep does not use the value.", error, extra=ONCE)
        return None


def _statements(tif: tifffile.TiffFile, number: int) -> Iterator[tuple[float, float, str]]:
    """Microns along x and y that the metadata state, and where, the most reliable first."""
    image = ome_image_of(tif, number)
    stated = None if image is None else _quietly(image)
    if stated is not None:
        yield *stated, "PhysicalSizeX of OME"
    page = tif.series[number].keyframe
    aperio = _APERIO_MPP.search(page.description or "")
    if aperio:
        mpp = _number(aperio.group(1).rstrip(".,"))
        yield mpp, mpp, "MPP of Aperio"
    x, y = (_per_pixel(page, f"{axis}Resolution") for axis in "XY")
    unit = _resolution_unit(tif, page)
    if unit is not None and x is not None:
        yield x * unit, (x if y is None else y) * unit, "XResolution"


def _quietly(image: OmeImage) -> tuple[float, float] | None:
    try:
        return image.mpp()
    except ValueError:
        return np.nan, np.nan


def _number(text: str) -> float:
    try:
        return as_number(text)
    except ValueError:
        return np.nan


def _per_pixel(page: tifffile.TiffPage, tag: str) -> float | None:
    """Units per pixel of a resolution tag, a fraction or a number."""
    value = page.tags.valueof(tag)
    numbers = np.atleast_1d(np.asarray(value if value is not None else [], dtype=float))
    if len(numbers) not in (1, 2) or not all(numbers):
        return None
    return float(numbers[-1] / numbers[0]) if len(numbers) == 2 else float(1 / numbers[0])


def _resolution_unit(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    """Microns in the unit of the resolution tags; ImageJ names its own, and the standard's default is the inch."""
    imagej = (tif.imagej_metadata or {}) if tif.is_imagej else {}
    unit = int(page.tags.valueof("ResolutionUnit", _NO_UNIT if imagej else _INCH))
    if unit in (_INCH, _CM):
        return um_per("inch" if unit == _INCH else "cm")
    return um_per(imagej["unit"]) if "unit" in imagej else None


def channel_names(tif: tifffile.TiffFile, number: int, n_channels: int) -> list[str]:
    """Names of the channels of a series that are pages of their own, from OME or ImageJ; empty where there are none."""
    image = ome_image_of(tif, number)
    names: list[object] = [*image.channel_names()] if image is not None else []
    if not names and tif.is_imagej:
        labels = (tif.imagej_metadata or {}).get("Labels", [])
        names = [labels] if isinstance(labels, str) else list(labels)
    return [str(name) for name in names] if len(names) == n_channels else [""] * n_channels


def stated_bits(tif: tifffile.TiffFile, number: int) -> int | None:
    """Bits that hold values, by OME or the tag `MaxSampleValue`, if these state less than 16."""
    image = ome_image_of(tif, number)
    bits = None if image is None else image.significant_bits()
    largest = tif.series[number].keyframe.tags.valueof("MaxSampleValue")
    if bits is None and largest is not None:
        bits = int(np.max(largest)).bit_length()
    return bits if bits and 8 <= bits <= 16 else None
