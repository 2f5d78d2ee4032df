"""Small panels: which are scaled by all counts of a spot, and the counts that such a scale needs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from sthggep._table._all_counts import AllCounts, needs_all_counts, read_rest, read_scaled_counts, with_rest
from sthggep._table._counts import log10_cp10k, size_factors
from sthggep._table._mixed_panels import PanelCounts

RNG = np.random.default_rng(0)
NAMES = [f"g{i}" for i in range(200)]


def table(x: np.ndarray, form=np.asarray) -> AnnData:
    adata = AnnData(form(x.astype(np.float32)))
    adata.var_names = NAMES[: x.shape[1]]
    return adata


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array])
@pytest.mark.parametrize("rows", [None, np.array([3, 1])])
def test_the_rest_is_what_the_panel_leaves(form, rows):
    x = RNG.poisson(3, (6, 5))
    adata, panel = table(x, form), ["g3", "g1"]
    part = x if rows is None else x[rows]
    raw = read_scaled_counts(adata, panel, rows=rows, all_counts=True)
    np.testing.assert_array_equal(raw, np.column_stack([part[:, 3], part[:, 1], part[:, [0, 2, 4]].sum(axis=1)]))
    np.testing.assert_array_equal(read_scaled_counts(adata, panel, rows=rows, all_counts=False), part[:, [3, 1]])


def test_the_rest_is_of_the_matrix_that_holds_the_panel():
    x = RNG.poisson(3, (6, 5))
    adata = table(x / 7)  # a normalized X
    adata.layers["counts"] = x.astype(np.float32)
    raw = read_scaled_counts(adata, ["g0"], all_counts=True)
    np.testing.assert_array_equal(raw.sum(axis=1), x.sum(axis=1))


def test_other_genes_without_raw_counts_are_refused():
    x = RNG.poisson(3, (6, 5)).astype(float)
    x[:, 4] += 0.5
    with pytest.raises(ValueError, match="All genes must have raw counts, since this small panel"):
        read_scaled_counts(table(x), ["g0"], all_counts=True)


def test_expression_and_size_factors_are_of_all_counts():
    x = RNG.poisson(4, (8, 5)).astype(np.float32)
    counts, rest = x[:, :2], x[:, 2:].sum(axis=1)
    expression = AllCounts().expression(PanelCounts(counts, np.ones(2, dtype=bool), rest))
    np.testing.assert_allclose(expression, log10_cp10k(x)[:, :2], rtol=1e-6)
    np.testing.assert_allclose(size_factors(counts, rest), size_factors(x), rtol=1e-6)
    assert with_rest(counts, None) is counts
    np.testing.assert_array_equal(read_rest(table(x), ["g0", "g1"], counts), rest)


@pytest.mark.parametrize(
    ("n_panel", "depth_of_panel", "expected"),
    [(2, 1, True), (99, 1, True), (100, 1, False), (2, 500, False), (60, 4, False)],
)
def test_few_genes_with_few_of_the_counts_need_all_counts(n_panel: int, depth_of_panel: int, expected: bool):
    x = RNG.poisson(2, (20, 200))
    x[:, :n_panel] *= depth_of_panel
    slide = SimpleNamespace(adata=table(x), rows=np.arange(20))
    assert needs_all_counts(NAMES[:n_panel], [slide, slide], None) is expected
