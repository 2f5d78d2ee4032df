"""Novelty: distance of features from what the training sections have in common."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np
import torch

from sthggep import tl
from sthggep._slides._slide import Slide
from sthggep._training._novelty import find_basis, measure_novelty
from sthggep.model._novelty import Novelty
from sthggep.nn._section import FeatureInputs

WIDTH = 120
QUIET = {"show_progress_bar": False}


def section(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Features on five axes, with some noise on all; a shift moves them off these axes."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(99).standard_normal((5, WIDTH))
    off = np.random.default_rng(98).standard_normal(WIDTH)
    return (rng.standard_normal((n, 5)) @ axes + 0.2 * rng.standard_normal((n, WIDTH)) + shift * off).astype(np.float32)


def measured(parts: list[np.ndarray], n_windows: int = 1) -> Novelty:
    slides, windows = [], []
    for i, part in enumerate(parts):
        xy = np.random.default_rng(i).uniform(0, 1000, (len(part), 2))
        slides.append(Slide(f"s{i}", ad.AnnData(np.zeros((len(part), 1))), np.arange(len(part)), xy))
        stages = [torch.from_numpy(part)] * 2
        inputs = FeatureInputs(stages, torch.zeros(0), torch.zeros(0), None, None)
        every = torch.ones(len(part), dtype=torch.bool)
        windows.append(SimpleNamespace(section=i, rows=torch.arange(len(part)), core=every, inputs=inputs))
    return measure_novelty(windows, slides, n_windows)


def test_tissue_like_the_training_is_half_way_and_other_tissue_at_the_end():
    novelty = measured([section(200, seed) for seed in range(4)])
    like, unlike = (novelty.of_spots([x, x]) for x in (section(300, 9), section(300, 9, shift=1.0)))
    assert 0.4 < like.mean() < 0.6
    assert unlike.mean() > 0.95
    assert ((like >= 0) & (like <= 1)).all()


def test_one_section_is_held_out_in_blocks():
    novelty = measured([section(300, 0)])
    x = section(300, 1)
    assert 0.4 < novelty.of_spots([x, x]).mean() < 0.6
    assert measured([section(10, 0)]) is None
    assert measured([section(300, 0)[:, :20]]) is None


def test_only_the_field_of_view_counts_not_wider_windows():
    parts = [section(200, seed) for seed in range(3)]
    wide = [np.concatenate([part, 100 * np.ones_like(part)], axis=1) for part in parts]
    one, other = measured(parts), measured(wide, n_windows=2)
    x = section(50, 7)
    np.testing.assert_allclose(one.of_spots([x, x]), other.of_spots([np.concatenate([x, -x], axis=1)] * 2), atol=1e-5)


def test_distance_is_what_components_leave():
    x = section(200, 0)
    basis = find_basis(0, x)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    left = scaled - scaled @ np.linalg.pinv(basis.components) @ basis.components
    np.testing.assert_allclose(basis.distance(x), np.square(left).mean(axis=1), atol=1e-3)
    unlike = section(20, 1, shift=1.0)
    scaled = (unlike - x.mean(axis=0)) / x.std(axis=0)
    left = scaled - scaled @ np.linalg.pinv(basis.components) @ basis.components
    np.testing.assert_allclose(basis.distance(unlike), np.square(left).mean(axis=1), rtol=0.05)


def test_networks_on_patches_have_none():
    window = SimpleNamespace(inputs=object())
    assert measure_novelty([window], [], 1) is None


def test_prediction_writes_it_and_warns_of_unlike_tissue(slides, fit_options, recwarn, tmp_path):
    model = tl.fit(slides[:2], **fit_options | {"n_members": 0})
    tl.predict(slides[2], model, **QUIET)
    novelty = slides[2].obs["hggep_novelty"].to_numpy()
    assert novelty.shape == (slides[2].n_obs,)
    assert ((novelty >= 0) & (novelty <= 1)).all()
    assert not [w for w in recwarn if "unlike the tissue" in str(w.message)]
    # Another prediction of the table has its own column; a file holds it beside the spots
    tl.predict(slides[2], model, key_added="file", out=tmp_path / "p.h5ad", **QUIET)
    np.testing.assert_allclose(slides[2].obs["file_novelty"], novelty, atol=1e-6)
    stored = ad.read_h5ad(tmp_path / "p.h5ad")
    np.testing.assert_allclose(stored.obs["file_novelty"], novelty, atol=1e-6)
    # The same tissue as its negative
    other = slides[2].copy()
    images = next(iter(other.uns["spatial"].values()))["images"]
    for name, image in images.items():
        images[name] = 255 - np.asarray(image)
    tl.predict(other, model, **QUIET)
    assert other.obs["hggep_novelty"].mean() > 0.8
    (message,) = [str(w.message) for w in recwarn if "unlike the tissue" in str(w.message)]
    assert "toy3" in message
    assert "tl.trust" in message


def test_a_column_of_the_user_is_left_alone(slides, fit_options):
    import pytest

    model = tl.fit(slides[:1], **fit_options | {"n_members": 0})
    slides[2].obs["hggep_novelty"] = "mine"
    with pytest.raises(ValueError, match="did not write it"):
        tl.predict(slides[2], model, **QUIET)
    assert (slides[2].obs["hggep_novelty"] == "mine").all()
