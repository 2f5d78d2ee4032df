"""Predictions that `tl.predict` wrote: one place that knows the layout of their record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import (
    LOST_RECORD,
    counted,
    gene_list,
    genes_present,
    has_key,
    is_empty,
    listing,
    predicted_genes,
    warn_user,
)
from sthggep._keys import TOOL, UNITS_OF_ALL, prediction_keys
from sthggep._table._all_counts import read_scaled_counts
from sthggep._table._counts import (
    covers_panel,
    explain_missing_counts,
    find_measured_genes,
    log10_cp10k,
)
from sthggep._table._gene_names import as_named
from sthggep._table._prediction_rows import is_measured, read_sources, refuse_mixed, rows_in_file, trained_on
from sthggep._table._targets import Targets

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    import zarr
    from dask.array import Array

    from sthggep._keys import PredictionKeys
    from sthggep._slides._slide import Slide

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One prediction: values (n_obs, n_genes), a dask array where a file holds them, with their genes and scale."""

    key: str
    values: Values | Array
    genes: list[str]
    panel: list[str]
    units: str
    targets: Targets | None = None
    """Place of the targets in a table, for a model that predicts other numbers than genes; all of the panel."""
    path: str | None = None
    """The file that holds the values; ``None`` where ``obsm`` holds them."""
    learned_from: tuple[str, ...] = ()
    """Sections that the model was trained on, by their names at the time of the prediction."""
    by_model: bool = False
    """Whether the record names a model."""
    sources: pd.Series | None = None
    """The prediction of each row of the table, and whether the model was trained on it."""
    is_mixed: bool = False
    """Whether slides of the training lacked genes of the panel, as the slide that is scored may."""

    @property
    def all_counts(self) -> bool:
        """Whether expression is scaled by all counts of a spot, since the panel is small, not by the panel's counts."""
        return self.units == UNITS_OF_ALL

    def trained_on(self, slide: Slide) -> bool | None:
        """Whether the model was trained on a section; ``None`` if neither ``obs`` nor the record says so."""
        marked = None if self.sources is None else trained_on(self.sources.iloc[slide.rows].tolist())
        if marked is None and slide.name in self.learned_from:
            return True
        return bool(marked) if marked is not None or not self.by_model else None

    def measured(self, slide: Slide) -> NDArray[np.bool_]:
        """Mark the spots of a section whose counts the model was trained on, while others of the section were left out."""
        if self.sources is None:
            return np.zeros(slide.n_spots, dtype=bool)
        return is_measured(self.sources.iloc[slide.rows])

    def columns(self, genes: Sequence[str] | None = None) -> NDArray[np.intp]:
        """Return the columns of ``genes``. Default: all columns."""
        if genes is None:
            return np.arange(len(self.genes))
        names = as_named(gene_list(genes), self.panel)
        left_out = set(self.panel) - set(self.genes)
        not_predicted = [gene for gene in names if gene in left_out]
        if not_predicted:
            msg = (
                f"The model predicts {listing(not_predicted, 5)}, but the prediction {self.key!r} holds only "
                f"{counted(self.genes, 'gene')}. Predict again with them: "
                f"`sthggep.tl.predict(data, model, genes={[*self.genes[:2], *not_predicted[:2]]})`, or without `genes=` "
                "for all genes."
            )
            raise KeyError(msg)
        return predicted_genes(
            names, self.genes, f"the prediction {self.key!r} (all names: `uns[{self.key!r}]['genes']`)"
        )

    def take(self, rows: NDArray[np.intp], columns: Sequence[int] | NDArray[np.intp] | None = None) -> Values:
        """Read the values of some spots and genes into memory."""
        values = self.values[rows] if columns is None else self.values[rows][:, columns]
        return np.asarray(values, dtype=np.float32)


def read_prediction(adata: AnnData, key: str = "hggep") -> Prediction:
    """Read the prediction under ``key``, or raise an error that lists the predictions of the table."""
    _check_key(key)
    keys = prediction_keys(key)
    names = [k for k, v in adata.uns.items() if isinstance(v, dict) and v.get("tool") == TOOL and "units" in v]
    advice = f"Predictions: {names or 'none'}. Call `sthggep.tl.predict(data, model, key_added={key!r})` first."
    _refuse_lost_record(adata, keys)
    values, path = _find_values(adata, key, advice)
    record = _check_record(adata, key, advice)
    sources = read_sources(adata, keys.source)
    refuse_mixed(key, record, sources)
    genes = [str(gene) for gene in record["genes"]]
    if np.ndim(values) != 2 or values.shape[1] != len(genes):
        where = path or f"obsm[{keys.obsm!r}]"
        msg = f"{where} has shape {np.shape(values)}, but its record names {len(genes)} genes. {advice}"
        raise ValueError(msg)
    panel = [str(gene) for gene in record.get("panel", genes)]
    if path is None:
        values = np.asarray(values, dtype=np.float32)
    targets = Targets.from_dict(record["targets"], panel) if "targets" in record else None
    learned_from = tuple(map(str, record.get("params", {}).get("learned_from", ())))
    by_model, units = "model" in record, str(record["units"])
    is_mixed = "n_sections" in record
    return Prediction(key, values, genes, panel, units, targets, path, learned_from, by_model, sources, is_mixed)


def _refuse_lost_record(adata: AnnData, keys: PredictionKeys) -> None:
    """Refuse an array whose record was lost, and say what may have become of it."""
    record = adata.uns.get(keys.uns)
    if keys.obsm in adata.obsm and (record is None or is_empty(record)):
        msg = f"obsm[{keys.obsm!r}] has no record in uns, which names its genes. {LOST_RECORD}"
        raise KeyError(msg)


def _check_record(adata: AnnData, key: str, advice: str) -> Mapping[str, Any]:
    """The record of a prediction; the errors say what may have become of it."""
    keys = prediction_keys(key)
    record = has_key(adata.uns, keys.uns, "uns", advice)
    if not isinstance(record, Mapping) or record.get("tool") != TOOL:
        msg = f"uns[{keys.uns!r}] is not a record of sthggep. {advice}"
        raise ValueError(msg)
    if "genes" not in record or "units" not in record:
        msg = (
            f"uns[{keys.uns!r}] is not a record of sthggep with genes and units. It is that of an interrupted call, or "
            f"`anndata.concat` merged the records of different predictions. {advice}"
        )
        raise ValueError(msg)
    return record


def _find_values(adata: AnnData, key: str, advice: str) -> tuple[Values | Array, str | None]:
    """Return the values of a prediction, and the path of the file that holds them, if a file does."""
    keys = prediction_keys(key)
    record = adata.uns.get(keys.uns)
    path = record.get("path") if isinstance(record, dict) and keys.obsm not in adata.obsm else None
    if path:
        return open_stored_arrays(str(path), key, adata)["X"], str(path)
    return adata.X if is_prediction(adata, key) else has_key(adata.obsm, keys.obsm, "obsm", advice), None


def is_prediction(adata: AnnData, key: str = "hggep") -> bool:
    """Whether ``X`` of a table is a prediction, as in what `to_adata` returns and in files of predictions."""
    record = adata.uns.get(prediction_keys(key).uns)
    if not isinstance(record, dict) or record.get("tool") != TOOL or prediction_keys(key).obsm in adata.obsm:
        return False
    if not record.get("in_x"):  # the table is a slide, whose prediction is in a file or was deleted
        return False
    return [str(gene) for gene in record.get("genes", ())] == list(map(str, adata.var_names)) and adata.X is not None


def _check_key(key: object) -> None:
    """Reject a key that is not a string, such as a model."""
    if not isinstance(key, str):
        msg = (
            f"`key` must be the name of a prediction, such as 'hggep', found {type(key).__name__}. The slide holds the "
            "prediction: pass a model only to `sthggep.tl.predict`."
        )
        raise TypeError(msg)


def open_stored_arrays(path: str, key: str, adata: AnnData) -> dict[str, Array]:
    """Open the arrays that a file holds of a table's prediction, as dask arrays: ``X``, and the arrays beside it.

    Their rows are those of the table, which may hold some of the spots, in another order.
    """
    from anndata.experimental import read_elem_lazy

    if not Path(path).exists():
        msg = (
            f"The prediction {key!r} must be in the file {path}, which does not exist. Put the file back, correct "
            f"uns[{key!r}]['path'], or call `sthggep.tl.predict` again."
        )
        raise FileNotFoundError(msg)
    group = open_group(path)
    names = prediction_keys(key)
    elements = {"X": "X", names.latent: f"obsm/{names.latent}", names.counts: "layers/counts"}
    elements |= {names.lower: "layers/lower", names.upper: "layers/upper"}
    arrays = {name: read_elem_lazy(group[place]) for name, place in elements.items() if place in group}
    rows = rows_in_file(adata, group, key, path)
    return arrays if rows is None else {name: array[rows] for name, array in arrays.items()}


def read_measurement_ends(adata: AnnData, prediction: Prediction) -> tuple[Values | Array, Values | Array] | None:
    """Return the ends of a prediction's intervals of measurements; ``None`` if it has none, or of the expression."""
    interval = adata.uns[prediction.key].get("interval")
    if not isinstance(interval, Mapping) or interval.get("of") != "measurement":
        return None
    path, keys = prediction.path, prediction_keys(prediction.key)
    arrays = adata.obsm if path is None else open_stored_arrays(path, prediction.key, adata)
    return (arrays[keys.lower], arrays[keys.upper]) if {keys.lower, keys.upper} <= set(arrays) else None


def open_group(path: str) -> h5py.File | zarr.Group:
    """Open the root of an AnnData's file for reading."""
    if path.endswith(".zarr"):
        import zarr

        return zarr.open_group(path, mode="r")
    import h5py

    return h5py.File(path, "r")


def find_measured_panel(adata: AnnData, prediction: Prediction, layer: str | None = None) -> list[str]:
    """Return the panel genes that have counts, and warn of absent genes.

    A slide that was aligned to another reference may lack a few genes. Their fraction of the counts is small, so that
    the scale changes little. Where too many genes are absent, the function returns the whole panel: reading its counts
    raises the error.
    """
    if prediction.targets is not None:
        return prediction.panel
    present = find_measured_genes(adata, prediction.panel, layer)
    if not covers_panel(present, prediction.panel, mixed=prediction.is_mixed):
        return prediction.panel
    if len(present) < len(prediction.panel):
        absent = sorted(set(prediction.panel) - set(present))
        warn_user(
            f"{len(absent)} of the {len(prediction.panel)} genes of the panel of {prediction.key!r} are not in var_names: "
            f"{listing(absent, 5)}. sthggep leaves them out"
            + ("." if prediction.all_counts else f" and computes counts per 10,000 of the other {len(present)}.")
        )
    if prediction.all_counts and adata.n_vars <= len(prediction.panel):
        warn_user(
            f"The prediction {prediction.key!r} is scaled by all counts of a spot, but this table holds only {counted(adata.n_vars, 'gene')}, "
            "so that its measured values are on another scale. Pass the table with all genes."
        )
    return present


def read_measured(slide: Slide, prediction: Prediction, *, layer: str | None = None) -> Values:
    """Read a section's measured values on the prediction's scale and in its columns; absent genes are NaN."""
    panel = find_measured_panel(slide.adata, prediction, layer)
    if prediction.targets is None:
        raw = read_scaled_counts(slide.adata, panel, layer=layer, rows=slide.rows, all_counts=prediction.all_counts)
        measured = log10_cp10k(raw)
    else:
        measured = prediction.targets.read(slide)
    panel_genes = set(panel)
    has_values = [gene in panel_genes for gene in prediction.genes]
    out = np.full((len(measured), len(prediction.genes)), np.nan, dtype=np.float32)
    out[:, has_values] = measured[:, genes_present(np.array(prediction.genes)[has_values], panel, "the panel")]
    return out


def explain_missing_values(slide: Slide, prediction: Prediction, *, layer: str | None = None) -> str:
    """Say in a few words why a section lacks measured values; empty where it has them, whatever the values are."""
    if prediction.targets is not None:
        return prediction.targets.explain_absence(slide)
    if is_prediction(slide.adata, prediction.key):
        return "this is a prediction by itself, without counts"
    return explain_missing_counts(slide.adata, prediction.panel, layer, mixed=prediction.is_mixed)
