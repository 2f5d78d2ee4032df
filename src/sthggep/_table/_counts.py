"""Raw counts of a gene panel, checked, and the scale on which expression is learned and judged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from sthggep._checks import counted, has_key, listing
from sthggep._log import ONCE, log
from sthggep._table._gene_names import gene_columns, known_genes

Floats = NDArray[np.float32]
# Where others keep raw counts beside a normalized X
COUNT_LAYERS = ("counts", "raw_counts")
ENOUGH = 0.5  # of a panel
LOOKED_AT = 200  # spots, to tell whether a layer may be raw counts


def counts(
    adata: AnnData, genes: Sequence[str], *, layer: str | None = None, rows: NDArray[np.intp] | None = None
) -> Floats:
    """Raw counts of a panel, dense.

    Without ``layer`` they are looked for in ``X``; where that holds something else, such as log-normalized values, in
    the layers ``"counts"`` and ``"raw_counts"`` and in ``raw``, and the log says so.

    Parameters
    ----------
    adata
        Spots × genes.
    genes
        The panel, in the order of the columns returned; see :func:`sthggep._table._gene_names.gene_columns` for how it is found.
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
    first: Exception | None = None
    for where, matrix, var in _sources(adata, layer):
        try:
            values = _panel_of(matrix, gene_columns(var, genes), rows, where, adata)
        except (KeyError, ValueError) as reason:
            # What X lacks is what the user should hear of
            first = first or reason
            continue
        if layer is None and where != "X":
            log.info("Raw counts are read from %s. Pass `layer=` to choose another.", where, extra=ONCE)
        return values
    if first is not None:
        raise first
    msg = f"`X` is empty, raw counts were expected. {_advice(adata)}"
    raise ValueError(msg)


def measurable(adata: AnnData, genes: Sequence[str], layer: str | None = None) -> list[str]:
    """Those of the genes that there are values of, where most are."""
    return max((known_genes(var, genes) for _, _, var in _sources(adata, layer)), key=len, default=[])


def enough(there: Collection[str], genes: Sequence[str]) -> bool:
    """Whether so many of a panel's genes are there that counts per 10,000 of them are about the same scale."""
    return len(there) >= max(min(2, len(genes)), ENOUGH * len(genes))


def unmeasured(adata: AnnData, genes: Sequence[str], layer: str | None = None) -> str:
    """Why too little was measured of these genes, in a few words; empty where they have values, whatever these are."""
    if not any(True for _ in _sources(adata, layer)):
        return "X is empty"
    there = set(measurable(adata, genes, layer))
    if enough(there, genes):
        return ""
    absent = [gene for gene in map(str, genes) if gene not in there]
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
    matrix: Any, columns: NDArray[np.intp], rows: NDArray[np.intp] | None, where: str, adata: AnnData
) -> Floats:
    """Some columns of a matrix, dense and checked."""
    if rows is not None:
        matrix = matrix[rows]
    matrix = matrix[:, columns]
    # A backed or lazy matrix arrives here as what it is on disk
    matrix = matrix.compute() if hasattr(matrix, "compute") else matrix
    values = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    _check_counts(values, where, adata)
    return values.astype(np.float32, copy=False)


def _check_counts(values: NDArray[Any], where: str, adata: AnnData) -> None:
    """Raw counts are whole, not negative, and there."""
    if problem := _no_counts(values):
        msg = f"{where} holds {problem}, raw counts were expected. {_advice(adata)}"
        raise ValueError(msg)


def _no_counts(values: NDArray[Any]) -> str:
    """What is in the way of values being raw counts, in a few words."""
    if not np.all(np.isfinite(values)):
        return f"{counted(int((~np.isfinite(values)).sum()), 'value')} NaN or infinite"
    if (values < 0).any():
        return f"negative values (smallest {values.min():g})"
    broken = values[values != np.rint(values)]
    return f"values that are not whole (such as {broken[0]:g})" if broken.size else ""


def _advice(adata: AnnData) -> str:
    """Which layers may be the raw counts, judged by their first spots."""
    found = []
    for name, layer in adata.layers.items():
        some: Any = layer[:LOOKED_AT]
        some = some.compute() if hasattr(some, "compute") else some
        values = some.data if sparse.issparse(some) else np.asarray(some)
        if values.dtype.kind in "uifb" and not _no_counts(values):
            found.append(name)
    if found:
        return f"Pass the layer of raw counts by `layer=`; such layers are: {listing(found)}."
    there = f" No layer holds any; there is {listing(adata.layers)}." if len(adata.layers) else ""
    return f"Put raw counts into `X`, or into a layer and pass `layer=`.{there}"


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
