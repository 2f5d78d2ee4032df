"""Raw counts of a gene panel, checked, and the scale on which expression is learnt and judged."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from sthggep._checks import has_key, listing
from sthggep._gene_names import gene_columns, names_genes

log = logging.getLogger("sthggep")
Floats = NDArray[np.float32]
# Where others keep raw counts beside a normalised X
COUNT_LAYERS = ("counts", "raw_counts")


def counts(
    adata: AnnData, genes: Sequence[str], *, layer: str | None = None, rows: NDArray[np.intp] | None = None
) -> Floats:
    """Raw counts of a panel, dense.

    Without ``layer`` they are looked for in ``X``; where that holds something else, such as log-normalised values, in
    the layers ``"counts"`` and ``"raw_counts"`` and in ``raw``, and the log says so.

    Parameters
    ----------
    adata
        Spots × genes.
    genes
        The panel, in the order of the columns returned; see :func:`sthggep._gene_names.gene_columns` for how it is found.
    layer
        Layer that holds the raw counts, and no other is looked at.
    rows
        Rows of one section; ``None`` reads all.

    Returns
    -------
    Array of shape (n_spots, n_genes).

    Raises
    ------
    KeyError
        A gene or the layer is absent.
    ValueError
        The values are negative, not whole, or not numbers.
    """
    layers = list(adata.layers)
    first: Exception | None = None
    for where, matrix, var in _sources(adata, layer):
        try:
            values = _panel_of(matrix, gene_columns(var, genes), rows, where, layers)
        except (KeyError, ValueError) as reason:
            # What X lacks is what the user should hear of
            first = first or reason
            continue
        if layer is None and where != "X":
            log.info("Raw counts are read from %s. Pass `layer=` to choose another.", where)
        return values
    if first is not None:
        raise first
    msg = f"`X` is empty, raw counts were expected. Pass `layer=`; there is: {layers}."
    raise ValueError(msg)


def unmeasured(adata: AnnData, genes: Sequence[str], layer: str | None = None) -> str:
    """Why nothing was measured of these genes, in a few words; empty where they have values, whatever these are."""
    holders = [var for _, _, var in _sources(adata, layer)]
    if not holders:
        return "X is empty"
    if any(names_genes(var, genes) for var in holders):
        return ""
    known = {str(name) for var in holders for name in var.index}
    absent = [gene for gene in genes if str(gene) not in known]
    return f"{len(absent)} of the panel's {len(genes)} genes are not in var_names ({listing(absent, 3)})"


def _sources(adata: AnnData, layer: str | None) -> Iterator[tuple[str, Any, pd.DataFrame]]:
    """Where raw counts may be: a name for it, the matrix, and what describes its genes."""
    if layer is not None:
        yield f"layers[{layer!r}]", has_key(adata.layers, layer, "layers", "Pass the layer of raw counts."), adata.var
        return
    if adata.X is not None:
        yield "X", adata.X, adata.var
    for name in COUNT_LAYERS:
        if name in adata.layers:
            yield f"layers[{name!r}]", adata.layers[name], adata.var
    if adata.raw is not None:
        yield "raw", adata.raw.X, adata.raw.var


def _panel_of(
    matrix: Any, columns: NDArray[np.intp], rows: NDArray[np.intp] | None, where: str, layers: list[str]
) -> Floats:
    """Some columns of a matrix, dense and checked."""
    if rows is not None:
        matrix = matrix[rows]
    matrix = matrix[:, columns]
    # A backed or lazy matrix arrives here as what it is on disk
    matrix = matrix.compute() if hasattr(matrix, "compute") else matrix
    values = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    _check_counts(values, where, layers)
    return values.astype(np.float32, copy=False)


def _check_counts(values: NDArray[Any], where: str, layers: list[str]) -> None:
    """Raw counts are whole, not negative, and there."""
    hint = f"Pass the layer of raw counts by `layer=`; there is: {layers}." if layers else "Raw counts are needed."
    if not np.all(np.isfinite(values)):
        msg = f"{where} holds {int((~np.isfinite(values)).sum())} values that are not numbers (NaN or infinite). {hint}"
        raise ValueError(msg)
    if (values < 0).any():
        msg = f"{where} holds negative values (smallest {values.min():g}), raw counts were expected. {hint}"
        raise ValueError(msg)
    broken = values[values != np.rint(values)]
    if broken.size:
        msg = f"{where} holds values that are not whole (such as {broken[0]:g}), raw counts were expected. {hint}"
        raise ValueError(msg)


def size_factors(panel_counts: Floats) -> Floats:
    """Library size over the section's median library size, one a spot; a spot without counts gets 1.

    The library size is the panel's count. Spots without counts do not enter the median.
    """
    library = panel_counts.sum(axis=1, dtype=np.float64)
    filled = library > 0
    if not filled.any():
        return np.ones(len(library), dtype=np.float32)
    factors = library / np.median(library[filled])
    return np.where(filled, factors, 1.0).astype(np.float32)


def log10_cp10k(panel_counts: Floats) -> Floats:
    """Expression on the published scale: log10(1 + counts per 10,000 of the panel); a spot without counts is 0."""
    library = panel_counts.sum(axis=1, keepdims=True, dtype=np.float64)
    scaled = panel_counts * (1e4 / np.where(library > 0, library, 1.0))
    return np.log10(1.0 + scaled).astype(np.float32)
