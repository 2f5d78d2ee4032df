"""Reference windows over the tissue, and the mean and spread of features that they give a section."""

from __future__ import annotations

from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch
from anndata import AnnData

from sthggep import datasets, pp
from sthggep._encoders._encode import encode
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._encoders._record import NO_SECTIONS, read_sections
from sthggep._encoders._reference_windows import (
    LARGE_PX,
    LEAST_ON_LARGE,
    LEAST_STEP_UM,
    MOST_WINDOWS,
    TissueMoments,
    reference_windows,
)
from sthggep._image._level import Level
from sthggep._inputs import _stages
from sthggep._inputs._compute import Compute
from sthggep._inputs._inputs import Inputs
from sthggep._inputs._stages import frozen_stages
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve, resolve_one
from sthggep._slides._slide import Slide

SIZE = 640.0
KEY = "X_shufflenet_he_640"
FEATURES = {"size_um": SIZE, "flips": False, "encoding": "tissue", "show_progress_bar": False}
INPUTS = Inputs("features", sizes_um=(SIZE,), encoder="shufflenet_he", size_px=224, flips=False, encoding="tissue")


def toy(seed: int) -> AnnData:
    return datasets.toy(seed=seed, size_um=(1200.0, 1000.0), mpp=2.0, n_genes=4)


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    return FrozenEncoder("shufflenet_he")


@pytest.fixture(scope="module")
def _described() -> list[AnnData]:
    slides = [toy(seed) for seed in (5, 6)]
    for slide in slides:
        pp.features(slide, **FEATURES)
    return slides


@pytest.fixture
def slides(_described) -> list[AnnData]:
    """Two sections with features of their tissue."""
    return [slide.copy() for slide in _described]


WINDOW_PX = 1e6


def noise(width: int, height: int) -> np.ndarray:
    """Rough everywhere, as tissue is."""
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def image_of(slide: Slide, pixels: np.ndarray, mpp: float) -> Slide:
    return replace(slide, levels=(Level(pixels),), mpp=mpp)


# ---------------------------------------------------------------- where they lie


def test_windows_depend_on_the_image_and_its_resolution_alone():
    table = toy(5)
    whole = reference_windows(resolve_one(table), WINDOW_PX)
    some = resolve_one(table[table.obsm["spatial"][:, 0] > 400].copy())
    assert 0 < some.n_spots < table.n_obs
    np.testing.assert_array_equal(reference_windows(some, WINDOW_PX), whole)
    other_image = reference_windows(resolve_one(toy(6)), WINDOW_PX)
    assert whole.shape != other_image.shape or not np.allclose(whole, other_image)
    # Steps are in microns: the same image with larger pixels has more of them
    coarse = reference_windows(resolve_one(table, Places(mpp=3.0)), WINDOW_PX)
    assert len(coarse) > 1.5 * len(whole)


def test_windows_lie_on_tissue():
    slide, pixels = resolve_one(toy(5)), noise(600, 500)
    pixels[:, :300] = 240  # glass
    xy = reference_windows(image_of(slide, pixels, 2.0), WINDOW_PX)
    step = LEAST_STEP_UM / 2.0
    assert xy[:, 0].min() > 300 - step / 2
    # 6 × 10 windows on the tissue, or some less where its rim is not counted
    assert 45 <= len(xy) <= 60
    assert np.ptp(xy[:, 1]) >= 500 - 2 * step


@pytest.mark.parametrize("pixels", [np.full((500, 600, 3), 240, np.uint8), np.zeros((500, 600, 3), np.uint8)])
def test_windows_cover_an_image_without_tissue(pixels):
    xy = reference_windows(image_of(resolve_one(toy(5)), pixels, 2.0), WINDOW_PX)
    assert len(xy) == 11 * 9
    np.testing.assert_allclose(np.unique(xy[:, 0]), 600 / 11 * (np.arange(11) + 0.5))
    np.testing.assert_allclose(np.unique(xy[:, 1]), 500 / 9 * (np.arange(9) + 0.5))


@pytest.mark.parametrize(("window_px", "most"), [(LARGE_PX / 100, 100), (LARGE_PX, LEAST_ON_LARGE)])
def test_large_tissue_has_a_bounded_number_of_windows(window_px, most):
    slide = resolve_one(toy(5))
    # 39 mm² and 80 mm²
    for mpp, expected in ((7.0, MOST_WINDOWS), (10.0, most)):
        found = reference_windows(image_of(slide, noise(1000, 800), mpp), window_px)
        assert 0.8 * expected <= len(found) <= 1.2 * expected
    assert len(reference_windows(image_of(slide, noise(30, 20), 0.5), window_px)) == 1


# ---------------------------------------------------------------- moments


def assert_same(found: TissueMoments | None, expected: TissueMoments) -> None:
    assert found is not None
    assert found.n == expected.n
    varied = expected.spread > 1e-4
    assert varied.mean() > 0.5
    for mine, other in ((found.mean, expected.mean), (found.spread, expected.spread)):
        assert (np.abs(mine - other)[varied] / expected.spread[varied]).max() < 1e-4


def stages_of(slide: Slide, encoder: FrozenEncoder) -> _stages.StageFeatures:
    (stage,) = frozen_stages(slide, INPUTS, encoder, Compute(torch.device("cpu")))
    return stage


def test_moments_are_those_of_the_windows(slides, encoder):
    slide = resolve_one(slides[0])
    (stage,) = encode(slide, encoder, [SIZE], flips=False, encoding="tissue")
    at_windows = replace(slide, xy=reference_windows(slide, WINDOW_PX), rows=np.arange(stage.moments.n))
    values = encode(at_windows, encoder, [SIZE], flips=False, encoding="tissue")[0].values
    assert_same(stage.moments, TissueMoments(len(values), values.mean(axis=0), values.std(axis=0)))
    with pytest.raises(AssertionError):  # spots are no reference windows
        assert_same(TissueMoments(len(values), stage.values.mean(axis=0), stage.values.std(axis=0)), stage.moments)


def test_moments_survive_the_disk_and_the_choice_of_spots(slides, encoder, tmp_path, monkeypatch):
    slide = slides[0]
    (fresh,) = encode(resolve_one(slide), encoder, [SIZE], flips=False, encoding="tissue")
    slide.write_h5ad(tmp_path / "slide.h5ad")
    monkeypatch.setattr(_stages, "encode", lambda *_, **__: pytest.fail("the features are there"))
    back = anndata.read_h5ad(tmp_path / "slide.h5ad")
    for table in (slide, back, slide[[7, 3]].copy(), back[back.obs_names[::-1]].copy()):
        stage = stages_of(resolve_one(table), encoder)
        assert len(stage.values) == table.n_obs
        assert_same(stage.moments, fresh.moments)


def join(slides: list[AnnData], merge: str | None) -> AnnData:
    both = anndata.concat(dict(zip("ab", slides, strict=True)), label="which", index_unique="-", uns_merge=merge)
    images = [next(iter(slide.uns["spatial"].values())) for slide in slides]
    both.uns["spatial"] = dict(zip("ab", images, strict=True))
    return both


def test_each_section_has_moments_of_its_own(slides, encoder, monkeypatch):
    both = join(slides, None)
    expected = [stages_of(resolve_one(slide), encoder).moments for slide in slides]
    del both.obsm[KEY]
    pp.features(both, library_key="which", **FEATURES)
    monkeypatch.setattr(_stages, "encode", lambda *_, **__: pytest.fail("the features are there"))
    for slide, moments in zip(resolve(both, Places(library_key="which")), expected, strict=True):
        assert_same(stages_of(slide, encoder).moments, moments)
    assert not np.allclose(expected[0].mean, expected[1].mean)


@pytest.mark.parametrize(("merge", "kept"), [(None, ""), ("same", ""), ("first", "a")])
def test_moments_that_a_merge_lost_are_measured_again(slides, encoder, monkeypatch, merge, kept):
    expected = [stages_of(resolve_one(slide), encoder).moments for slide in slides]
    both, encoded = join(slides, merge), []
    assert KEY in both.obsm
    monkeypatch.setattr(
        _stages, "encode", lambda slide, *rest, **o: encoded.append(slide.name) or encode(slide, *rest, **o)
    )
    for slide, moments in zip(resolve(both, Places(library_key="which")), expected, strict=True):
        assert_same(stages_of(slide, encoder).moments, moments)
    assert encoded == [name for name in "ab" if name not in kept]


@pytest.mark.parametrize("lost", ["tissue_windows", "tissue_mean", "tissue_spread"])
def test_a_record_without_all_moments_holds_no_sections(slides, lost):
    record = dict(slides[0].uns[KEY])
    assert read_sections(record).names == ["toy6"]
    assert record["tissue_mean"].shape == record["tissue_spread"].shape == (1, 3 * 1360)
    assert record["tissue_windows"].shape == (1,)
    del record[lost]
    assert read_sections(record).names == NO_SECTIONS.names
