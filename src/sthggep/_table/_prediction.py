"""Reading back what `tl.predict` wrote: one place that knows the record's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import counted, gene_list, genes_present, has_key, listing, predicted_genes, warn_user
from sthggep._keys import TOOL, prediction_keys
from sthggep._table._counts import counts, enough, log10_cp10k, measurable, unmeasured
from sthggep._table._targets import Targets

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One prediction: values (n_obs, n_genes), a dask array where they are on disk, their genes, and their scale."""

    key: str
    values: Any
    genes: list[str]
    panel: list[str]
    units: str
    targets: Targets | None = None
    """Where they stand in a table, of predictions of something else than genes; all of the panel."""
    path: str | None = None
    """The file that holds the values; ``None`` where they are in ``obsm``."""
    learned_from: tuple[str, ...] = ()
    """Sections whose tissue the model was trained on."""

    def columns(self, genes: Sequence[str] | None = None) -> NDArray[np.intp]:
        """Columns of ``genes``; all of them for ``None``."""
        if genes is None:
            return np.arange(len(self.genes))
        not_asked_for = set(self.panel) - set(self.genes)
        left = [gene for gene in gene_list(genes) if gene in not_asked_for]
        if left:
            msg = (
                f"The model predicts {listing(left, 5)}, but {self.key!r} holds {counted(self.genes, 'gene')} that were asked for. "
                f"Predict again with them: `sthggep.tl.predict(data, model, genes={[*self.genes[:2], *left[:2]]})`, or without `genes=` "
                "for all."
            )
            raise KeyError(msg)
        return predicted_genes(
            genes, self.genes, f"the prediction {self.key!r} (all names: `uns[{self.key!r}]['genes']`)"
        )

    def take(self, rows: NDArray[np.intp], columns: Sequence[int] | NDArray[np.intp] | None = None) -> Values:
        """Values of some spots and genes, in memory."""
        chosen = self.values[rows] if columns is None else self.values[rows][:, columns]
        return np.asarray(chosen, dtype=np.float32)


def read_prediction(adata: AnnData, key: str = "hggep") -> Prediction:
    """The prediction under ``key``, or an error that says what there is."""
    _names_one(key)
    keys = prediction_keys(key)
    there = [k for k, v in adata.uns.items() if isinstance(v, dict) and v.get("tool") == TOOL and "units" in v]
    first = f"Predictions: {there or 'none'}. Call `sthggep.tl.predict(data, model, key_added={key!r})` first."
    written = adata.uns.get(keys.uns)
    path = written.get("path") if isinstance(written, dict) and keys.obsm not in adata.obsm else None
    if path:
        values = stored(str(path), key)["X"]
    elif is_prediction(adata, key):
        values = adata.X
    else:
        values = has_key(adata.obsm, keys.obsm, "obsm", first)
    record = has_key(adata.uns, keys.uns, "uns", first)
    if not isinstance(record, dict) or record.get("tool") != TOOL or "genes" not in record:
        msg = f"uns[{keys.uns!r}] is not a record of sthggep. {first}"
        raise ValueError(msg)
    genes = [str(gene) for gene in record["genes"]]
    if np.ndim(values) != 2 or values.shape[1] != len(genes):
        where = path or f"obsm[{keys.obsm!r}]"
        msg = f"{where} has shape {np.shape(values)}, but its record names {len(genes)} genes. {first}"
        raise ValueError(msg)
    panel = [str(gene) for gene in record.get("panel", genes)]
    if not path:
        values = np.asarray(values, dtype=np.float32)
    elif len(values) != adata.n_obs:
        msg = (
            f"The prediction {key!r} is in {path}, with {len(values)} rows, but these are {adata.n_obs}: some were left out "
            "since. Predict again, or go on from the AnnData in that file."
        )
        raise ValueError(msg)
    targets = Targets.from_dict(record["targets"], panel) if "targets" in record else None
    seen = tuple(map(str, record.get("params", {}).get("learned_from", ())))
    return Prediction(key, values, genes, panel, str(record["units"]), targets, path and str(path), seen)


def is_prediction(adata: AnnData, key: str = "hggep") -> bool:
    """Whether a table is a prediction by itself, as `to_adata` and files of predictions are: its genes are what was predicted."""
    record = adata.uns.get(prediction_keys(key).uns)
    if not isinstance(record, dict) or record.get("tool") != TOOL or prediction_keys(key).obsm in adata.obsm:
        return False
    if "path" in record:  # this is a slide that knows where its prediction is
        return False
    return [str(gene) for gene in record.get("genes", ())] == list(map(str, adata.var_names)) and adata.X is not None


def _names_one(key: object) -> None:
    """Refuse what is no name of a prediction, such as the model that made it."""
    if not isinstance(key, str):
        msg = (
            f"`key` must be the name of a prediction, such as 'hggep', found {type(key).__name__}. What was predicted is in the "
            "slide: a model is passed to `sthggep.tl.predict` alone."
        )
        raise TypeError(msg)


def stored(path: str, key: str) -> dict[str, Any]:
    """What was written to a file for a prediction, as dask arrays: ``X``, and what stands beside it."""
    from anndata.experimental import read_elem_lazy

    if not Path(path).exists():
        msg = (
            f"The prediction {key!r} was written to {path}, which is not there any more. Put it back, correct "
            f"uns[{key!r}]['path'], or call `sthggep.tl.predict` again."
        )
        raise FileNotFoundError(msg)
    group = open_file(path)
    names = prediction_keys(key)
    elements = {"X": "X", names.latent: f"obsm/{names.latent}", names.counts: "layers/counts", names.std: "layers/std"}
    return {name: read_elem_lazy(group[place]) for name, place in elements.items() if place in group}


def open_file(path: str) -> Any:
    """The root of an AnnData's file, to be read from."""
    if path.endswith(".zarr"):
        import zarr

        return zarr.open_group(path, mode="r")
    import h5py

    return h5py.File(path, "r")


def measured_panel(adata: AnnData, prediction: Prediction, layer: str | None = None) -> list[str]:
    """The panel as far as there are counts of it; a warning says what is absent, an error where that is too much.

    A slide of another reference may lack a gene or two: their share of the counts is small, and so is what is missed.
    """
    if prediction.targets is not None:
        return prediction.panel
    there = measurable(adata, prediction.panel, layer)
    if not enough(there, prediction.panel):
        return prediction.panel  # reading its counts says what is wrong
    if len(there) < len(prediction.panel):
        absent = sorted(set(prediction.panel) - set(there))
        warn_user(
            f"{len(absent)} of the {len(prediction.panel)} genes of the panel of {prediction.key!r} are not in var_names: "
            f"{listing(absent, 5)}. They are left out, and what was measured is counts per 10,000 of the other {len(there)}."
        )
    return there


def observed(slide: Slide, prediction: Prediction, *, layer: str | None = None) -> Values:
    """What was measured in a section, on the prediction's own scale, columns as in the prediction; NaN of absent genes."""
    panel = measured_panel(slide.adata, prediction, layer)
    if prediction.targets is None:
        measured = log10_cp10k(counts(slide.adata, panel, layer=layer, rows=slide.rows))
    else:
        measured = prediction.targets.read(slide)
    known = set(panel)
    there = [gene in known for gene in prediction.genes]
    out = np.full((len(measured), len(prediction.genes)), np.nan, dtype=np.float32)
    out[:, there] = measured[:, genes_present(np.array(prediction.genes)[there], panel, "the panel")]
    return out


def unobserved(slide: Slide, prediction: Prediction, *, layer: str | None = None) -> str:
    """Why nothing was measured of what is predicted, in a few words; empty where there are values, whatever these are."""
    if prediction.targets is not None:
        return prediction.targets.absent(slide)
    if is_prediction(slide.adata, prediction.key):
        return "this is a prediction by itself, without counts"
    return unmeasured(slide.adata, prediction.panel, layer)
