"""Encoding of the tissue in large tiles: features of a spot are means of feature maps over its field of view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sthggep._encoders._entry import AROUND_UM
from sthggep._encoders._pooling import FLIPS, Boxes, Flip, pool_map
from sthggep._encoders._reference_windows import reference_windows
from sthggep._encoders._sweep import run_side_by_side
from sthggep._slides._patches import level_for

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._encoders._readout import Readout
    from sthggep._progress import Progress
    from sthggep._slides._slide import Slide

TILE_PX = 3072
"""Side of the squares that are encoded one by one, in pixels that the encoder reads."""
READ_PX = 2048
"""Side of the squares that are read from the slide at once, in its pixels."""
VIEWS = tuple((flip, turned) for turned in (False, True) for flip in FLIPS)
"""The eight turns and flips of a square: flips in x and y, and whether x and y are swapped after that."""
BLOCK_TILES = 4
"""Tiles along the side of the squares whose spots are kept on disk together."""
PART_PX = 256
"""Side of the parts of the grid that are resampled one by one. A part has the same pixels whatever tile reads it."""


class Tile(NamedTuple):
    """A part of the tissue that is encoded at once, in the encoder's pixels, and the positions of the spots over it."""

    start: NDArray[np.float64]
    stop: NDArray[np.float64]
    at: NDArray[np.intp]


class TissueEncoding:
    """One field of view of a section and the encoder that encodes the tissue.

    The pixels that the encoder reads lie on one grid over the slide, at the resolution at which a field of view has the
    encoder's size. A tile is a square of that grid; the encoder reads it with the context that its receptive field
    reaches. Each tile adds its part to the windows that lie over it, so that only context is encoded twice, and the
    features of a spot do not depend on the other spots. A spot has several windows: its field of view, and wider ones,
    which stand for the tissue around it as hyperedges stand for its neighbors.

    Parameters
    ----------
    slide
        The section.
    frozen
        The encoder, whose entry declares feature maps.
    size_um
        Field of view.
    xy
        Centers of the windows in full-resolution pixels. Default: the spots, and after them the reference windows.
    spots
        Without ``xy``, whether the spots are among the windows.
    flips
        Average over all eight turns and flips of each tile; features of a slide that is turned or flipped are then the
        same.
    tile_px
        Side of a tile. Default: ``TILE_PX``.
    windows_um
        Sides of the windows over which the maps are pooled. Default: ``size_um``, and ``AROUND_UM`` wider.
    readout
        Weights that turn the encoder's features into a few values, applied to the maps before these are pooled.
        Default: the features themselves.
    """

    name, unit = "tissue", "mm²"

    def __init__(
        self,
        slide: Slide,
        frozen: FrozenEncoder,
        size_um: float,
        xy: NDArray[np.float64] | None = None,
        *,
        flips: bool,
        spots: bool = True,
        tile_px: int | None = None,
        windows_um: Sequence[float] | None = None,
        readout: Readout | None = None,
    ) -> None:
        self.slide, self.frozen, self.flips, self.readout = slide, frozen, flips, readout
        self.sizes_um, self.maps = [size_um], frozen.maps
        windows_um = (size_um, *(size_um + around for around in AROUND_UM)) if windows_um is None else windows_um
        self.halves = [frozen.entry.size_px / 2 * each / size_um for each in windows_um]
        self.dim = len(self.halves) * frozen.dim(self.name) if readout is None else readout.width
        self.zoom = slide.require_mpp() * frozen.entry.size_px / size_um
        windows = np.empty((0, 2))
        if xy is None:
            windows = reference_windows(slide, (2 * max(self.halves) + 2 * self.maps.context_px) ** 2)
            xy = np.concatenate([slide.xy, windows]) if spots else windows
        self.xy, self.n_reference = xy, len(windows)
        self.centers = self.xy * self.zoom
        self.level = level_for(slide, frozen.entry.size_px / self.zoom, frozen.entry.size_px)
        self.tile_px = tile_px or TILE_PX
        self.blocks = self._rows_by_block()
        self._turn = Lock()

    def _rows_by_block(self) -> list[NDArray[np.intp]]:
        """Rows of the spots of each square of ``BLOCK_TILES`` tiles that has spots; the squares in bands, to and fro."""
        squares = np.floor(self.centers / (BLOCK_TILES * self.tile_px)).astype(np.int64)
        places, numbers = np.unique(squares, axis=0, return_inverse=True)
        order = np.lexsort((np.where(places[:, 1] % 2, -places[:, 0], places[:, 0]), places[:, 1]))
        return [np.flatnonzero(numbers.ravel() == number) for number in order]

    def amount(self, rows: NDArray[np.intp]) -> float:
        """Return the area that the encoder reads for these spots, in mm²."""
        return sum(self._area(tile) for tile in self.plan(rows))

    def _area(self, tile: Tile) -> float:
        return self._pixels(tile) * (self.sizes_um[0] / self.frozen.entry.size_px / 1000) ** 2

    def _pixels(self, tile: Tile) -> float:
        """Return the number of pixels that the encoder reads, context included."""
        return float(np.prod(self.maps.window(tile.start, tile.stop)[1]))

    def run(
        self, rows: NDArray[np.intp], bar: Progress | None = None
    ) -> Iterator[tuple[float, NDArray[np.intp], NDArray[np.float32]]]:
        """Encode these spots; yield the field of view, the positions among ``rows``, and what a tile adds to their values."""
        tiles = self.plan(rows)
        tasks = (partial(self.encode, rows, tile) for tile in tiles)
        for tile, values in zip(tiles, run_side_by_side(tasks, self.frozen.device.type), strict=True):
            yield self.sizes_um[0], tile.at, values
            if bar is not None:
                bar.update(self._area(tile))

    def plan(self, rows: NDArray[np.intp]) -> list[Tile]:
        """List the tiles to encode for these spots: squares of the grid, or the windows one by one where that is less.

        Single windows far apart are encoded by themselves; the reference windows may be so, and the spots not.
        """
        at = np.arange(len(rows))
        references = rows >= len(self.xy) - self.n_reference
        plans = [self._plan_squares(rows, at)]
        most = sum(map(self._pixels, plans[0]))
        side = 2 * max(self.halves)
        for alone, together in ((at, at[:0]), (at[references], at[~references])):
            # Without context they already are more: no plan of their own for very many windows
            if side <= self.tile_px and 0 < len(alone) * side**2 < most:
                plans.append(self._plan_squares(rows, together) + self._plan_windows(rows, alone))
        return min(plans, key=lambda tiles: sum(map(self._pixels, tiles)))

    def _plan_windows(self, rows: NDArray[np.intp], at: NDArray[np.intp]) -> list[Tile]:
        """Plan a tile for each of these windows."""
        centers, half = self.centers[rows], max(self.halves)
        return [Tile(centers[i] - half, centers[i] + half, np.array([i])) for i in at]

    def _plan_squares(self, rows: NDArray[np.intp], among: NDArray[np.intp]) -> list[Tile]:
        """List the squares of the grid that these windows touch; of each, only the part under the windows is read."""
        if not len(among):
            return []
        half, side = max(self.halves), self.tile_px
        start, stop = self.centers[rows[among]] - half, self.centers[rows[among]] + half
        first, last = np.floor(start / side).astype(np.int64), np.ceil(stop / side).astype(np.int64) - 1
        places, positions = [], []
        for x, y in np.ndindex(*(1 + (last - first).max(axis=0)).tolist()):
            place = first + np.array([x, y])
            touched = np.flatnonzero((place <= last).all(axis=1))
            places.append(place[touched])
            positions.append(touched)
        touching, at = np.concatenate(places), np.concatenate(positions)
        # In bands, to and fro, so that blocks of the image are decoded once
        turned = np.where(touching[:, 1] % 2, -touching[:, 0], touching[:, 0])
        order = np.lexsort((at, turned, touching[:, 1]))
        touching, at = touching[order], at[order]
        borders = np.flatnonzero((np.diff(touching, axis=0) != 0).any(axis=1)) + 1
        tiles = []
        for part in np.split(np.arange(len(at)), borders):
            corner, spots = touching[part[0]] * side, at[part]
            low = np.maximum(start[spots].min(axis=0), corner)
            tiles.append(Tile(low, np.minimum(stop[spots].max(axis=0), corner + side), among[spots]))
        return tiles

    def read(self, corner: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read pixels of the encoder's grid, uint8 (height, width, 3); white outside the image."""
        (left, top), (right, bottom) = corner.tolist(), (corner + size).tolist()
        out = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
        first, last = (side // PART_PX * PART_PX for side in (left, top)), (right, bottom)
        # As many parts at once as a few megapixels of the level hold
        step = PART_PX * max(1, int(READ_PX / PART_PX / max(self._ratio)))
        groups = (range(start, stop, step) for start, stop in zip(first, last, strict=True))
        for x, y in product(*groups):
            ends = (min(x + step, right), min(y + step, bottom))
            parts = list(product(range(x, ends[0], PART_PX), range(y, ends[1], PART_PX)))
            corner, end = self._source(*parts[0])[0], self._source(*parts[-1])[1]
            pixels = self.level.read(np.concatenate([corner, end])[None])[0]
            for column, row in parts:
                x0, y0 = max(left, column), max(top, row)
                x1, y1 = min(right, column + PART_PX), min(bottom, row + PART_PX)
                part = self._resample(pixels, corner, column, row)[y0 - row : y1 - row, x0 - column : x1 - column]
                out[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return out if self.slide.stain is None else self.slide.stain(out[None])[0]

    @property
    def _ratio(self) -> NDArray[np.float64]:
        """Pixels of the level a pixel of the grid, in x and in y."""
        return np.array(self.level.scale) / self.zoom

    def _source(self, column: int, row: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the corners of the pixels of the level from which a part of the grid is resampled."""
        # The filter reads beyond the part, so that parts fit together without seams
        reach = np.ceil(np.maximum(self._ratio, 1)) + 1
        place = np.array([column, row])
        first, last = np.floor(place * self._ratio) - reach, np.ceil((place + PART_PX) * self._ratio) + reach
        return first.astype(np.int64), last.astype(np.int64)

    def _resample(
        self, pixels: NDArray[np.uint8], corner: NDArray[np.int64], column: int, row: int
    ) -> NDArray[np.uint8]:
        """Resample one part of the grid from pixels of the level, which begin at ``corner``."""
        from PIL import Image

        first, last = self._source(column, row)
        (x0, y0), (x1, y1) = first - corner, last - corner
        place = np.array([column, row])
        box = np.concatenate([place * self._ratio - first, (place + PART_PX) * self._ratio - first])
        part = Image.fromarray(pixels[y0:y1, x0:x1])
        return np.asarray(part.resize((PART_PX, PART_PX), Image.Resampling.BILINEAR, box=tuple(box.tolist())))

    def encode(self, rows: NDArray[np.intp], tile: Tile) -> NDArray[np.float32]:
        """Encode a tile, and integrate its feature maps over the windows of the spots, relative to their areas."""
        corner, size = self.maps.window(tile.start, tile.stop)
        pixels, centers = self.read(corner, size), self.centers[rows[tile.at]]
        whole = [Boxes(centers - half, centers + half) for half in self.halves]
        parts = [boxes.clip(tile.start, tile.stop) for boxes in whole]
        boxes = [Boxes(part.start - corner, part.stop - corner) for part in parts]
        views = VIEWS if self.flips else VIEWS[:1]
        # Threads read tiles ahead of a GPU, whose memory holds one at a time
        with self._turn if self.frozen.device.type != "cpu" else nullcontext():
            total = np.sum([self._pool(pixels, *view, boxes) for view in views], axis=0) / len(views)
        shares = [part / boxes.area[:, None] for part, boxes in zip(total, whole, strict=True)]
        joined: NDArray[np.float64] = np.concatenate(shares, axis=1) if self.readout is None else np.sum(shares, axis=0)
        return joined.astype(np.float32)

    def _pool(self, pixels: NDArray[np.uint8], flip: Flip, turned: bool, boxes: Sequence[Boxes]) -> NDArray[np.float64]:
        """Integrate the feature maps of one view over the windows of each size, (sizes, windows, values)."""
        joined = Boxes(*(np.concatenate(corners) for corners in zip(*boxes, strict=True)))
        maps = self.frozen.encode_maps(pixels, flip, joined, self.readout, turned=turned)
        pool = partial(pool_map, flip=flip, centered=self.maps.centered)
        if self.readout is None:
            pairs = zip(maps, self.maps.strides, strict=True)
            sums = np.concatenate([pool(values, stride, boxes=joined) for values, stride in pairs], axis=1)
            return sums.reshape(len(boxes), -1, sums.shape[1])
        out = np.zeros((len(boxes), len(boxes[0].start), self.readout.width))
        for values, stride in zip(maps, self.readout.strides, strict=True):
            for i, box in enumerate(boxes):
                out[i] += pool(values[i * self.readout.width : (i + 1) * self.readout.width], stride, boxes=box)
        return out
