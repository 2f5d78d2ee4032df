"""Files and folders that appear complete or not at all: written beside their place, then moved there."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sthggep._disk._lock import LOCK, prefix_of, try_lock, unlock

if TYPE_CHECKING:
    from filelock import BaseFileLock

PART = ".part"
"""Ending of a folder of half-written things, which only a process that was killed leaves behind."""
OLD = "replaced"
"""Folder within it, of what was in the place before, while the new takes its place."""


class PlaceTakenError(FileExistsError):
    """Another folder came to stand in the place while this one was written."""


@contextmanager
def scratch_beside(path: Path, within: Path | None = None) -> Iterator[Path]:
    """A folder of this block alone on the disk of ``path``: beside it, or in the folder ``within``.

    Nobody else can guess its name or write to it. What it holds goes away in the end. What a killed process left when it
    wrote to the same path goes away at the start.
    """
    with _scratch(path, within) as scratch:
        yield scratch.folder


@contextmanager
def whole_file(path: Path, within: Path | None = None) -> Iterator[Path]:
    """A name for a file to be written; it takes the place of ``path``, at once, when the block ends without an error."""
    with _scratch(path, within) as scratch:
        part = scratch.folder / path.name
        yield part
        scratch.set_modes()
        os.replace(part, path)


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A name for a folder to be made; it takes the place of ``path`` when the block ends without an error.

    With ``replace`` what is there goes away, or stays if the move fails.

    Raises
    ------
    PlaceTakenError
        Something is there, and is not to be replaced.
    """
    with _scratch(path) as scratch:
        part = scratch.folder / path.name
        yield part
        scratch.set_modes()
        if replace:
            scratch.swap()
            return
        try:
            part.rename(path)
        except OSError as reason:
            if not os.path.lexists(path):
                raise
            msg = f"{str(path)!r} is there already and is left alone."
            raise PlaceTakenError(msg) from reason


@contextmanager
def _scratch(path: Path, within: Path | None = None) -> Iterator[_Scratch]:
    parent = within or path.parent
    parent.mkdir(parents=True, exist_ok=True)
    clear_left(path, parent)
    scratch = _Scratch.create(path, parent)
    try:
        yield scratch
    finally:
        scratch.remove()


def clear_left(path: Path, parent: Path) -> None:
    """Remove what killed processes left in ``parent`` when they wrote to ``path``; what one of them moved away comes back."""
    for folder in parent.glob(f"{prefix_of(path)}*{PART}"):
        if folder.is_symlink():
            continue
        with suppress(OSError):
            lock = try_lock(folder / LOCK)
            if lock is not None:
                scratch = _Scratch(folder, path, lock)
                scratch.bring_back()
                scratch.remove()


def clear_folder(folder: Path) -> None:
    """Remove what killed processes left in a folder that sthggep alone writes to, whatever they wrote."""
    for left in list(folder.rglob(f".sthggep-*{PART}")):
        with suppress(OSError):
            lock = None if left.is_symlink() or os.path.lexists(left / OLD) else try_lock(left / LOCK)
            if lock is not None:
                _Scratch(left, left, lock).remove()


class _Scratch(NamedTuple):
    """A folder of half-written things; its lock tells others that its process lives."""

    folder: Path
    path: Path
    """What is written in it."""
    lock: BaseFileLock

    @classmethod
    def create(cls, path: Path, parent: Path) -> _Scratch:
        """Make a folder; another process that takes it for one that was left removes it before it is locked."""
        while True:
            folder = Path(tempfile.mkdtemp(prefix=prefix_of(path), suffix=PART, dir=parent))
            with suppress(FileNotFoundError):
                lock = try_lock(folder / LOCK)
                if lock is not None:
                    return cls(folder, path, lock)

    def remove(self) -> None:
        """Remove all, unless what was in the place could not come back."""
        if os.path.lexists(self.path) or not os.path.lexists(self.folder / OLD):
            shutil.rmtree(self.folder, ignore_errors=True)
        unlock(self.lock)

    def bring_back(self) -> None:
        """Move what was in the place back, if nothing came in its stead."""
        if os.path.lexists(self.folder / OLD) and not os.path.lexists(self.path):
            (self.folder / OLD).rename(self.path)

    def swap(self) -> None:
        """Move the finished folder to its place; what is there comes back if that fails."""
        try:
            if os.path.lexists(self.path):
                self.path.rename(self.folder / OLD)
            (self.folder / self.path.name).rename(self.path)
        finally:
            self.bring_back()

    def set_modes(self) -> None:
        """Let others read the files as far as the umask says: some libraries write them for their owner only."""
        example = self.folder / ".mode"
        example.touch()
        mode = stat.S_IMODE(example.stat().st_mode)
        part = self.folder / self.path.name
        for file in part.rglob("*") if part.is_dir() else [part]:
            if file.is_file() and not file.is_symlink() and stat.S_IMODE(file.stat().st_mode) != mode:
                file.chmod(mode)
