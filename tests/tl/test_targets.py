"""Targets other than genes: cell-type fractions in `obsm`, signature scores in `obs`."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.text import Text

from sthggep import HGGEP, pl, tl

SIDE = 12
TYPES = ["tumor", "stroma", "immune"]
FIT = {"obsm": "X_mine", "n_members": 2, "max_epochs": 3, "device": "cpu", "show_progress_bar": False}
QUIET = {"show_progress_bar": False}


def section(seed: int, *, noise: float = 0.1) -> AnnData:
    """Spots on a grid with features that determine the fractions, and without counts."""
    rng = np.random.default_rng(seed)
    xy = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2) * 100.0
    waves = np.column_stack([np.sin(xy[:, 0] / 200 + seed), np.cos(xy[:, 1] / 250), np.sin(xy.sum(axis=1) / 400)])
    fractions = np.exp(waves) / np.exp(waves).sum(axis=1, keepdims=True)
    names = pd.Index([f"{seed}-{i}" for i in range(len(xy))])
    out = AnnData(obs=pd.DataFrame({"score": 1000 + 50 * waves[:, 0], "kind": "a"}, index=names))
    out.obsm["spatial"] = xy
    out.obsm["fractions"] = pd.DataFrame(fractions, index=names, columns=TYPES)
    out.obsm["X_mine"] = (np.hstack([waves, waves**2]) + noise * rng.normal(size=(len(xy), 6))).astype(np.float32)
    return out


@pytest.fixture(scope="module")
def fractions_model(with_networks) -> HGGEP:
    with with_networks():
        return tl.fit([section(0), section(1)], targets="fractions", **FIT)


@pytest.fixture
def predicted_slide(fractions_model) -> AnnData:
    new = section(2)
    tl.predict(new, fractions_model, **QUIET)
    return new


def test_fractions_are_predicted_on_their_own_scale(fractions_model, predicted_slide):
    assert fractions_model.genes == TYPES
    assert fractions_model.units == "as in obsm['fractions']"
    assert "3 targets from obsm 'X_mine'" in repr(fractions_model)
    assert fractions_model.training.ceiling is None
    fractions, prediction = predicted_slide.obsm["fractions"].to_numpy(), predicted_slide.obsm["hggep"]
    assert prediction.dtype == np.float32
    assert np.sqrt(np.mean((prediction - fractions) ** 2)) < 0.5 * fractions.std()
    np.testing.assert_allclose(prediction.mean(axis=0), fractions.mean(axis=0), atol=0.05)
    record = predicted_slide.uns["hggep"]
    assert list(record["genes"]) == TYPES
    assert record["targets"] == {"from": "obsm", "key": "fractions"}
    assert record["units"] == "as in obsm['fractions']"


@pytest.mark.usefixtures("networks")
def test_unit_of_the_targets_does_not_matter(fractions_model, predicted_slide):
    thousands = [section(0), section(1)]
    for slide in thousands:
        slide.obsm["fractions"] *= 1000
    model = tl.fit(thousands, targets="fractions", **FIT)
    tl.predict(predicted_slide, fractions_model, **QUIET)
    tl.predict(predicted_slide, model, key_added="thousands", **QUIET)
    np.testing.assert_allclose(predicted_slide.obsm["thousands"], 1000 * predicted_slide.obsm["hggep"], atol=1)
    assert predicted_slide.obsm["thousands"].std() > 5
    assert model.id != fractions_model.id


def test_scores_are_against_the_same_columns(predicted_slide):
    scores = tl.evaluate(predicted_slide)
    assert list(scores.index) == TYPES
    assert (scores["pearson"] > 0.8).all()
    assert scores[["ceiling", "of_ceiling"]].isna().all().all()
    for i, name in enumerate(TYPES):
        r = np.corrcoef(predicted_slide.obsm["fractions"][name], predicted_slide.obsm["hggep"][:, i])[0, 1]
        assert scores.loc[name, "pearson"] == pytest.approx(r, abs=1e-6)
    assert np.isnan(tl.summary(predicted_slide)["ceiling"].iloc[0])
    assert tl.summary(predicted_slide)["pearson"].iloc[0] == pytest.approx(scores["pearson"].mean())
    assert tl.summary(predicted_slide)["ssim"].iloc[0] == pytest.approx(scores["ssim"].mean())
    # With other columns, or another order, the score would compare the wrong columns
    predicted_slide.obsm["fractions"] = predicted_slide.obsm["fractions"][TYPES[::-1]]
    with pytest.raises(ValueError, match=r"must hold the columns of the targets, in that order"):
        tl.evaluate(predicted_slide)
    del predicted_slide.obsm["fractions"]
    with pytest.raises(KeyError, match="fractions"):
        tl.evaluate(predicted_slide)


def test_signature_scores_of_obs(tmp_path):
    model = tl.fit([section(0), section(1)], targets=["score"], **FIT)
    model.save(tmp_path / "model")
    new, repeat = section(2), section(2)
    tl.predict(new, model, **QUIET)
    tl.predict(repeat, HGGEP.load(tmp_path / "model"), **QUIET)
    np.testing.assert_array_equal(new.obsm["hggep"], repeat.obsm["hggep"])
    assert new.uns["hggep"]["targets"] == {"from": "obs"}
    assert new.obsm["hggep"].mean() == pytest.approx(new.obs["score"].mean(), abs=25)
    assert tl.evaluate(new).loc["score", "pearson"] > 0.8
    # Scores of a prediction survive a file
    new.write_h5ad(tmp_path / "new.h5ad")
    from anndata import read_h5ad

    pd.testing.assert_frame_equal(tl.evaluate(read_h5ad(tmp_path / "new.h5ad")), tl.evaluate(new))


def test_some_targets_and_later_calls(fractions_model, predicted_slide):
    tl.predict(predicted_slide, fractions_model, key_added="some", genes=["immune", "tumor"], **QUIET)
    np.testing.assert_allclose(predicted_slide.obsm["some"], predicted_slide.obsm["hggep"][:, [2, 0]], rtol=1e-5)
    assert list(tl.evaluate(predicted_slide, "some").index) == ["immune", "tumor"]
    predictions = tl.to_adata(predicted_slide)
    assert list(predictions.var_names) == TYPES
    np.testing.assert_array_equal(predictions.X, predicted_slide.obsm["hggep"])


def test_plain_arrays_are_named_by_their_key():
    slides = [section(0), section(1)]
    for slide in slides:
        slide.obsm["plain"] = slide.obsm["fractions"].to_numpy()[:, :2]
    assert tl.fit(slides, targets="plain", **FIT).genes == ["plain_0", "plain_1"]


def test_maps_show_measured_targets(fractions_model):
    from sthggep.datasets import toy

    slide = toy(seed=3, size_um=(900.0, 900.0), mpp=2.0, n_genes=4)
    rng = np.random.default_rng(0)
    slide.obsm["X_mine"] = rng.normal(size=(slide.n_obs, 6)).astype(np.float32)
    slide.obsm["fractions"] = pd.DataFrame(rng.uniform(size=(slide.n_obs, 3)), index=slide.obs_names, columns=TYPES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # no target is a gene of this table, as expected
        tl.predict(slide, fractions_model, **QUIET)
    scores = tl.evaluate(slide)
    pl.gene_map(slide, ["stroma"])
    words = " ".join(text.get_text() for text in plt.gcf().findobj(Text))
    assert f"{scores.loc['stroma', 'pearson']:.2f}" in words
    assert "obsm['fractions']" in words


def test_bad_targets_are_refused(fractions_model):
    slides = [section(0), section(1)]
    for options, kind, message in (
        ({"targets": "absent"}, KeyError, "'absent' is not in obsm"),
        ({"targets": "score"}, KeyError, r"column of obs.*targets=\['score'\]"),
        ({"targets": ["absent"]}, KeyError, "'absent' is not in obs"),
        ({"targets": ["kind"]}, ValueError, "must hold a finite number for each spot, but 144 spots"),
        ({"targets": []}, ValueError, "`targets` is empty"),
        ({"targets": ["score", "score"]}, ValueError, "must be unique"),
        ({"targets": "fractions", "genes": ["A", "B"]}, ValueError, "you passed `genes`"),
        ({"targets": "fractions", "layer": "counts"}, ValueError, "you passed `layer`"),
    ):
        with pytest.raises(kind, match=message):
            tl.fit(slides, **options, **FIT)
    slides[1].obsm["fractions"] = slides[1].obsm["fractions"][TYPES[:2]]
    with pytest.raises(ValueError, match="columns of the targets"):
        tl.fit(slides, targets="fractions", **FIT)
    for slide in slides:
        slide.obs["flat"] = 3.0
    with pytest.raises(ValueError, match="must vary, but 'flat' in obs"):
        tl.fit(slides, targets=["flat"], **FIT)
    with pytest.raises(ValueError, match="cannot be fine-tuned"):
        tl.fit(slides, model=fractions_model, show_progress_bar=False)


def slides_of_patients() -> list[AnnData]:
    slides = [section(seed) for seed in range(3)]
    for slide, patient in zip(slides, "PQR", strict=True):
        slide.obs["patient"] = patient
        slide.uns["spatial"] = {f"section {patient}": {}}
    return slides


@pytest.mark.parametrize("targets", ["fractions", ["score"]])
def test_held_out_patients(targets, tmp_path):
    slides = slides_of_patients()
    names = TYPES if targets == "fractions" else targets
    results = tl.cross_validate(slides, targets=targets, out=tmp_path, **FIT)
    assert set(results["gene"]) == set(names)
    assert set(results["method"]) == {"hggep", "mean", "nearest_patch", "ridge"}
    assert set(results["metric"]) == {"pearson", "spearman", "rmse"}  # no counts, no ceiling
    new = slides[0].copy()
    tl.predict(new, tl.fit(slides[1:], targets=targets, **FIT), **QUIET)
    expected = tl.evaluate(new)
    of_model = results[(results["method"] == "hggep") & (results["section"] == "section P")]
    for metric in ("pearson", "rmse"):
        values = of_model[of_model["metric"] == metric].set_index("gene")["value"]
        np.testing.assert_allclose(values[names], expected.loc[names, metric], rtol=1e-4)
    # the mean of the training targets, on their own scale
    flat = np.concatenate([np.asarray(tl_values(slide, targets)) for slide in slides[1:]]).mean(axis=0)
    error = np.sqrt(np.mean((np.asarray(tl_values(slides[0], targets)) - flat) ** 2, axis=0))
    of_mean = results[(results["method"] == "mean") & (results["section"] == "section P")]
    rmse = of_mean[of_mean["metric"] == "rmse"].set_index("gene")["value"]
    np.testing.assert_allclose(rmse[names], error, rtol=1e-3)
    figure = pl.cross_validation(results)
    assert "ceiling" not in figure.axes[0].get_title()
    # finished folds belong to these values only
    pd.testing.assert_frame_equal(tl.cross_validate(slides, targets=targets, out=tmp_path, **FIT), results)
    slides[0].obs["score"] += 1
    slides[0].obsm["fractions"] *= 0.5
    with pytest.raises(ValueError, match="other data"):
        tl.cross_validate(slides, targets=targets, out=tmp_path, **FIT)


def tl_values(slide: AnnData, targets: str | list[str]) -> pd.DataFrame:
    return slide.obsm[targets] if isinstance(targets, str) else slide.obs[targets]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"genes": ["A", "B"]}, "you passed `genes`"),
        ({"layer": "raw"}, "you passed `layer`"),
        ({"expression": [section(7)]}, "you passed `expression`"),
    ],
)
def test_targets_exclude_gene_options_in_cross_validation(options, words):
    with pytest.raises(ValueError, match=words):
        tl.cross_validate(slides_of_patients(), targets="fractions", **FIT | options)


def test_held_out_targets_that_do_not_vary_in_a_fold():
    slides = slides_of_patients()
    for slide in slides[1:]:
        slide.obs["score"] = 3.0
    with pytest.raises(ValueError, match="must vary, but 'score'"):
        tl.cross_validate(slides, targets=["score"], **FIT)
