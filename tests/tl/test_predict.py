"""Input, output and refusals of `tl.predict`, on a model that reads user features."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from sthggep import HGGEP, datasets, tl
from sthggep._inputs._inputs import Inputs
from sthggep._slides._patches import Patches
from sthggep.model._record import TrainingRecord
from sthggep.nn import HGGEPNet
from sthggep.tl import _prediction_record

QUIET = {"show_progress_bar": False}
SMALL = {"dim": 32, "depth": 1, "heads": 2, "hypergraph_dim": 16, "fusion_layers": 1}


def toy(seed: int, **options):
    slide = datasets.toy(seed=seed, size_um=(1400.0, 1400.0), mpp=4.0, n_genes=8, **options)
    table = slide if isinstance(slide, AnnData) else slide["table"]
    table.obsm["X_mine"] = table.obsm["morphology"].to_numpy(dtype=np.float32)
    return slide


@pytest.fixture(scope="module")
def quick(with_networks) -> HGGEP:
    slides = [toy(0), toy(1)]
    genes = list(slides[0].var_names)
    with with_networks():
        return tl.fit(slides, genes=genes, obsm="X_mine", n_members=2, max_epochs=5, device="cpu", **QUIET)


@pytest.fixture
def slide() -> AnnData:
    return toy(2)


def on_patches(reference: bool, **training) -> HGGEP:
    """An untrained model on patches."""
    torch.manual_seed(0)
    net = HGGEPNet(3, reference=reference, **SMALL)
    return HGGEP([net], ["A", "B", "C"], Inputs("patches", reference=reference), training=TrainingRecord(**training))


# ---------------------------------------------------------------- input


def test_counts_are_not_read(quick, slide):
    tl.predict(slide, quick, **QUIET)
    bare = AnnData(obs=slide.obs, obsm={key: slide.obsm[key] for key in ("spatial", "X_mine")}, uns=slide.uns)
    del bare.uns["hggep"]
    tl.predict(bare, quick, **QUIET)
    np.testing.assert_array_equal(bare.obsm["hggep"], slide.obsm["hggep"])


def test_order_of_the_spots_does_not_matter(quick, slide):
    tl.predict(slide, quick, **QUIET)
    order = np.random.default_rng(0).permutation(slide.n_obs)
    permuted = slide[order].copy()
    tl.predict(permuted, quick, **QUIET)
    np.testing.assert_allclose(permuted.obsm["hggep"], slide.obsm["hggep"][order], rtol=1e-4, atol=1e-5)


def test_place_on_the_slide_does_not_matter(quick, slide):
    tl.predict(slide, quick, **QUIET)
    slide.obsm["spatial"] = slide.obsm["spatial"] * 3 + [1e4, -50]
    tl.predict(slide, quick, key_added="moved", **QUIET)
    np.testing.assert_allclose(slide.obsm["moved"], slide.obsm["hggep"], rtol=1e-4, atol=1e-5)


def test_sections_do_not_influence_each_other(quick, slide):
    other = toy(3)
    joined = anndata.concat([slide, other], label="which", keys=["toy3", "toy4"], index_unique="-", uns_merge="unique")
    tl.predict(joined, quick, library_key="which", **QUIET)
    tl.predict(slide, quick, **QUIET)
    rows = (joined.obs["which"] == "toy3").to_numpy()
    np.testing.assert_allclose(joined.obsm["hggep"][rows], slide.obsm["hggep"], rtol=1e-4, atol=1e-5)
    assert joined.uns["hggep"]["params"]["sections"].tolist() == ["toy3", "toy4"]
    with pytest.raises(ValueError, match="library_key"):
        tl.predict(joined, quick, **QUIET)


def test_members_are_averaged(quick, slide):
    tl.predict(slide, quick, **QUIET)
    predictions = []
    for member in quick.members:
        tl.predict(slide, HGGEP([member], quick.genes, quick.inputs), key_added="alone", **QUIET)
        predictions.append(slide.obsm["alone"])
    assert not np.allclose(*predictions, atol=1e-3)
    np.testing.assert_allclose(slide.obsm["hggep"], np.mean(predictions, axis=0), rtol=1e-5, atol=1e-6)


def test_the_model_does_not_change(quick, slide):
    before, state = quick.id, torch.get_rng_state()
    tl.predict(slide, quick, **QUIET)
    first = slide.obsm["hggep"].copy()
    tl.predict(slide, quick, **QUIET)
    np.testing.assert_array_equal(slide.obsm["hggep"], first)
    assert quick.id == before
    assert not any(module.training for module in quick.members.modules())
    assert {parameter.device.type for parameter in quick.members.parameters()} == {"cpu"}
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- output


def record(table: AnnData) -> dict[str, object]:
    """Return the record in plain Python types, whatever types a file gave it."""

    def plain(value):
        if hasattr(value, "items"):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, np.ndarray) else value

    return plain(dict(table.uns["hggep"]))


@pytest.mark.parametrize("kind", ["h5ad", "zarr", "spatialdata"])
def test_record_comes_back_from_disk(quick, slide, kind, tmp_path):
    import spatialdata

    data = toy(2, as_spatialdata=True) if kind == "spatialdata" else slide
    tl.predict(data, quick, **QUIET)
    table = data["table"] if kind == "spatialdata" else data
    expected = record(table)
    assert expected["tool"] == "sthggep"
    assert expected["params"]["preset"] == "default"
    assert set(expected["versions"]) == {"sthggep", "torch", "anndata"}
    if kind == "h5ad":
        slide.write_h5ad(tmp_path / "slide.h5ad")
        back = anndata.read_h5ad(tmp_path / "slide.h5ad")
    elif kind == "zarr":
        slide.write_zarr(tmp_path / "slide.zarr")
        back = anndata.read_zarr(tmp_path / "slide.zarr")
    else:
        data.write(tmp_path / "slide.zarr")
        back = spatialdata.read_zarr(tmp_path / "slide.zarr")["table"]
    assert record(back) == expected
    np.testing.assert_array_equal(back.obsm["hggep"], table.obsm["hggep"])
    tl.predict(back, quick, **QUIET) if kind != "spatialdata" else None  # still recognized as a prediction of sthggep


def test_copies_of_a_spatialdata(quick):
    sdata = toy(2, as_spatialdata=True)
    copy = tl.predict(sdata, quick, copy=True, **QUIET)
    assert "hggep" not in sdata["table"].obsm
    assert "hggep" not in sdata["table"].uns
    assert tl.predict(sdata, quick, **QUIET) is None
    np.testing.assert_array_equal(copy["table"].obsm["hggep"], sdata["table"].obsm["hggep"])
    assert list(copy.images) == list(sdata.images)


@pytest.mark.parametrize("place", ["obsm", "uns"])
def test_keys_of_others_are_not_replaced(quick, slide, place):
    value = np.ones((slide.n_obs, 2)) if place == "obsm" else {"tool": "another"}
    getattr(slide, place)["hggep"] = value
    with pytest.raises(ValueError, match=r"'hggep' exists already.*left alone.*key_added"):
        tl.predict(slide, quick, **QUIET)
    assert getattr(slide, place)["hggep"] is value
    with pytest.raises(ValueError, match="'spatial' exists already"):
        tl.predict(slide, quick, key_added="spatial", **QUIET)


# ---------------------------------------------------------------- refusals


def test_features_must_be_those_of_the_training(quick, slide):
    slide.obsm["X_mine"] = slide.obsm["X_mine"][:, :4]
    with pytest.raises(ValueError, match=r"obsm\['X_mine'\] holds 4 features a spot, but the model was trained on 6"):
        tl.predict(slide, quick, **QUIET)
    del slide.obsm["X_mine"]
    with pytest.raises(KeyError, match=r"'X_mine' is not in obsm, which holds 'morphology', 'spatial'"):
        tl.predict(slide, quick, **QUIET)
    assert "hggep" not in slide.uns


@pytest.mark.parametrize(("fault", "error"), [("missing", KeyError), ("beyond", ValueError)])
def test_array_positions_are_checked_before_work(slide, fault, error, monkeypatch):
    monkeypatch.setattr(Patches, "__getitem__", None)  # the test fails if a patch is cut
    if fault == "missing":
        del slide.obs["array_x"]
    else:
        slide.obs["array_x"] += 60
    with pytest.raises(error, match=r"'toy3'.*array positions"):
        tl.predict(slide, on_patches(reference=True), **QUIET)


def test_visium_columns_are_array_positions(slide):
    model = on_patches(reference=True)
    tl.predict(slide, model, **QUIET)
    slide.obs = slide.obs.rename(columns={"array_x": "array_col", "array_y": "array_row"})
    tl.predict(slide, model, key_added="visium", **QUIET)
    np.testing.assert_array_equal(slide.obsm["visium"], slide.obsm["hggep"])
    slide.obs = slide.obs.rename(columns={"array_col": "array_row", "array_row": "array_col"})
    tl.predict(slide, model, key_added="swapped", **QUIET)
    assert not np.allclose(slide.obsm["swapped"], slide.obsm["hggep"])


@pytest.mark.parametrize(("training_mpp", "has_warning"), [(4.0, False), (4.6, False), (6.0, True), (1.0, True)])
def test_another_field_of_view_is_warned_of(slide, training_mpp, has_warning, recwarn):
    tl.predict(slide, on_patches(reference=False, mpp=[training_mpp, None]), **QUIET)
    messages = [
        str(w.message) for w in recwarn if issubclass(w.category, UserWarning) and "field of view" in str(w.message)
    ]
    assert len(messages) == has_warning
    if has_warning:
        assert f"'toy3' has 4 µm/px, the model was trained at {training_mpp:.3g}" in messages[0]
        assert next(w for w in recwarn if "field of view" in str(w.message)).filename == __file__


def test_microns_must_be_known_where_they_are_needed(slide):
    model = on_patches(reference=False)
    model.inputs = Inputs("patches", sizes_um=(100.0,))
    slide.uns["spatial"]["toy3"]["metadata"] = {}
    with pytest.raises(ValueError, match=r"'toy3': microns per pixel are not known.*`mpp=`"):
        tl.predict(slide, model, **QUIET)
    tl.predict(slide, model, mpp=4.0, **QUIET)
    assert slide.uns["hggep"]["params"]["mpp_source"].tolist() == ["argument"]


def test_a_fault_leaves_nothing_behind(quick, slide, monkeypatch):
    monkeypatch.setattr(
        "sthggep.model._forward.predict_windows", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("out of memory"))
    )
    with pytest.raises(RuntimeError):
        tl.predict(slide, quick, **QUIET)
    assert "hggep" not in slide.obsm
    assert "hggep" not in slide.uns


def test_versions_are_those_installed():
    # Builds name the accelerator in one place or in both: 2.14.1+cu130
    assert _prediction_record.versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_a_single_spot(quick, slide):
    single = slide[5].copy()
    tl.predict(single, quick, **QUIET)
    assert single.obsm["hggep"].shape == (1, 8)
    assert np.isfinite(single.obsm["hggep"]).all()
    # Without other spots, the prediction is near the mean of the training tissue
    tl.predict(slide, quick, key_added="whole", **QUIET)
    largest_spread = pd.DataFrame(slide.obsm["whole"]).std().max()
    assert np.abs(single.obsm["hggep"][0] - slide.obsm["whole"].mean(axis=0)).max() < 6 * largest_spread
