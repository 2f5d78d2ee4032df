"""Finished folds on disk, so that an interrupted cross-validation goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._disk._run_folder import RunFolder, write_text
from sthggep._disk._whole import whole_file

if TYPE_CHECKING:
    import pandas as pd

RUN = RunFolder("cross-validation", "out", "cross_validation.json")
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
        if self.folder is not None:
            RUN.open(self.folder, record)

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
        return scores, RUN.read(record)

    def write(self, number: int, scores: pd.DataFrame, record: Mapping[str, Any]) -> None:
        """Keep a finished fold: its table first, then the record that says that it is whole."""
        if self.folder is None:
            return
        table, done = self._paths(number)
        with whole_file(table) as part:
            scores.to_csv(part, index=False, compression="gzip")
        write_text(done, json.dumps(record, indent=1))

    def _paths(self, number: int) -> tuple[Path, Path]:
        folder = self.folder or Path()
        return folder / f"fold-{number:03d}.csv.gz", folder / f"fold-{number:03d}.json"
