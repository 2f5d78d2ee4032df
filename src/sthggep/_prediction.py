"""Reading back what `tl.predict` wrote: one place that knows the record's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import genes_present, has_key
from sthggep._expression import counts, log10_cp10k
from sthggep._keys import TOOL, prediction_keys


@dataclass(frozen=True)
class Prediction:
    """One prediction: values (n_obs, n_genes), the genes of its columns, and its scale."""

    key: str
    values: NDArray[np.float32]
    genes: list[str]
    panel: list[str]
    units: str

    def columns(self, genes: Sequence[str] | None = None) -> NDArray[np.intp]:
        """Columns of ``genes``; all of them for ``None``."""
        if genes is None:
            return np.arange(len(self.genes))
        return genes_present(genes, self.genes, f"the prediction {self.key!r}")


def read_prediction(adata: AnnData, key: str = "hggep") -> Prediction:
    """The prediction under ``key``, or an error that says what there is."""
    keys = prediction_keys(key)
    there = [k for k, v in adata.uns.items() if isinstance(v, dict) and v.get("tool") == TOOL and "units" in v]
    first = f"Predictions: {there or 'none'}. Call `sthggep.tl.predict(data, model, key_added={key!r})` first."
    values = has_key(adata.obsm, keys.obsm, "obsm", first)
    record = has_key(adata.uns, keys.uns, "uns", first)
    if not isinstance(record, dict) or record.get("tool") != TOOL or "genes" not in record:
        msg = f"uns[{keys.uns!r}] is not a record of sthggep. {first}"
        raise ValueError(msg)
    genes = [str(gene) for gene in record["genes"]]
    if np.ndim(values) != 2 or values.shape[1] != len(genes):
        msg = f"obsm[{keys.obsm!r}] has shape {np.shape(values)}, but its record names {len(genes)} genes. {first}"
        raise ValueError(msg)
    panel = [str(gene) for gene in record.get("panel", genes)]
    return Prediction(key, np.asarray(values, dtype=np.float32), genes, panel, str(record["units"]))


def observed(
    adata: AnnData, prediction: Prediction, *, layer: str | None = None, rows: NDArray[np.intp] | None = None
) -> NDArray[np.float32]:
    """Measured expression on the prediction's own scale, columns as in the prediction."""
    measured = log10_cp10k(counts(adata, prediction.panel, layer=layer, rows=rows))
    return measured[:, genes_present(prediction.genes, prediction.panel, "the panel")]
