"""Patches of a section: lazy, padded at the border, cut from the resolution of the image that fits their size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sthggep._checks import positive

if TYPE_CHECKING:
    from sthggep._image._level import Level
    from sthggep._slides._slide import Slide


_MOST_SIDE = 1 << 14  # pixels of a field of view, a side: 800 MB
_MOST_BYTES = 1 << 29  # of fields of view that are read in one go


class Patches:
    """Square patches around the spots of one section; indexing reads them.

    Parameters
    ----------
    slide
        The section.
    size_um
        Field of view in microns. ``None`` cuts ``size_px`` full-resolution pixels.
    size_px
        Width and height of the patches returned.

    Notes
    -----
    ``patches[3]``, ``patches[10:20]`` and ``patches[[4, 2]]`` give uint8 arrays (n, size_px, size_px, 3). Outside the
    image a patch is white, like glass. A patch comes from the coarsest resolution that still has ``size_px`` pixels for
    it; its corner is rounded to a whole pixel, then the patch is resampled.
    """

    def __init__(self, slide: Slide, *, size_um: float | None = None, size_px: int = 112) -> None:
        self.slide = slide
        self.size_um = None if size_um is None else positive(float(size_um), "`size_um`")
        self.size_px = int(positive(size_px, "`size_px`"))
        self.width = float(size_px) if size_um is None else float(size_um) / slide.require_mpp()
        self.level: Level = level_for(slide, self.width, self.size_px)
        if self._level_width() > _MOST_SIDE:
            msg = (
                f"Section {slide.name!r}: a field of view is {self.width:,.0f} full-resolution pixels wide, too large to "
                f"read. Pass a smaller `size_um` or `size_px`, or the right `mpp=` (it is {slide.mpp})."
            )
            raise ValueError(msg)

    def __len__(self) -> int:
        return self.slide.n_spots

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of patches, height, width, channels."""
        return len(self), self.size_px, self.size_px, 3

    def boxes(self) -> NDArray[np.float64]:
        """Return the field of view of each patch: x0, y0, x1, y1 in full-resolution pixels, shape (n_spots, 4)."""
        return np.asarray(self._level_boxes(np.arange(len(self))) / np.tile(self.level.scale, 2), dtype=np.float64)

    def __getitem__(self, index: int | slice | ArrayLike) -> NDArray[np.uint8]:
        rows = np.arange(len(self))[index]  # type: ignore[index]
        boxes = self._level_boxes(np.atleast_1d(rows))
        out = np.empty((len(boxes), *self.shape[1:]), np.uint8)
        # Fields of view that are large in pixels are read a few at a time
        step = max(1, _MOST_BYTES // (3 * self._level_width() ** 2))
        for start in range(0, len(boxes), step):
            for i, cut in enumerate(self.level.read(boxes[start : start + step])):
                out[start + i] = self._resample(cut)
        if self.slide.stain is not None:
            out = self.slide.stain(out)
        return out[0] if np.ndim(rows) == 0 else out

    def sweep(self) -> NDArray[np.intp]:
        """Order the patches so that each block of the image is read about once."""
        return self.level.sweep(self.slide.xy * np.array(self.level.scale))

    def batches(self, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        """Iterate over all patches in order, ``batch_size`` at a time."""
        for start in range(0, len(self), int(positive(batch_size, "`batch_size`"))):
            yield self[start : start + batch_size]

    def _level_width(self) -> int:
        """Width of a field of view in pixels of the level that is read."""
        return max(1, round(self.width * max(self.level.scale)))

    def _level_boxes(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        scale = np.array(self.level.scale)
        width = np.maximum(1, np.rint(self.width * scale)).astype(np.int64)
        corner = self.slide.xy[rows] * scale - width / 2
        # A size in pixels truncates coordinates, as published; a size in microns takes the nearest pixel
        corner = (np.floor(corner) if self.size_um is None else np.rint(corner)).astype(np.int64)
        return np.hstack([corner, corner + width])

    def _resample(self, patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if patch.shape[:2] == (self.size_px, self.size_px):
            return patch
        from PIL import Image

        size = (self.size_px, self.size_px)
        return np.asarray(Image.fromarray(patch).resize(size, Image.Resampling.BILINEAR))

    def __repr__(self) -> str:
        view = f"{self.size_um:g} µm" if self.size_um else f"{self.size_px} full-resolution px"
        return f"Patches of {self.slide.name!r}: {len(self)} × {self.size_px} × {self.size_px} px, field of view {view}"


def level_for(slide: Slide, width: float, size_px: int) -> Level:
    """Return the coarsest resolution with enough pixels, or the finest if none has enough."""
    enough = [level for level in slide.levels if width * min(level.scale) >= size_px - 0.5]
    return enough[-1] if enough else slide.levels[0]
