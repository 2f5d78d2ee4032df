"""A few open files for all levels of all slides: a handle for each level would use up the open files of the system."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

MOST_OPEN = 16

Stamp = tuple[int, int, int]
"""Inode, size and time of a file: it is the same file as long as they are the same."""


class Changed(ValueError):
    """A file that is another one than when its levels were opened."""


class Closable(Protocol):
    """Anything that is closed."""

    def close(self) -> object: ...


F = TypeVar("F", bound=Closable)


def stamp_of(path: Path) -> Stamp:
    """Inode, size and time of a file."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass
class _Handle(Generic[F]):
    file: F
    n_users: int = 0


class Handles(Generic[F]):
    """The most recently used open files. A forked process opens its own, since a shared handle has one position."""

    def __init__(self, open_file: Callable[[Path], F]) -> None:
        self._open_file = open_file
        self._handles: OrderedDict[tuple[Path, Stamp], _Handle[F]] = OrderedDict()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_anew)

    @contextmanager
    def use(self, path: Path, stamp: Stamp) -> Iterator[F]:
        """Lend the open file; a file that has changed since its stamp was taken raises a ValueError."""
        handle = self._take(path, stamp)
        try:
            yield handle.file
        finally:
            with self._lock:
                handle.n_users -= 1

    def forget(self, path: Path) -> None:
        """Close a file that is about to be opened anew."""
        with self._lock:
            for key in [key for key in self._handles if key[0] == path and not self._handles[key].n_users]:
                self._handles.pop(key).file.close()

    def _take(self, path: Path, stamp: Stamp) -> _Handle[F]:
        check_unchanged(path, stamp)
        with self._lock:
            handle = self._handles.pop((path, stamp), None)
            if handle is None:
                self._close_oldest()
                handle = _Handle(self._open_file(path))
            handle.n_users += 1
            self._handles[path, stamp] = handle
        return handle

    def _close_oldest(self) -> None:
        idle = [key for key, handle in self._handles.items() if not handle.n_users]
        for key in idle[: max(0, len(self._handles) - MOST_OPEN + 1)]:
            self._handles.pop(key).file.close()

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        handles, self._handles = self._handles, OrderedDict()
        for handle in handles.values():
            handle.file.close()


def check_unchanged(path: Path, stamp: Stamp) -> None:
    """Reject a file that is gone, or is another one than when its levels were opened."""
    if not path.exists():
        msg = f"{path} is gone since it was opened. Restore the file, and read the slide anew."
        raise FileNotFoundError(msg)
    if stamp_of(path) != stamp:
        msg = f"{path} has changed since it was opened. Read the slide anew."
        raise Changed(msg)
