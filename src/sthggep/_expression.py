"""Raw counts of a gene panel, checked, and the scale on which expression is learnt and judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from sthggep._checks import counted, genes_present, has_key, listing

Floats = NDArray[np.float32]
LOOKED_AT = 200  # spots, to tell whether a layer may be raw counts


def counts(
    adata: AnnData, genes: Sequence[str], *, layer: str | None = None, rows: NDArray[np.intp] | None = None
) -> Floats:
    """Raw counts of a panel, dense.

    Parameters
    ----------
    adata
        Spots × genes.
    genes
        The panel, in the order of the columns returned.
    layer
        Layer that holds the raw counts; ``None`` reads ``X``.
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
    columns = genes_present(genes, adata.var_names)
    matrix: Any = adata.X if layer is None else has_key(adata.layers, layer, "layers", "Pass the layer of raw counts.")
    where = "X" if layer is None else f"layers[{layer!r}]"
    if matrix is None:
        msg = f"`X` is empty, raw counts were expected. {_advice(adata)}"
        raise ValueError(msg)
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
