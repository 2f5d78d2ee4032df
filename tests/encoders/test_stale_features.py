"""Features in `obsm` of positions, images or resolutions that have changed since."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData

from sthggep import datasets, pp, tl
from sthggep._encoders import _encode
from sthggep._encoders._record import NO_SECTIONS, read_sections
from sthggep._slides._resolve import resolve_one

KEY = "X_shufflenet_160"
OPTIONS = {"encoder": "shufflenet", "size_um": 160, "weights": "random", "flips": False, "show_progress_bar": False}


@pytest.fixture(scope="module")
def described() -> AnnData:
    slide = datasets.toy(seed=0, size_um=(900.0, 900.0), mpp=4.0, n_genes=6)
    pp.features(slide, **OPTIONS)
    return slide


@pytest.fixture
def slide(described) -> AnnData:
    return described.copy()


def library(slide: AnnData) -> dict:
    return next(iter(slide.uns["spatial"].values()))


def features(slide: AnnData) -> np.ndarray:
    """What `pp.features` computes without any earlier features."""
    bare = slide.copy()
    del bare.obsm[KEY], bare.uns[KEY]
    pp.features(bare, **OPTIONS)
    return bare.obsm[KEY]


def move(slide: AnnData) -> None:
    slide.obsm["spatial"] = slide.obsm["spatial"] + 5


def swap_two(slide: AnnData) -> None:
    xy = slide.obsm["spatial"].copy()
    xy[[0, 1]] = xy[[1, 0]]
    slide.obsm["spatial"] = xy


def replace_image(slide: AnnData) -> None:
    images = library(slide)["images"]
    for key, pixels in images.items():
        images[key] = np.ascontiguousarray(pixels[::-1])


def edit_a_pixel(slide: AnnData) -> None:
    images = library(slide)["images"]
    for key, pixels in images.items():
        images[key] = pixels.copy()
        images[key][0, 0] = 255 - images[key][0, 0]


def correct_mpp(slide: AnnData) -> None:
    library(slide)["metadata"]["mpp"] = 4.2


CHANGES = [
    pytest.param(move, id="coordinates shifted"),
    pytest.param(swap_two, id="coordinates of two spots exchanged"),
    pytest.param(replace_image, id="another image"),
    pytest.param(edit_a_pixel, id="a pixel edited"),
    pytest.param(correct_mpp, id="microns per pixel corrected"),
]


@pytest.mark.handles("`pp.features` computes the features again.")
@pytest.mark.parametrize("change", CHANGES)
def test_features_are_computed_again(slide, change):
    change(slide)
    expected = features(slide)
    pp.features(slide, **OPTIONS)
    np.testing.assert_allclose(slide.obsm[KEY], expected, atol=1e-5)
    assert len(read_sections(slide.uns[KEY]).number) == slide.n_obs


@pytest.mark.handles(
    "`tl.fit(obsm=)`, `tl.predict` and `pp.hypergraph` reject the earlier features and name what changed."
)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(move, "before .* spots moved", id="coordinates shifted"),
        pytest.param(swap_two, "before 2 spots moved", id="coordinates of two spots exchanged"),
        pytest.param(replace_image, "before the image was changed", id="another image"),
        pytest.param(correct_mpp, "before microns per pixel changed from 4 to 4.2", id="microns per pixel corrected"),
    ],
)
def test_features_of_before_are_refused(slide, described, change, words):
    fit = {"genes": list(slide.var_names), "obsm": KEY, "n_members": 1, "max_epochs": 1, "show_progress_bar": False}
    model = tl.fit(described, **fit)
    change(slide)
    for call in (
        lambda: tl.fit(slide, **fit),
        lambda: tl.predict(slide, model, show_progress_bar=False),
        lambda: pp.hypergraph(slide, features=KEY),
    ):
        with pytest.raises(
            ValueError, match=rf"obsm\['{KEY}'\] of section 'toy1' holds features from {words}.*pp.features"
        ):
            call()
    assert "hggep" not in slide.obsm


def subset(slide: AnnData) -> AnnData:
    return slide[::-2].copy()


def renamed_spots(slide: AnnData) -> AnnData:
    slide.obs_names = [f"spot {i}" for i in range(slide.n_obs)]
    return slide


def renamed_section(slide: AnnData) -> AnnData:
    slide.uns["spatial"] = {"other": library(slide)}
    return slide


@pytest.mark.handles("sthggep uses the stored features, because the places of the spots are unchanged.")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda slide: slide, id="nothing changed"),
        pytest.param(subset, id="some rows, in another order"),
        pytest.param(renamed_spots, id="spots renamed"),
        pytest.param(renamed_section, id="the section renamed"),
    ],
)
def test_features_that_still_hold_are_used(slide, change, tmp_path, monkeypatch):
    changed = change(slide)
    changed.write_h5ad(tmp_path / "slide.h5ad")
    monkeypatch.setattr(_encode, "PatchEncoding", None)  # encoding would fail
    for data in (changed, anndata.read_h5ad(tmp_path / "slide.h5ad")):
        before = data.obsm[KEY].copy()
        pp.features(data, **OPTIONS)
        np.testing.assert_array_equal(data.obsm[KEY], before)
        tl.fit(data, genes=list(data.var_names), obsm=KEY, n_members=1, max_epochs=1, show_progress_bar=False)


def test_a_half_of_a_visium_section_keeps_its_features(monkeypatch):
    """Its microns per pixel, from the array of its spots, differ from those of the whole section in the fifth digit."""
    whole = datasets.toy(size_um=(1500.0, 1500.0), mpp=2.0, pitch_um=100.0, layout="hex", n_genes=6)
    whole.obsm["spatial"] = np.rint(whole.obsm["spatial"])
    whole.obs = whole.obs.rename(columns={"array_x": "array_col", "array_y": "array_row"})
    del library(whole)["metadata"]
    pp.features(whole, **OPTIONS)
    x = whole.obsm["spatial"][:, 0]
    half = whole[x < np.median(x)].copy()
    mpp = [resolve_one(data).mpp for data in (whole, half)]
    assert 1e-6 < abs(mpp[1] / mpp[0] - 1) < 1e-3
    monkeypatch.setattr(_encode, "PatchEncoding", None)  # encoding would fail
    before = half.obsm[KEY].copy()
    pp.features(half, **OPTIONS)
    np.testing.assert_array_equal(half.obsm[KEY], before)
    tl.fit(half, genes=list(half.var_names), obsm=KEY, n_members=0, show_progress_bar=False)


@pytest.mark.parametrize("merge", ["same", "unique", "first", "only", None])
def test_concatenated_features(slide, merge):
    """Their record is merged or lost; nothing stale is used, and nothing that holds is refused."""
    other = datasets.toy(seed=1, size_um=(900.0, 900.0), mpp=4.0, n_genes=6)
    pp.features(other, **OPTIONS)
    both = anndata.concat({"toy1": slide, "toy2": other}, label="section", index_unique="-", uns_merge=merge)
    both.uns["spatial"] = {**slide.uns["spatial"], **other.uns["spatial"]}
    expected = both.obsm[KEY].copy()
    tl.fit(both, genes=list(both.var_names), obsm=KEY, library_key="section", n_members=1, max_epochs=1,
           validation=None, show_progress_bar=False)  # fmt: skip
    if KEY not in both.uns:
        with pytest.raises(ValueError, match=r"its record in uns was lost.*anndata\.concat"):
            pp.features(both, library_key="section", **OPTIONS)
        del both.obsm[KEY]
    pp.features(both, library_key="section", **OPTIONS)
    np.testing.assert_allclose(both.obsm[KEY], expected, atol=1e-5)


@pytest.mark.parametrize("stop", ["before the array", "before the record"])
def test_an_interrupt_while_features_are_written(slide, stop, monkeypatch):
    move(slide)
    expected = features(slide)
    values = slide.obsm[KEY].copy()
    slide.uns[KEY] = {"tool": "sthggep"}
    slide.obsm[KEY] = values if stop == "before the array" else expected
    pp.features(slide, **OPTIONS)
    np.testing.assert_allclose(slide.obsm[KEY], expected, atol=1e-5)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"sections": ["a"]},
        {"sections": ["a"], "mpp": [1.0], "mpp_source": [""], "images": ["x"], "spots": np.zeros((2, 2))},
        {"sections": ["a"], "mpp": [1.0], "mpp_source": [""], "images": ["x"], "spots": np.array([[1, 2, 5]])},
    ],
)
def test_records_that_merging_broke_hold_no_sections(broken):
    assert read_sections(broken).names == NO_SECTIONS.names


def test_a_folder_of_checkpoints_knows_the_image(slide, tmp_path: Path):
    """Not only the spread pixels of the coarsest level."""
    options = {"genes": list(slide.var_names), "size_um": 160, "weights": "random", "validation": None, "n_members": 1,
               "max_epochs": 1, "show_progress_bar": False, "checkpoint_dir": tmp_path / "run"}  # fmt: skip
    images, factors = library(slide)["images"], library(slide)["scalefactors"]
    (key,) = images
    images[key], factors[f"tissue_{key}_scalef"] = images[key].repeat(2, 0).repeat(2, 1), 2.0
    tl.fit(slide, **options)
    images[key][1, 1] = 255 - images[key][1, 1]
    with pytest.raises((ValueError, FileExistsError), match="holds a training of other data"):
        tl.fit(slide, **options)


def test_features_made_in_another_way_are_named_in_the_log(slide, caplog):
    options = {"encoder": "shufflenet", "size_um": 160, "weights": "random", "n_members": 0, "validation": None}
    model = tl.fit(slide, genes=list(slide.var_names), show_progress_bar=False, **options)
    (line,) = [each for each in caplog.messages if "encodes anew" in each]
    assert f"obsm['{KEY}'] was made with encoding='patches', flips=False" in line
    assert "reads encoding='tissue', flips=False" in line
    assert "`sthggep.pp.features`" in line
    caplog.clear()
    pp.features(slide, **OPTIONS, encoding="tissue")
    tl.predict(slide, model, show_progress_bar=False)
    assert not [each for each in caplog.messages if "encodes anew" in each]
