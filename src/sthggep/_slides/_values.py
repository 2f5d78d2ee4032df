"""Values of metadata in plain types, whatever program wrote them: R, for one, writes each number as an array of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from sthggep._checks import has_key

_WHOLE = re.compile(r"([+-]?\d+)\.0*")


def as_mapping(value: object) -> Mapping[str, object]:
    """Return the value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}


def as_text(value: object) -> str:
    """Return a text, also one that a file keeps as bytes or in an array of one; empty for ``None``."""
    if isinstance(value, np.ndarray | list | tuple):
        values = np.asarray(value, dtype=object).ravel()
        return as_text(values[0]) if len(values) == 1 else ""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def id_text(value: object) -> str:
    """Write an id as text, so that ``1``, ``1.0`` and ``"1"`` are one id."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    whole = _WHOLE.fullmatch(text.strip())
    return whole.group(1) if whole else text.strip()


def id_texts(values: Iterable[object]) -> list[str]:
    """Write ids as texts (:func:`id_text`)."""
    return [id_text(value) for value in values]


def read_column(obs: pd.DataFrame, name: str, advice: str = "") -> pd.Series:
    """Read a column of ``obs``; reject a name that several columns have."""
    has_key(dict.fromkeys(obs.columns), name, "obs", advice)
    column: object = obs[name]
    if not isinstance(column, pd.Series):
        msg = (
            f"obs must have one column {name!r}, found {int((obs.columns == name).sum())}. Rename or delete the others."
        )
        raise ValueError(msg)
    return column
