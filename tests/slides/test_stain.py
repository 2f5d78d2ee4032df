"""Stain of a slide, and pixels brought to that of others: Reinhard's and Macenko's maps against known changes of stain."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest

from sthggep import datasets
from sthggep._image._level import Level
from sthggep._image._recolor import MAPS, Recoloring
from sthggep._slides._colors import tissue_colors, tissue_pixels
from sthggep._slides._patches import Patches
from sthggep._slides._resolve import resolve_one
from sthggep._slides._slide import Slide
from sthggep._slides._stain import METHODS, check_stain, fit_reference, normalized, stain_of


@pytest.fixture(scope="module")
def toy() -> ad.AnnData:
    return datasets.toy(seed=0, size_um=(1600.0, 1600.0), mpp=4.0, n_genes=4)


@pytest.fixture
def slide(toy: ad.AnnData) -> Slide:
    return resolve_one(toy)


def through(slide: Slide, change) -> Slide:
    """The slide with other pixels."""
    pixels = slide.levels[0].read([[0, 0, *slide.levels[0].shape[::-1]]])[0]
    return replace(slide, levels=(Level(change(pixels), slide.levels[0].scale),), stain=None)


@pytest.mark.parametrize("method", METHODS)
def test_a_slide_in_its_own_stain_is_unchanged(slide: Slide, method: str):
    same = normalized(slide, fit_reference([slide], method))
    found, before = Patches(same, size_um=110)[:], Patches(slide, size_um=110)[:]
    assert np.abs(found.astype(int) - before).max() <= 1
    every = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.abs(same.stain(every).astype(int) - every).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_known_change_of_stain_is_taken_back(slide: Slide, stains: SimpleNamespace, method: str):
    other = through(slide, stains.changes[method])
    seen, goal = tissue_colors(other), tissue_colors(slide)
    assert np.linalg.norm(np.subtract(seen.mean, goal.mean)) > 5
    back = normalized(other, fit_reference([slide], method))
    found = tissue_colors(back)
    np.testing.assert_allclose(found.mean, goal.mean, atol=0.6)
    np.testing.assert_allclose(found.spread, goal.spread, atol=0.6)
    # and pixel for pixel, not only on average: what is left is rounding and where the estimates differ
    pixels, wanted = back.stain(tissue_pixels(other)), tissue_pixels(slide)
    if len(pixels) == len(wanted):
        assert np.abs(pixels.astype(int) - wanted).mean() < 2.5


def test_macenko_finds_the_stains_that_were_put_in(slide: Slide, stains: SimpleNamespace):
    rng = np.random.default_rng(0)
    # Pixels of one stain alone, and of both
    amounts = rng.uniform(0.2, 1.5, (300, 300, 2)) * np.array([[1, 0], [0, 1], [1, 1]])[rng.integers(0, 3, (300, 300))]
    image = np.rint(256 * np.exp(-amounts @ stains.vectors) - 1).clip(0, 255).astype(np.uint8)
    framed = np.full((400, 400, 3), 255, np.uint8)
    framed[50:350, 50:350] = image
    xy = np.stack(np.meshgrid(np.arange(60, 350, 20), np.arange(60, 350, 20)), axis=-1).reshape(-1, 2).astype(float)
    drawn = replace(slide, xy=xy, rows=np.arange(len(xy)), adata=ad.AnnData(np.zeros((len(xy), 1))))
    found = stain_of(replace(drawn, levels=(Level(framed),)), "macenko")
    np.testing.assert_allclose(found["stains"], stains.vectors, atol=0.03)
    ratio = np.divide(*found["strength"])
    assert ratio == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_the_table_is_the_map(slide: Slide, stains: SimpleNamespace, method: str):
    source, reference = (stain_of(s, method) for s in (through(slide, stains.changes[method]), slide))
    pixels = tissue_pixels(slide)
    exact = MAPS[method](pixels.astype(float), source, reference).clip(0, 255)
    found = Recoloring(method, reference, source)(pixels)
    assert found.dtype == np.uint8
    assert found.shape == pixels.shape
    assert np.abs(found - exact).max() < 2


def test_colors_that_a_screen_has_not_make_no_noise(slide: Slide, recwarn):
    source = {"mean": [60.0, 25.0, -15.0], "spread": [12.0, 8.0, 7.0]}
    far = {"mean": [20.0, -60.0, 90.0], "spread": [40.0, 40.0, 40.0]}
    found = Recoloring("reinhard", far, source)(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    assert found.shape == (9, 9, 3)
    assert len(recwarn) == 0


def test_the_reference_is_the_mean_of_slides_that_tell_theirs(slide: Slide, stains: SimpleNamespace):
    other = through(slide, stains.changes["reinhard"])
    blank = through(slide, lambda pixels: np.full_like(pixels, 240))
    both = fit_reference([slide, blank, other], "reinhard")
    np.testing.assert_allclose(
        both["mean"], np.mean([stain_of(s, "reinhard")["mean"] for s in (slide, other)], axis=0), atol=1e-4
    )
    assert fit_reference([slide], None) is None
    with pytest.raises(
        ValueError,
        match=r"none of 1 section \('toy1'\) could sthggep estimate it: too little tissue.*another `stain`, or None",
    ):
        fit_reference([blank], "macenko")


@pytest.mark.parametrize("method", METHODS)
def test_a_slide_with_too_little_tissue_keeps_its_colors(slide: Slide, stains: SimpleNamespace, method: str):
    reference = fit_reference([through(slide, stains.changes[method])], method)
    # As much as a few nuclei
    little = through(slide, lambda pixels: np.where(np.arange(len(pixels))[:, None, None] < 2, 60, 240) * [1, 1, 1])
    little = replace(little, levels=(Level(little.levels[0].array.astype(np.uint8), little.levels[0].scale),))
    with pytest.warns(UserWarning, match=rf"'toy1': too little tissue.*`stain='{method}'`.*leaves its colors"):
        found = normalized(little, reference)
    np.testing.assert_array_equal(Patches(found, size_um=110)[:], Patches(little, size_um=110)[:])
    assert found.stain.to_dict() is None


def test_unknown_normalizations():
    assert check_stain(None) is None
    with pytest.raises(
        ValueError, match=r"Unknown stain normalization.*'reinhart'.*Did you mean 'reinhard'.*'macenko'"
    ):
        check_stain("reinhart")


def test_the_id_is_that_of_the_reference(slide: Slide):
    one = normalized(slide, fit_reference([slide], "reinhard")).stain
    assert one.id == replace(one, source=None).id
    assert one.id != replace(one, reference=one.reference | {"mean": [1.0, 2.0, 3.0]}).id
