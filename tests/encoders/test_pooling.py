"""Sums of feature maps over boxes of any position and size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sthggep._encoders._pooling import Boxes, pool_map, summed_area

FINE = 8  # parts of a pixel in the slow sum


def slow_sum(values: np.ndarray, stride: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """Sum times area over a box whose corners lie on eighths of a pixel: count every eighth."""
    x0, y0, x1, y1 = (round(side * FINE) for side in box)
    x = np.floor((np.arange(x0, x1) + 0.5) / (stride * FINE)).astype(int)
    y = np.floor((np.arange(y0, y1) + 0.5) / (stride * FINE)).astype(int)
    return values[:, y[:, None], x].sum(axis=(1, 2), dtype=np.float64) / FINE**2


@pytest.mark.parametrize("stride", [1, 2, 8])
@pytest.mark.parametrize("flip", [(False, False), (True, False), (True, True)])
def test_sum_weights_cells_by_area(stride, flip):
    values = np.random.default_rng(0).normal(size=(3, 9, 7)).astype(np.float32)
    corners = np.array([[1.25, 2.5, 3.75, 4.0], [1.0, 1.0, 2.0, 2.0], [2.375, 1.125, 5.5, 6.5]]) * stride
    # The center of the first cell is the first pixel that the encoder read
    edges = [(stride - 1) / 2 if flipped else (1 - stride) / 2 for flipped in flip]
    sums = pool_map(values, stride, flip, Boxes(corners[:, :2], corners[:, 2:]))
    for total, (x0, y0, x1, y1) in zip(sums, corners, strict=True):
        # Cells of x and y may begin at different places: shift the box instead of the cells
        shifted = (x0 - edges[0], y0 - edges[1], x1 - edges[0], y1 - edges[1])
        np.testing.assert_allclose(total, slow_sum(values, stride, shifted), atol=1e-6 * stride**2)


def test_long_sums_lose_no_digits():
    values = np.full((1, 1500, 1500), 1000.1, dtype=np.float32)
    values[0, -1, -1] = 2000.2
    box = Boxes(np.array([[1498.5, 1498.5]]), np.array([[1499.5, 1499.5]]))
    assert pool_map(values, 1, (False, False), box)[0, 0] == pytest.approx((3 * 1000.1 + 2000.2) / 4, rel=1e-6)


def test_no_boxes_give_no_rows():
    sums = pool_map(np.ones((2, 3, 3), np.float32), 4, (False, False), Boxes(np.empty((0, 2)), np.empty((0, 2))))
    assert sums.shape == (0, 2)


def test_parts_of_a_box_add_up_to_its_sum():
    values = np.random.default_rng(0).normal(size=(3, 9, 7)).astype(np.float32)
    whole = Boxes(np.array([[1.25, 2.5], [0.5, 3.0]]), np.array([[6.0, 8.75], [2.5, 7.0]]))
    parts = [whole.clip(np.array(start), np.array(stop)) for start, stop in (((0, 0), (3.5, 9)), ((3.5, 0), (7, 9)))]
    sums = [pool_map(values, 1, (False, False), boxes) for boxes in parts]
    np.testing.assert_allclose(sum(sums), pool_map(values, 1, (False, False), whole), atol=1e-6)
    # The second box lies in the first part alone: outside of it nothing is added
    assert parts[1].area.tolist() == [2.5 * 6.25, 0]
    assert not sums[1][1].any()


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 1, 1), (5, 1, 6), (2, 6, 1)])
def test_summed_area_is_numpys_cumulative_sum(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = np.zeros((shape[1] + 1, shape[2] + 1, shape[0]))
    expected[1:, 1:] = np.cumsum(np.cumsum(values.transpose(1, 2, 0), axis=0, dtype=np.float64), axis=1)
    sums = summed_area(values)
    assert sums.dtype == np.float64
    np.testing.assert_allclose(sums, expected, atol=1e-12)


@pytest.mark.parametrize("flip", [(False, False), (True, False)])
def test_tensor_is_summed_as_an_array(flip):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 9, 7)).astype(np.float32)
    start = rng.uniform(0, 20, (50, 2))
    boxes = Boxes(start, start + rng.uniform(0, 30, (50, 2)))
    sums = pool_map(torch.from_numpy(values), 8, flip, boxes)
    assert sums.dtype == np.float64
    np.testing.assert_allclose(sums, pool_map(values, 8, flip, boxes), atol=1e-9)
    nothing = Boxes(np.empty((0, 2)), np.empty((0, 2)))
    assert pool_map(torch.from_numpy(values), 8, flip, nothing).shape == (0, 300)
