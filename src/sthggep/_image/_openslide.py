"""Slides that only OpenSlide reads (MIRAX, Hamamatsu VMS, Zeiss, DICOM), where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._image._handles import Handles, stamp_of
from sthggep._image._microns import as_number
from sthggep._image._sizes import check_in_parts

if TYPE_CHECKING:
    import dask.array as da
    import openslide

_CHUNK = 1024
ENDINGS = (".mrxs", ".vms", ".vmu", ".czi", ".dcm")


def is_installed() -> bool:
    """Whether OpenSlide can be imported; without its library the package raises an OSError."""
    try:
        import openslide  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def can_read(path: Path) -> bool:
    """Whether OpenSlide is installed and knows the file; an ImportError if only OpenSlide reads such files."""
    if not is_installed():
        if path.suffix.lower() not in ENDINGS:
            return False
        msg = (
            f'{path} is a slide that OpenSlide reads, and OpenSlide is not installed: pip install "sthggep[openslide]"'
        )
        raise ImportError(msg)
    import openslide

    return openslide.OpenSlide.detect_format(path) is not None


def open_slide(path: Path) -> openslide.OpenSlide:
    """Open a slide; a damaged one raises a ValueError that says what to do."""
    import openslide

    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        msg = f"{path} is truncated or damaged ({error}). Fetch or export the file again."
        raise ValueError(msg) from error


_SLIDES = Handles(open_slide)


def slide_arrays(path: Path) -> list[da.Array]:
    """Return the resolutions of a slide as lazy RGBA arrays, finest first; unscanned areas are transparent."""
    import dask.array as da

    _SLIDES.forget(path)
    with open_slide(path) as slide:
        levels = [_SlideLevel(path, level, size) for level, size in enumerate(slide.level_dimensions)]
    for level in levels:
        # The pixels may lie in files beside this one, so that its own size tells nothing
        check_in_parts(path, level.shape[1], level.shape[0], 0, 0)
    chunks = [tuple(min(side, _CHUNK) for side in level.shape) for level in levels]
    return [da.from_array(level, chunks=size, asarray=False) for level, size in zip(levels, chunks, strict=True)]


def slide_mpp(path: Path) -> tuple[float, float] | None:
    """Read the microns per full-resolution pixel, along x and y, from the properties of a slide."""
    with open_slide(path) as slide:
        stated = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    sides = [as_number(side) for side in stated if side is not None]
    return (sides[0], sides[-1]) if sides else None


class _SlideLevel:
    """One level of a slide as an array."""

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, path: Path, level: int, size: tuple[int, int]) -> None:
        self.path, self.level, self.stamp = path, level, stamp_of(path)
        self.shape = (size[1], size[0], 4)

    def __getitem__(self, index: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        import openslide

        (top, bottom, _), (left, right, _) = (
            part.indices(size) for part, size in zip(index[:2], self.shape[:2], strict=True)
        )
        if bottom <= top or right <= left:
            return np.empty((max(0, bottom - top), max(0, right - left), 4), np.uint8)[:, :, index[2]]
        try:
            with _SLIDES.use(self.path, self.stamp) as slide:
                # OpenSlide takes the corner in pixels of the finest level
                scale = slide.level_downsamples[self.level]
                corner = (round(left * scale), round(top * scale))
                region = slide.read_region(corner, self.level, (right - left, bottom - top))
        except openslide.OpenSlideError as error:
            msg = f"{self.path} is damaged: a part of it cannot be read ({error}). Fetch or export the file again."
            raise ValueError(msg) from error
        return np.asarray(region)[:, :, index[2]]
