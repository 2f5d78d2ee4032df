"""Sections as tensors: network inputs, targets and masks."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from sthggep import datasets, pp
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._inputs._compute import Compute
from sthggep._inputs._inputs import Inputs
from sthggep._inputs._section import SectionWindow, section_of_counts
from sthggep._inputs._stages import array_positions
from sthggep._inputs._windows import InputSource
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one
from sthggep._table._counts import log10_cp10k, size_factors
from sthggep._table._user_features import read_user_features
from sthggep._training._datamodule import SectionDataModule
from sthggep.nn import FeatureHGGEPNet
from sthggep.nn._section import PatchInputs


@pytest.fixture
def tissue():
    return datasets.toy(seed=3, size_um=(900.0, 900.0), mpp=2.0, n_genes=6)


def whole_inputs(slide, inputs: Inputs, encoder: FrozenEncoder | None = None, n_neighbors: int = 1):
    """Inputs of a network for a section that is one window."""
    net = FeatureHGGEPNet([1], 1, n_neighbors=n_neighbors)
    (window,) = InputSource(inputs, encoder, net, Compute(torch.device("cpu"), batch_size=8)).windows(slide)
    return window.inputs


@pytest.fixture
def slide(tissue):
    return resolve_one(tissue)


# ---------------------------------------------------------------- inputs of a model


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (Inputs("patches"), "patches of 112 px"),
        (Inputs("patches", sizes_um=(55.0,), reference=True), "patches of 55 µm"),
        (Inputs("features", sizes_um=(80.0, 160.0), size_px=224, flips=False), "shufflenet features of 80 µm, 160 µm"),
        (Inputs("obsm", sizes_um=(80.0,), obsm=("X_uni", "X_gigapath")), "obsm 'X_uni', 'X_gigapath'"),
    ],
)
def test_inputs_survive_json_and_say_what_they_are(inputs, text):
    assert Inputs.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs
    assert str(inputs) == text
    assert inputs.needs_image is (inputs.kind != "obsm")


# ---------------------------------------------------------------- inputs


def test_patches_are_pixels_as_they_are(tissue, slide):
    patches, positions = whole_inputs(slide, Inputs("patches"))
    assert patches.dtype == torch.uint8
    assert patches.shape == (tissue.n_obs, 3, 112, 112)
    np.testing.assert_array_equal(patches.permute(0, 2, 3, 1).numpy(), pp.patches(tissue)[:])
    assert patches.max() > 200  # 0 to 255, not 0 to 1
    # One pitch (200 µm, 100 px) is one unit, wherever the section lies
    np.testing.assert_allclose(positions.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(positions * 100, slide.xy - slide.xy.mean(axis=0), rtol=1e-6, atol=1e-6)


def test_published_network_gets_array_positions(tissue, slide):
    _, positions = whole_inputs(slide, Inputs("patches", reference=True))
    np.testing.assert_array_equal(positions, tissue.obs[["array_x", "array_y"]].to_numpy())
    assert np.issubdtype(positions.dtype, np.integer)


@pytest.mark.parametrize(("shift", "positions"), [(63, r"0 to 6\d"), (-9, r"-\d to")])
def test_array_positions_off_the_table(tissue, shift, positions):
    tissue.obs["array_y"] += shift
    with pytest.raises(ValueError, match=rf"'toy4'.*{positions}.*0 to 63 only"):
        array_positions(resolve_one(tissue))


def test_missing_array_positions(tissue):
    del tissue.obs["array_y"]
    with pytest.raises(KeyError, match=r"'toy4' has no array positions.*array_col"):
        array_positions(resolve_one(tissue))


def test_stored_features_are_not_computed_again(tissue, monkeypatch):
    encoder = FrozenEncoder("shufflenet", "random")
    inputs = Inputs("features", sizes_um=(100.0,), flips=False)
    fresh = whole_inputs(resolve_one(tissue), inputs, encoder)
    assert set(tissue.obsm) == {"spatial", "morphology"}
    pp.features(tissue, "shufflenet", size_um=100.0, weights="random", flips=False, show_progress_bar=False)
    with monkeypatch.context() as patch:
        patch.setattr("sthggep._inputs._stages.encode", None)
        stored = whole_inputs(resolve_one(tissue), inputs, encoder)
    for first, second in zip(fresh[0], stored[0], strict=True):
        torch.testing.assert_close(first, second)
    # Features of other pixels are not reused
    other_mpp = whole_inputs(resolve_one(tissue, Places(mpp=2.4)), inputs, encoder)
    assert not torch.allclose(other_mpp[0][0], fresh[0][0])


def test_graph_of_a_section(slide, tissue):
    tissue.obsm["X"] = np.ones((tissue.n_obs, 2))
    stages, rows, offsets, incidence, n, statistics = whole_inputs(
        slide, Inputs("obsm", obsm=("X", "X")), n_neighbors=5
    )
    assert statistics is None
    assert [stage.shape for stage in stages] == [(tissue.n_obs, 2)] * 2
    assert rows.shape == (tissue.n_obs, 5)
    assert offsets.shape == (tissue.n_obs, 5, 2)
    assert n == tissue.n_obs
    # A hyperedge holds a spot and the up to eight around it, no farther than the diagonal
    xy = slide.xy / 100
    spot, edge = incidence.numpy()
    assert np.linalg.norm(xy[spot] - xy[edge], axis=1).max() == pytest.approx(2**0.5)
    whole = (np.abs(xy[:, None] - xy[None]).max(axis=2) < 1.1).sum(axis=1)
    np.testing.assert_array_equal(np.bincount(edge), whole)


# ---------------------------------------------------------------- the user's own features


@pytest.mark.parametrize("kind", ["array", "float64", "integers", "sparse", "table"])
def test_any_table_of_numbers_holds_features(tissue, kind):
    values = np.arange(3 * tissue.n_obs).reshape(-1, 3)
    tissue.obsm["X"] = {
        "array": values.astype(np.float32),
        "float64": values.astype(np.float64),
        "integers": values,
        "sparse": sparse.csr_matrix(values.astype(np.float32)),
        "table": pd.DataFrame(values, index=tissue.obs_names, columns=list("abc")),
    }[kind]
    features = read_user_features(resolve_one(tissue), "X")
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, values)


def test_features_of_one_section_of_several(slide):
    from dataclasses import replace

    slide.adata.obsm["X"] = np.arange(slide.n_spots)[:, None]
    slide.adata.obsm["X"][0] = -1
    part = replace(slide, rows=np.array([5, 2]), xy=slide.xy[[5, 2]])
    np.testing.assert_array_equal(read_user_features(part, "X"), [[5], [2]])


def test_features_that_are_no_numbers(tissue, slide):
    tissue.obsm["X"] = np.zeros((tissue.n_obs, 2))
    tissue.obsm["X"][3, 1] = np.nan
    tissue.obsm["X"][4] = np.inf
    with pytest.raises(ValueError, match=r"obsm\['X'\].*finite numbers.*'toy4', found NaN or infinity in 2 spots"):
        read_user_features(slide, "X")
    tissue.obsm["cube"] = np.zeros((tissue.n_obs, 2, 2))
    with pytest.raises(ValueError, match=rf"found shape \({tissue.n_obs}, 2, 2\)"):
        read_user_features(slide, "cube")
    with pytest.raises(
        KeyError, match=r"'absent' is not in obsm, which holds .*'spatial'.*Compute these features first"
    ):
        read_user_features(slide, "absent")


# ---------------------------------------------------------------- targets


def test_targets_and_masks(tissue):
    tissue.X = tissue.X.toarray()
    tissue.X[1] = 0
    tissue.layers["raw"] = tissue.X * 2
    genes = list(tissue.var_names[[4, 0, 2]])
    section = section_of_counts(resolve_one(tissue), genes, None, ())
    raw = tissue.X[:, [4, 0, 2]]
    np.testing.assert_array_equal(section.counts.numpy(), raw)
    np.testing.assert_allclose(section.target.numpy(), log10_cp10k(raw), rtol=1e-6)
    np.testing.assert_allclose(section.size_factors.numpy(), size_factors(raw), rtol=1e-6)
    assert section.name == "toy4"
    # A spot without counts is not in the training mask
    assert (~section.train).nonzero().flatten().tolist() == [1]
    assert not section.validate.any()
    from_layer = section_of_counts(resolve_one(tissue), genes, "raw", ())
    np.testing.assert_array_equal(from_layer.counts.numpy(), 2 * raw)


# ---------------------------------------------------------------- loaders


def empty_window(name: str, *, train: bool = True, validate: bool = False) -> SectionWindow:
    zeros = torch.zeros(2, 1)
    return SectionWindow.of_whole(
        name,
        PatchInputs(zeros, np.ones(2)),
        zeros,
        zeros,
        zeros[:, 0],
        torch.tensor([train] * 2),
        torch.tensor([validate] * 2),
    )


def test_loaders_return_whole_sections_unchanged():
    loaders = SectionDataModule(
        [empty_window("A"), empty_window("B", train=False, validate=True), empty_window("C", train=False)]
    )
    (training,), (validation,) = list(loaders.train_dataloader()), list(loaders.val_dataloader())
    assert (training.name, validation.name) == ("A", "B")
    assert isinstance(training.inputs.positions, np.ndarray)  # float64 positions stay off accelerators that have none
    assert SectionDataModule([empty_window("A")]).val_dataloader() == []


def test_the_seed_determines_the_order():
    def order(seed):
        loaders = SectionDataModule([empty_window(name) for name in "ABCDEFGH"], seed)
        return ["".join(section.name for section in loaders.train_dataloader()) for _ in range(2)]

    assert order(0) == order(0)
    assert order(0) != order(1)
    first, second = order(0)
    assert first != second  # a new order each epoch
    assert sorted(first) == sorted(second) == list("ABCDEFGH")


@pytest.mark.parametrize(("n", "min_steps", "steps"), [(1, 4, 4), (3, 4, 6), (5, 4, 5), (4, 1, 4)])
def test_steps_an_epoch(n, min_steps, steps):
    loaders = SectionDataModule([empty_window(name) for name in "ABCDE"[:n]], min_steps=min_steps)
    assert len(list(loaders.train_dataloader())) == steps
