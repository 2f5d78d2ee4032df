"""Finished folds on disk, from which an interrupted cross-validation resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sthggep._disk._run_folder import RunFolder, write_text
from sthggep._disk._whole import whole_file

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
    record
        What the results depend on, in plain types. A folder with another record is refused.
    """

    def __init__(self, folder: str | Path | None, record: Mapping[str, object]) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            RUN.open(self.folder, record)

    def read(self, number: int) -> FoldResult | None:
        """Scores and record of a finished fold; ``None`` if it is not finished."""
        import pandas as pd

        if self.folder is None:
            return None
        table, record = self._paths(number)
        if not (table.exists() and record.exists()):
            return None
        scores = pd.read_csv(
            table,
            dtype=dict.fromkeys(TEXT_COLUMNS, str),
            keep_default_na=False,  # a gene may be called NA
            na_values={"value": [""]},
            float_precision="round_trip",
        )
        return scores, RUN.read(record)

    def write(self, number: int, scores: pd.DataFrame, record: Mapping[str, object]) -> None:
        """Store a finished fold: first its table, then the record that marks it as complete."""
        if self.folder is None:
            return
        table, done = self._paths(number)
        with whole_file(table) as part:
            scores.to_csv(part, index=False, compression="gzip")
        write_text(done, json.dumps(record, indent=1))

    def _paths(self, number: int) -> tuple[Path, Path]:
        folder = self.folder or Path()
        return folder / f"fold-{number:03d}.csv.gz", folder / f"fold-{number:03d}.json"
