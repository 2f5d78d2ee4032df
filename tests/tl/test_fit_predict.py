"""Training and prediction on the objects of the user."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import torch

import sthggep
from sthggep import datasets, tl
from sthggep._table._counts import log10_cp10k, read_panel_counts
from sthggep._training import _closed_form
from sthggep.nn import correlation_loss

QUIET = {"show_progress_bar": False}


def genes_of(slide, *families):
    return [gene for gene in slide.var_names if gene.rstrip("0123456789") in families]


def state(adata):
    return (
        adata.X.toarray().copy(),
        adata.obs.copy(),
        sorted(adata.obsm),
        sorted(adata.uns),
        adata.obsm["spatial"].copy(),
    )


def assert_same(before, after):
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1].equals(after[1])
    assert before[2:4] == after[2:4]
    np.testing.assert_array_equal(before[4], after[4])


def test_predictions_of_new_tissue_correlate_with_counts(slides, model):
    tl.predict(slides[2], model, **QUIET)
    scores = tl.evaluate(slides[2])["pearson"]
    assert scores[genes_of(slides[2], "STRO", "FAT", "NUCL")].mean() > 0.4
    assert abs(scores[genes_of(slides[2], "NOISE")].mean()) < 0.25
    prediction = slides[2].obsm["hggep"]
    assert prediction.dtype == np.float32
    assert prediction.shape == (slides[2].n_obs, slides[2].n_vars)
    # On the scale of the measurement, not only in its order
    assert tl.evaluate(slides[2])["rmse"].mean() < 0.6


def test_prediction_writes_its_keys_and_nothing_else(slides, model):
    slide = slides[2]
    before = state(slide)
    copy = tl.predict(slide, model, copy=True, **QUIET)
    assert_same(before, state(slide))
    assert set(copy.obsm) - set(slide.obsm) == {"hggep"}
    assert set(copy.uns) - set(slide.uns) == {"hggep"}
    record = copy.uns["hggep"]
    assert record["model"] == model.id
    assert list(record["genes"]) == model.genes
    assert record["units"] == "log10(1 + counts per 10,000 of the panel)"
    assert record["params"]["mpp"].tolist() == [2.0]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_prediction_survives_the_disk(slides, model, tmp_path, suffix):
    slide = slides[2]
    tl.predict(slide, model, **QUIET)
    tl.evaluate(slide)
    path = tmp_path / f"slide{suffix}"
    if suffix == ".h5ad":
        slide.write_h5ad(path)
        back = anndata.read_h5ad(path)
    else:
        slide.write_zarr(path)
        back = anndata.read_zarr(path)
    np.testing.assert_array_equal(back.obsm["hggep"], slide.obsm["hggep"])
    assert list(back.uns["hggep"]["genes"]) == model.genes
    assert back.uns["hggep"]["model"] == model.id
    np.testing.assert_allclose(tl.evaluate(back)["pearson"], slide.uns["hggep_scores"]["pearson"])


def test_fit_does_not_change_slides_or_random_states(slides, fit_options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = [state(slide) for slide in slides[:2]]
    torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()  # noqa: NPY002
    torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
    tl.fit(slides[:2], **{**fit_options, "max_epochs": 1})
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()) == expected  # noqa: NPY002
    for old, slide in zip(before, slides, strict=False):
        assert_same(old, state(slide))
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("networks")
def test_the_seed_determines_the_model(slides, fit_options, model):
    repeat = tl.fit(slides[:2], genes=model.genes, **fit_options)
    assert repeat.id == model.id
    other = tl.fit(slides[:2], genes=model.genes, seed=1, **fit_options)
    assert other.id != model.id


def test_history_has_a_row_an_epoch(model):
    history = model.history
    assert {"member", "epoch", "train_loss", "val_loss", "val_pearson", "train_mse"} <= set(history)
    epochs = history.groupby("member")["epoch"].agg(list).to_dict()
    assert set(epochs) == {1, 2}
    assert all(numbers == list(range(1, len(numbers) + 1)) and len(numbers) <= 8 for numbers in epochs.values())
    first, last = history[history["epoch"] == 1], history.groupby("member").tail(1)
    assert last["train_loss"].mean() < first["train_loss"].mean()
    # Each member holds out another section
    assert model.training.validation == ["toy1", "toy2"]


def test_early_stop_keeps_the_best_epoch(slides, fit_options, monkeypatch):
    from dataclasses import replace

    from sthggep._training import _presets

    default = _presets.PRESETS["default"]
    recipe = replace(default.recipe, patience=2, shares=(0.25,))
    monkeypatch.setitem(_presets.PRESETS, "default", replace(default, recipe=recipe))
    options = {
        **fit_options,
        "n_members": 1,
        "max_epochs": 30,
        "learning_rate": 0.3,
        "genes": list(slides[0].var_names),
    }
    model = tl.fit(slides[:2], validation=["toy2"], **options)
    curve = model.history["val_pearson"]
    assert len(curve) < 30
    assert len(curve) == curve.idxmax() + 3
    # The model holds the network of the best epoch; predict without the shortcut
    model.members[0].blend.fill_(1.0)
    tl.predict(slides[1], model, **QUIET)
    target = torch.from_numpy(log10_cp10k(read_panel_counts(slides[1], model.genes)))
    correlation = 1 - correlation_loss(torch.from_numpy(slides[1].obsm["hggep"]), target)
    assert correlation.item() == pytest.approx(curve.max(), abs=1e-3)


@pytest.mark.usefixtures("networks")
def test_held_out_counts_do_not_reach_the_networks(slides, fit_options, monkeypatch):
    """Without the choices on held-out tissue and the final refit, training does not depend on held-out counts."""
    monkeypatch.setattr(_closed_form, "choose_ridge", lambda preset, *_: _closed_form.RidgeChoice(preset, []))
    monkeypatch.setattr(_closed_form, "refit_on_all", lambda *_: None)
    options = {
        **fit_options,
        "n_members": 1,
        "max_epochs": 1,
        "validation": ["toy2"],
        "genes": list(slides[0].var_names),
    }
    first = tl.fit(slides[:2], **options)
    permuted = slides[1].copy()
    rng = np.random.default_rng(0)
    permuted.X = permuted.X[rng.permutation(permuted.n_obs)].copy()
    second = tl.fit([slides[0], permuted], **options)
    for (name, value), other_value in zip(
        first.members.state_dict().items(), second.members.state_dict().values(), strict=True
    ):
        # What an update needs is kept of all tissue, after all choices
        if not name.endswith("blend") and ".prior_" not in name:
            assert torch.equal(value, other_value), name


def test_several_sections_in_one_object(slides, model):
    adata = anndata.concat(slides[:2], label="which", keys=["toy1", "toy2"], index_unique="-", uns_merge="unique")
    tl.predict(adata, model, library_key="which", **QUIET)
    for slide, rows in ((slides[0], adata.obs["which"] == "toy1"), (slides[1], adata.obs["which"] == "toy2")):
        tl.predict(slide, model, **QUIET)
        np.testing.assert_allclose(adata.obsm["hggep"][rows], slide.obsm["hggep"], rtol=1e-4, atol=1e-5)


def test_spatialdata_gives_the_same(slides, model, tmp_path):
    import spatialdata

    sdata = datasets.toy(seed=2, size_um=(2000.0, 2000.0), mpp=2.0, n_genes=16, as_spatialdata=True)
    tl.predict(sdata, model, **QUIET)
    tl.predict(slides[2], model, **QUIET)
    np.testing.assert_allclose(sdata["table"].obsm["hggep"], slides[2].obsm["hggep"], rtol=1e-3, atol=1e-3)
    sdata.write(tmp_path / "toy.zarr")
    back = spatialdata.read_zarr(tmp_path / "toy.zarr")
    np.testing.assert_array_equal(back["table"].obsm["hggep"], sdata["table"].obsm["hggep"])
    both_kinds, options = [slides[0], sdata], {"size_um": 640.0, "weights": "random", "max_epochs": 1}
    model_of_both = tl.fit(both_kinds, n_members=1, device="cpu", **options, **QUIET)
    assert model_of_both.training.sections == ["toy1", "toy3"]


def test_features_of_any_encoder(slides, fit_options):
    for slide in slides:
        slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy().astype(np.float32)
    options = {**fit_options, "size_um": None, "obsm": "X_mine"}
    model = tl.fit(slides[:2], genes=list(slides[0].var_names), **options)
    # Features of spots have no windows around them, which hyperedges stand for
    assert not model.members[0].config.get("linear", False)
    assert model.members[0].hops == ("hyperedges", "hyperedges")
    tl.predict(slides[2], model, **QUIET)
    assert tl.evaluate(slides[2])["pearson"][genes_of(slides[2], "STRO", "FAT", "NUCL")].mean() > 0.5
    with pytest.raises(KeyError, match=r"X_mine.*obsm"):
        tl.predict(datasets.toy(seed=5, size_um=(600.0, 600.0), mpp=2.0), model, **QUIET)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_spots_and_spots_without_counts(slides, model, fit_options, n):
    few = slides[2][:n].copy()
    tl.predict(few, model, **QUIET)
    assert np.isfinite(few.obsm["hggep"]).all()
    small = slides[0][: max(n, 3)].copy()
    small.X[0] = 0
    model_of_few = tl.fit(small, genes=model.genes, **{**fit_options, "n_members": 1, "max_epochs": 2})
    tl.predict(few, model_of_few, **QUIET)
    assert np.isfinite(few.obsm["hggep"]).all()


def test_isolated_spot(slides, model):
    slide = slides[2][[0, 1, 2, slides[2].n_obs - 1]].copy()
    tl.predict(slide, model, **QUIET)
    assert np.isfinite(slide.obsm["hggep"]).all()


def test_paper_preset_from_patch_to_prediction(monkeypatch, weights_root):
    from dataclasses import replace

    from sthggep._training import _presets

    small = {"dim": 32, "depth": 1, "heads": 2, "hypergraph_dim": 16, "fusion_layers": 1}
    paper = _presets.PRESETS["paper"]
    recipe = replace(paper.recipe, n_copies=2, precision="32-true")
    monkeypatch.setitem(_presets.PRESETS, "paper", replace(paper, net=small, recipe=recipe))
    slide = datasets.toy(seed=0, size_um=(1200.0, 1200.0), mpp=1.0, n_genes=8)
    genes, options = list(slide.var_names), {"weights": weights_root, "validation": None, **QUIET}
    model = tl.fit(slide, genes=genes, preset="paper", max_epochs=2, device="cpu", **options)
    assert {"train_mse", "train_counts", "train_distillation"} <= set(model.history)
    # Two small steps changed the initial weights of the backbone little
    initial = torch.load(next(weights_root.glob("*.pt")), weights_only=True)["conv5.0.weight"]
    weights = model.members[0].backbone.conv5[0].weight
    assert torch.corrcoef(torch.stack([initial.flatten(), weights.detach().flatten()]))[0, 1] > 0.999
    tl.predict(slide, model, **QUIET)
    assert np.isfinite(slide.obsm["hggep"]).all()
    coarse = datasets.toy(seed=1, size_um=(1200.0, 1200.0), mpp=2.0, n_genes=8)
    with pytest.warns(UserWarning, match="field of view"):
        tl.predict(coarse, model, **QUIET)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"preset": "papr"}, ValueError, "papr.*paper"),
        ({"genes": ["STRO1", "ACTB"]}, KeyError, "ACTB"),
        ({"genes": ["STRO1", "STRO1"]}, ValueError, "more than once"),
        ({"genes": []}, ValueError, "gene_panel"),
        ({"layer": "raw"}, KeyError, "raw.*true_rate"),
        ({"layer": "true_rate"}, ValueError, "raw counts"),
        ({"validation": "toy9"}, ValueError, "toy9.*toy1"),
        ({"max_epochs": 0}, ValueError, "max_epochs"),
        ({"n_members": -1}, ValueError, "n_members"),
        ({"obsm": "X_uni", "size_um": None}, KeyError, "X_uni"),
        ({"obsm": "X_uni"}, ValueError, "`size_um`"),
        ({"preset": "paper", "obsm": "X_uni", "size_um": None}, ValueError, "default"),
        ({"device": "tpu9"}, ValueError, "auto"),
        ({"weights": "no/such/file"}, FileNotFoundError, "no/such/file"),
        ({"mpp": -1.0}, ValueError, "mpp"),
    ],
)
def test_bad_requests_are_refused(slides, fit_options, options, error, words):
    before = [state(slide) for slide in slides[:2]]
    with pytest.raises(error, match=words):
        tl.fit(slides[:2], **{**fit_options, **options})
    for old, slide in zip(before, slides, strict=False):
        assert_same(old, state(slide))


def test_keys_of_others_do_not_change(slides, model):
    slides[2].obsm["hggep"] = np.ones((slides[2].n_obs, 2))
    with pytest.raises(ValueError, match="left alone"):
        tl.predict(slides[2], model, **QUIET)
    assert (slides[2].obsm["hggep"] == 1).all()
    tl.predict(slides[2], model, key_added="mine", **QUIET)
    tl.predict(slides[2], model, key_added="mine", **QUIET)  # the call may replace its own prediction
    assert slides[2].obsm["mine"].shape[1] == len(model.genes)


def test_model_may_be_a_folder(slides, model, tmp_path):
    model.save(tmp_path / "model")
    tl.predict(slides[2], model, **QUIET)
    for folder in (tmp_path / "model", str(tmp_path / "model")):
        tl.predict(slides[2], folder, key_added="again", **QUIET)
        np.testing.assert_array_equal(slides[2].obsm["again"], slides[2].obsm["hggep"])
    with pytest.raises(FileNotFoundError, match="tiny"):
        tl.predict(slides[2], "tiny", **QUIET)
    with pytest.raises(TypeError, match="int"):
        tl.predict(slides[2], 3, **QUIET)
    assert isinstance(sthggep.HGGEP.load(Path(tmp_path / "model")), sthggep.HGGEP)


def test_batch_normalization_has_the_statistics_of_the_training_patches():
    """Otherwise a network after few steps predicts with ImageNet's statistics, unlike in training."""
    from sthggep._training._networks import _calibrate
    from sthggep.nn import HGGEPNet
    from sthggep.nn._section import PatchInputs

    torch.manual_seed(0)
    net = HGGEPNet(4, dim=32, depth=1, heads=2, hypergraph_dim=16, fusion_layers=1)
    patches = torch.randint(0, 256, (24, 3, 112, 112), dtype=torch.uint8)
    _calibrate(net, [SimpleNamespace(inputs=PatchInputs(patches, np.zeros((24, 2))))])
    assert not net.training
    with torch.no_grad():
        evaluated = net.encode(patches)
        training_levels = net.train().encode(patches)
    for level, other in zip(evaluated, training_levels, strict=True):
        assert (level - other).abs().mean() < 0.15 * other.std()  # variance by n against n - 1
