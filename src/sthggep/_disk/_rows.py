"""Rows of an array on disk, read and written by number; no row stays in memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STEP_BYTES = 32 << 20


class RowFile:
    """A float32 array ``(n, width)`` in a ``.npy`` file.

    A memory map also reads rows by number, but the system counts its pages as memory of the process until it evicts them.

    Parameters
    ----------
    path
        A file that :meth:`create` made, or any ``.npy`` file of such an array.

    Raises
    ------
    ValueError
        The file is not a ``.npy`` file of float32 rows, or it is truncated.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            msg = f"{self.path} must be a `.npy` file of an array, found another or a truncated file: {error}"
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
        """Create a file of zeros."""
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, width))
        del mapped
        return cls(path)

    def head(self, n: int) -> RowFile:
        """Return the first rows of the same file."""
        part = copy(self)
        part.shape = (n, self.shape[1])
        return part

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.integer] | slice) -> NDArray[np.float32]:
        numbers = self._row_numbers(rows)
        out = np.empty((len(numbers), self.shape[1]), dtype=np.float32)
        for first, stop, row in _find_runs(numbers):
            part = out[first:stop].data.cast("B")
            at = 0
            while at < len(part):  # one system call reads at most 2 GB
                n_read = os.preadv(self._file.fileno(), [part[at:]], self._offset(row) + at)
                if n_read <= 0:
                    msg = f"{self.path} must hold {self.shape[0]} rows, but the file is truncated."
                    raise ValueError(msg)
                at += n_read
        return out

    def __setitem__(self, rows: NDArray[np.integer] | slice, values: NDArray[np.float32]) -> None:
        numbers = self._row_numbers(rows)
        block = np.ascontiguousarray(np.broadcast_to(values, (len(numbers), self.shape[1])), dtype=np.float32)
        for first, stop, row in _find_runs(numbers):
            part = block[first:stop].data.cast("B")
            at = 0
            while at < len(part):
                at += os.pwritev(self._file.fileno(), [part[at:]], self._offset(row) + at)

    def steps(self) -> Iterator[slice]:
        """Yield slices over all rows, each of a bounded size."""
        return row_steps(self.shape)

    def checksum(self) -> int:
        """Compute the CRC-32 of all values."""
        crc = 0
        for step in self.steps():
            crc = zlib.crc32(self[step].data.cast("B"), crc)
        return crc

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _row_numbers(self, rows: NDArray[np.integer] | slice) -> NDArray[np.integer]:
        return np.arange(*rows.indices(self.shape[0])) if isinstance(rows, slice) else np.asarray(rows)

    def _offset(self, row: int) -> int:
        return self._start + row * self.shape[1] * self.dtype.itemsize


def row_steps(shape: tuple[int, int]) -> Iterator[slice]:
    """Return slices over the rows of a float32 array, each of a bounded size."""
    step = max(1, STEP_BYTES // max(1, 4 * shape[1]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _find_runs(rows: NDArray[np.integer]) -> Iterator[tuple[int, int, int]]:
    """Yield each run of consecutive rows: its first position, its stop, and the number of its first row."""
    if len(rows):
        borders = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, stop in zip([0, *borders.tolist()], [*borders.tolist(), len(rows)], strict=True):
            yield first, stop, int(rows[first])
