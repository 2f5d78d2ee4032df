"""Models that normalize stain: fitted on training slides, stored, applied to new slides; features of both kinds apart."""

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
QUICK = {"size_um": 160, "max_epochs": 1, "n_members": 1, "validation": None, **QUIET}
KEY = "X_shufflenet_he_160"


def toy(seed: int = 0, size: float = 1600.0) -> ad.AnnData:
    return datasets.toy(seed=seed, size_um=(size, size), mpp=4.0, n_genes=8)


def through(adata: ad.AnnData, change: Callable[[np.ndarray], np.ndarray]) -> ad.AnnData:
    """The slide with other pixels."""
    out = adata.copy()
    images = next(iter(out.uns["spatial"].values()))["images"]
    for key, pixels in images.items():
        images[key] = change(pixels)
    return out


@pytest.fixture
def recolored(stains: SimpleNamespace) -> Callable[[ad.AnnData], ad.AnnData]:
    """Makes a slide one of another laboratory."""
    return lambda adata: through(adata, stains.changes["macenko"])


@pytest.fixture(scope="module")
def fitted() -> dict[str | None, HGGEP]:
    slides = [toy(0), toy(1)]
    return {stain: tl.fit(slides, stain=stain, **QUICK) for stain in (None, *METHODS)}


def predicted(slide: ad.AnnData, model: HGGEP, **options) -> np.ndarray:
    return tl.predict(slide, model, copy=True, **QUIET, **options).obsm["hggep"]


@pytest.mark.parametrize("changed", METHODS)
@pytest.mark.filterwarnings("ignore:Section .* its tissue has other colors")
def test_predictions_stay_when_the_stain_changes(fitted, stains: SimpleNamespace, changed: str):
    slide = toy(2)
    other = through(slide, stains.changes[changed])

    def likeness(model: HGGEP) -> float:
        one, two = predicted(slide, model), predicted(other, model)
        return float(np.mean([np.corrcoef(one[:, g], two[:, g])[0, 1] for g in range(one.shape[1])]))

    found = {stain: likeness(model) for stain, model in fitted.items()}
    assert min(found["reinhard"], found["macenko"]) > found[None], found
    # the change that the method undoes, whatever the tissue
    assert found[changed] > 0.999, found


def test_the_reference_is_of_the_training_slides_and_travels_with_the_model(fitted, tmp_path: Path):
    slides = [resolve_one(toy(seed)) for seed in (0, 1)]
    model = fitted["reinhard"]
    assert model.stain == fit_reference(slides, "reinhard")
    assert fitted[None].stain is None
    assert "stain normalized (reinhard)" in repr(model)
    assert len({each.id for each in fitted.values()}) == 3
    model.save(tmp_path / "model")
    again = HGGEP.load(tmp_path / "model")
    assert again.stain == model.stain
    assert again.id == model.id
    slide = toy(3)
    np.testing.assert_array_equal(predicted(slide, again), predicted(slide, model))
    record = tl.predict(slide, again, copy=True, **QUIET).uns["hggep"]
    assert record["params"]["stain"] == "reinhard"


def test_models_of_earlier_versions_have_none(fitted, tmp_path: Path):
    fitted[None].save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["inputs"]["stain"]
    path.write_text(json.dumps(config | {"format": 1}))
    old = HGGEP.load(tmp_path / "model")
    assert old.stain is None
    assert old.id == fitted[None].id
    assert "stain" not in repr(old)


@pytest.mark.parametrize("method", METHODS)
def test_windows_do_not_show(fitted, recolored, method: str):
    slide = recolored(toy(4))
    whole = predicted(slide, fitted[method], window=None)
    np.testing.assert_allclose(predicted(slide, fitted[method], window=20), whole, atol=2e-4)
    np.testing.assert_allclose(
        fitted[method].predict_slide(resolve_one(slide), device="cpu"), whole, rtol=1e-4, atol=1e-5
    )


def test_features_of_own_colors_are_refused_in_training(fitted):
    slide = toy(0)
    pp.features(slide, size_um=160, **QUIET)
    for call in (
        lambda: tl.fit(slide, stain="macenko", **QUICK),
        lambda: tl.fit(slide, model=fitted["macenko"], **QUIET),
        lambda: tl.cross_validate([slide, toy(1)], stain="macenko", group_key="section", size_um=160, **QUIET),
    ):
        with pytest.raises(
            ValueError, match=rf"'toy1': obsm holds '{KEY}'.*`stain='macenko'`.*del slide.obsm\['{KEY}'\]"
        ):
            call()
    del slide.obsm[KEY]
    assert tl.fit(slide, stain="macenko", **QUICK).stain["method"] == "macenko"
    assert sorted(slide.obsm) == ["morphology", "spatial"]


def test_features_of_both_kinds_are_told_apart(fitted, recolored, monkeypatch):
    model, plain = fitted["macenko"], fitted[None]
    slide = recolored(toy(5))
    fresh = {each: predicted(slide, each) for each in (model, plain)}
    pp.features(slide, size_um=160, **QUIET)
    own = slide.obsm[KEY]
    np.testing.assert_array_equal(predicted(slide, model), fresh[model])
    pp.features(slide, size_um=160, stain=model.stain, **QUIET)
    assert slide.uns[KEY]["stain"].startswith("macenko-")
    assert np.abs(slide.obsm[KEY] - own).max() > 0.01
    np.testing.assert_array_equal(predicted(slide, plain), fresh[plain])
    np.testing.assert_array_equal(
        predicted(slide, fitted["reinhard"]), predicted(recolored(toy(5)), fitted["reinhard"])
    )
    with monkeypatch.context() as patched:
        patched.setattr("sthggep._inputs._stages.encode", None)
        np.testing.assert_array_equal(predicted(slide, model), fresh[model])
    pp.features(slide, size_um=160, **QUIET)
    assert "stain" not in slide.uns[KEY]
    np.testing.assert_array_equal(slide.obsm[KEY], own)


def test_the_cache_tells_them_apart(fitted, recolored, tmp_path: Path, monkeypatch):
    slide = recolored(toy(5))
    fresh = [predicted(slide, each) for each in fitted.values()]
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    for _ in range(2):
        for model, wanted in zip(fitted.values(), fresh, strict=True):
            np.testing.assert_array_equal(predicted(slide, model), wanted)
        assert len(list(tmp_path.iterdir())) == 3


def test_a_slide_that_does_not_tell_its_stain_is_predicted_in_its_own_colors(fitted):
    gray = through(toy(6), lambda pixels: np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8))
    with pytest.warns(UserWarning, match=r"'toy7': too little tissue, or too unlike H&E"):
        found = predicted(gray, fitted["reinhard"])
    assert np.isfinite(found).all()


def test_colors_are_judged_as_they_are_looked_at(fitted, recolored, recwarn):
    other = recolored(toy(7))
    predicted(other, fitted["reinhard"])
    assert not [each for each in recwarn if "other colors" in str(each.message)]
    predicted(other, fitted[None])
    assert [each for each in recwarn if "other colors" in str(each.message)]
    labels = {
        stain: pl.colors(other, fitted[stain]).axes[0].get_yticklabels()[-1].get_text() for stain in (None, "reinhard")
    }
    assert float(labels["reinhard"].split(": ")[1]) < 2 < float(labels[None].split(": ")[1])


def test_fine_tuning_keeps_the_stain_of_the_model(fitted, recolored):
    model = fitted["reinhard"]
    tuned = tl.fit(recolored(toy(8)), model=model, max_epochs=1, validation=None, **QUIET)
    assert tuned.stain == model.stain
    assert tuned.inputs == model.inputs
    with pytest.raises(ValueError, match="you passed `stain`"):
        tl.fit(toy(8), model=model, stain="macenko", **QUIET)


def test_each_fold_fits_its_own_reference(monkeypatch):
    seen = []

    def noted(slides, method):
        seen.append(sorted(slide.name for slide in slides))
        return fit_reference(slides, method)

    monkeypatch.setattr("sthggep.tl._cross_validation._plan.fit_reference", noted)
    slides = [toy(seed, 1000.0) for seed in (0, 1, 2)]
    options = {"size_um": 160, "max_epochs": 1, "n_members": 1, "baselines": ["ridge"], **QUIET}
    found = tl.cross_validate(slides, stain="reinhard", **options)
    assert sorted(seen) == [["toy1", "toy2"], ["toy1", "toy3"], ["toy2", "toy3"]]
    assert found.attrs["parameters"]["inputs"]["stain"] == "reinhard"
    model = tl.fit(slides[:2], genes=list(slides[0].var_names), stain="reinhard", **{**QUICK, "validation": "auto"})
    tl.predict(slides[2], model, **QUIET)
    alone = tl.evaluate(slides[2])["pearson"]
    rows = found[(found["section"] == "toy3") & (found["method"] == "hggep") & (found["metric"] == "pearson")]
    np.testing.assert_allclose(rows.set_index("gene")["value"].reindex(alone.index), alone, atol=1e-4)


def test_what_is_refused(fitted):
    slide = toy()
    with pytest.raises(ValueError, match=r"Unknown stain normalization.*'vahadane'.*'reinhard', 'macenko'"):
        tl.fit(slide, stain="vahadane", **QUICK)
    with pytest.raises(ValueError, match=r"`stain` do not apply"):
        tl.fit(slide, stain="reinhard", obsm="morphology", **QUIET)
    with pytest.raises(ValueError, match=r"`model\.stain`, found 'reinhard'"):
        pp.features(slide, size_um=160, stain="reinhard", **QUIET)
