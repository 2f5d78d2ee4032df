"""Raw counts of a gene panel, checked, and the scale on which models are trained and scored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import counted, has_key, listing
from sthggep._log import ONCE, log
from sthggep._table._gene_names import find_gene_columns, find_genes
from sthggep._table._matrix import Matrix, as_dense, row_sums, stored_values

Floats = NDArray[np.float32]
# Layers in which raw counts commonly stand beside a normalized X
COUNT_LAYERS = ("counts", "raw_counts")
LEAST_PANEL_FRACTION = 0.5
SAMPLE_SPOTS = 200  # enough to see whether a layer may hold raw counts


def read_panel_counts(
    adata: AnnData, genes: Sequence[str], *, layer: str | None = None, rows: NDArray[np.intp] | None = None
) -> Floats:
    """Read the raw counts of a panel as a dense array.

    Without ``layer`` the function searches ``X``, ``layers["counts"]``, ``layers["raw_counts"]``, then ``raw``. It reads
    the first of these that holds whole non-negative numbers of all panel genes. Where it does not read ``X``, it logs
    what it reads.

    Parameters
    ----------
    adata
        Spots × genes.
    genes
        The panel, in the order of the returned columns. :func:`sthggep._table._gene_names.find_gene_columns` says how
        the function finds a gene.
    layer
        The only layer to read.
    rows
        Rows of one section. Default: all rows.

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
    return _read_source(adata, genes, layer, rows)[0]


def _read_source(
    adata: AnnData, genes: Sequence[str], layer: str | None, rows: NDArray[np.intp] | None
) -> tuple[Floats, Matrix]:
    """Read the raw counts of a panel as :func:`read_panel_counts` does; return them with the matrix that holds them."""
    first_error: Exception | None = None
    for where, matrix, var in _count_sources(adata, layer):
        try:
            values = _read_columns(matrix, find_gene_columns(var, genes), rows, where, adata)
        except (KeyError, ValueError) as error:
            # The error about X helps most: the user expects counts there
            first_error = first_error or error
            continue
        if layer is None and where != "X":
            log.info("Reading raw counts from %s. Pass `layer=` to read another layer.", where, extra=ONCE)
        return values, matrix
    if first_error is not None:
        raise first_error
    msg = f"`X` must hold raw counts, but `X` is empty. {_suggest_layers(adata)}"
    raise ValueError(msg)


def read_total_counts(
    adata: AnnData, genes: Sequence[str], *, layer: str | None = None, rows: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Sum all counts of each spot, (n,), in the matrix from which :func:`read_panel_counts` reads these genes."""
    _, matrix = _read_source(adata, genes, layer, rows)
    totals = row_sums(matrix[:] if rows is None else matrix[rows])
    if problem := _describe_non_counts(totals):
        msg = f"All genes must have raw counts, since this small panel is scaled by all counts of a spot, found sums with {problem}."
        raise ValueError(msg)
    return totals


def find_measured_genes(adata: AnnData, genes: Sequence[str], layer: str | None = None) -> list[str]:
    """Return the genes that have values, from the matrix that holds most of them."""
    return max((find_genes(var, genes) for _, _, var in _count_sources(adata, layer)), key=len, default=[])


def covers_panel(present: Collection[str], genes: Sequence[str], *, mixed: bool = False) -> bool:
    """Whether enough panel genes are present for counts per 10,000 to keep about the same scale.

    Of ``mixed`` panels a slide holds a part, which may be small: correlations do not depend much on the scale.
    """
    return len(present) >= max(min(2, len(genes)), 0 if mixed else LEAST_PANEL_FRACTION * len(genes))


def explain_missing_counts(
    adata: AnnData, genes: Sequence[str], layer: str | None = None, *, mixed: bool = False
) -> str:
    """Say in a few words why too few of these genes have values; empty where enough have, whatever the values are."""
    if not any(True for _ in _count_sources(adata, layer)):
        return "X is empty"
    present = set(find_measured_genes(adata, genes, layer))
    if covers_panel(present, genes, mixed=mixed):
        return ""
    absent = [gene for gene in map(str, genes) if gene not in present]
    return f"{len(absent)} of the panel's {len(genes)} genes are not in var_names ({listing(absent, 3)})"


def _count_sources(adata: AnnData, layer: str | None) -> Iterator[tuple[str, Matrix, pd.DataFrame]]:
    """Yield each place that may hold raw counts: its name, its matrix, and the annotation of its genes."""
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


def _read_columns(
    matrix: Matrix, columns: NDArray[np.intp], rows: NDArray[np.intp] | None, where: str, adata: AnnData
) -> Floats:
    """Read some columns of a matrix, dense, and check that they are raw counts."""
    if rows is not None:
        matrix = matrix[rows]
    values = as_dense(matrix[:, columns])
    if problem := _describe_non_counts(values):
        msg = f"{where} must hold raw counts, found {problem}. {_suggest_layers(adata)}"
        raise ValueError(msg)
    return values.astype(np.float32, copy=False)


def _describe_non_counts(values: NDArray[np.number]) -> str:
    """Say in a few words why values cannot be raw counts; empty where they can."""
    if not np.all(np.isfinite(values)):
        return f"{counted(int((~np.isfinite(values)).sum()), 'value')} NaN or infinite"
    if (values < 0).any():
        return f"negative values (smallest {values.min():g})"
    broken = values[values != np.rint(values)]
    return f"values that are not whole (such as {broken[0]:g})" if broken.size else ""


def _suggest_layers(adata: AnnData) -> str:
    """Name the layers whose first spots look like raw counts, else say where to put raw counts."""
    candidates = []
    names = [name for name in adata.layers if name is not None]  # anndata 0.13 holds X as layers[None]
    for name in names:
        values = stored_values(adata.layers[name][:SAMPLE_SPOTS])
        if values.dtype.kind in "uifb" and not _describe_non_counts(values):
            candidates.append(name)
    if candidates:
        return f"These layers hold whole non-negative numbers: {listing(candidates)}. Pass one of them as `layer=`."
    others = f" Layers without raw counts: {listing(names)}." if names else ""
    return f"Put raw counts into `X`, or put them into a layer and pass its name as `layer=`.{others}"


def size_factors(panel_counts: Floats, rest: Floats | None = None) -> Floats:
    """Divide each spot's library size by the section's median library size; a spot without counts gets 1.

    The library size is the sum of the panel's counts, and of the ``rest`` if there is one. The median leaves out spots
    without counts.
    """
    library = panel_counts.sum(axis=1, dtype=np.float64)
    library = library if rest is None else library + rest
    filled = library > 0
    if not filled.any():
        return np.ones(len(library), dtype=np.float32)
    factors = library / np.median(library[filled])
    return np.where(filled, factors, 1.0).astype(np.float32)


def log10_cp10k(panel_counts: Floats) -> Floats:
    """Scale counts as the paper does: log10(1 + counts per 10,000 of the panel); a spot without counts gets 0."""
    library = panel_counts.sum(axis=1, keepdims=True, dtype=np.float64)
    scaled = panel_counts * (1e4 / np.where(library > 0, library, 1.0))
    return np.log10(1.0 + scaled).astype(np.float32)
