"""Scores by hand, the noise ceiling against theory, written fields."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from sthggep import datasets, tl
from sthggep._table._counts import log10_cp10k
from sthggep._table._scores import column_pearson, noise_ceiling, score

GENES = ["A", "B", "C"]
COLUMNS = ["pearson", "spearman", "rmse", "ceiling", "of_ceiling", "ssim", "mean_observed"]


def predicted(counts: np.ndarray, values: np.ndarray, genes: list[str] = GENES, prefix: str = "s") -> ad.AnnData:
    adata = ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=[f"{prefix}{i}" for i in range(len(counts))]),
        var=pd.DataFrame(index=[*genes, "OTHER"][: counts.shape[1]]),
    )
    adata.obsm["spatial"] = np.arange(2.0 * len(counts)).reshape(-1, 2)
    adata.obsm["hggep"] = values.astype(np.float32)
    adata.uns["hggep"] = {"tool": "sthggep", "genes": np.array(genes, dtype=object), "units": "log"}
    return adata


def with_interval(adata: ad.AnnData, half: float, of: str = "measurement") -> ad.AnnData:
    measured = log10_cp10k(adata.X.toarray()[:, :3])
    adata.obsm["hggep_lower"], adata.obsm["hggep_upper"] = measured - half, measured + half
    # The first gene misses in the first quarter of the spots
    adata.obsm["hggep_lower"][: len(measured) // 4, 0] += 2 * half
    adata.uns["hggep"]["interval"] = {"level": 0.9, "of": of}
    return adata


def example(seed: int = 0, n_spots: int = 40, prefix: str = "s") -> ad.AnnData:
    rng = np.random.default_rng(seed)
    counts = rng.poisson([5, 20, 60, 100], (n_spots, 4))
    return predicted(
        counts, log10_cp10k(counts[:, :3].astype(np.float32)) + rng.normal(0, 0.3, (n_spots, 3)), prefix=prefix
    )


# --- by hand ------------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    measured = np.array([[1.0, 2, 0], [2.0, 4, 0], [3.0, 1, 1], [4.0, 3, 0]], dtype=np.float32)
    guess = np.array([[1.0, 0, 0], [3.0, 0, 0], [2.0, 0, 3], [5.0, 0, 1]], dtype=np.float32)
    scores = score(guess, measured)
    # gene 0: deviations (-1.5, -.5, .5, 1.5) and (-1.75, .25, -.75, 2.25); ranks 1 2 3 4 and 1 3 2 4
    assert scores["pearson"][0] == pytest.approx(5.5 / np.sqrt(5 * 8.75))
    assert scores["spearman"][0] == pytest.approx(0.8)
    assert scores["rmse"][0] == pytest.approx(np.sqrt((0 + 1 + 1 + 1) / 4))
    assert np.isnan(scores["pearson"][1])
    assert np.isnan(scores["spearman"][1])
    assert scores["rmse"][1] == pytest.approx(np.sqrt((4 + 16 + 1 + 9) / 4))
    # ties share their rank
    assert scores["spearman"][2] == pytest.approx(stats.spearmanr([0, 0, 3, 1], [0, 0, 1, 0]).statistic)
    np.testing.assert_allclose(scores["mean_observed"], [2.5, 2.5, 0.25])


def test_columns_are_correlated_one_by_one():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 4)).astype(np.float32)
    np.testing.assert_allclose(column_pearson(a, b), [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)], rtol=1e-6)
    assert np.isnan(column_pearson(a[:1], b[:1])).all()


def test_measured_is_on_the_scale_of_the_panel():
    adata = example()
    scores = tl.evaluate(adata)
    assert list(scores.columns) == COLUMNS
    assert (list(scores.index), scores.index.name) == (GENES, "gene")
    counts = adata.X.toarray()[:, :3]
    measured = np.log10(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))
    guess = adata.obsm["hggep"]
    for i, gene in enumerate(GENES):
        assert scores.loc[gene, "pearson"] == pytest.approx(
            stats.pearsonr(guess[:, i], measured[:, i]).statistic, rel=1e-5
        )
        assert scores.loc[gene, "spearman"] == pytest.approx(
            stats.spearmanr(guess[:, i], measured[:, i]).statistic, rel=1e-5
        )
        assert scores.loc[gene, "rmse"] == pytest.approx(
            np.sqrt(np.mean((guess[:, i] - measured[:, i]) ** 2)), rel=1e-5
        )
        assert scores.loc[gene, "mean_observed"] == pytest.approx(measured[:, i].mean(), rel=1e-5)
    perfect = adata.copy()
    perfect.obsm["hggep"] = log10_cp10k(counts)
    np.testing.assert_allclose(tl.evaluate(perfect)["pearson"], 1)
    np.testing.assert_allclose(tl.evaluate(perfect)["rmse"], 0, atol=1e-6)


def test_some_genes_only():
    adata = example()
    whole = tl.evaluate(adata)
    pd.testing.assert_frame_equal(tl.evaluate(adata, genes=["C", "A"]), whole.loc[["C", "A"]])
    with pytest.raises(KeyError, match=r"Not among the 3 genes of the prediction 'hggep'.*: 'OTHER'"):
        tl.evaluate(adata, genes=["OTHER"])


def test_bad_keys_and_gene_lists_are_refused():
    adata = example()
    with pytest.raises(TypeError, match=r"`key` must be text, found {}"):
        tl.evaluate(adata, {})
    with pytest.raises(TypeError, match=r"`genes` must be a list of genes, found 'A'. Pass `genes=\['A'\]`"):
        tl.evaluate(adata, genes="A")


def test_counts_in_a_layer():
    adata = example()
    expected = tl.evaluate(adata)
    adata.layers["raw"], adata.X = adata.X.copy(), adata.X.multiply(0.5).tocsr()
    pd.testing.assert_frame_equal(tl.evaluate(adata, layer="raw"), expected)
    with pytest.raises(ValueError, match=r"not whole.*`layer=`"):
        tl.evaluate(adata)


def test_constant_genes_are_nan_and_warned_of():
    adata = example()
    adata.obsm["hggep"][:, 1] = 2.5
    with pytest.warns(UserWarning, match=r"Constant .*: 1 of 3 genes\."):
        scores = tl.evaluate(adata)
    assert scores["pearson"].isna().tolist() == [False, True, False]
    assert scores["spearman"].isna().tolist() == [False, True, False]
    assert scores[["rmse", "ceiling", "mean_observed"]].notna().all(axis=None)
    unseen = example()
    unseen.X = unseen.X.multiply(np.array([1, 0, 1, 1])).tocsr()
    with pytest.warns(UserWarning, match="1 of 3 genes"):
        scores = tl.evaluate(unseen)
    assert np.isnan(scores.loc["B", "ceiling"])
    assert scores.loc["B", "mean_observed"] == 0


def test_no_warning_without_a_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        tl.evaluate(example())


@pytest.mark.parametrize("n_spots", [1, 2, 3])
def test_very_few_spots(n_spots: int):
    adata = example(n_spots=n_spots)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        scores = tl.evaluate(adata)
    assert scores["pearson"].isna().all() == (n_spots == 1)
    assert np.isfinite(scores["rmse"]).all()
    assert (scores["ceiling"].dropna().between(0, 1)).all()


def test_spots_without_counts_do_no_harm():
    adata = example()
    adata.X = adata.X.multiply((np.arange(adata.n_obs) > 2)[:, None]).tocsr()
    assert tl.evaluate(adata).notna().all(axis=None)


# --- several sections ---------------------------------------------------------------------------------------------


def two_sections() -> ad.AnnData:
    first, second = example(0), example(1, prefix="t")
    joined = ad.concat({"S1": first, "S2": second}, label="section")
    joined.uns["hggep"] = first.uns["hggep"]
    return joined


def test_each_section_is_scored_by_itself():
    adata = two_sections()
    # shifts between sections would inflate a pooled correlation
    adata.obsm["hggep"][40:] += 5
    scores = tl.evaluate(adata, library_key="section")
    assert list(scores.columns) == [*COLUMNS, "section"]
    assert scores["section"].tolist() == ["S1"] * 3 + ["S2"] * 3
    for name, seed in (("S1", 0), ("S2", 1)):
        single = tl.evaluate(example(seed))
        part = scores[scores["section"] == name]
        np.testing.assert_allclose(part["pearson"], single["pearson"], rtol=1e-4)
        np.testing.assert_allclose(part["mean_observed"], single["mean_observed"], rtol=1e-6)
    assert list(tl.evaluate(adata).columns) == COLUMNS


def test_sections_without_a_prediction_are_left_out():
    adata = two_sections()
    adata.obsm["hggep"][:40] = np.nan
    with pytest.warns(UserWarning, match="without the prediction 'hggep' are not scored: 'S1'"):
        scores = tl.evaluate(adata, library_key="section")
    assert scores["section"].tolist() == ["S2"] * 3
    assert scores["pearson"].notna().all()
    adata.obsm["hggep"][:] = np.nan
    with pytest.raises(ValueError, match=r"NaN throughout 'S1', 'S2'.*tl\.predict"):
        tl.evaluate(adata, library_key="section")


# --- the noise ceiling --------------------------------------------------------------------------------------------


def simulate(per_gene: float, n_spots: int = 800, n_genes: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Make Poisson counts of known rates, and the expression of these rates."""
    rng = np.random.default_rng(7)
    share = rng.dirichlet(np.full(n_genes, 8.0), n_spots)
    return rng.poisson(share * per_gene * n_genes).astype(np.float32), np.log10(1 + 1e4 * share).astype(np.float32)


@pytest.mark.parametrize("per_gene", [0.3, 1, 3, 10, 100])
def test_ceiling_equals_the_correlation_of_the_truth(per_gene: float):
    counts, truth = simulate(per_gene)
    correlation = column_pearson(truth, log10_cp10k(counts))
    ceiling = noise_ceiling(counts, np.random.default_rng(0))
    assert np.nanmean(ceiling) == pytest.approx(correlation.mean(), abs=0.04)


def test_ceiling_of_poisson_counts_of_known_reliability():
    # gamma rates of mean m and variance v have reliability v / (v + m), where the logarithm is nearly linear
    rng = np.random.default_rng(0)
    rate = rng.gamma(100.0, 0.4, 4000)  # mean 40, variance 16
    counts = np.column_stack([rng.poisson(rate), np.full(4000, 5000)]).astype(np.float32)
    counts[:, 1] -= counts[:, 0]
    assert noise_ceiling(counts, np.random.default_rng(0))[0] == pytest.approx(np.sqrt(16 / 56), abs=0.05)


def test_ceiling_falls_with_depth_and_pure_noise_has_none():
    means = [noise_ceiling(simulate(depth)[0], np.random.default_rng(0)).mean() for depth in (1, 10, 100)]
    assert means == sorted(means)
    assert means[0] < means[2] - 0.2
    noise = np.random.default_rng(0).poisson(30, (3000, 20)).astype(np.float32)
    assert noise_ceiling(noise, np.random.default_rng(0)).mean() < 0.15


def test_the_seed_determines_the_ceiling():
    adata = example()
    first, repeat, other = tl.evaluate(adata, seed=1), tl.evaluate(adata, seed=1), tl.evaluate(adata, seed=2)
    pd.testing.assert_frame_equal(first, repeat)
    assert (first["ceiling"] != other["ceiling"]).any()
    pd.testing.assert_frame_equal(first.drop(columns="ceiling"), other.drop(columns="ceiling"))


def test_ceiling_of_the_toy_tissue():
    adata = datasets.toy(size_um=(2000.0, 2000.0), mpp=8.0, n_genes=16)
    truth = adata.layers["true_rate"]
    truth = truth.toarray() if sparse.issparse(truth) else np.asarray(truth)
    adata.obsm["hggep"] = log10_cp10k(truth)
    adata.uns["hggep"] = {"tool": "sthggep", "genes": np.array(adata.var_names, dtype=object), "units": "log"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scores = tl.evaluate(adata)
    rich = scores[scores["mean_observed"] > 2]
    assert len(rich) >= 8
    # no prediction exceeds the ceiling by more than chance
    assert (rich["pearson"] < rich["ceiling"] + 0.15).all()


# --- written fields -----------------------------------------------------------------------------------------------


def test_scores_are_written_and_survive_a_file(tmp_path: Path):
    adata = two_sections()
    counts, values = adata.X.copy(), adata.obsm["hggep"].copy()
    scores = tl.evaluate(adata, library_key="section")
    assert adata.uns["hggep_scores"] is not scores
    assert (counts != adata.X).nnz == 0
    np.testing.assert_array_equal(adata.obsm["hggep"], values)
    adata.write_h5ad(tmp_path / "a.h5ad")
    copy = ad.read_h5ad(tmp_path / "a.h5ad")
    table = copy.uns["hggep_scores"]
    assert table.index.tolist() == GENES * 2
    assert list(map(str, table["section"])) == scores["section"].tolist()
    np.testing.assert_allclose(table[COLUMNS], scores[COLUMNS])
    tl.evaluate(copy)  # sthggep wrote it, so sthggep may replace it
    assert len(copy.uns["hggep_scores"]) == 3


@pytest.mark.parametrize("foreign", [{"mine": 1}, pd.DataFrame({"x": [1.0]}), np.zeros(3)])
def test_scores_that_sthggep_did_not_write_stay(foreign: object):
    adata = example()
    adata.uns["hggep_scores"] = foreign
    with pytest.raises(ValueError, match=r"uns\['hggep_scores'\] exists already and sthggep did not write it"):
        tl.evaluate(adata)
    assert adata.uns["hggep_scores"] is foreign


def test_nothing_to_evaluate():
    adata = example()
    with pytest.raises(KeyError, match=r"'other' is not in obsm.*Predictions: \['hggep'\]"):
        tl.evaluate(adata, "other")
    adata = adata[:, ["A"]].copy()
    with pytest.raises(KeyError, match="2 of 3 genes are not in var_names: 'B', 'C'"):
        tl.evaluate(adata)
    assert "hggep_scores" not in adata.uns


def test_spatialdata():
    sdata = datasets.toy(size_um=(1200.0, 1200.0), mpp=4.0, n_genes=6, as_spatialdata=True)
    table = sdata.tables["table"]
    table.obsm["hggep"] = np.random.default_rng(0).normal(size=table.shape).astype(np.float32)
    table.uns["hggep"] = {"tool": "sthggep", "genes": np.array(table.var_names, dtype=object), "units": "log"}
    scores = tl.evaluate(sdata)
    pd.testing.assert_frame_equal(table.uns["hggep_scores"], scores)
    assert list(scores.index) == list(table.var_names)


# ---------------------------------------------------------------- intervals


def test_coverage_is_the_share_of_measurements_inside():
    scores = tl.evaluate(with_interval(example(), 0.25))
    np.testing.assert_allclose(scores["coverage"], [0.75, 1, 1])
    np.testing.assert_allclose(scores["interval_width"], [0.375, 0.5, 0.5], rtol=1e-5)
    some = tl.evaluate(with_interval(example(), 0.25), genes=["C", "A"])
    np.testing.assert_allclose(some["coverage"], [1, 0.75])


def test_no_coverage_without_intervals_of_measurements():
    assert tl.evaluate(example()).columns.tolist() == COLUMNS
    assert tl.evaluate(with_interval(example(), 0.25, of="expression")).columns.tolist() == COLUMNS
    lost = with_interval(example(), 0.25)
    del lost.obsm["hggep_upper"]
    assert tl.evaluate(lost).columns.tolist() == COLUMNS


def test_coverage_of_a_section_that_was_predicted_without_intervals_is_unknown():
    both = ad.concat([with_interval(example(), 0.25), example(1, prefix="t")], join="outer", label="which")
    both.uns["hggep"] = with_interval(example(), 0.25).uns["hggep"]
    scores = tl.evaluate(both, library_key="which")
    assert scores.groupby("section")["coverage"].count().to_dict() == {"0": 3, "1": 0}


def test_coverage_of_a_prediction_in_a_file(model, slides, tmp_path):
    slide = slides[2]
    options = {"interval": 0.9, "show_progress_bar": False}
    tl.predict(slide, model, **options)
    tl.predict(slide, model, key_added="big", out=tmp_path / "big.zarr", **options)
    expected, found = tl.evaluate(slide)["coverage"], tl.evaluate(slide, "big")["coverage"]
    assert 0.7 < expected.median() <= 1
    pd.testing.assert_series_equal(found, expected)
