"""A few genes of many: expression on the scale of all counts, in training, scores, updates and files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from anndata import AnnData

from sthggep import HGGEP, datasets, pl, pp, tl
from sthggep._keys import UNITS, UNITS_OF_ALL
from sthggep._table._counts import log10_cp10k

QUIET = {"show_progress_bar": False}
OPTIONS = {"obsm": "morphology", "n_members": 0, **QUIET}
PANEL = ["FAT1", "NOISE1"]


@pytest.fixture(scope="module")
def toys() -> SimpleNamespace:
    slides = [datasets.toy(seed=seed, size_um=(2400.0, 2400.0), mpp=4.0) for seed in range(3)]
    return SimpleNamespace(train=slides[:2], test=slides[2], model=tl.fit(slides[:2], genes=PANEL, **OPTIONS))


@pytest.fixture
def slide(toys: SimpleNamespace) -> AnnData:
    slide = toys.test.copy()
    tl.predict(slide, toys.model, **QUIET)
    return slide


def test_the_model_says_what_scales_its_panel(toys: SimpleNamespace, tmp_path: Path):
    model = toys.model
    assert model.training.all_counts
    assert model.units == UNITS_OF_ALL
    assert repr(model).endswith("; expression scaled by all counts of a spot")
    model.save(tmp_path / "m")
    loaded = HGGEP.load(tmp_path / "m")
    assert (loaded.id, loaded.units, loaded.training.all_counts) == (model.id, UNITS_OF_ALL, True)


def test_a_gene_that_follows_nothing_stays_unpredicted(toys: SimpleNamespace, slide: AnnData):
    small = tl.evaluate(slide)["pearson"]
    whole = toys.test.copy()
    panel = pp.gene_panel(toys.train, include=PANEL)
    tl.predict(whole, tl.fit(toys.train, genes=panel, **OPTIONS), **QUIET)
    expected = tl.evaluate(whole)["pearson"]
    assert abs(small["FAT1"] - expected["FAT1"]) < 0.05
    assert abs(small["NOISE1"] - expected["NOISE1"]) < 0.1
    assert small["NOISE1"] < 0.4 < 0.8 < small["FAT1"]


def test_scores_and_figures_are_on_the_scale_of_all_counts(toys: SimpleNamespace, slide: AnnData):
    scores = tl.evaluate(slide)
    columns = slide.var_names.get_indexer(PANEL)
    measured = log10_cp10k(np.asarray(slide.X.toarray() if hasattr(slide.X, "toarray") else slide.X))[:, columns]
    assert slide.uns["hggep"]["units"] == UNITS_OF_ALL
    np.testing.assert_allclose(scores["mean_observed"], measured.mean(axis=0), rtol=1e-5)
    for i in range(2):
        assert scores["pearson"].iloc[i] == pytest.approx(np.corrcoef(slide.obsm["hggep"][:, i], measured[:, i])[0, 1])
    # The ceiling, too, is of all counts: the noise of one gene does not spoil the other's
    assert scores["ceiling"]["FAT1"] > 0.8
    np.testing.assert_allclose(toys.model.training.ceiling[0], scores["ceiling"]["FAT1"], atol=0.1)
    compared = tl.compare({"ours": "hggep"}, slide, n_boot=10).summary
    assert compared.loc["ours", "pearson"] == pytest.approx(scores["pearson"].mean(), abs=1e-4)
    assert pl.gene_map(slide, "FAT1") is not None


def test_intervals_and_verdicts_are_calibrated_on_that_scale(toys: SimpleNamespace):
    slide = toys.test.copy()
    tl.predict(slide, toys.model, interval=0.9, **QUIET)
    coverage = tl.evaluate(slide)["coverage"]
    assert ((coverage > 0.75) & (coverage < 1)).all()
    assert tl.trust(slide).loc["FAT1", "verdict"] in ("spot", "region")


def test_an_update_keeps_the_scale(toys: SimpleNamespace):
    updated = tl.fit(toys.test, model=toys.model, **QUIET)
    assert updated.training.all_counts
    assert updated.units == UNITS_OF_ALL


def test_cross_validation_scores_on_that_scale(toys: SimpleNamespace):
    results = tl.cross_validate([*toys.train, toys.test], group_key="section", genes=PANEL, baselines="mean", **OPTIONS)
    means = results.pivot_table(index="gene", columns=["metric", "method"], values="value")
    assert means.loc["NOISE1", ("pearson", "hggep")] < 0.4 < 0.8 < means.loc["FAT1", ("pearson", "hggep")]
    assert means.loc["FAT1", ("ceiling", "ceiling")] > 0.8


def test_a_table_of_the_panel_alone_warns(toys: SimpleNamespace):
    bare = toys.test[:, PANEL].copy()
    tl.predict(bare, toys.model, **QUIET)
    with pytest.warns(UserWarning, match="scaled by all counts of a spot, but this table holds only 2 genes"):
        tl.evaluate(bare)


@pytest.mark.parametrize("genes", [None, 40], ids=["the default panel", "most genes"])
def test_other_panels_are_scaled_by_their_own_counts(toys: SimpleNamespace, genes: int | None):
    panel = None if genes is None else list(toys.test.var_names[:genes])
    model = tl.fit(toys.train, genes=panel, **OPTIONS)
    assert not model.training.all_counts
    assert "scaled_by" not in model.training.to_dict()
    assert model.units == UNITS
    assert "scaled by all" not in repr(model)
