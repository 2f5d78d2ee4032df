"""Slides that only OpenSlide reads (MIRAX, Hamamatsu VMS, Zeiss, DICOM), where it is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import dask.array as da
    import openslide

_CHUNK = 1024
ENDINGS = (".mrxs", ".vms", ".vmu", ".czi", ".dcm")


def can_read(path: Path) -> bool:
    """Whether OpenSlide is installed and knows the file; an ImportError if only OpenSlide reads such files."""
    try:
        import openslide
    except (ImportError, OSError) as error:  # without its library the package raises either
        if path.suffix.lower() not in ENDINGS:
            return False
        msg = (
            f'{path} is a slide that OpenSlide reads, and OpenSlide is not installed: pip install "sthggep[openslide]"'
        )
        raise ImportError(msg) from error
    return openslide.OpenSlide.detect_format(path) is not None


def open_slide(path: Path) -> openslide.OpenSlide:
    """Open a slide; a damaged one raises a ValueError that says what to do."""
    import openslide

    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        msg = f"{path} is truncated or damaged ({error}). Fetch or export the file again."
        raise ValueError(msg) from error


def slide_arrays(path: Path) -> list[da.Array]:
    """Return the resolutions of a slide as lazy RGBA arrays, finest first; unscanned areas are transparent."""
    import dask.array as da

    slide = open_slide(path)
    levels = [_SlideLevel(path, level, size) for level, size in enumerate(slide.level_dimensions)]
    slide.close()
    chunks = [tuple(min(side, _CHUNK) for side in level.shape) for level in levels]
    return [da.from_array(level, chunks=size, asarray=False) for level, size in zip(levels, chunks, strict=True)]


def slide_mpp(path: Path) -> float | None:
    """Read the microns per full-resolution pixel from the properties of a slide."""
    slide = open_slide(path)
    stated = slide.properties.get("openslide.mpp-x")
    slide.close()
    return None if stated is None else float(stated)


class _SlideLevel:
    """One level of a slide as an array; each process opens its own handle."""

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, path: Path, level: int, size: tuple[int, int]) -> None:
        self.path, self.level = path, level
        self.shape = (size[1], size[0], 4)
        self._slide: openslide.OpenSlide | None = None
        self._pid: int | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_slide": None, "_pid": None}

    def __getitem__(self, index: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        import openslide

        if self._slide is None or self._pid != os.getpid():
            self._slide, self._pid = open_slide(self.path), os.getpid()
        (top, bottom, _), (left, right, _) = (
            part.indices(size) for part, size in zip(index[:2], self.shape[:2], strict=True)
        )
        if bottom <= top or right <= left:
            return np.empty((max(0, bottom - top), max(0, right - left), 4), np.uint8)[:, :, index[2]]
        # OpenSlide takes the corner in pixels of the finest level
        scale = self._slide.level_downsamples[self.level]
        corner = (round(left * scale), round(top * scale))
        try:
            region = self._slide.read_region(corner, self.level, (right - left, bottom - top))
        except openslide.OpenSlideError as error:
            msg = f"{self.path} is damaged: a part of it cannot be read ({error}). Fetch or export the file again."
            raise ValueError(msg) from error
        return np.asarray(region)[:, :, index[2]]
