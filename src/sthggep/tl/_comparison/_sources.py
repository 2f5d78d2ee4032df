"""Predictions of any method in one form: names of spots and genes, and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import counted, gene_list, listing, unique
from sthggep._keys import TOOL
from sthggep._slides._anndata import is_spatialdata, table_of
from sthggep._slides._container_files import TABLES, read_container
from sthggep._table._matrix import as_dense
from sthggep._table._prediction import is_prediction, read_prediction
from sthggep._table._prediction_rows import is_measured

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide
    from sthggep._table._prediction import Prediction

Values = NDArray[np.float32]
EXPECTED = (
    "the key of a prediction in `data`, an AnnData or SpatialData that carries one, an AnnData of predicted expression, the "
    "path of one, a DataFrame (spots × genes), or a tuple (values, genes)"
)
SAME_PLACES = 0.98  # least share of the variance of the coordinates that an affine map explains


@dataclass(frozen=True)
class Source:
    """The prediction of one method for the spots of one object."""

    method: str
    genes: list[str]
    values: Any
    """Spots × genes: NumPy, SciPy sparse or dask."""
    spots: pd.Index | None
    """Names of the rows; ``None`` if the rows are those of the measured table."""
    table: AnnData | None = None
    """The table that carries the prediction."""
    prediction: Prediction | None = None
    """The record of a prediction by sthggep."""

    def rows(self, slide: Slide) -> NDArray[np.intp]:
        """Rows of the spots of a section, by their names; absent ones are refused."""
        if self.spots is None:
            return slide.rows
        names = pd.Index(slide.adata.obs_names[slide.rows].astype(str))
        rows = self.spots.get_indexer(names)
        if (rows < 0).any():
            absent = names[rows < 0]
            msg = (
                f"The prediction {self.method!r} lacks {counted(absent, 'spot')} of the {len(names)} of section {slide.name!r}: "
                f"{listing(absent, 3)}. It holds {counted(self.spots, 'spot')}, such as {listing(self.spots, 3)}. All methods are "
                "scored on the same spots: rename its spots to the obs_names of the slide, or pass a slide with the common "
                "spots only, `slide[slide.obs_names.isin(predicted.obs_names)].copy()`."
            )
            raise ValueError(msg)
        self._refuse_other_places(slide, rows)
        return np.asarray(rows, dtype=np.intp)

    def measured(self, slide: Slide) -> NDArray[np.bool_]:
        """Mark the spots of a section whose counts the method used."""
        if self.prediction is None or self.prediction.sources is None:
            return np.zeros(slide.n_spots, dtype=bool)
        return is_measured(self.prediction.sources.iloc[self.rows(slide)])

    def _refuse_other_places(self, slide: Slide, rows: NDArray[np.intp]) -> None:
        """Refuse spots of the same names whose coordinates are no turned, flipped, scaled or shifted ones of the slide."""
        if self.table is None or "spatial" not in self.table.obsm or len(rows) < 10:
            return
        own = np.asarray(self.table.obsm["spatial"], dtype=np.float64)[rows][:, :2]
        centered = own - own.mean(axis=0)
        target = slide.xy - slide.xy.mean(axis=0)
        residual = target - centered @ np.linalg.lstsq(centered, target, rcond=None)[0]
        if (residual**2).sum() > (1 - SAME_PLACES) * (target**2).sum():
            msg = (
                f"The prediction {self.method!r} has the names of the spots of section {slide.name!r}, but at other places: its "
                "`obsm['spatial']` is no scaled, shifted or turned form of the slide's. Were spots renamed, or is it of another section?"
            )
            raise ValueError(msg)

    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp], section: str) -> Values:
        """Read the values of some spots and genes; values that are not finite are refused."""
        values = np.asarray(as_dense(self.values[rows][:, columns]), dtype=np.float32)
        finite = np.isfinite(values)
        if not finite.all():
            genes = [self.genes[columns[i]] for i in np.flatnonzero(~finite.all(axis=0))]
            msg = (
                f"The prediction {self.method!r} holds {counted(int((~finite).sum()), 'value')} NaN or infinite in section "
                f"{section!r}, in {counted(genes, 'gene')}: {listing(genes, 3)}. Fill them in, or leave out these genes or spots."
            )
            raise ValueError(msg)
        return values

    def is_empty(self, slide: Slide) -> bool:
        """Whether sthggep predicted other sections of the table, but not this one, which is NaN throughout."""
        if self.prediction is None:
            return False
        return bool(np.isnan(self.prediction.take(self.rows(slide), [0])).all())


def load(value: object, tables: Sequence[AnnData]) -> list[object]:
    """The objects of a prediction, read from their files: one for all slides, or a list with one a slide."""
    values = value if isinstance(value, list) else [value]
    return [read_container(Path(str(each))) if _is_file(each, tables) else each for each in values]


def _is_file(value: object, tables: Sequence[AnnData]) -> bool:
    if isinstance(value, Path):
        return True
    return (
        isinstance(value, str)
        and value.lower().endswith(TABLES)
        and not any(value in table.obsm or value in table.uns for table in tables)
    )


def carries_counts(value: object, table_key: str) -> bool:
    """Whether an object holds a prediction by sthggep beside what else a slide holds."""
    if not isinstance(value, AnnData) and not is_spatialdata(value):
        return False
    table = table_of(value, table_key)
    keys = _keys(table)
    return bool(keys) and not any(is_prediction(table, key) for key in keys)


def read_source(method: str, value: object, measured: AnnData, table_key: str) -> Source:
    """Read the prediction of a method for one measured table."""
    if isinstance(value, str):
        return _from_record(method, measured, value, same_rows=True)
    if isinstance(value, pd.DataFrame):
        return _checked(Source(method, list(map(str, value.columns)), _numbers(method, value), _names(value.index)))
    if isinstance(value, tuple):
        return _from_array(method, value, measured)
    if not isinstance(value, AnnData) and not is_spatialdata(value):
        msg = f"The prediction {method!r} must be {EXPECTED}; found {type(value).__name__}."
        raise TypeError(msg)
    table = table_of(value, table_key)
    keys = _keys(table)
    if len(keys) > 1:
        msg = (
            f"The object of {method!r} carries several predictions: {listing(keys)}. Pass it as `data`, and each prediction by "
            f"its key: `tl.compare({{{keys[0]!r}: {keys[0]!r}, {keys[1]!r}: {keys[1]!r}}}, data)`."
        )
        raise ValueError(msg)
    return _from_record(method, table, keys[0]) if keys else _from_expression(method, table)


def _keys(table: AnnData) -> list[str]:
    """Keys of the predictions by sthggep in a table."""
    records = {key: value for key, value in table.uns.items() if isinstance(value, dict)}
    return [
        str(key) for key, value in records.items() if value.get("tool") == TOOL and {"genes", "units"} <= set(value)
    ]


def _from_record(method: str, table: AnnData, key: str, *, same_rows: bool = False) -> Source:
    prediction = read_prediction(table, key)
    if prediction.targets is not None:
        msg = (
            f"The prediction {method!r} is of targets, not of genes. Score it by `sthggep.tl.evaluate(data, {key!r})`."
        )
        raise ValueError(msg)
    spots = None if same_rows else _names(table.obs_names)
    return _checked(Source(method, prediction.genes, prediction.values, spots, table, prediction))


def _from_expression(method: str, table: AnnData) -> Source:
    """An AnnData of predicted expression, as other tools write it."""
    if table.X is None:
        msg = f"The prediction {method!r} is an AnnData without a record of sthggep and without `X`. Put the predictions into `X`."
        raise ValueError(msg)
    values = table.to_memory().X if table.isbacked else table.X
    return _checked(Source(method, list(map(str, table.var_names)), values, _names(table.obs_names), table))


def _from_array(method: str, value: tuple[object, ...], measured: AnnData) -> Source:
    """An array with gene names; its rows are those of the measured table."""
    if len(value) != 2 or any(isinstance(part, AnnData | str) for part in value):
        msg = (
            f"The prediction {method!r} is a tuple of {len(value)}; a tuple (values, genes) was expected, or a list with one "
            "prediction for each slide."
        )
        raise TypeError(msg)
    genes, values = gene_list(value[1]), _numbers(method, value[0])
    if values.shape != (measured.n_obs, len(genes)):
        msg = (
            f"The prediction {method!r} must have a row for each of the {counted(measured.n_obs, 'spot')} of the slide and a column "
            f"for each of its {counted(genes, 'gene')}, found the shape {values.shape}. Pass a DataFrame with the names of the spots as index."
        )
        raise ValueError(msg)
    return _checked(Source(method, genes, values, None))


def _numbers(method: str, values: object) -> Values:
    try:
        array = np.asarray(as_dense(values), dtype=np.float32)  # type: ignore[arg-type]
    except (TypeError, ValueError) as reason:
        msg = f"The prediction {method!r} must hold numbers, spots × genes: {reason}"
        raise ValueError(msg) from reason
    if array.ndim != 2:
        msg = f"The prediction {method!r} must be a table, spots × genes; found an array of shape {array.shape}."
        raise ValueError(msg)
    return array


def _names(index: pd.Index) -> pd.Index:
    names: pd.Index = pd.Index(index.astype(str))
    return names


def _checked(source: Source) -> Source:
    """Refuse names that occur more than once."""
    unique(
        source.genes, f"Genes of the prediction {source.method!r}", "Drop the duplicates, or give each its own name."
    )
    if source.spots is not None:
        unique(source.spots, f"Spots of the prediction {source.method!r}", "Pass a list with one prediction a slide.")
    return source
