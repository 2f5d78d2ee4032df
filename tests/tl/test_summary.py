"""Summaries: scores by hand, intervals against known truth, pooling, genes chosen in advance."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sthggep import tl
from sthggep._table._counts import log10_cp10k
from sthggep._table._scores import column_pearson
from sthggep.tl._scored_sections import ScoredSection
from sthggep.tl._summary import block_numbers, interval, weighted_pearson

COLUMNS = [
    *("n_spots", "n_genes", "n_constant", "pearson", "pearson_low", "pearson_high"),
    *("pearson_median", "ceiling", "of_ceiling", "ssim", "trained_on"),
]


@pytest.fixture
def noisy(lattice) -> ad.AnnData:
    """A prediction that is the truth plus noise."""
    adata = lattice.counted(10.0)
    adata.obsm["hggep"] += np.random.default_rng(0).normal(0, 0.3, adata.shape).astype(np.float32)
    return adata


def test_one_row_by_hand(noisy, lattice):
    adata = noisy
    adata.obsm["hggep"][:, 3] = 1.0
    table = tl.summary(adata)
    with pytest.warns(UserWarning, match="1 of 40 genes"):
        scores = tl.evaluate(adata)
    assert list(table.columns) == COLUMNS
    row = table.iloc[0]
    assert (row["n_spots"], row["n_genes"], row["n_constant"]) == (lattice.n_spots, 40, 1)
    assert row["pearson"] == pytest.approx(scores["pearson"].mean())
    assert row["pearson_median"] == pytest.approx(scores["pearson"].median())
    defined = scores[scores["pearson"].notna()]
    assert row["ceiling"] == pytest.approx(defined["ceiling"].mean())
    assert row["of_ceiling"] == pytest.approx(defined["pearson"].mean() / defined["ceiling"].mean())
    assert row["ssim"] == pytest.approx(defined["ssim"].mean())
    assert row["pearson_low"] < row["pearson"] < row["pearson_high"] < row["pearson_low"] + 0.2


def test_tissue_of_the_training_is_marked(noisy):
    assert not tl.summary(noisy, n_boot=0)["trained_on"].any()
    (name,) = tl.summary(noisy, n_boot=0).index
    noisy.uns["hggep"]["params"] = {"learned_from": [name]}
    with pytest.warns(UserWarning, match="The score is of tissue that the model was trained on"):
        assert tl.summary(noisy, n_boot=0)["trained_on"].all()


def test_the_seed_determines_the_interval_and_no_samples_give_none(noisy):
    adata = noisy
    pd.testing.assert_frame_equal(tl.summary(adata, n_boot=20), tl.summary(adata, n_boot=20))
    assert (
        tl.summary(adata, n_boot=20, seed=1)["pearson_low"].item() != tl.summary(adata, n_boot=20)["pearson_low"].item()
    )
    assert tl.summary(adata, n_boot=0)[["pearson_low", "pearson_high"]].isna().all(axis=None)
    narrow, wide = (tl.summary(adata, level=level).iloc[0] for level in (0.5, 0.99))
    assert wide["pearson_low"] < narrow["pearson_low"] < narrow["pearson_high"] < wide["pearson_high"]
    few = tl.summary(adata[:8].copy())
    assert few[["pearson_low", "pearson_high"]].isna().all(axis=None)
    assert few["pearson"].notna().all()


@pytest.mark.parametrize("wrong", [{"n_boot": -1}, {"level": 1.0}, {"level": 0.0}])
def test_numbers_out_of_range(noisy, wrong: dict[str, float]):
    with pytest.raises(ValueError, match=r"level|n_boot"):
        tl.summary(noisy, **wrong)
    with pytest.raises(ValueError, match="Expected slides"):
        tl.summary([])


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 3)) + 5
    times = rng.multinomial(30, np.full(30, 1 / 30), size=4)
    expected = [column_pearson(np.repeat(a, t, axis=0), np.repeat(b, t, axis=0)) for t in times]
    np.testing.assert_allclose(weighted_pearson(a, b, times), expected)
    a[:, 1] = 7.0
    times[0] = 0
    times[0, 4] = 30
    correlations = weighted_pearson(a, b, times)
    assert np.isnan(correlations[:, 1]).all()
    assert np.isnan(correlations[0]).all()
    assert np.isfinite(correlations[1:, [0, 2]]).all()


def test_blocks_are_squares_of_neighbors(lattice):
    numbers = block_numbers(lattice.slide(lattice.square()))
    sizes = np.bincount(numbers)
    # 576 spots: 4.9 pitches a side, so 24 spots a block and 24 blocks or so
    assert 20 <= len(sizes) <= 30
    assert 16 <= np.median(sizes) <= 30
    xy = lattice.square() / 290
    for block in range(len(sizes)):
        assert np.ptp(xy[numbers == block], axis=0).max() <= 4


def test_interval_covers_a_known_correlation(lattice):
    """Smooth fields with a correlation of 0.5: the interval covers it about as often as its level states."""
    truth, at, n = 0.5, lattice.slide(lattice.square()), 60
    hits, widths = [], []
    for seed in range(n):
        a, noise = lattice.smooth(6, 1.0, seed), lattice.smooth(6, 1.0, 1000 + seed)
        b = truth * a + np.sqrt(1 - truth**2) * noise
        section = ScoredSection(at, list("abcdef"), a, b, b, np.arange(6))
        low, high = interval(section, 200, 0.95, np.random.default_rng(seed))
        hits.append(low <= truth <= high)
        widths.append(high - low)
    assert np.mean(hits) >= 0.85
    assert np.mean(widths) < 0.2


@pytest.fixture
def simpson(lattice) -> list[ad.AnnData]:
    """Two sections of other levels; the prediction holds the level of each, but no differences between spots."""
    slides = []
    for seed, level in ((0, 0.2), (1, 5.0)):
        rng = np.random.default_rng(seed)
        share = np.exp(0.2 * rng.standard_normal((lattice.n_spots, 40)))
        share[:, :20] *= level
        share /= share.sum(axis=1, keepdims=True)
        adata = lattice.counted(10.0, seed)
        adata.X = rng.poisson(share * 4000).astype(np.float32)
        guess = log10_cp10k((share * 1e4).astype(np.float32)).mean(axis=0)
        adata.obsm["hggep"] = (guess + rng.normal(0, 0.05, adata.shape)).astype(np.float32)
        slides.append(adata)
    return slides


def test_pooled_correlation_is_higher_and_named_so(simpson):
    slides = simpson
    table = tl.summary(slides, n_boot=20)
    assert list(table.columns) == [*COLUMNS, "pooled_pearson"]
    assert table["pearson"].abs().max() < 0.05
    assert (table["pooled_pearson"] > 0.8).all()
    assert table["pooled_pearson"].nunique() == 1
    measured = np.concatenate([log10_cp10k(s.X) for s in slides])
    predicted = np.concatenate([s.obsm["hggep"] for s in slides])
    assert table["pooled_pearson"].iloc[0] == pytest.approx(column_pearson(predicted, measured).mean())


def test_sections_of_one_object(simpson):
    slides = simpson
    joined = ad.concat(dict(zip("AB", slides, strict=True)), label="section", index_unique="-")
    joined.uns["hggep"] = slides[0].uns["hggep"]
    table = tl.summary(joined, library_key="section", n_boot=0)
    assert (table.index.tolist(), table.index.name) == (["A", "B"], "section")
    of_objects = tl.summary(slides, n_boot=0)
    np.testing.assert_allclose(table["pearson"], of_objects["pearson"], rtol=1e-5)
    np.testing.assert_allclose(table["pooled_pearson"], of_objects["pooled_pearson"], rtol=1e-5)


# --- genes chosen in advance --------------------------------------------------------------------------------------


def test_top_genes_by_a_ranking_of_the_user(noisy):
    adata = noisy
    ranking = pd.Series({"g5": 3.0, "g1": 2.0, "other": 9.0, "g7": np.nan, "g2": 1.0})
    assert tl.top_genes(adata, 2, by=ranking) == ["g5", "g1"]
    # a gene that occurs for two sections is ranked by its mean
    repeated = pd.concat([ranking, pd.Series({"g5": 0.0})])
    assert tl.top_genes(adata, 2, by=repeated) == ["g1", "g5"]
    assert tl.top_genes(adata, 1, by={"g9": 1}) == ["g9"]
    table = tl.summary(adata, genes=tl.top_genes(adata, 2, by=ranking), n_boot=0)
    assert table["pearson"].item() == pytest.approx(tl.evaluate(adata).loc[["g5", "g1"], "pearson"].mean())
    assert tl.top_genes(adata, 50, by=ranking) == ["g5", "g1", "g2"]  # all that have a rank
    with pytest.raises(ValueError, match="ranks none of the 40"):
        tl.top_genes(adata, 4, by={"other": 1.0})


def test_top_genes_by_the_training_slides(noisy):
    adata = noisy
    with pytest.raises(ValueError, match="Pass `by=`"):
        tl.top_genes(adata, 2)
    adata.uns["hggep"]["training_ceiling"] = np.arange(40.0)[::-1]
    assert tl.top_genes(adata, 2) == ["g0", "g1"]
    # the held-out correlation takes precedence over the ceiling
    adata.uns["hggep"]["held_out_pearson"] = np.r_[np.nan, np.arange(39.0)]
    assert tl.top_genes(adata, 2) == ["g39", "g38"]
    # the counts of the slide are not read
    adata.X[:] = 0
    assert tl.top_genes(adata, 2) == ["g39", "g38"]


def test_ceilings_of_the_training_reach_the_prediction(model, slides, tmp_path):
    from sthggep import HGGEP

    model.save(tmp_path / "model")
    tl.predict(slides[2], HGGEP.load(tmp_path / "model"), show_progress_bar=False)
    ceiling = pd.Series(slides[2].uns["hggep"]["training_ceiling"], index=model.genes)
    own = [tl_ceiling(s, model.genes) for s in slides[:2]]
    np.testing.assert_allclose(ceiling, np.nan_to_num(own).mean(axis=0), atol=0.2)
    for name in ("held_out_pearson", "evidence"):
        slides[2].uns["hggep"].pop(name, None)
    best = tl.top_genes(slides[2], 3)
    assert best == ceiling.sort_values(ascending=False).index[:3].tolist()
    assert not any(gene.startswith("NOISE") for gene in best)
    assert tl.to_adata(slides[2]).var["training_ceiling"].tolist() == ceiling.tolist()


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("n_members", [0, 1])
def test_training_records_the_held_out_correlation_of_genes(slides, fit_options, tmp_path, monkeypatch, n_members):
    from sthggep import HGGEP
    from sthggep._training import _closed_form

    # Without the final refit, the model of this test never uses the held-out tissue
    monkeypatch.setattr(_closed_form, "refit_on_all", lambda *_: None)
    monkeypatch.setattr(_closed_form, "on_all_tissue", lambda split: split)
    options = {**fit_options, "genes": list(slides[0].var_names), "max_epochs": 1, "n_members": n_members}
    model = tl.fit(slides[:2], validation=[held_out_name(slides[1])], **options)
    model.save(tmp_path / "held")
    tl.predict(slides[1], HGGEP.load(tmp_path / "held"), show_progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the model was trained on this section
        scores = tl.evaluate(slides[1])
    held_out = tl.to_adata(slides[1]).var["held_out_pearson"]
    # the network, or the closed form, held out this section
    np.testing.assert_allclose(held_out, scores["pearson"], atol=1e-3)
    assert tl.top_genes(slides[1], 2) == held_out.sort_values(ascending=False).index[:2].tolist()
    # without held-out tissue there is no such record
    assert tl.fit(slides[0], validation=None, **options).training.held_out_pearson is None


def held_out_name(adata: ad.AnnData) -> str:
    from sthggep._slides._resolve import resolve_one

    return resolve_one(adata).name


def tl_ceiling(adata: ad.AnnData, genes: list[str]) -> np.ndarray:
    from sthggep._table._counts import read_panel_counts
    from sthggep._table._scores import noise_ceiling

    return noise_ceiling(read_panel_counts(adata, genes), np.random.default_rng(5))
