"""Similarity and smoothness of gene maps: against scikit-image, by hand, and on counts of known rates."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from sthggep import tl
from sthggep.tl._maps import NEIGHBOR_REACH, _near, local_ssim, morans_i, ssim, ssim_window


def test_ssim_is_that_of_scikit_image_on_a_full_array(lattice):
    rng = np.random.default_rng(0)
    b = 2 + lattice.smooth(3, 1.5)
    a = b + rng.normal(0, 0.5, b.shape)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    inner = np.s_[6:-6, 6:-6]
    values_of_ssim = local_ssim(ssim_window(lattice.slide(lattice.square())), a, b)
    for i in range(3):
        pair = (values[:, i].reshape(lattice.SIDE, lattice.SIDE) for values in (a, b))
        _, expected = structural_similarity(*pair, data_range=np.ptp(b[:, i]), **options)
        # without the borders, where scikit-image pads; our window is round, and the corners of a square weigh 0.1 %
        np.testing.assert_allclose(values_of_ssim[:, i].reshape(expected.shape)[inner], expected[inner], atol=0.01)
    np.testing.assert_allclose(ssim(lattice.slide(lattice.square()), a, b), values_of_ssim.mean(axis=0))


def test_ssim_of_equal_maps_is_one_and_space_matters(lattice):
    maps = 2 + lattice.smooth(4, 2.0)
    at = lattice.slide(lattice.square())
    np.testing.assert_allclose(ssim(at, maps, maps), 1)
    # the same errors in order and shuffled: equal RMSE, nearly equal Pearson
    rng = np.random.default_rng(1)
    gradient = np.linspace(-1, 1, lattice.n_spots)[:, None] * np.ones(4)
    ordered_errors, shuffled_errors = maps + gradient, maps + rng.permutation(gradient)
    assert (ssim(at, ordered_errors, maps) > ssim(at, shuffled_errors, maps) + 0.1).all()
    order = rng.permutation(lattice.n_spots)
    assert (ssim(at, maps[order], maps) < 0.2).all()


def test_ssim_depends_on_level_and_contrast_unlike_pearson(lattice):
    maps = 2 + lattice.smooth(2, 2.0)
    at = lattice.slide(lattice.square())
    flat, shifted = 2 + 0.3 * (maps - 2), maps + 1
    assert (ssim(at, flat, maps) < 0.9).all()
    assert (ssim(at, shifted, maps) < 0.98).all()


def test_places_without_spots_do_not_count(lattice):
    maps = 2 + lattice.smooth(2, 2.0)
    xy = lattice.square()
    # a hole does not change distant spots: windows hold spots only, and their weights sum to one
    keep = np.random.default_rng(0).random(len(xy)) > 0.4
    window = ssim_window(lattice.slide(xy[keep]))
    np.testing.assert_allclose(np.asarray(window.sum(axis=1)).ravel(), 1)
    np.testing.assert_allclose(ssim(lattice.slide(xy[keep]), maps[keep], maps[keep]), 1)
    # distant pieces do not influence each other
    two = np.vstack([xy, xy + 1e6])
    np.testing.assert_allclose(
        ssim(lattice.slide(two), np.vstack([maps, maps]), np.vstack([maps + 0.2, maps])),
        (ssim(lattice.slide(xy), maps, maps + 0.2) + 1) / 2,
        atol=1e-3,
    )


def test_constant_maps(lattice):
    maps = 2 + lattice.smooth(2, 2.0)
    maps[:, 1] = 3.0
    assert np.isnan(ssim(lattice.slide(lattice.square()), maps, maps)).tolist() == [False, True]
    assert 0 <= ssim(lattice.slide(lattice.square()), np.full_like(maps, 2.0), maps)[0] < 0.3
    assert np.isnan(morans_i(lattice.slide(lattice.square()), maps)).tolist() == [False, True]


def test_moran_by_hand(lattice):
    # a checkerboard: of eight neighbors the four adjacent are opposite, the four diagonal equal
    y, x = np.mgrid[:4, :4]
    board = np.where((x + y) % 2, 1.0, -1.0).reshape(-1, 1)
    beside, across = 2 * (2 * 4 * 3), 2 * (2 * 3 * 3)
    assert morans_i(lattice.slide(lattice.square(4)), board)[0] == pytest.approx((across - beside) / (across + beside))


def test_no_threads_are_started():
    """Numba's threads would change the number of threads of torch that the user has set."""
    method = "leiden" if find_spec("igraph") else "kmeans"
    code = (
        "import numpy as np, torch\n"
        "before = torch.get_num_threads()\n"
        "from sthggep import datasets, tl\n"
        "a = datasets.toy(size_um=(1600.0, 1600.0), mpp=8.0, n_genes=8)\n"
        "a.obsm['hggep'] = np.random.default_rng(0).normal(size=a.shape).astype('float32')\n"
        "a.uns['hggep'] = {'tool': 'sthggep', 'genes': np.array(a.var_names, dtype=object), 'units': 'log'}\n"
        "tl.evaluate(a, moran=True)\n"
        f"tl.agreement(a, labels_key='domain', method={method!r})\n"
        "assert torch.get_num_threads() == before == 1"
    )
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert run.returncode == 0


def test_neighbors_of_a_hexagonal_array(lattice):
    y, x = np.mgrid[:12, :12]
    xy = np.column_stack([(x + (y % 2) / 2).ravel(), (y * np.sqrt(3) / 2).ravel()]) * 100.0
    pairs, distance = _near(lattice.slide(xy), NEIGHBOR_REACH)
    assert np.bincount(pairs.ravel()).max() == 6
    np.testing.assert_allclose(distance, 1, atol=1e-9)


def test_a_smoothed_map_is_smoother(lattice):
    raw = lattice.smooth(5, 0.5)
    at = lattice.slide(lattice.square())
    before, after = morans_i(at, raw), morans_i(at, lattice.blurred(raw, 2.0))
    assert (after > before + 0.2).all()
    assert (
        np.abs(
            morans_i(lattice.slide(lattice.square()), np.random.default_rng(0).normal(size=(lattice.n_spots, 5)))
        ).max()
        < 0.1
    )


def test_isolated_spots_have_no_moran(lattice):
    assert np.isnan(morans_i(lattice.slide(np.array([[0.0, 0], [1e4, 0], [0, 1e4 + 7]])[:1]), np.ones((1, 2)))).all()


@pytest.mark.parametrize("depth", [5.0, 20.0])
def test_noise_free_moran_is_that_of_the_truth(lattice, depth: float):
    adata = lattice.counted(depth)
    scores = tl.evaluate(adata, moran=True)
    assert list(scores.columns)[-3:] == ["moran_observed", "moran_predicted", "moran_expected"]
    # the prediction is the truth here: the estimate corrects the effect of noise on smoothness
    assert scores["moran_observed"].mean() < scores["moran_predicted"].mean() - 0.1
    assert scores["moran_expected"].mean() == pytest.approx(scores["moran_predicted"].mean(), abs=0.1)


def test_moran_reveals_a_prediction_that_is_too_smooth(lattice):
    adata = lattice.counted(20.0, sigma=0.7)
    adata.obsm["hggep"] = lattice.blurred(adata.obsm["hggep"], 2.0)
    scores = tl.evaluate(adata, moran=True)
    assert (scores["moran_predicted"] > scores["moran_expected"] + 0.1).mean() > 0.9


def test_fraction_of_the_ceiling(lattice):
    adata = lattice.counted(5.0)
    scores = tl.evaluate(adata)
    np.testing.assert_allclose(scores["of_ceiling"], scores["pearson"] / scores["ceiling"])
    assert scores["of_ceiling"].mean() == pytest.approx(1, abs=0.05)
    # genes whose counts are noise have no fraction of the ceiling
    adata.X[:, :20] = np.random.default_rng(0).poisson(1, (adata.n_obs, 20))
    scores = tl.evaluate(adata, moran=True)
    below_limit = scores["ceiling"] < np.sqrt(0.1)
    assert below_limit[:20].mean() > 0.5
    assert not below_limit[20:].any()
    assert (below_limit == scores[["of_ceiling", "moran_expected"]].isna().T).all(axis=None)
