"""The earlier prediction of a table, whose rows a prediction of other sections keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, written_beside
from sthggep._table._prediction import open_stored_arrays
from sthggep._table._prediction_rows import read_sources, source_ids

if TYPE_CHECKING:
    from anndata import AnnData

    from sthggep._keys import PredictionKeys
    from sthggep.tl._request import Request

# Entries of the record with one value for each section
BY_SECTION = ("sections", "mpp", "mpp_source")


@dataclass(frozen=True)
class EarlierPrediction:
    """A prediction of the same model under the same name, for rows that are not predicted now."""

    rows: NDArray[np.intp]
    arrays: Mapping[str, Any]
    """Arrays by their keys in ``obsm``, with a row for each spot of the table."""
    params: Mapping[str, Any]
    sources: pd.Series | None

    def parts(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """The values of the kept rows, by key."""
        for name, values in self.arrays.items():
            yield name, np.asarray(values[self.rows], dtype=np.float32)

    def merged_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The options and sections of both predictions; a section that is predicted again counts once."""
        new = {str(name) for name in params["sections"]}
        names = [str(name) for name in np.atleast_1d(self.params.get("sections", ()))]
        stay = [i for i, name in enumerate(names) if name not in new]
        merged = dict(params)
        for name in BY_SECTION:
            earlier = np.atleast_1d(self.params.get(name, ()))
            if len(earlier) == len(names):
                merged[name] = np.concatenate([earlier[stay], params[name]])
        learned = [str(name) for name in np.atleast_1d(self.params.get("learned_from", ())) if str(name) not in new]
        merged["learned_from"] = np.array([*learned, *params["learned_from"]], dtype=object)
        return merged


def find_earlier(request: Request, record: Mapping[str, Any]) -> EarlierPrediction | None:
    """Find the rows to keep; ``None`` if there are none. Refuse to erase those of another prediction."""
    table, keys = request.table, request.keys
    predicted_now = np.concatenate([slide.rows for slide in request.slides])
    others = np.setdiff1d(np.arange(table.n_obs), predicted_now)
    stored = table.uns.get(keys.uns)
    if not len(others) or not isinstance(stored, Mapping):
        return None
    arrays = _stored_arrays(table, keys, stored)
    rows = others[np.isfinite(_column(arrays[keys.obsm])[others])] if arrays else others[:0]
    if not len(rows):
        return None
    sources = read_sources(table, keys.source)
    ids = {stored.get("source")} if sources is None else set(source_ids(sources.iloc[rows]))
    same_interval = dict(stored.get("interval", {})) == record.get("interval", {})
    if ids != {record["source"]} or set(arrays) != {keys.obsm, *request.arrays} or not same_interval:
        msg = (
            f"{keys.obsm!r} holds predictions of {counted(len(rows), 'other spot')}, by another model, of other genes or with "
            "other arrays beside them, and this call would erase them. Pass another `key_added=`, repeat the options of that "
            f"call, predict all sections at once, or delete uns[{keys.uns!r}] and obsm[{keys.obsm!r}] first."
        )
        raise ValueError(msg)
    return EarlierPrediction(rows, arrays, stored.get("params", {}), sources)


def _stored_arrays(table: AnnData, keys: PredictionKeys, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a prediction by their keys in ``obsm``; empty if there are none, or a file is of other rows."""
    if keys.obsm in table.obsm:
        beside = [name for name in written_beside(stored) if name in table.obsm]
        return {name: table.obsm[name] for name in (keys.obsm, *beside)}
    try:
        arrays = open_stored_arrays(str(stored["path"]), keys.obsm, table)
    except (KeyError, OSError, ValueError):
        return {}
    return {keys.obsm if name == "X" else name: values for name, values in arrays.items()}


def _column(values: Any) -> NDArray[np.float32]:
    """The first column, read into memory."""
    return np.asarray(values[:, 0], dtype=np.float32)
