"""A folder that belongs to one run: its record says of which data and parameters, and others are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sthggep._checks import listing
from sthggep._disk._whole import PART, whole_file
from sthggep._keys import TOOL

FORMAT = 1


@dataclass(frozen=True)
class RunFolder:
    """What kind of run, and how it is spoken of."""

    what: str
    """In words, such as ``"cross-validation"``."""
    option: str
    """Parameter by which the user names the folder."""
    file: str
    """Name of the record."""

    def open(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Make the folder, or go on in it; refuses one of another run, and one that is no such folder."""
        wanted = json.loads(json.dumps({"tool": TOOL, "format": FORMAT, **record}))
        if folder.exists() and not folder.is_dir():
            msg = f"`{self.option}` must be a folder, and {str(folder)!r} is a file."
            raise FileExistsError(msg)
        path = folder / self.file
        if path.exists():
            self._compare(self.read(path), wanted, folder)
            return
        if folder.exists() and any(p for p in folder.iterdir() if not p.name.endswith(PART)):
            msg = (
                f"{str(folder)!r} holds files and is no {self.what} of sthggep (it has no {self.file!r}); it is left "
                f"alone. Pass another folder as `{self.option}`."
            )
            raise FileExistsError(msg)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(wanted, indent=1))

    def read(self, path: Path) -> dict[str, Any]:
        """A record of the folder."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as reason:
            msg = (
                f"{str(path)!r} is broken ({reason}). Delete it and its folder, or pass another folder as "
                f"`{self.option}`."
            )
            raise ValueError(msg) from reason
        return found if isinstance(found, dict) else {}

    def _compare(self, there: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
        """Refuse a folder of other data or parameters, and say which."""
        differing = []
        for part in dict.fromkeys([*wanted, *there]):
            a, b = there.get(part), wanted.get(part)
            if a == b:
                continue
            nested = isinstance(a, Mapping) and isinstance(b, Mapping)
            differing += [k for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)] if nested else [part]  # type: ignore[misc,union-attr]
        if differing:
            msg = (
                f"{str(folder)!r} holds a {self.what} of other data or parameters; these differ: {listing(differing)}. "
                f"Pass another folder as `{self.option}`, or delete that one."
            )
            raise ValueError(msg)


def write_text(path: Path, text: str) -> None:
    """The whole file or none."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def plain(value: Any) -> Any:
    """Plain types that stand for an option; an object is told by its class."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else f"{type(value).__module__}.{type(value).__qualname__}"
