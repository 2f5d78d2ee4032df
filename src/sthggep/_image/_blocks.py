"""Blocks of a lazy image: each is decoded about once, and few are held at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HELD_BYTES = 128 << 20
LEAST_HELD = 4  # a box on a corner touches four

Window = tuple[int, int, int, int]
At = tuple[int, int]


class Blocks:
    """A lazy image, cut through blocks that are held until others were read more recently.

    Parameters
    ----------
    array
        A dask array.
    axes
        Numbers of its axes y and x, and of the channels, ``None`` where there are none.
    """

    def __init__(self, array: Any, axes: tuple[int, int, int | None]) -> None:
        self.array, self.axes = array, axes
        self.edges = tuple(np.cumsum((0, *array.chunks[axis])) for axis in axes[:2])
        height, width = (int(np.diff(edges).max()) for edges in self.edges)
        channels = 1 if axes[2] is None else array.shape[axes[2]]
        self.block_height = height
        self.capacity = max(LEAST_HELD, HELD_BYTES // (height * width * channels * array.dtype.itemsize))
        self.n_read = 0
        self._held: OrderedDict[At, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def cut(self, windows: Sequence[Window]) -> list[NDArray[Any]]:
        """Windows ``x0, x1, y0, y1`` inside the image, as (y, x, channel) arrays of the stored type."""
        out: list[Any] = [None] * len(windows)
        with self._lock:
            for group, wanted in self._groups(windows):
                if len(wanted) > self.capacity:  # one window larger than all that may be held
                    out[group[0]] = self._compute([windows[group[0]]])[0]
                    continue
                self._load(wanted)
                for i in group:
                    out[i] = self._assemble(windows[i])
        return out

    def forget(self) -> None:
        """Hold nothing any more."""
        with self._lock:
            self._held.clear()

    def sweep(self, xy: NDArray[np.float64]) -> NDArray[np.intp]:
        """Order in which boxes around ``xy`` touch each block about once: in bands, to and fro.

        A band is as high as the blocks allow that may be held: those of two columns, and a row above and below.
        """
        band = max(1, self.capacity // 3 - 2) * self.block_height
        row = np.floor(xy[:, 1] / band).astype(np.int64)
        return np.asarray(np.lexsort((xy[:, 1], np.where(row % 2, -xy[:, 0], xy[:, 0]), row)), dtype=np.intp)

    def _groups(self, windows: Sequence[Window]) -> Iterator[tuple[list[int], list[At]]]:
        """Windows in the order of a sweep, together as far as their blocks may be held together."""
        group: list[int] = []
        wanted: dict[At, None] = {}
        corners = np.array([(x0, y0) for x0, _, y0, _ in windows], dtype=np.float64).reshape(-1, 2)
        for i in self.sweep(corners).tolist():
            these = dict.fromkeys(self._touched(windows[i]))
            if group and len(wanted | these) > self.capacity:
                yield group, list(wanted)
                group, wanted = [], {}
            group.append(i)
            wanted |= these
        if group:
            yield group, list(wanted)

    def _touched(self, window: Window) -> list[At]:
        x0, x1, y0, y1 = window
        spans = []
        for edges, start, stop in zip(self.edges, (y0, x0), (y1, x1), strict=True):
            first = int(np.searchsorted(edges, start, "right")) - 1
            spans.append(range(first, int(np.searchsorted(edges, stop, "left")) if stop > start else first))
        return [(row, column) for row in spans[0] for column in spans[1]]

    def _load(self, wanted: list[At]) -> None:
        """Read those that are not held, all at once, and forget what was used longest ago."""
        absent = [at for at in wanted if at not in self._held]
        while self._held and len(self._held) + len(absent) > self.capacity:
            oldest = next((at for at in self._held if at not in wanted), None)
            if oldest is None:
                break
            del self._held[oldest]
        rows, columns = self.edges
        found = self._compute(
            [(int(columns[c]), int(columns[c + 1]), int(rows[r]), int(rows[r + 1])) for r, c in absent]
        )
        self._held.update(zip(absent, found, strict=True))
        self.n_read += len(absent)
        for at in wanted:
            self._held.move_to_end(at)

    def _compute(self, windows: Sequence[Window]) -> list[NDArray[Any]]:
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

    def _assemble(self, window: Window) -> NDArray[Any]:
        """A window out of blocks that are held."""
        x0, x1, y0, y1 = window
        touched = self._touched(window)
        if len(touched) == 1:
            top, left = (int(edges[at]) for edges, at in zip(self.edges, touched[0], strict=True))
            return self._held[touched[0]][y0 - top : y1 - top, x0 - left : x1 - left]
        channels = 1 if self.axes[2] is None else self.array.shape[self.axes[2]]
        out = np.empty((y1 - y0, x1 - x0, channels), dtype=self.array.dtype)
        for row, column in touched:
            (top, bottom), (left, right) = self.edges[0][row : row + 2], self.edges[1][column : column + 2]
            ya, yb, xa, xb = max(y0, top), min(y1, bottom), max(x0, left), min(x1, right)
            held = self._held[row, column]
            out[ya - y0 : yb - y0, xa - x0 : xb - x0] = held[ya - top : yb - top, xa - left : xb - left]
        return out


def channels_last(pixels: Any, axes: tuple[int, int, int | None]) -> NDArray[Any]:
    """An array with its axes in the order (y, x, channel)."""
    pixels = np.asarray(pixels)
    return pixels[..., None] if axes[2] is None else np.moveaxis(pixels, axes[2], -1)
