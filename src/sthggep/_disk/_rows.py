"""Rows of an array on disk, read and written by number: none of them stays in memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STEP_BYTES = 32 << 20


class RowFile:
    """A float32 array ``(n, width)`` in a ``.npy`` file.

    A memory map would do the same, but its pages count as memory of the process for as long as they are not evicted.

    Parameters
    ----------
    path
        A file that :meth:`create` made, or any ``.npy`` file of such an array.

    Raises
    ------
    ValueError
        The file is none, or it is truncated.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            msg = f"{self.path} is no array, or truncated: {error}"
            raise ValueError(msg) from error
        if mapped.ndim != 2 or mapped.dtype != np.float32 or not mapped.flags.c_contiguous:
            msg = f"{self.path} must hold rows of float32 numbers, found {mapped.dtype} of shape {mapped.shape}."
            raise ValueError(msg)
        self.shape: tuple[int, int] = mapped.shape
        self.dtype = np.dtype(np.float32)
        self._start = int(mapped.offset)
        del mapped
        self._file = self.path.open("r+b" if os.access(self.path, os.W_OK) else "rb", buffering=0)

    @classmethod
    def create(cls, path: str | Path, n: int, width: int) -> RowFile:
        """A new file, of zeros until they are written."""
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, width))
        del mapped
        return cls(path)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.integer] | slice) -> NDArray[np.float32]:
        wanted = self._numbers(rows)
        out = np.empty((len(wanted), self.shape[1]), dtype=np.float32)
        for first, stop, row in _runs(wanted):
            part = out[first:stop].data.cast("B")
            at = 0
            while at < len(part):  # the system reads 2 GB at most in one go
                got = os.preadv(self._file.fileno(), [part[at:]], self._offset(row) + at)
                if got <= 0:
                    msg = f"{self.path} is truncated."
                    raise ValueError(msg)
                at += got
        return out

    def __setitem__(self, rows: NDArray[np.integer] | slice, values: NDArray[np.float32]) -> None:
        wanted = self._numbers(rows)
        given = np.ascontiguousarray(np.broadcast_to(values, (len(wanted), self.shape[1])), dtype=np.float32)
        for first, stop, row in _runs(wanted):
            part = given[first:stop].data.cast("B")
            at = 0
            while at < len(part):
                at += os.pwritev(self._file.fileno(), [part[at:]], self._offset(row) + at)

    def steps(self) -> Iterator[slice]:
        """Rows from the first to the last, a bounded part of them at a time."""
        return row_steps(self.shape)

    def checksum(self) -> int:
        """CRC-32 of all values."""
        found = 0
        for step in self.steps():
            found = zlib.crc32(self[step].data.cast("B"), found)
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _numbers(self, rows: NDArray[np.integer] | slice) -> NDArray[np.integer]:
        return np.arange(*rows.indices(self.shape[0])) if isinstance(rows, slice) else np.asarray(rows)

    def _offset(self, row: int) -> int:
        return self._start + row * self.shape[1] * self.dtype.itemsize


def row_steps(shape: tuple[int, int]) -> Iterator[slice]:
    """Slices over the rows of a float32 array, each of a bounded size."""
    step = max(1, STEP_BYTES // max(1, 4 * shape[1]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _runs(rows: NDArray[np.integer]) -> Iterator[tuple[int, int, int]]:
    """Where rows that follow each other begin and end, and the number of the first."""
    if len(rows):
        borders = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, stop in zip([0, *borders.tolist()], [*borders.tolist(), len(rows)], strict=True):
            yield first, stop, int(rows[first])
