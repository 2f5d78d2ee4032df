"""The bundled files: the adapted encoder and the model of breast tumors."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

import sthggep
from sthggep import HGGEP, datasets, pp, tl
from sthggep.model._calibration import UNLIKE_SPOT

FOLDER = files("sthggep") / "_bundled"
QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def tissue():
    # Without genes: a table of other genes needs the name of the model
    return [datasets.toy(seed=3, size_um=(1200.0, 1200.0), mpp=mpp, n_genes=4)[:, :0].copy() for mpp in (1.0, 2.0)]


@pytest.fixture(scope="module")
def predicted(tissue):
    for slide in tissue:
        tl.predict(slide, **QUIET)
    return tissue


def test_files_are_small():
    for file in (FOLDER / "shufflenet_he.safetensors", FOLDER / "her2st" / "model.safetensors"):
        assert 1e6 < file.stat().st_size < 20e6


def test_predicts_without_a_model(predicted):
    model = HGGEP.from_pretrained("her2st")
    assert len(model.genes) == 853
    assert {"ERBB2", "EPCAM", "KRT19", "MKI67", "FASN", "GNAS"} <= set(model.genes)
    assert model.training.sections == ["B4", "C2", "C3", "C4", "C5"]
    for slide in predicted:
        assert slide.obsm["hggep"].shape == (slide.n_obs, 853)
        assert np.isfinite(slide.obsm["hggep"]).all()
        assert slide.uns["hggep"]["model"] == model.id
        # The prediction differs between kinds of tissue
        assert slide.obsm["hggep"].std(axis=0).mean() > 0.01


def test_any_resolution_is_accepted(predicted):
    fine, coarse = (slide.obsm["hggep"] for slide in predicted)
    if len(fine) != len(coarse):
        pytest.fail("the toy is to be drawn with the same spots at both resolutions")
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(fine.T, coarse.T, strict=True)]
    assert np.median(r) > 0.8


def test_unknown_model_names_are_refused():
    with pytest.raises(FileNotFoundError, match=r"No model is called 'her3st'.*'her2st'.*tl\.fit"):
        HGGEP.from_pretrained("her3st")


def test_encoder_is_usable_alone_without_download(tissue, monkeypatch):
    monkeypatch.delenv("STHGGEP_WEIGHTS", raising=False)
    slide = tissue[1].copy()
    pp.features(slide, size_um=160, **QUIET)
    assert slide.obsm["X_shufflenet_he_160"].shape == (slide.n_obs, 1360)
    # The model uses this encoder: it reads the stored features
    model = HGGEP.from_pretrained("her2st")
    assert model.training.encoder_weights == slide.uns["X_shufflenet_he_160"]["weights"]
    assert "shufflenet_he" in sthggep.pp.encoders().query("available").index


def test_intervals_of_spots_unlike_the_training_tissue_are_those_of_held_out_patients():
    slide = datasets.toy(seed=4, size_um=(1200.0, 1200.0), mpp=2.0, n_genes=4)[:, :0].copy()
    model = HGGEP.from_pretrained("her2st")
    tl.predict(slide, model, genes=model.genes[:5], interval=0.9, **QUIET)
    unlike = slide.obs["hggep_novelty"].to_numpy() > UNLIKE_SPOT
    assert 0 < unlike.sum() < len(unlike)
    for of_patients, rows in ((True, unlike), (False, ~unlike)):
        offset = model.calibration.quantile(0.95, of_patients=of_patients)[:5]
        expected = np.maximum(slide.obsm["hggep"][rows] + offset, 0)
        np.testing.assert_allclose(slide.obsm["hggep_upper"][rows], expected, rtol=1e-5, atol=1e-6)
    wider = model.calibration.quantile(0.95, of_patients=True) - model.calibration.quantile(0.95)
    assert np.median(wider) > 0
