"""Encoding of the tissue in large tiles: features of a spot are means of feature maps over its field of view."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._encoders._pooling import FLIPS, Boxes, Flip, pool_map
from sthggep._encoders._sweep import run_ahead
from sthggep._slides._patches import level_for

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._progress import Progress
    from sthggep._slides._slide import Slide

TILE_PX = 3072
"""Side of the squares whose spots are encoded together, in pixels that the encoder reads: a multiple of every stride."""
PART_PX = 256
"""Side of the parts of the grid that are resampled one by one. A part has the same pixels whatever tile reads it."""


class TissueEncoding:
    """One field of view of a section and the encoder that encodes the tissue.

    The pixels that the encoder reads lie on one grid over the slide, at the resolution at which a field of view has the
    encoder's size. A tile is a square of that grid. The encoder reads the tile, the fields of view of its spots and the
    context that the encoder's receptive field reaches. So the features of a spot do not depend on the other spots.

    Parameters
    ----------
    slide
        The section.
    frozen
        The encoder, whose entry declares feature maps.
    size_um
        Field of view.
    flips
        Average over the four flips of each tile.
    tile_px
        Side of a tile, a multiple of the largest stride. Default: ``TILE_PX``.
    """

    name, unit = "tissue", "mm²"

    def __init__(
        self, slide: Slide, frozen: FrozenEncoder, size_um: float, *, flips: bool, tile_px: int | None = None
    ) -> None:
        self.slide, self.frozen, self.flips = slide, frozen, flips
        self.sizes_um, self.maps = [size_um], frozen.maps
        self.half = frozen.entry.size_px / 2
        self.zoom = slide.require_mpp() * frozen.entry.size_px / size_um
        self.centers = slide.xy * self.zoom
        self.level = level_for(slide, frozen.entry.size_px / self.zoom, frozen.entry.size_px)
        self.tiles = np.floor(self.centers / (tile_px or TILE_PX)).astype(np.int64)
        self.blocks = self._rows_by_tile()

    def _rows_by_tile(self) -> list[NDArray[np.intp]]:
        """Rows of the spots of each tile that has spots; the tiles in bands, to and fro."""
        places, numbers = np.unique(self.tiles, axis=0, return_inverse=True)
        order = np.lexsort((np.where(places[:, 1] % 2, -places[:, 0], places[:, 0]), places[:, 1]))
        return [np.flatnonzero(numbers.ravel() == number) for number in order]

    def amount(self, rows: NDArray[np.intp]) -> float:
        """Return the area of the tiles of these spots that the encoder reads, in mm²."""
        pixels = sum(int(np.prod(self.window(rows[at])[1])) for at in self._by_tile(rows))
        return pixels * (self.sizes_um[0] / self.frozen.entry.size_px / 1000) ** 2

    def run(
        self, rows: NDArray[np.intp], bar: Progress | None = None
    ) -> Iterator[tuple[float, slice, NDArray[np.float32]]]:
        """Encode these spots; yield the field of view, the positions among ``rows``, and the values of each tile."""
        parts = self._by_tile(rows)
        tasks = (partial(self.read, *self.window(rows[at])) for at in parts)
        for at, pixels in zip(parts, run_ahead(tasks, ahead=1), strict=True):
            yield self.sizes_um[0], at, self.encode(rows[at], pixels)
            if bar is not None:
                bar.update(self.amount(rows[at]))

    def _by_tile(self, rows: NDArray[np.intp]) -> list[slice]:
        """Split rows into runs of spots of one tile."""
        borders = np.flatnonzero((np.diff(self.tiles[rows], axis=0) != 0).any(axis=1)) + 1
        edges = [0, *borders.tolist(), len(rows)]
        return [slice(first, stop) for first, stop in pairwise(edges) if stop > first]

    def window(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return corner and size, (x, y) in the encoder's pixels, of what it reads to encode these spots."""
        centers = self.centers[rows]
        return self.maps.window(centers.min(axis=0) - self.half, centers.max(axis=0) + self.half)

    def read(self, corner: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read pixels of the encoder's grid, uint8 (height, width, 3); white outside the image."""
        (left, top), (right, bottom) = corner.tolist(), (corner + size).tolist()
        out = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
        for row in range(top // PART_PX * PART_PX, bottom, PART_PX):
            for column in range(left // PART_PX * PART_PX, right, PART_PX):
                x0, y0 = max(left, column), max(top, row)
                x1, y1 = min(right, column + PART_PX), min(bottom, row + PART_PX)
                part = self._part(column, row)[y0 - row : y1 - row, x0 - column : x1 - column]
                out[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return out if self.slide.stain is None else self.slide.stain(out[None])[0]

    def _part(self, left: int, top: int) -> NDArray[np.uint8]:
        """Resample one part of the grid from the level."""
        from PIL import Image

        ratio = np.array(self.level.scale) / self.zoom  # pixels of the level a pixel of the grid
        start = np.array([left, top]) * ratio
        stop = np.array([left + PART_PX, top + PART_PX]) * ratio
        # The filter reads beyond the part, so that parts fit together without seams
        reach = np.ceil(np.maximum(ratio, 1)) + 1
        first, last = np.floor(start) - reach, np.ceil(stop) + reach
        pixels = self.level.read(np.concatenate([first, last]).astype(np.int64)[None])[0]
        box = tuple(np.concatenate([start - first, stop - first]).tolist())
        return np.asarray(Image.fromarray(pixels).resize((PART_PX, PART_PX), Image.Resampling.BILINEAR, box=box))

    def encode(self, rows: NDArray[np.intp], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode a tile and pool its feature maps over the fields of view of the spots."""
        corner, _ = self.window(rows)
        centers = self.centers[rows] - corner
        boxes = Boxes(centers - self.half, centers + self.half)
        flips = FLIPS if self.flips else FLIPS[:1]
        mean: NDArray[np.float32] = np.mean([self._pool(pixels, flip, boxes) for flip in flips], axis=0)
        return mean

    def _pool(self, pixels: NDArray[np.uint8], flip: Flip, boxes: Boxes) -> NDArray[np.float32]:
        """Means of the feature maps of one view over boxes, side by side."""
        pairs = zip(self.frozen.encode_maps(pixels, flip, boxes), self.maps.strides, strict=True)
        parts = [pool_map(values, stride, flip, boxes, centered=self.maps.centered) for values, stride in pairs]
        return np.concatenate(parts, axis=1, dtype=np.float32)
