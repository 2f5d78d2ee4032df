"""Pen, glass, folds and blur on toy tissue."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from sthggep import datasets, pp, tl

QUIET = {"show_progress_bar": False}
INKS = {"blue": (40, 80, 170), "green": (30, 130, 70), "black": (25, 22, 28)}


@pytest.fixture(scope="module")
def _tissue() -> ad.AnnData:
    return datasets.toy(seed=0, size_um=(3000.0, 3000.0), mpp=2.0, n_genes=8)


@pytest.fixture
def tissue(_tissue) -> ad.AnnData:
    return _tissue.copy()


def pixels(adata: ad.AnnData) -> np.ndarray:
    """The finest image, 1,500 pixels a side, as the only one."""
    library = next(iter(adata.uns["spatial"].values()))
    images = library["images"]
    name = max(images, key=lambda key: np.asarray(images[key]).shape[0])
    for other in set(images) - {name}:
        del images[other]
    images[name] = np.array(images[name])
    return images[name]


def inside(adata: ad.AnnData, margin: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Spots whose window lies right and left of the middle."""
    x = adata.obsm["spatial"][:, 0]
    return x > x.mean() + margin, x < x.mean() - margin


def changed(adata: ad.AnnData, change) -> tuple[np.ndarray, np.ndarray]:
    """Change the right half of the image; the faults of the spots right and left."""
    image, middle = pixels(adata), int(adata.obsm["spatial"][:, 0].mean())
    image[:, middle:] = change(image[:, middle:].astype(float)).clip(0, 255).astype(np.uint8)
    pp.image_faults(adata)
    right, left = inside(adata)
    faults = adata.obs["image_fault"].astype(object).to_numpy()
    return faults[right], faults[left]


def strokes(color: tuple[int, int, int]):
    def paint(image: np.ndarray) -> np.ndarray:
        stripe = np.arange(len(image)) % 40 < 16  # some tissue shows between them
        return np.where(stripe[:, None, None], 0.15 * image + 0.85 * np.array(color), image)

    return paint


def test_clean_tissue_has_no_fault(tissue):
    pp.image_faults(tissue)
    column = tissue.obs["image_fault"]
    assert column.cat.categories.tolist() == ["pen", "glass", "fold", "blur"]
    assert column.isna().all()


@pytest.mark.parametrize("ink", INKS)
def test_pen(tissue, ink):
    right, left = changed(tissue, strokes(INKS[ink]))
    assert (right == "pen").mean() > 0.95
    assert not (left == "pen").any()


def test_glass(tissue):
    noise = np.random.default_rng(0).normal(0, 2, (1500, 1500, 1))
    right, left = changed(tissue, lambda image: 238 + 0 * image + noise[: len(image), : image.shape[1]])
    assert (right == "glass").all()
    assert pd.isna(left).all()
    tinted = tissue.copy()
    right, _ = changed(tinted, lambda image: np.array([240.0, 232.0, 205.0]) + 0 * image)
    assert (right == "glass").all()


@pytest.mark.parametrize("sigma", [2.5, 4.0])  # 5 and 8 µm
def test_blur_and_the_tissue_beside_it(tissue, sigma):
    right, left = changed(tissue, lambda image: gaussian_filter(image, (sigma, sigma, 0)))
    assert (right == "blur").mean() > 0.95
    assert pd.isna(left).all()


def test_an_image_that_is_blurred_throughout(tissue):
    image = pixels(tissue)
    image[:] = gaussian_filter(image.astype(float), (4, 4, 0)).astype(np.uint8)
    pp.image_faults(tissue)
    assert (tissue.obs["image_fault"] == "blur").mean() > 0.9


def test_folds_are_very_dark(tissue):
    right, left = changed(tissue, lambda image: 256 * (image / 256) ** 3)
    assert (right == "fold").mean() > 0.5
    assert pd.isna(left).all()


def test_the_column_is_sthggeps_or_left_alone(tissue):
    assert pp.image_faults(tissue, copy=True).obs["image_fault"].isna().all()
    assert "image_fault" not in tissue.obs
    pp.image_faults(tissue)
    pp.image_faults(tissue)  # its own column may be replaced
    tissue.obs["mine"] = "keep"
    with pytest.raises(ValueError, match=r"obs\['mine'\] exists already and sthggep did not write it"):
        pp.image_faults(tissue, key_added="mine")
    assert (tissue.obs["mine"] == "keep").all()


def test_the_prediction_says_why_spots_are_unlike_the_training(slides, fit_options, recwarn):
    model = tl.fit(slides[:2], **fit_options | {"n_members": 0})
    slide = slides[2]
    for key in [key for key in slide.obsm if key.startswith("X_")]:
        del slide.obsm[key]
        slide.uns.pop(key, None)
    image, middle = pixels(slide), int(np.quantile(slide.obsm["spatial"][:, 0], 0.7))
    image[:, middle:] = strokes(INKS["green"])(image[:, middle:].astype(float)).astype(np.uint8)
    tl.predict(slide, model, **QUIET)
    novel = slide.obs["hggep_novelty"].to_numpy() > 0.95
    assert 0.1 < novel.mean() < 0.6
    (message,) = [str(w.message) for w in recwarn if "unlike the tissue" in str(w.message)]
    pp.image_faults(slide)
    share = ((slide.obs["image_fault"] == "pen").to_numpy() & novel).mean()
    assert f"shows pen ({share:.0%} of the spots)" in message
    assert "sthggep.pp.image_faults" in message
