"""Models that normalize stain: fitted on training slides, stored, applied to new slides; features of both kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest

from sthggep import HGGEP, datasets, pl, pp, tl
from sthggep._encoders._cache import VARIABLE
from sthggep._slides._resolve import resolve_one
from sthggep._slides._stain import METHODS, fit_reference

QUIET = {"show_progress_bar": False}
QUICK = {"size_um": 320, "max_epochs": 1, "n_members": 1, "validation": None, **QUIET}
FEATURES = {"size_um": 320, "encoding": "tissue", "flips": False, **QUIET}
KEY = "X_shufflenet_he_320"


def toy(seed: int = 0, size: float = 1600.0) -> ad.AnnData:
    return datasets.toy(seed=seed, size_um=(size, size), mpp=4.0, n_genes=8)


def with_pixels(adata: ad.AnnData, change: Callable[[np.ndarray], np.ndarray]) -> ad.AnnData:
    """Return the slide with changed pixels."""
    out = adata.copy()
    images = next(iter(out.uns["spatial"].values()))["images"]
    for key, pixels in images.items():
        images[key] = change(pixels)
    return out


@pytest.fixture
def change_laboratory(stains: SimpleNamespace) -> Callable[[ad.AnnData], ad.AnnData]:
    """Return a function that gives a slide the colors of another laboratory."""
    return lambda adata: with_pixels(adata, stains.changes["macenko"])


@pytest.fixture(scope="module")
def models() -> dict[str | None, HGGEP]:
    slides = [toy(0), toy(1)]
    return {stain: tl.fit(slides, stain=stain, **QUICK) for stain in (None, *METHODS)}


def predict(slide: ad.AnnData, model: HGGEP, **options) -> np.ndarray:
    return tl.predict(slide, model, copy=True, **QUIET, **options).obsm["hggep"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:Section .* its tissue has other colors")
def test_normalization_makes_predictions_stable_against_the_stain(models, stains: SimpleNamespace, method: str):
    slide = toy(2)
    other = with_pixels(slide, stains.changes[method])

    def mean_correlation(model: HGGEP) -> float:
        first, second = predict(slide, model), predict(other, model)
        return float(np.mean([np.corrcoef(first[:, g], second[:, g])[0, 1] for g in range(first.shape[1])]))

    similarity = {stain: mean_correlation(model) for stain, model in models.items()}
    # the method reverses this change nearly exactly: what is left of it is less than a fifth
    assert similarity[method] > 0.999, similarity
    assert 1 - similarity[method] < 0.2 * (1 - similarity[None]), similarity
    # the other method does no harm worth mentioning: features are centered within the section
    assert min(similarity.values()) > 0.97, similarity


def test_the_reference_is_that_of_the_training_slides_and_stored(models, tmp_path: Path):
    slides = [resolve_one(toy(seed)) for seed in (0, 1)]
    model = models["reinhard"]
    assert model.stain == fit_reference(slides, "reinhard")
    assert models[None].stain is None
    assert "stain normalized (reinhard)" in repr(model)
    assert len({candidate.id for candidate in models.values()}) == 3
    model.save(tmp_path / "model")
    loaded = HGGEP.load(tmp_path / "model")
    assert loaded.stain == model.stain
    assert loaded.id == model.id
    slide = toy(3)
    np.testing.assert_array_equal(predict(slide, loaded), predict(slide, model))
    record = tl.predict(slide, loaded, copy=True, **QUIET).uns["hggep"]
    assert record["params"]["stain"] == "reinhard"


def test_models_of_earlier_versions_have_no_stain(models, tmp_path: Path):
    models[None].save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["inputs"]["stain"]
    path.write_text(json.dumps(config | {"format": 1}))
    old = HGGEP.load(tmp_path / "model")
    assert old.stain is None
    assert old.id == models[None].id
    assert "stain" not in repr(old)


@pytest.mark.parametrize("method", METHODS)
def test_windows_do_not_change_predictions(models, change_laboratory, method: str):
    slide = change_laboratory(toy(4))
    whole = predict(slide, models[method], window=None)
    np.testing.assert_allclose(predict(slide, models[method], window=20), whole, atol=2e-4)
    np.testing.assert_allclose(
        models[method].predict_slide(resolve_one(slide), device="cpu"), whole, rtol=1e-4, atol=1e-5
    )


def test_features_of_own_colors_are_refused_in_training(models):
    slide = toy(0)
    pp.features(slide, **FEATURES)
    for call in (
        lambda: tl.fit(slide, stain="macenko", **QUICK),
        lambda: tl.fit(slide, model=models["macenko"], **QUIET),
        lambda: tl.cross_validate([slide, toy(1)], stain="macenko", group_key="section", size_um=320, **QUIET),
    ):
        with pytest.raises(
            ValueError, match=rf"'toy1': obsm holds '{KEY}'.*`stain='macenko'`.*del slide.obsm\['{KEY}'\]"
        ):
            call()
    del slide.obsm[KEY]
    assert tl.fit(slide, stain="macenko", **QUICK).stain["method"] == "macenko"
    assert sorted(slide.obsm) == ["morphology", "spatial"]


def test_features_of_both_kinds_are_distinguished(models, change_laboratory, monkeypatch):
    model, plain = models["macenko"], models[None]
    slide = change_laboratory(toy(5))
    fresh = {candidate: predict(slide, candidate) for candidate in (model, plain)}
    pp.features(slide, **FEATURES)
    own_colors = slide.obsm[KEY]
    np.testing.assert_array_equal(predict(slide, model), fresh[model])
    pp.features(slide, stain=model.stain, **FEATURES)
    assert slide.uns[KEY]["stain"].startswith("macenko-")
    assert np.abs(slide.obsm[KEY] - own_colors).max() > 0.01
    np.testing.assert_array_equal(predict(slide, plain), fresh[plain])
    np.testing.assert_array_equal(
        predict(slide, models["reinhard"]), predict(change_laboratory(toy(5)), models["reinhard"])
    )
    with monkeypatch.context() as patch:
        patch.setattr("sthggep._inputs._stages.encode", None)
        np.testing.assert_array_equal(predict(slide, model), fresh[model])
    pp.features(slide, **FEATURES)
    assert "stain" not in slide.uns[KEY]
    np.testing.assert_array_equal(slide.obsm[KEY], own_colors)


def test_the_cache_distinguishes_both_kinds(models, change_laboratory, tmp_path: Path, monkeypatch):
    slide = change_laboratory(toy(5))
    fresh = [predict(slide, candidate) for candidate in models.values()]
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    for _ in range(2):
        for model, expected in zip(models.values(), fresh, strict=True):
            np.testing.assert_array_equal(predict(slide, model), expected)
        assert len(list(tmp_path.iterdir())) == 3


def test_a_slide_without_a_stain_is_predicted_in_its_own_colors(models):
    gray = with_pixels(toy(6), lambda pixels: np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8))
    with pytest.warns(UserWarning, match=r"'toy7': too little tissue, or too unlike H&E"):
        prediction = predict(gray, models["reinhard"])
    assert np.isfinite(prediction).all()


def test_colors_are_compared_after_normalization(models, change_laboratory, recwarn):
    other = change_laboratory(toy(7))
    predict(other, models["reinhard"])
    assert not [warning for warning in recwarn if "other colors" in str(warning.message)]
    predict(other, models[None])
    assert [warning for warning in recwarn if "other colors" in str(warning.message)]
    labels = {
        stain: pl.colors(other, models[stain]).axes[0].get_yticklabels()[-1].get_text() for stain in (None, "reinhard")
    }
    assert float(labels["reinhard"].split(": ")[1]) < 2 < float(labels[None].split(": ")[1])


def test_fine_tuning_keeps_the_stain_of_the_model(models, change_laboratory):
    model = models["reinhard"]
    child = tl.fit(change_laboratory(toy(8)), model=model, max_epochs=1, validation=None, **QUIET)
    assert child.stain == model.stain
    assert child.inputs == model.inputs
    with pytest.raises(ValueError, match="you passed `stain`"):
        tl.fit(toy(8), model=model, stain="macenko", **QUIET)


def test_each_fold_fits_its_own_reference(monkeypatch):
    names = []

    def fit_and_record(slides, method):
        names.append(sorted(slide.name for slide in slides))
        return fit_reference(slides, method)

    monkeypatch.setattr("sthggep.tl._cross_validation._plan.fit_reference", fit_and_record)
    slides = [toy(seed, 1000.0) for seed in (0, 1, 2)]
    options = {"size_um": 320, "max_epochs": 1, "n_members": 1, "baselines": ["ridge"], **QUIET}
    results = tl.cross_validate(slides, stain="reinhard", **options)
    assert sorted(names) == [["toy1", "toy2"], ["toy1", "toy3"], ["toy2", "toy3"]]
    assert results.attrs["parameters"]["inputs"]["stain"] == "reinhard"
    model = tl.fit(slides[:2], genes=list(slides[0].var_names), stain="reinhard", **{**QUICK, "validation": "auto"})
    tl.predict(slides[2], model, **QUIET)
    scores = tl.evaluate(slides[2])["pearson"]
    rows = results[(results["section"] == "toy3") & (results["method"] == "hggep") & (results["metric"] == "pearson")]
    np.testing.assert_allclose(rows.set_index("gene")["value"].reindex(scores.index), scores, atol=1e-4)


def test_bad_arguments_are_refused(models):
    slide = toy()
    with pytest.raises(ValueError, match=r"Unknown stain normalization.*'vahadane'.*'reinhard', 'macenko'"):
        tl.fit(slide, stain="vahadane", **QUICK)
    with pytest.raises(ValueError, match=r"`stain` do not apply"):
        tl.fit(slide, stain="reinhard", obsm="morphology", **QUIET)
    with pytest.raises(TypeError, match=r"`stain` must be a dict, found 'reinhard'"):
        pp.features(slide, stain="reinhard", **FEATURES)
