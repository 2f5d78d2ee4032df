"""Raw counts, checked, and the scale of expression."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sthggep._slides._slide import Slide
from sthggep._table._counts import _suggest_layers, explain_missing_counts, log10_cp10k, read_panel_counts, size_factors
from sthggep._table._prediction import read_measured, read_prediction

COUNTS = np.array([[0, 1, 2], [3, 0, 5], [6, 7, 0], [0, 0, 0]], dtype=np.float32)


def table(matrix: object = COUNTS) -> ad.AnnData:
    return ad.AnnData(matrix, var=pd.DataFrame(index=["A", "B", "C"]))


@pytest.mark.parametrize(
    "wrap",
    [
        np.asarray,
        sparse.csr_matrix,
        sparse.csc_matrix,
        sparse.csr_array,
        lambda m: m.astype(np.int64),
        lambda m: sparse.csr_matrix(m.astype(np.uint16)),
        lambda m: da.from_array(m, chunks=2),
        lambda m: da.from_array(m, chunks=2).map_blocks(sparse.csr_matrix),
    ],
    ids=["dense", "csr", "csc", "array", "int", "uint16", "dask", "sparse dask"],
)
def test_counts_of_a_panel_in_its_order(wrap):
    adata = table(wrap(COUNTS))
    counts = read_panel_counts(adata, ["C", "A"])
    assert counts.dtype == np.float32
    np.testing.assert_array_equal(counts, COUNTS[:, [2, 0]])
    np.testing.assert_array_equal(read_panel_counts(adata, ["B"], rows=np.array([2, 0])), [[7], [1]])


def test_counts_in_a_layer():
    adata = table(np.log1p(COUNTS))
    with pytest.raises(
        ValueError,
        match=r"X must hold raw counts, found values that are not whole.*Put raw counts into `X`.*pass its name as `layer=`\.$",
    ):
        read_panel_counts(adata, ["A"])
    adata.layers["raw"] = sparse.csr_matrix(COUNTS)
    np.testing.assert_array_equal(read_panel_counts(adata, ["A"], layer="raw"), COUNTS[:, :1])
    with pytest.raises(
        ValueError, match=r"not whole \(such as 1\.38629\).*whole non-negative numbers: 'raw'\. Pass .*`layer=`\."
    ):
        read_panel_counts(adata, ["A"])
    with pytest.raises(KeyError, match=r"'counts' is not in layers, which holds 'raw'"):
        read_panel_counts(adata, ["A"], layer="counts")
    adata.X = None
    with pytest.raises(ValueError, match=r"`X` is empty.*whole non-negative numbers: 'raw'\."):
        read_panel_counts(adata, ["A"])


@pytest.mark.parametrize(
    ("layers", "words"),
    [({}, "pass its name as `layer=`."), ({"scaled": COUNTS - 1}, "Layers without raw counts: 'scaled'.")],
)
def test_x_is_not_suggested_as_a_layer(layers, words):
    """Newer versions of anndata hold ``X`` as ``layers[None]``, also an empty one."""
    for x in (COUNTS, None):
        assert _suggest_layers(SimpleNamespace(layers={None: x, **layers})).endswith(words)


def test_the_error_suggests_only_layers_of_counts():
    adata = table(np.log1p(COUNTS))
    adata.layers["true_rate"] = COUNTS + 0.1
    adata.layers["scaled"] = COUNTS - 1
    adata.layers["gaps"] = np.where(COUNTS > 5, np.nan, COUNTS)
    with pytest.raises(ValueError, match=r"as `layer=`\. Layers without raw counts: 'true_rate', 'scaled', 'gaps'\.$"):
        read_panel_counts(adata, ["A"])
    adata.layers["umi"] = sparse.csr_matrix(COUNTS)
    adata.layers["lazy"] = da.from_array(COUNTS, chunks=2)
    adata.layers["whole"] = COUNTS.astype(np.int32)
    with pytest.raises(ValueError, match=r"whole non-negative numbers: 'umi', 'lazy', 'whole'\. Pass"):
        read_panel_counts(adata, ["A"])


def normalized() -> ad.AnnData:
    """A table that is log-normalized in ``X``, as most are."""
    adata = table(np.log1p(COUNTS))
    adata.layers["scaled"] = COUNTS - 1
    return adata


@pytest.mark.parametrize("name", ["counts", "raw_counts"])
def test_raw_counts_beside_a_normalized_x(name: str, caplog: pytest.LogCaptureFixture):
    adata = normalized()
    adata.layers[name] = sparse.csr_matrix(COUNTS)
    with caplog.at_level(logging.INFO, logger="sthggep"):
        np.testing.assert_array_equal(read_panel_counts(adata, ["C", "A"], rows=np.array([1])), COUNTS[[1]][:, [2, 0]])
    assert f"Reading raw counts from layers['{name}']" in caplog.text
    # the argument of the user decides
    with pytest.raises(ValueError, match=r"layers\['scaled'\] must hold raw counts, found negative values"):
        read_panel_counts(adata, ["A"], layer="scaled")
    adata.X = None
    np.testing.assert_array_equal(read_panel_counts(adata, ["A"]), COUNTS[:, :1])


def test_raw_counts_in_raw_with_more_genes(caplog: pytest.LogCaptureFixture):
    full = table(sparse.csr_matrix(COUNTS))
    adata = normalized()[:, ["C"]].copy()
    adata.raw = full
    with caplog.at_level(logging.INFO, logger="sthggep"):
        np.testing.assert_array_equal(read_panel_counts(adata, ["B", "C"]), COUNTS[:, [1, 2]])
    assert "Reading raw counts from raw" in caplog.text
    assert explain_missing_counts(adata, ["B", "C"]) == ""


def test_the_error_without_raw_counts_describes_x():
    adata = normalized()
    adata.raw = adata.copy()
    adata.layers["counts"] = COUNTS + 0.5
    with pytest.raises(
        ValueError,
        match=r"X must hold raw counts, found values that are not whole.*without raw counts: 'scaled', 'counts'",
    ):
        read_panel_counts(adata, ["A"])
    with pytest.raises(KeyError, match="'TP53'"):
        read_panel_counts(adata, ["TP53"])
    assert explain_missing_counts(ad.AnnData(obs=adata.obs), ["A"]) == "X is empty"


def test_whole_numbers_in_x_come_before_layers(caplog: pytest.LogCaptureFixture):
    adata = table()
    adata.layers["counts"] = COUNTS * 2
    with caplog.at_level(logging.INFO, logger="sthggep"):
        np.testing.assert_array_equal(read_panel_counts(adata, ["A"]), COUNTS[:, :1])
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "1 value NaN or infinite"),
        (np.inf, "infinite"),
        (-2, r"negative values \(smallest -2\)"),
        (0.5, "0.5"),
    ],
)
@pytest.mark.parametrize("wrap", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def test_values_that_are_no_counts(value: float, words: str, wrap):
    values = COUNTS.copy()
    values[1, 1] = value
    adata = table(wrap(values))
    with pytest.raises(ValueError, match=words):
        read_panel_counts(adata, ["A", "B"])
    # values of other genes do not matter
    np.testing.assert_array_equal(read_panel_counts(adata, ["A", "C"]), COUNTS[:, [0, 2]])


def test_absent_genes():
    with pytest.raises(KeyError, match="1 of 2 genes are not in var_names: 'TP53'"):
        read_panel_counts(table(), ["A", "TP53"])


def test_log10_counts_per_10k_of_the_panel():
    expression = log10_cp10k(COUNTS)
    np.testing.assert_allclose(expression[0], np.log10(1 + 1e4 * np.array([0, 1, 2]) / 3), rtol=1e-6)
    np.testing.assert_allclose(expression[2, 0], np.log10(1 + 1e4 * 6 / 13), rtol=1e-6)
    assert expression.dtype == np.float32
    assert (expression[3] == 0).all()  # no counts, no NaN
    # sums of whole counts are exact, even where float32 sums are not
    deep = np.full((1, 2), 2**24 + 1, dtype=np.float32)
    np.testing.assert_allclose(log10_cp10k(deep), np.log10(5001), rtol=1e-6)


def test_size_factors():
    # panel counts 3, 8, 13, 0: the median of spots with counts is 8
    np.testing.assert_allclose(size_factors(COUNTS), [3 / 8, 1, 13 / 8, 1])
    np.testing.assert_array_equal(size_factors(np.zeros((3, 2), np.float32)), [1, 1, 1])


# --- reading a prediction -----------------------------------------------------------------------------------------


def predicted() -> ad.AnnData:
    adata = table()
    adata.obsm["hggep"] = np.arange(8, dtype=np.float64).reshape(4, 2)
    adata.uns["hggep"] = {"tool": "sthggep", "genes": np.array(["C", "A"], object), "units": "log"}
    return adata


def whole(adata: ad.AnnData, *rows: int) -> Slide:
    """All rows as one section, or some of them."""
    indices = np.array(rows or range(adata.n_obs), dtype=np.intp)
    return Slide("section", adata, indices, np.zeros((len(indices), 2)))


def test_prediction_and_its_observed_counterpart():
    adata = predicted()
    prediction = read_prediction(adata)
    assert (prediction.genes, prediction.panel, prediction.units) == (["C", "A"], ["C", "A"], "log")
    assert prediction.values.dtype == np.float32
    np.testing.assert_array_equal(prediction.columns(["A"]), [1])
    np.testing.assert_array_equal(prediction.columns(), [0, 1])
    # per 10,000 counts of the panel, not of all genes
    np.testing.assert_allclose(read_measured(whole(adata), prediction), log10_cp10k(COUNTS[:, [2, 0]]))
    np.testing.assert_allclose(read_measured(whole(adata, 2), prediction), log10_cp10k(COUNTS[[2]][:, [2, 0]]))
    adata.uns["hggep"]["panel"] = np.array(["A", "B", "C"], object)
    np.testing.assert_allclose(read_measured(whole(adata), read_prediction(adata)), log10_cp10k(COUNTS)[:, [2, 0]])
    with pytest.raises(KeyError, match=r"Not among the 2 genes of the prediction .*: 'B'"):
        prediction.columns(["B"])


def test_missing_predictions_are_named():
    adata = predicted()
    with pytest.raises(
        KeyError, match=r"'other' is not in obsm.*Predictions: \['hggep'\].*tl\.predict.*key_added='other'"
    ):
        read_prediction(adata, "other")
    with pytest.raises(KeyError, match="Predictions: none"):
        read_prediction(table())


def test_arrays_that_are_no_prediction():
    adata = predicted()
    adata.obsm["hggep"] = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"shape \(4, 3\), but its record names 2 genes"):
        read_prediction(adata)
    adata.uns["hggep"] = {"tool": "another"}
    with pytest.raises(ValueError, match="not a record of sthggep"):
        read_prediction(adata)
