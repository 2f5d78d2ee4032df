"""Finished folds on disk, from which an interrupted cross-validation resumes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sthggep._disk._run_folder import RunFolder, write_text
from sthggep._disk._whole import whole_file
from sthggep._log import log

if TYPE_CHECKING:
    import pandas as pd

FoldResult: TypeAlias = "tuple[pd.DataFrame, dict[str, object]]"  # scores and record
RUN = RunFolder("cross-validation", "out", "cross_validation.json")
TEXT_COLUMNS = ("group", "section", "method", "gene", "metric")


class FoldStore:
    """A folder with a record of data and parameters, and two files for each finished fold.

    Parameters
    ----------
    folder
        The folder; ``None`` stores nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def open(cls, folder: str | Path | None, record: Mapping[str, object]) -> Iterator[FoldStore]:
        """Open the folder of results that depend on ``record``, and keep other processes out; refuse another record's."""
        if folder is None:
            yield cls(None)
            return
        with RUN.at_work(Path(folder), record):
            yield cls(Path(folder))

    def read(self, number: int) -> FoldResult | None:
        """Scores and record of a finished fold; ``None`` if it is not finished."""
        import pandas as pd

        if self.folder is None:
            return None
        table, record = self._paths(number)
        if not (table.exists() and record.exists()):
            return None
        try:
            scores = pd.read_csv(
                table,
                dtype=dict.fromkeys(TEXT_COLUMNS, str),
                keep_default_na=False,  # a gene may be called NA
                converters={"value": _read_number, "level": _read_number},
            )
        except (OSError, EOFError, ValueError, zlib.error) as reason:
            log.warning("%s is damaged (%s); the fold is computed again.", table, reason)
            return None
        return scores, RUN.read(record)

    def write(self, number: int, scores: pd.DataFrame, record: Mapping[str, object]) -> None:
        """Store a finished fold: first its table, then the record that marks it as complete."""
        if self.folder is None:
            return
        table, record_path = self._paths(number)
        with whole_file(table) as part:
            scores.to_csv(part, index=False, compression="gzip")
        write_text(record_path, json.dumps(record, indent=1))

    def _paths(self, number: int) -> tuple[Path, Path]:
        folder = self.folder or Path()
        return folder / f"fold-{number:03d}.csv.gz", folder / f"fold-{number:03d}.json"


def _read_number(text: str) -> float:
    """Read a number of the table to its last digit, which the default of pandas 2 does not."""
    return float(text) if text else float("nan")
