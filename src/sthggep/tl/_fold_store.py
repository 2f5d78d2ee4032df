"""Finished folds on disk, so that an interrupted cross-validation goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._checks import listing
from sthggep._keys import TOOL

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
RECORD = "cross_validation.json"
TEXT_COLUMNS = ("group", "section", "method", "gene", "metric")


class FoldStore:
    """A folder with a record of data and parameters, and two files a finished fold; without a folder it does nothing.

    Parameters
    ----------
    folder
        Where to; ``None`` keeps nothing.
    record
        What the results depend on, in plain types: a folder with another record is refused.
    """

    def __init__(self, folder: str | Path | None, record: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.record = json.loads(json.dumps({"tool": TOOL, "format": FORMAT, **record}))
        if self.folder is not None:
            self._open(self.folder)

    def _open(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            msg = f"`out` must be a folder, and {str(folder)!r} is a file."
            raise FileExistsError(msg)
        path = folder / RECORD
        if path.exists():
            _same_record(_read_json(path), self.record, folder)
            return
        if folder.exists() and any(p for p in folder.iterdir() if not p.name.endswith(".part")):
            msg = (
                f"{str(folder)!r} holds files and is no cross-validation of sthggep (it has no {RECORD!r}); it is left "
                "alone. Pass another folder as `out`."
            )
            raise FileExistsError(msg)
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(self.record, indent=1))

    def read(self, number: int) -> tuple[pd.DataFrame, dict[str, Any]] | None:
        """Scores and record of a finished fold; ``None`` where it is still to be done."""
        import pandas as pd

        if self.folder is None:
            return None
        table, record = self._paths(number)
        if not (table.exists() and record.exists()):
            return None
        # A gene may be called NA
        types: Any = dict.fromkeys(TEXT_COLUMNS, str)
        missing = {"value": [""]}
        scores = pd.read_csv(table, dtype=types, keep_default_na=False, na_values=missing, float_precision="round_trip")
        return scores, _read_json(record)

    def write(self, number: int, scores: pd.DataFrame, record: Mapping[str, Any]) -> None:
        """Keep a finished fold: its table first, then the record that says that it is whole."""
        if self.folder is None:
            return
        table, done = self._paths(number)
        part = table.with_name(f"{table.name}.part")
        scores.to_csv(part, index=False, compression="gzip")
        os.replace(part, table)
        _write(done, json.dumps(record, indent=1))

    def _paths(self, number: int) -> tuple[Path, Path]:
        folder = self.folder or Path()
        return folder / f"fold-{number:03d}.csv.gz", folder / f"fold-{number:03d}.json"


def _write(path: Path, text: str) -> None:
    """The whole file or none: written beside its place, then moved there."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as reason:
        msg = f"{str(path)!r} is broken ({reason}). Delete it and its folder, or pass another folder as `out`."
        raise ValueError(msg) from reason
    return found if isinstance(found, dict) else {}


def _same_record(there: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Refuse a folder of other data or parameters, and say which."""
    if there == wanted:
        return
    differing = []
    for part in dict.fromkeys([*wanted, *there]):
        a, b = there.get(part), wanted.get(part)
        if a == b:
            continue
        nested = isinstance(a, Mapping) and isinstance(b, Mapping)
        differing += [k for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)] if nested else [part]  # type: ignore[misc,union-attr]
    msg = (
        f"{str(folder)!r} holds a cross-validation of other data or parameters; these differ: {listing(differing)}. "
        "Pass another folder as `out`, or delete that one."
    )
    raise ValueError(msg)


def plain(value: Any) -> Any:
    """Plain types that stand for an option; an object is told by its class."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else f"{type(value).__module__}.{type(value).__qualname__}"
