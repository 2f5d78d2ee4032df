"""Blocks of a lazy image: the reader decodes each about once and holds few of them at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._image._arrays import AxisNumbers, Pixels, channels_last

if TYPE_CHECKING:
    import dask.array as da

HELD_BYTES = 128 << 20
LEAST_HELD = 4  # a box on a corner touches four

PixelWindow = tuple[int, int, int, int]
BlockIndex = tuple[int, int]


class Blocks:
    """A lazy image that is cut through a cache of its most recently used blocks.

    Parameters
    ----------
    array
        A dask array.
    axes
        Numbers of its axes y, x and channel; the channel is ``None`` for an image without channels.
    """

    def __init__(self, array: da.Array, axes: AxisNumbers) -> None:
        self.array, self.axes = array, axes
        self.edges = tuple(np.cumsum((0, *array.chunks[axis])) for axis in axes[:2])
        height, width = (int(np.diff(edges).max()) for edges in self.edges)
        channels = 1 if axes[2] is None else array.shape[axes[2]]
        self.block_height = height
        self.capacity = max(LEAST_HELD, HELD_BYTES // (height * width * channels * array.dtype.itemsize))
        self.n_read = 0
        self._cache: OrderedDict[BlockIndex, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def cut(self, windows: Sequence[PixelWindow]) -> list[Pixels]:
        """Cut windows ``x0, x1, y0, y1`` inside the image, as (y, x, channel) arrays of the stored type."""
        cuts: dict[int, Pixels] = {}
        with self._lock:
            for group, indices in self._groups(windows):
                if len(indices) > self.capacity:  # one window with more blocks than the cache may hold
                    cuts[group[0]] = self._compute([windows[group[0]]])[0]
                    continue
                self._load(indices)
                for i in group:
                    cuts[i] = self._assemble(windows[i])
        return [cuts[i] for i in range(len(windows))]

    def forget(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._cache.clear()

    def sweep(self, xy: NDArray[np.float64]) -> NDArray[np.intp]:
        """Order in which boxes around ``xy`` touch each block about once: in bands, to and fro.

        The cache holds the blocks of two columns of a band, and a row above and below it.
        """
        band = max(1, self.capacity // 3 - 2) * self.block_height
        row = np.floor(xy[:, 1] / band).astype(np.int64)
        return np.asarray(np.lexsort((xy[:, 1], np.where(row % 2, -xy[:, 0], xy[:, 0]), row)), dtype=np.intp)

    def _groups(self, windows: Sequence[PixelWindow]) -> Iterator[tuple[list[int], list[BlockIndex]]]:
        """Group windows in the order of a sweep, so that the cache holds the blocks of each group."""
        group: list[int] = []
        indices: dict[BlockIndex, None] = {}
        corners = np.array([(x0, y0) for x0, _, y0, _ in windows], dtype=np.float64).reshape(-1, 2)
        for i in self.sweep(corners).tolist():
            of_window = dict.fromkeys(self._indices(windows[i]))
            if group and len(indices | of_window) > self.capacity:
                yield group, list(indices)
                group, indices = [], {}
            group.append(i)
            indices |= of_window
        if group:
            yield group, list(indices)

    def _indices(self, window: PixelWindow) -> list[BlockIndex]:
        """Return the (row, column) of each block that a window touches."""
        x0, x1, y0, y1 = window
        spans = []
        for edges, start, stop in zip(self.edges, (y0, x0), (y1, x1), strict=True):
            first = int(np.searchsorted(edges, start, "right")) - 1
            spans.append(range(first, int(np.searchsorted(edges, stop, "left")) if stop > start else first))
        return [(row, column) for row in spans[0] for column in spans[1]]

    def _load(self, indices: list[BlockIndex]) -> None:
        """Read the blocks that the cache lacks, all at once, and drop the least recently used ones."""
        absent = [index for index in indices if index not in self._cache]
        while self._cache and len(self._cache) + len(absent) > self.capacity:
            oldest = next((index for index in self._cache if index not in indices), None)
            if oldest is None:
                break
            del self._cache[oldest]
        rows, columns = self.edges
        blocks = self._compute(
            [(int(columns[c]), int(columns[c + 1]), int(rows[r]), int(rows[r + 1])) for r, c in absent]
        )
        self._cache.update(zip(absent, blocks, strict=True))
        self.n_read += len(absent)
        for index in indices:
            self._cache.move_to_end(index)

    def _compute(self, windows: Sequence[PixelWindow]) -> list[Pixels]:
        if not windows:
            return []
        from dask.base import compute

        y, x, _ = self.axes
        cuts = []
        for x0, x1, y0, y1 in windows:
            index = [slice(None)] * self.array.ndim
            index[y], index[x] = slice(y0, y1), slice(x0, x1)
            cuts.append(self.array[tuple(index)])
        return [np.ascontiguousarray(channels_last(cut, self.axes)) for cut in compute(*cuts)]

    def _assemble(self, window: PixelWindow) -> Pixels:
        """Put a window together from blocks of the cache."""
        x0, x1, y0, y1 = window
        indices = self._indices(window)
        if len(indices) == 1:
            top, left = (int(edges[i]) for edges, i in zip(self.edges, indices[0], strict=True))
            return self._cache[indices[0]][y0 - top : y1 - top, x0 - left : x1 - left]
        channels = 1 if self.axes[2] is None else self.array.shape[self.axes[2]]
        out = np.empty((y1 - y0, x1 - x0, channels), dtype=self.array.dtype)
        for row, column in indices:
            (top, bottom), (left, right) = self.edges[0][row : row + 2], self.edges[1][column : column + 2]
            ya, yb, xa, xb = max(y0, top), min(y1, bottom), max(x0, left), min(x1, right)
            block = self._cache[row, column]
            out[ya - y0 : yb - y0, xa - x0 : xb - x0] = block[ya - top : yb - top, xa - left : xb - left]
        return out
