"""Stain of a slide, and its normalization: Reinhard's and Macenko's methods against known changes of stain."""

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


def with_pixels(slide: Slide, change) -> Slide:
    """Return the slide with changed pixels."""
    pixels = slide.levels[0].read([[0, 0, *slide.levels[0].shape[::-1]]])[0]
    return replace(slide, levels=(Level(change(pixels), slide.levels[0].scale),), stain=None)


@pytest.mark.parametrize("method", METHODS)
def test_a_slide_in_its_own_stain_is_unchanged(slide: Slide, method: str):
    result = normalized(slide, fit_reference([slide], method))
    patches, original_patches = Patches(result, size_um=110)[:], Patches(slide, size_um=110)[:]
    assert np.abs(patches.astype(int) - original_patches).max() <= 1
    colors = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.abs(result.stain(colors).astype(int) - colors).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_normalization_reverses_a_known_change_of_stain(slide: Slide, stains: SimpleNamespace, method: str):
    other = with_pixels(slide, stains.changes[method])
    other_colors, colors = tissue_colors(other), tissue_colors(slide)
    assert np.linalg.norm(np.subtract(other_colors.mean, colors.mean)) > 5
    restored = normalized(other, fit_reference([slide], method))
    restored_colors = tissue_colors(restored)
    np.testing.assert_allclose(restored_colors.mean, colors.mean, atol=0.6)
    np.testing.assert_allclose(restored_colors.spread, colors.spread, atol=0.6)
    # pixels agree, too, except for rounding and for differences of the estimates
    pixels, expected = restored.stain(tissue_pixels(other)), tissue_pixels(slide)
    if len(pixels) == len(expected):
        assert np.abs(pixels.astype(int) - expected).mean() < 2.5


def test_macenko_recovers_known_stains(slide: Slide, stains: SimpleNamespace):
    rng = np.random.default_rng(0)
    # Pixels of one stain, and of both stains
    amounts = rng.uniform(0.2, 1.5, (300, 300, 2)) * np.array([[1, 0], [0, 1], [1, 1]])[rng.integers(0, 3, (300, 300))]
    image = np.rint(256 * np.exp(-amounts @ stains.vectors) - 1).clip(0, 255).astype(np.uint8)
    picture = np.full((400, 400, 3), 255, np.uint8)
    picture[50:350, 50:350] = image
    xy = np.stack(np.meshgrid(np.arange(60, 350, 20), np.arange(60, 350, 20)), axis=-1).reshape(-1, 2).astype(float)
    section = replace(slide, xy=xy, rows=np.arange(len(xy)), adata=ad.AnnData(np.zeros((len(xy), 1))))
    stain = stain_of(replace(section, levels=(Level(picture),)), "macenko")
    np.testing.assert_allclose(stain["stains"], stains.vectors, atol=0.03)
    ratio = np.divide(*stain["strength"])
    assert ratio == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_the_lookup_table_equals_the_formula(slide: Slide, stains: SimpleNamespace, method: str):
    source, reference = (stain_of(s, method) for s in (with_pixels(slide, stains.changes[method]), slide))
    pixels = tissue_pixels(slide)
    exact = MAPS[method](pixels.astype(float), source, reference).clip(0, 255)
    pixels_by_table = Recoloring(method, reference, source)(pixels)
    assert pixels_by_table.dtype == np.uint8
    assert pixels_by_table.shape == pixels.shape
    assert np.abs(pixels_by_table - exact).max() < 2


def test_colors_outside_srgb_raise_no_warning(slide: Slide, recwarn):
    source = {"mean": [60.0, 25.0, -15.0], "spread": [12.0, 8.0, 7.0]}
    far = {"mean": [20.0, -60.0, 90.0], "spread": [40.0, 40.0, 40.0]}
    colors = Recoloring("reinhard", far, source)(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    assert colors.shape == (9, 9, 3)
    assert len(recwarn) == 0


def test_the_reference_is_the_mean_of_slides_with_a_stain(slide: Slide, stains: SimpleNamespace):
    other = with_pixels(slide, stains.changes["reinhard"])
    blank = with_pixels(slide, lambda pixels: np.full_like(pixels, 240))
    reference = fit_reference([slide, blank, other], "reinhard")
    np.testing.assert_allclose(
        reference["mean"], np.mean([stain_of(s, "reinhard")["mean"] for s in (slide, other)], axis=0), atol=1e-4
    )
    assert fit_reference([slide], None) is None
    with pytest.raises(
        ValueError,
        match=r"none of 1 section \('toy1'\) could sthggep estimate it: too little tissue.*another `stain`, or leave it out",
    ):
        fit_reference([blank], "macenko")


@pytest.mark.parametrize("method", METHODS)
def test_a_slide_with_too_little_tissue_keeps_its_colors(slide: Slide, stains: SimpleNamespace, method: str):
    reference = fit_reference([with_pixels(slide, stains.changes[method])], method)
    # Tissue as large as a few nuclei
    little = with_pixels(slide, lambda pixels: np.where(np.arange(len(pixels))[:, None, None] < 2, 60, 240) * [1, 1, 1])
    little = replace(little, levels=(Level(little.levels[0].array.astype(np.uint8), little.levels[0].scale),))
    with pytest.warns(UserWarning, match=rf"'toy1': too little tissue.*`stain='{method}'`.*leaves its colors"):
        result = normalized(little, reference)
    np.testing.assert_array_equal(Patches(result, size_um=110)[:], Patches(little, size_um=110)[:])
    assert result.stain.to_dict() is None


def test_unknown_normalizations():
    assert check_stain(None) is None
    with pytest.raises(
        ValueError, match=r"Unknown stain normalization.*'reinhart'.*Did you mean 'reinhard'.*'macenko'"
    ):
        check_stain("reinhart")


def test_the_id_is_that_of_the_reference(slide: Slide):
    recoloring = normalized(slide, fit_reference([slide], "reinhard")).stain
    assert recoloring.id == replace(recoloring, source=None).id
    assert recoloring.id != replace(recoloring, reference=recoloring.reference | {"mean": [1.0, 2.0, 3.0]}).id
