"""Test of smooth maps against each other, and false discoveries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from sthggep._table._scores import column_pearson, correlate
from sthggep._table._spatial_null import compare_maps, false_discovery_rates

SIDE = 20
XY = np.column_stack([axis.ravel() for axis in np.meshgrid(np.arange(SIDE), np.arange(SIDE))]).astype(float)


def fields(n: int, seed: int, sigma: float = 2.0) -> np.ndarray:
    """Smooth maps without a relation to each other, (spots, maps)."""
    noise = np.random.default_rng(seed).standard_normal((n, SIDE, SIDE))
    return np.array([gaussian_filter(each, sigma) for each in noise]).reshape(n, -1).T.astype(np.float32)


def test_unrelated_smooth_maps_are_not_taken_for_related():
    p = norm.sf(compare_maps(XY, fields(300, 0), fields(300, 1)).z)
    assert 0.02 <= (p < 0.05).mean() <= 0.09
    # A test that takes spots for independent would find many
    r = correlate(fields(300, 0), fields(300, 1))
    assert (np.abs(r) > 1.645 / len(XY) ** 0.5).mean() > 0.5


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_correlations_do_not_depend_on_the_scale(scale, dtype):
    a, b = (fields(20, seed).astype(dtype) for seed in (0, 1))
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)]
    np.testing.assert_allclose(correlate(scale * a, b), expected, atol=1e-5)
    np.testing.assert_allclose(column_pearson(scale * a, b), expected, atol=1e-6)
    flat = np.full_like(a, 0.1 * scale)
    for one, other in ((flat, b), (b, flat)):
        assert (correlate(one, other) == 0).all()
        assert np.isnan(column_pearson(one, other)).all()


def test_related_maps_are_found():
    truth = fields(50, 2)
    noisy = truth + 2 * truth.std() * np.random.default_rng(3).standard_normal(truth.shape).astype(np.float32)
    test = compare_maps(XY, truth, noisy)
    np.testing.assert_allclose(
        test.pearson, [np.corrcoef(a, b)[0, 1] for a, b in zip(truth.T, noisy.T, strict=True)], atol=1e-5
    )
    assert (false_discovery_rates(norm.sf(test.z)) < 0.05).mean() > 0.9


def test_a_gradient_to_the_border_is_no_evidence():
    distance = np.linalg.norm(XY - XY.mean(axis=0), axis=1, keepdims=True).astype(np.float32)
    test = compare_maps(XY, distance, distance + fields(1, 4))
    assert test.pearson[0] > 0.8
    unlike = compare_maps(XY, fields(1, 5), fields(1, 5) + 0.5 * fields(1, 6))
    assert unlike.z[0] > test.z[0] / 2


@pytest.mark.parametrize("n", [3, 9])
def test_few_spots_and_constant_maps_say_nothing(n):
    test = compare_maps(XY[:n], fields(2, 0)[:n], fields(2, 0)[:n])
    assert test.z.tolist() == [0, 0]
    flat = compare_maps(XY, np.ones((len(XY), 1), np.float32), fields(1, 0))
    assert (flat.pearson[0], flat.z[0]) == (0, 0)


def test_position_and_unit_do_not_matter():
    a, b = fields(5, 7), fields(5, 7) + fields(5, 8)
    first, second = compare_maps(XY, a, b), compare_maps(XY * 290 + 1e4, a, b)
    np.testing.assert_allclose(first.z, second.z, rtol=1e-4)
    assert compare_maps(XY, a, b, seed=1).z.tolist() != first.z.tolist()


def test_false_discovery_rates_by_hand():
    np.testing.assert_allclose(false_discovery_rates(np.array([0.01, 0.02, 0.03, 0.5])), [0.04, 0.04, 0.04, 0.5])
    assert not len(false_discovery_rates(np.array([])))
