"""Training curves as columns for JSON: a model in memory counts networks and epochs from 1, its file, of every format, from 0."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd


def history_to_json(history: pd.DataFrame) -> dict[str, list[object]]:
    """Turn training curves into columns for JSON, with ``None`` for NaN and infinity."""
    filled = _shifted(history, -1).replace([np.inf, -np.inf], np.nan).astype(object)
    return {str(name): [None if pd.isna(value) else value for value in filled[name]] for name in filled}


def history_from_json(columns: Mapping[str, list[object]]) -> pd.DataFrame:
    """Make training curves from the columns of a file."""
    return _shifted(pd.DataFrame(columns), 1)


def _shifted(history: pd.DataFrame, by: int) -> pd.DataFrame:
    return history.assign(**{name: history[name] + by for name in ("member", "epoch") if name in history})
