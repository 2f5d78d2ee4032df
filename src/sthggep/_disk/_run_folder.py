"""A folder of one run, whose record holds the run's data and parameters; the folder rejects another run."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sthggep._checks import listing
from sthggep._disk._lock import LOCK, locked
from sthggep._disk._whole import PART, clear_folder, whole_file
from sthggep._keys import TOOL

FORMAT = 1
LONGEST_NAME = 255


@dataclass(frozen=True)
class RunFolder:
    """The kind of a run, and the words for it in messages."""

    what: str
    """Name of the kind in messages, such as ``"cross-validation"``."""
    option: str
    """Parameter that names the folder."""
    file: str
    """Name of the record."""

    @contextmanager
    def at_work(self, folder: Path, record: Mapping[str, object]) -> Iterator[None]:
        """Create the folder or resume in it, and keep other processes out of it within the block."""
        check_folder(folder, self.option)
        if not (folder / self.file).exists():
            self._refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, f"a {self.what}"):
            self.open(folder, record)
            if os.access(folder, os.W_OK):
                clear_folder(folder)
            yield

    def open(self, folder: Path, record: Mapping[str, object]) -> None:
        """Create the folder or resume in it; reject a folder of another run, and a folder of other files."""
        expected = json.loads(json.dumps({"tool": TOOL, "format": FORMAT, **record}))
        check_folder(folder, self.option)
        path = folder / self.file
        if path.exists():
            self._compare(self.read(path), expected, folder)
            return
        self._refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(expected, indent=1))

    def _refuse_foreign(self, folder: Path) -> None:
        if folder.exists() and any(p for p in folder.iterdir() if not p.name.endswith((PART, LOCK))):
            msg = (
                f"{str(folder)!r} holds files and no {self.what} of sthggep (it has no {self.file!r}). sthggep leaves "
                f"it alone. Pass another folder as `{self.option}`."
            )
            raise FileExistsError(msg)

    def read(self, path: Path) -> dict[str, object]:
        """Read a record of the folder."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as reason:
            msg = (
                f"{str(path)!r} must be JSON, but is broken ({reason}). Delete the file and its folder, or pass another folder as "
                f"`{self.option}`."
            )
            raise ValueError(msg) from reason
        return record if isinstance(record, dict) else {}

    def _compare(self, stored: Mapping[str, object], expected: Mapping[str, object], folder: Path) -> None:
        """Reject a folder of other data or parameters, and name the entries that differ."""
        differing: list[str] = []
        for part in dict.fromkeys([*expected, *stored]):
            a, b = stored.get(part), expected.get(part)
            if a == b:
                continue
            if isinstance(a, Mapping) and isinstance(b, Mapping):
                differing += [str(k) for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)]
            else:
                differing.append(part)
        if differing:
            msg = (
                f"{str(folder)!r} holds a {self.what} of other data or parameters; these differ: {listing(differing)}. "
                f"Pass another folder as `{self.option}`, or delete that one."
            )
            raise ValueError(msg)


def check_folder(folder: Path, option: str) -> None:
    """Refuse a place where a folder cannot be made or written, before work starts."""
    if len(os.fsencode(folder.name)) > LONGEST_NAME:
        msg = f"`{option}`: names of folders have {LONGEST_NAME} bytes at most, found {len(os.fsencode(folder.name))}."
        raise ValueError(msg)
    place = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not place.is_dir():
        msg = f"`{option}` must be a folder, found the file {str(place)!r}."
        raise FileExistsError(msg)
    if place != folder:
        check_writable(place, option)


def check_writable(folder: Path, option: str) -> None:
    """Refuse a folder in which no file can be made."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as reason:
        msg = f"`{option}`: no file can be made in {str(folder)!r} ({reason.strerror}). Pass another place."
        raise PermissionError(msg) from reason


def write_text(path: Path, text: str) -> None:
    """The whole file or none."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def plain(value: object) -> object:
    """Convert an option to plain types for JSON; an object becomes the name of its class."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else f"{type(value).__module__}.{type(value).__qualname__}"
