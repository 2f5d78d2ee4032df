"""Which spots of a table are measured, as the user says; and short codes by which a model recognizes them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import has_key, listing

if TYPE_CHECKING:
    from anndata import AnnData

Mask = NDArray[np.bool_]
DIGITS = 8  # of the code of a spot


def read_mask(table: AnnData, measured: str | Sequence[bool] | pd.Series) -> Mask:
    """Read which rows of a table are measured: a column of ``obs``, or a mask.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        It is not true or false for each spot.
    """
    what, values = "`measured`", measured
    if isinstance(measured, str):
        what = f"obs[{measured!r}]"
        values = has_key(table.obs, measured, "obs", "Pass the column that is true for measured spots, or a mask.")
    elif isinstance(measured, pd.Series) and not measured.index.equals(pd.RangeIndex(len(measured))):
        values = measured.reindex(table.obs_names) if set(measured.index) == set(table.obs_names) else measured
    column = pd.Series(np.asarray(values, dtype=object))
    if len(column) != table.n_obs or not set(column.unique()) <= {True, False}:
        found = f"{len(column)} values" if len(column) != table.n_obs else f"values {listing(column.unique(), 4)}"
        msg = f"{what} must be true or false for each of the {table.n_obs} spots, without gaps; found {found}."
        raise ValueError(msg)
    return column.to_numpy(dtype=bool)


def codes_of(names: Sequence[str]) -> str:
    """Join a code of eight hexadecimal digits for each name."""
    return "".join(f"{code:0{DIGITS}x}" for code in sorted({int(code) for code in _hashes(names)}))


def has_code(names: Sequence[str], codes: str) -> Mask:
    """Whether the code of each name is among those joined by :func:`codes_of`."""
    known = [int(codes[i : i + DIGITS], 16) for i in range(0, len(codes), DIGITS)]
    return np.isin(_hashes(names), np.array(known, dtype=np.uint64))


def _hashes(names: Sequence[str]) -> NDArray[np.uint64]:
    """The leading bits of a hash of each name."""
    hashes = pd.util.hash_array(np.array([str(name) for name in names], dtype=object))
    return np.asarray(hashes >> np.uint64(64 - 4 * DIGITS), dtype=np.uint64)
