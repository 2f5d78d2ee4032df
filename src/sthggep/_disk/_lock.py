"""Locks of files and folders: one process at a time writes, and the second learns who is at work.

The system drops the lock of a process that dies; on disks without locks, a file with the process's number takes their place.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

LOCK = ".sthggep.lock"
"""Name of the lock of a folder, which lies in it while a process writes there."""


class BusyError(BlockingIOError):
    """Another process writes there."""


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a folder, or of a file to be written, within the block.

    Parameters
    ----------
    path
        The folder, which exists; or a file in a folder that exists.
    what
        What the process does there, for the message of another process.

    Raises
    ------
    BusyError
        Another process, or another thread of this one, holds it.
    """
    name = path / LOCK if path.is_dir() and path.suffix != ".zarr" else path.parent / f"{prefix_of(path)}{LOCK}"
    if name.parent.is_dir() and not os.access(name.parent, os.W_OK):
        yield  # nobody can write there
        return
    lock = try_lock(name)
    if lock is None:
        msg = (
            f"Another process writes to {str(path)!r} ({_holder(name)}): {what}. Wait until it has finished, or pass "
            "another place."
        )
        raise BusyError(msg)
    try:
        yield
    finally:
        unlock(lock)


def try_lock(name: Path) -> BaseFileLock | None:
    """Take the lock of this name; ``None`` if another process has it."""
    lock = FileLock(name, timeout=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the disk has no locks and a file takes their place
        try:
            lock.acquire()
        except Timeout:
            return None
        except PermissionError:  # another user's file
            if name.exists():
                return None
            raise
    if type(lock) is not SoftFileLock:  # on a disk without locks the library changes the class
        with suppress(OSError):
            name.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
    return lock


def unlock(lock: BaseFileLock) -> None:
    """Give a lock back and remove its file."""
    with suppress(OSError):
        os.unlink(lock.lock_file)  # while it is held: who waits for it looks whether the file still has a name
    with suppress(OSError):
        lock.release()


def prefix_of(path: Path) -> str:
    """Start of the names of what lies beside ``path`` while it is written; that of other files starts otherwise."""
    return f".sthggep-{sha256(path.name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}-"


def _holder(name: Path) -> str:
    """Process and computer that hold a lock, in words."""
    with suppress(OSError, ValueError, IndexError):
        process, computer = name.read_text(encoding="utf-8").splitlines()[:2]
        return f"process {int(process)} on {computer}"
    return "its number is not known"
