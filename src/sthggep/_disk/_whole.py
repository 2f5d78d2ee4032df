"""Files and folders that appear complete or not at all: written beside their place, then moved there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
"""Ending of a folder of half-written things, which only a process that was killed leaves behind."""


class PlaceTakenError(FileExistsError):
    """Another folder came to stand in the place while this one was written."""


@contextmanager
def scratch_beside(path: Path, within: Path | None = None) -> Iterator[Path]:
    """A folder of this block alone on the disk of ``path``: beside it, or in the folder ``within``.

    Nobody else can guess its name or write to it. What it holds goes away in the end.
    """
    scratch = _new_folder(within or path.parent)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def whole_file(path: Path, within: Path | None = None) -> Iterator[Path]:
    """A name for a file to be written; it takes the place of ``path``, at once, when the block ends without an error."""
    with scratch_beside(path, within) as scratch:
        part = scratch / path.name
        yield part
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
    with scratch_beside(path) as scratch:
        part = scratch / path.name
        yield part
        if replace:
            _swap(part, path)
            return
        try:
            part.rename(path)
        except OSError as reason:
            if not os.path.lexists(path):
                raise
            msg = f"{str(path)!r} is there already and is left alone."
            raise PlaceTakenError(msg) from reason


def _new_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=".sthggep-", suffix=PART, dir=parent))


def _swap(part: Path, path: Path) -> None:
    """Move a folder to a place that may be taken; what is there comes back if that fails."""
    home = _new_folder(path.parent)
    old = home / path.name
    try:
        if os.path.lexists(path):
            path.rename(old)
        part.rename(path)
    finally:
        if os.path.lexists(old) and not os.path.lexists(path):
            old.rename(path)
        shutil.rmtree(home, ignore_errors=True)
