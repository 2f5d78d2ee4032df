"""Arguments of `tl.fit`, mostly on user features, which need no encoder."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from sthggep import datasets, nn, pp, tl
from sthggep._training import _presets
from sthggep.nn import FeatureHGGEPNet

QUICK = {"obsm": "X_mine", "n_members": 1, "max_epochs": 2, "device": "cpu", "show_progress_bar": False}
SMALL = {"dim": 32, "depth": 1, "heads": 2, "hypergraph_dim": 16, "fusion_layers": 1}
pytestmark = pytest.mark.usefixtures("networks")


def toy(seed: int, size: float = 1400.0, **options):
    slide = datasets.toy(seed=seed, size_um=(size, size), mpp=4.0, n_genes=8, **options)
    table = slide if isinstance(slide, AnnData) else slide["table"]
    table.obsm["X_mine"] = table.obsm["morphology"].to_numpy(dtype=np.float32)
    return slide


@pytest.fixture
def pair() -> list[AnnData]:
    return [toy(0), toy(1)]


@pytest.fixture
def genes(pair) -> list[str]:
    return list(pair[0].var_names)


def snapshot(value: object) -> object:
    """Convert the content of an object, images included, to plain values for comparison."""
    if isinstance(value, AnnData):
        parts = ("obs", "var", "obsm", "varm", "obsp", "layers", "uns")
        return {"X": snapshot(value.X)} | {part: snapshot(getattr(value, part)) for part in parts}
    if isinstance(value, pd.DataFrame):
        return value.to_dict(), value.dtypes.to_dict()
    if hasattr(value, "items"):
        return {name: snapshot(item) for name, item in value.items()}
    if sparse.issparse(value):
        return value.data.tobytes(), value.indices.tobytes(), value.indptr.tobytes()
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


# ---------------------------------------------------------------- containers


def test_slides_do_not_change():
    pair = [toy(0, 900.0), toy(1, 900.0)]
    before = [snapshot(slide) for slide in pair]
    tl.fit(pair, weights="random", size_um=640.0, **{**QUICK, "obsm": None, "max_epochs": 1})
    assert [snapshot(slide) for slide in pair] == before


def test_features_computed_on_the_way_are_those_of_pp(genes, monkeypatch):
    pair = [toy(0, 900.0), toy(1, 900.0)]
    options = {"weights": "random", "size_um": (320, 640), "genes": genes, **QUICK, "obsm": None}
    fresh = tl.fit(pair, **options)
    for slide in pair:
        features = {"size_um": (320, 640), "weights": "random", "encoding": "tissue", "flips": False}
        pp.features(slide, show_progress_bar=False, **features)
    monkeypatch.setattr("sthggep._inputs._stages.encode", lambda *_, **__: pytest.fail("the features are there"))
    assert tl.fit(pair, **options).id == fresh.id


def test_sections_of_one_object_train_the_same_model(pair, genes):
    adata = anndata.concat(pair, label="which", keys=["toy1", "toy2"], index_unique="-", uns_merge="unique")
    of_objects = tl.fit(pair, genes=genes, **QUICK)
    of_one_object = tl.fit(adata, genes=genes, library_key="which", **QUICK)
    assert of_one_object.training.sections == ["toy1", "toy2"]
    assert of_one_object.id == of_objects.id
    # Rows in any order
    permuted = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    of_permuted = tl.fit(permuted, genes=genes, library_key="which", **QUICK)
    assert sorted(of_permuted.training.n_spots) == sorted(of_objects.training.n_spots)


def test_spatialdata_trains_the_same_model(pair, genes):
    sdata = [toy(seed, as_spatialdata=True) for seed in (0, 1)]
    expected = tl.fit(pair, genes=genes, **QUICK)
    for slides in (sdata, [pair[0], sdata[1]], (sdata[0], pair[1])):
        assert tl.fit(slides, genes=genes, **QUICK).id == expected.id


def test_names_that_several_slides_share(pair, genes):
    slides = [toy(0, section="A"), toy(1, section="A"), toy(2, section="A-2"), toy(3, section="A")]
    model = tl.fit(slides, genes=genes, validation=["A-2"], **QUICK)
    assert model.training.sections == ["A", "A-3", "A-2", "A-4"]
    assert model.training.validation == ["A-2"]


def test_spatial_key_names_the_coordinates(pair):
    plain = tl.fit(pair, **QUICK)
    for slide in pair:
        slide.obsm["centers"] = slide.obsm.pop("spatial")
    assert tl.fit(pair, spatial_key="centers", **QUICK).id == plain.id


def test_counts_in_a_layer(pair, genes):
    plain = tl.fit(pair, genes=genes, **QUICK)
    for slide in pair:
        slide.layers["raw"] = slide.X.copy()
        slide.X = slide.X * 0.5
    assert tl.fit(pair, genes=genes, layer="raw", **QUICK).id == plain.id
    with pytest.raises(ValueError, match=r"not whole.*'raw'"):
        tl.fit(pair, genes=genes, **QUICK)


# ---------------------------------------------------------------- genes


def test_panel_is_chosen_or_passed(pair, genes):
    assert tl.fit(pair, **QUICK).genes == pp.gene_panel(pair)
    assert tl.fit(pair, genes=pd.Index(genes[::-2]), **QUICK).genes == genes[::-2]


def test_model_id_depends_on_the_genes(pair):
    for slide in pair:
        slide.var_names = [f"other{i}" for i in range(slide.n_vars)]
    other = tl.fit(pair, genes=list(pair[0].var_names), **QUICK)
    model = tl.fit([toy(0), toy(1)], genes=list(toy(0).var_names), **QUICK)
    assert other.id != model.id


# ---------------------------------------------------------------- features of any encoder


def test_tables_and_sparse_matrices_are_features_too(pair, genes):
    plain = tl.fit(pair, genes=genes, **QUICK)
    for slide in pair:
        slide.obsm["X_sparse"] = sparse.csr_matrix(slide.obsm["X_mine"])
    for key in ("morphology", "X_sparse"):  # a table and a sparse matrix
        (member,) = tl.fit(pair, genes=genes, **{**QUICK, "obsm": key}).members
        weights = plain.members[0].state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in member.state_dict().items())


def test_columns_of_tables_must_agree(pair, genes):
    model = tl.fit(pair, genes=genes, **{**QUICK, "obsm": "morphology"})
    columns = list(pair[0].obsm["morphology"])
    assert model.training.obsm_columns == {"morphology": columns}
    pair[1].obsm["morphology"] = pair[1].obsm["morphology"][[columns[0], *columns[:0:-1]]]
    with pytest.raises(ValueError, match=r"'toy2' must hold the columns of the model's training.*from column 1 on"):
        tl.predict(pair[1], model, show_progress_bar=False)
    with pytest.raises(ValueError, match="must hold the columns of section 'toy1'"):
        tl.fit(pair, genes=genes, **{**QUICK, "obsm": "morphology"})
    pair[1].obsm["X_mine"] = pair[1].obsm["morphology"].assign(more="text")
    with pytest.raises(ValueError, match=r"obsm\['X_mine'\] must hold numbers"):
        tl.fit(pair, genes=genes, **QUICK)


def test_several_features_are_several_stages(pair, genes):
    for slide in pair:
        slide.obsm["X_two"] = slide.obsm["X_mine"][:, :2]
    model = tl.fit(pair, genes=genes, **{**QUICK, "obsm": ("X_mine", "X_two")})
    assert model.members[0].config["feature_dims"] == [pair[0].obsm["X_mine"].shape[1], 2]
    assert "obsm 'X_mine', 'X_two'" in repr(model)
    assert "µm" not in repr(model)


def test_user_features_need_no_image(pair, genes):
    plain = tl.fit(pair, genes=genes, **QUICK)
    for slide in pair:
        slide.uns["spatial"] = {
            name: {"metadata": library["metadata"]} for name, library in slide.uns["spatial"].items()
        }
    assert tl.fit(pair, genes=genes, **QUICK).id == plain.id


def test_broken_features_are_refused(pair, genes):
    pair[1].obsm["X_mine"] = pair[1].obsm["X_mine"].copy()  # that of pandas 3 cannot be written to
    pair[1].obsm["X_mine"][7, 0] = np.nan
    with pytest.raises(ValueError, match=r"obsm\['X_mine'\].*'toy2', found NaN or infinity in 1 spot\."):
        tl.fit(pair, genes=genes, **QUICK)
    pair[1].obsm["X_mine"] = pair[1].obsm["X_mine"][:, 1:]
    with pytest.raises(ValueError, match=r"same features in every section, found widths .'toy1': 6, 'toy2': 5"):
        tl.fit(pair, genes=genes, validation=None, **QUICK)


# ---------------------------------------------------------------- held-out tissue


def test_one_section_holds_out_blocks(genes):
    model = tl.fit(toy(0), genes=genes, **{**QUICK, "n_members": 3})
    assert model.training.validation == ["0", "1", "2"]
    assert model.history["val_pearson"].notna().all()
    assert list(model.history)[:5] == ["member", "epoch", "train_loss", "val_loss", "val_pearson"]
    assert model.history["member"].tolist() == [1, 1, 2, 2, 3, 3]


def test_nothing_held_out(pair, genes):
    model = tl.fit(pair, genes=genes, validation=None, **{**QUICK, "max_epochs": 4})
    assert model.history["epoch"].tolist() == [1, 2, 3, 4]
    assert "val_pearson" not in model.history
    assert float(model.members[0].blend) == 0.25


def test_the_only_section_with_counts_is_not_held_out(pair, genes, caplog):
    """Only one section has counts: training uses it instead of holding it out."""
    pair[1].X = pair[1].X * 0
    with caplog.at_level(logging.INFO, logger="sthggep"):
        model = tl.fit(pair, genes=genes, **QUICK)
    assert "nothing is held out" in caplog.text
    assert np.isfinite(model.history).all(axis=None)


def test_training_and_prediction_see_the_same_neighbors(pair, genes, monkeypatch):
    records = []
    forward = FeatureHGGEPNet.forward

    def spy(self, features, neighbors, *rest):
        records.append((neighbors.shape[1], self.n_neighbors))
        return forward(self, features, neighbors, *rest)

    monkeypatch.setattr(FeatureHGGEPNet, "forward", spy)
    default = _presets.PRESETS["default"]
    for n_neighbors in (5, 9):
        monkeypatch.setitem(
            _presets.PRESETS, "default", replace(default, net={**default.net, "n_neighbors": n_neighbors})
        )
        records.clear()
        model = tl.fit(pair, genes=genes, **QUICK)
        n_calls = len(records)
        tl.predict(pair[0], model, show_progress_bar=False)
        assert len(records) > n_calls > 0
        assert set(records) == {(n_neighbors, n_neighbors)}


# ---------------------------------------------------------------- poor tissue


def test_a_single_spot_is_refused(genes):
    with pytest.raises(ValueError, match=r"at least two spots with counts in the panel, found 1 in 1 section\."):
        tl.fit(toy(0)[:1].copy(), genes=genes, **QUICK)
    empty = toy(0)
    empty.X = empty.X * 0
    with pytest.raises(ValueError, match=r"found 0 in 1 section\."):
        tl.fit(empty, genes=genes, **QUICK)
    with pytest.raises(ValueError, match="at least two spots"):
        tl.fit([], genes=genes, **QUICK)


def test_poor_sections_beside_a_good_one(pair, genes):
    """One spot; spots far from each other; spots without counts; a gene that never varies."""
    lonely, far = toy(2)[:1].copy(), toy(3)
    far = far[[0, far.n_obs // 2, far.n_obs - 1]].copy()
    values = pair[1].X.toarray()
    values[::2] = 0
    values[:, 3] = 0
    pair[1].X = sparse.csr_matrix(values)
    model = tl.fit([*pair, lonely, far], genes=genes, **{**QUICK, "n_members": 4})
    assert np.isfinite(model.history).all(axis=None)
    for slide in (pair[1], lonely, far):
        tl.predict(slide, model, show_progress_bar=False)
        assert np.isfinite(slide.obsm["hggep"]).all()


# ---------------------------------------------------------------- options of the training


def test_trainer_kwargs_reach_lightning(pair, genes):
    model = tl.fit(pair, genes=genes, trainer_kwargs={"max_epochs": 1}, **QUICK)
    assert model.history["epoch"].tolist() == [1]


def test_learning_rate_reaches_the_optimizer(pair, genes):
    plain = tl.fit(pair, genes=genes, validation=None, **QUICK)
    explicit = tl.fit(pair, genes=genes, validation=None, learning_rate=1e-3, **QUICK)
    other = tl.fit(pair, genes=genes, validation=None, learning_rate=1e-2, **QUICK)
    assert explicit.id == plain.id != other.id
    with pytest.raises(ValueError, match="learning_rate"):
        tl.fit(pair, genes=genes, learning_rate=np.nan, **QUICK)


def test_progress_is_shown_on_request(pair, genes, capfd, monkeypatch):
    import tqdm.std

    monkeypatch.setattr(tqdm.std.tqdm, "monitor_interval", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tl.fit(pair, genes=genes, **{**QUICK, "show_progress_bar": True})
    output = capfd.readouterr()
    assert "Training" in output.err
    assert "2/2" in output.err
    assert output.out == ""


# ---------------------------------------------------------------- the published preset


@pytest.fixture
def small_paper(monkeypatch):
    paper = _presets.PRESETS["paper"]
    recipe = replace(paper.recipe, n_copies=2, precision="32-true", learning_rate=1e-3)
    monkeypatch.setitem(_presets.PRESETS, "paper", replace(paper, net=SMALL, recipe=recipe))


def test_published_network_learns_from_pixels(small_paper, monkeypatch):
    slide = datasets.toy(seed=0, size_um=(1200.0, 1200.0), mpp=2.0, n_genes=8)
    records = []
    versions = nn.HGGEPNet.versions

    def spy(self, patches, *rest):
        batches = list(patches)
        records.extend((self.training, batch.detach().clone()) for batch in batches)
        return versions(self, batches, *rest)

    monkeypatch.setattr(nn.HGGEPNet, "versions", spy)
    model = tl.fit(
        slide,
        genes=list(slide.var_names),
        preset="paper",
        weights="random",
        validation=None,
        max_epochs=3,
        device="cpu",
        show_progress_bar=False,
    )
    assert {training for training, _ in records} == {True}  # dropout and batch statistics, as published
    whole = [patches for _, patches in records if patches.dtype.is_floating_point is False]
    assert len(whole) == 3
    assert len(records) == 9  # each with two augmented copies
    np.testing.assert_array_equal(whole[0].permute(0, 2, 3, 1).numpy(), pp.patches(slide)[:])
    assert whole[0].max() > 200
    parts = model.history[["train_mse", "train_counts", "train_distillation"]]
    assert (parts > 0).all(axis=None)
    np.testing.assert_allclose(parts.sum(axis=1), model.history["train_loss"], rtol=1e-5)
    assert model.history["train_loss"].iloc[-1] < model.history["train_loss"].iloc[0]


def test_published_preset_is_as_published():
    paper = _presets.PRESETS["paper"]
    assert (paper.inputs.size_px, paper.inputs.sizes_um, paper.net) == (112, (None,), {})
    recipe = paper.recipe
    assert (recipe.mse, recipe.count_nll, recipe.distillation, recipe.n_copies) == (1.0, 0.25, 0.5, 5)
    assert (recipe.learning_rate, recipe.step_epochs, recipe.step_factor) == (1e-5, 50, 0.9)
    assert recipe.max_epochs in range(350, 401)
    assert (recipe.weight_decay, recipe.correlation) == (0.0, 0.0)


def test_a_panel_of_few_genes_is_warned_of(slides, fit_options):
    genes = list(slides[0].var_names[[0, 3]])
    with pytest.warns(UserWarning, match=r"A panel of 2 genes: .*gene_panel\(slides, include=") as found:
        # Slides that may lack genes have no counts of all genes that they share
        tl.fit(slides[:1], genes=genes, absent="mask", **fit_options | {"n_members": 0})
    assert str(genes) in str(found[0].message)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="A panel of")
        assert tl.fit(slides[:1], genes=genes, **fit_options | {"n_members": 0}).training.all_counts
        # Tables that have no more genes, and panels of ten
        tl.fit(slides[0][:, genes].copy(), genes=genes, **fit_options | {"n_members": 0})
        tl.fit(slides[:1], genes=list(slides[0].var_names[:10]), **fit_options | {"n_members": 0})
