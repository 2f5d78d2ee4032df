"""Which series of a TIFF file is the slide: labels, macros, masks and stains are left out, and rivals are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthggep._image._channels import color_channels
from sthggep._image._ome import ome_image_of
from sthggep._image._tiff_colors import PALETTE, RGB, SEPARATED, YCBCR
from sthggep._image._tiff_metadata import channel_names
from sthggep._log import ONCE, log

if TYPE_CHECKING:
    import tifffile

# Pictures of the glass that scanners store beside the slide
_BESIDE = re.compile(r"\b(label|macro|thumbnail|overview|map|probability|preview|barcode)\b", re.IGNORECASE)
_AXES = ("yx", "yxc", "cyx")
_RIVAL = 0.26  # of the largest area; a copy of half the size has a quarter


def choose_series(path: Path, tif: tifffile.TiffFile, wanted: int | None) -> tuple[int, tifffile.TiffPageSeries, str]:
    """Return number, series and axes (``"yx"``, ``"yxc"`` or ``"cyx"``) of the slide in a TIFF file."""
    every = list(enumerate(tif.series))
    if wanted is not None:
        if not 0 <= wanted < len(every):
            msg = f"{path} has no series {wanted!r}; it holds {_listing(every)}."
            raise ValueError(msg)
        number, series = every[wanted]
        return number, series, series_axes(path, series)
    whole = [item for item in every if area(item[1]) and item[1].keyframe is not None]
    if not whole:
        msg = f"{path} is a truncated or damaged TIFF file (it holds no image). Fetch or export the file again."
        raise ValueError(msg)
    slides = [item for item in whole if not _BESIDE.search(item[1].name or "") and not item[1].keyframe.is_mask]
    slides = slides or whole
    in_color = [item for item in slides if _is_color(tif, *item)]
    number, series = max(in_color or slides, key=lambda item: area(item[1]))
    _refuse_rivals(path, tif, number, in_color)
    if len(every) > 1:
        log.info("%s holds %s; sthggep reads series %d.", path, _listing(every), number, extra=ONCE)
    return number, series, series_axes(path, series)


def _listing(every: list[tuple[int, tifffile.TiffPageSeries]]) -> str:
    parts = []
    for number, series in every[:12]:
        height, width = _sides(series)
        parts.append(f"series {number} ({series.name + ', ' if series.name else ''}{width:,} x {height:,} px)")
    return ", ".join(parts) + (f", … ({len(every)} in all)" if len(every) > 12 else "")


def _refuse_rivals(
    path: Path, tif: tifffile.TiffFile, chosen: int, series: list[tuple[int, tifffile.TiffPageSeries]]
) -> None:
    """Reject a file with a second slide: one of about the same size, or a finer one."""
    best = tif.series[chosen]
    others = [item for item in series if item[0] != chosen]
    rivals = [
        (number, other)
        for number, other in others
        if (area(other) > _RIVAL * area(best) and not _is_copy(best, other)) or _is_finer(tif, number, chosen)
    ]
    if rivals:
        msg = (
            f"{path} holds several images that may be the slide: {_listing(sorted([(chosen, best), *rivals]))}. Choose one "
            f"by `sthggep.io.read_slide(path, series={chosen})`, or export it alone."
        )
        raise ValueError(msg)


def _is_copy(best: tifffile.TiffPageSeries, other: tifffile.TiffPageSeries) -> bool:
    """Whether a series is smaller than another and of the same proportions."""
    (height, width), (other_height, other_width) = _sides(best), _sides(other)
    down, across = height / other_height, width / other_width
    return min(down, across) > 1.4 and 0.95 < down / across < 1.05


def _is_finer(tif: tifffile.TiffFile, number: int, chosen: int) -> bool:
    """Whether a series has less than half the microns per pixel of another, by OME."""
    mine, other = (ome_image_of(tif, each) for each in (chosen, number))
    try:
        sizes = [image.mpp() for image in (mine, other) if image is not None]
    except ValueError:
        return False
    if len(sizes) < 2 or sizes[0] is None or sizes[1] is None:
        return False
    return 0 < sizes[1][0] < 0.5 * sizes[0][0]


def _is_color(tif: tifffile.TiffFile, number: int, series: tifffile.TiffPageSeries) -> bool:
    if int(series.keyframe.photometric) in (RGB, PALETTE, SEPARATED, YCBCR):
        return True
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if np.dtype(series.dtype).itemsize > 2 or 3 not in (sizes.get("S"), sizes.get("C")):
        return False
    return sizes.get("C") != 3 or color_channels(channel_names(tif, number, 3)) is not None


def _sides(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return int(sizes.get("Y", 0)), int(sizes.get("X", 0))


def area(series: tifffile.TiffPageSeries) -> int:
    """Number of pixels of one plane."""
    height, width = _sides(series)
    return height * width


def series_axes(path: Path, series: tifffile.TiffPageSeries) -> str:
    """Axes of a series without those of length one."""
    names = "".join(name for name, size in zip(series.axes, series.shape, strict=True) if size > 1 or name in "YX")
    order = names.lower().replace("s", "c")
    if order not in _AXES:
        msg = (
            f"{path} holds an image with axes {series.axes} of sizes {series.shape}; expected one plane of gray, RGB "
            "or RGBA. Export a single plane (no z-stack, no time points) first."
        )
        raise ValueError(msg)
    return order
