"""Held-out groups: nothing of them is seen, leaks are refused, finished folds are kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sthggep import datasets, pl, tl


@pytest.fixture(scope="module")
def _drawn():
    return [datasets.toy(seed=seed, size_um=(1400.0, 1400.0), mpp=4.0, n_genes=12) for seed in range(3)]


@pytest.fixture
def tissue(_drawn):
    """Three sections of two patients."""
    slides = [slide.copy() for slide in _drawn]
    for slide, patient in zip(slides, ("P", "P", "Q"), strict=True):
        slide.obs["patient"] = patient
        slide.obsm["X_mine"] = np.random.default_rng(slide.n_obs).normal(size=(slide.n_obs, 4)).astype(np.float32)
        slide.obsm["X_mine"][:, 0] = np.log1p(np.asarray(slide.X.sum(axis=1)).ravel())
    return slides


def run(slides, **options):
    given = {"obsm": "X_mine", "genes": list(slides[0].var_names), "n_members": 1, "max_epochs": 1}
    return tl.cross_validate(slides, **{**given, "show_progress_bar": False, **options})


def test_a_fold_a_patient(tissue):
    before = [(slide.X.copy(), sorted(slide.obsm), sorted(slide.uns)) for slide in tissue]
    results = run(tissue)
    assert results.groupby("fold")["group"].unique().map(list).tolist() == [["P"], ["Q"]]
    assert results.groupby("group")["section"].nunique().to_dict() == {"P": 2, "Q": 1}
    assert set(results["method"]) == {"hggep", "mean", "nearest_patch", "ridge", "ceiling"}
    assert (results["leak"] == "").all()
    pearson = results[(results["metric"] == "pearson") & (results["method"] == "mean")]
    assert (pearson["value"].dropna() == 0).all()
    for slide, (counts, obsm, uns) in zip(tissue, before, strict=True):
        assert (counts != slide.X).sum() == 0
        assert (sorted(slide.obsm), sorted(slide.uns)) == (obsm, uns)


def test_mean_baseline_is_the_training_mean(tissue):
    results = run(tissue, baselines=("mean",))

    def expression(slide):
        counts = np.asarray(slide.X.todense() if hasattr(slide.X, "todense") else slide.X, dtype=float)
        return np.log10(1 + 1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))

    train = np.vstack([expression(slide) for slide in tissue[:2]])
    wanted = np.sqrt(((expression(tissue[2]) - train.mean(axis=0)) ** 2).mean(axis=0))
    found = results.query("group == 'Q' and method == 'mean' and metric == 'rmse'").set_index("gene")["value"]
    np.testing.assert_allclose(found[list(tissue[0].var_names)], wanted, rtol=1e-3)


def test_counts_of_the_held_out_are_not_seen(tissue, monkeypatch):
    from sthggep.model import HGGEP

    seen = []
    original = HGGEP._describe_inputs

    def watched(self, *args, **options):
        seen.append(original(self, *args, **options))
        return seen[-1]

    monkeypatch.setattr(HGGEP, "_describe_inputs", watched)
    run(tissue, baselines=())
    straight = [found.expression for found in seen]
    seen.clear()
    tissue[2].X = tissue[2].X[::-1].copy()
    run(tissue, baselines=())
    # Patient P is held out first (two sections), then Q, whose counts alone were turned upside down
    np.testing.assert_array_equal(seen[2].expression, straight[2])
    assert not np.array_equal(seen[0].expression, straight[0])


def test_sections_of_a_patient_are_named(tissue):
    with pytest.warns(UserWarning, match="patient"):
        results = run(tissue, group_key="section", baselines=("mean",))
    leaks = results.groupby("section")["leak"].first()
    assert (leaks == "same patient").sum() == 2
    assert (leaks == "").sum() == 1


def test_the_same_tissue_twice_is_refused(tissue):
    twin = tissue[0].copy()
    old = next(iter(twin.uns["spatial"]))
    twin.uns["spatial"] = {"another": twin.uns["spatial"][old]}
    twin.obs["patient"] = "R"
    with pytest.raises(ValueError, match="another"):
        run([*tissue, twin])


def test_one_group_is_no_fold(tissue):
    with pytest.raises(ValueError, match="section"):
        run(tissue[:2])


def test_finished_folds_are_kept(tissue, tmp_path, monkeypatch):
    first = run(tissue, out=tmp_path / "cv", baselines=("mean",))

    def no_work(*_, **__):
        pytest.fail("a finished fold was trained again")

    monkeypatch.setattr("sthggep.tl._train.train_on", no_work)
    monkeypatch.setattr("sthggep._training.train", no_work)
    again = run(tissue, out=tmp_path / "cv", baselines=("mean",))
    pd.testing.assert_frame_equal(first, again, check_like=True)
    with pytest.raises(ValueError, match="cv"):
        run(tissue, out=tmp_path / "cv", baselines=("mean",), seed=3)


def test_figure_shows_every_section_and_method(tissue):
    results = run(tissue, baselines=("mean",))
    figure = pl.cross_validation(results)
    axes = figure if hasattr(figure, "get_xticklabels") else figure.axes[0]
    text = " ".join(t.get_text() for t in [*axes.get_xticklabels(), *axes.get_yticklabels()])
    assert all(section in text for section in results["section"].unique())
