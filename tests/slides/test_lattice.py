"""Microns per pixel from the lattice of the spots."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sthggep._slides._lattice import (
    is_interleaved,
    is_transposed,
    lattice_mpp,
    lattice_pitch,
    lay_out,
    neighbor_offsets,
    sublattices,
)


def grid(width: int = 12, height: int = 9) -> np.ndarray:
    x, y = np.meshgrid(np.arange(1, width + 1), np.arange(1, height + 1))
    return np.column_stack([x.ravel(), y.ravel()]).astype(float)


def rotated(array: np.ndarray, scale: float, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return array @ turn * scale + [500.0, 900.0]


@pytest.mark.parametrize("degrees", [0, 1.5, 90, 180, 37])
def test_square_array(degrees):
    array = grid()
    assert lattice_mpp(array, rotated(array, 100.0, degrees), 200.0) == pytest.approx(2.0)
    assert not is_interleaved(array)


def test_jitter_does_not_shorten_the_pitch():
    array = grid(30, 30)
    pixels = rotated(array, 100.0, 2.0) + np.random.default_rng(0).normal(0, 8, (900, 2))
    assert lattice_pitch(array, pixels) == pytest.approx(100, rel=0.005)


def test_interleaved_array_is_measured_along_the_diagonal():
    array = grid(20, 20)
    array = array[array.sum(axis=1) % 2 == 0]
    assert lattice_mpp(array, array * 10.0, 141.42) == pytest.approx(10.0, rel=1e-4)
    assert is_interleaved(array)
    assert (1, 1) in set(map(tuple, neighbor_offsets(array).astype(int)))


def test_visium_hexagons():
    row, col = np.divmod(np.arange(30 * 40), 40)
    keep = (row + col) % 2 == 0
    array = np.column_stack([col, row])[keep]
    pixels = array * [50.0, 86.60254] / 0.25
    assert lattice_mpp(array, pixels, 100.0) == pytest.approx(0.25, rel=1e-6)


def test_a_few_misplaced_spots_do_not_change_what_neighbors_are():
    array = grid(20, 20)
    array = array[array.sum(axis=1) % 2 == 0]
    pixels = array * 10.0
    misplaced = array.copy()
    misplaced[[40, 90]] += [1, 0]
    assert lattice_pitch(misplaced, pixels) == pytest.approx(14.142, rel=0.01)


def test_anisotropic_scale_is_averaged_and_one_row_is_enough():
    array = grid()
    assert lattice_pitch(array, array * [98.0, 102.0]) == pytest.approx(100.0)
    row = array[array[:, 1] == 1]
    assert lattice_pitch(row, row * 70.0) == pytest.approx(70.0)


def test_sparse_selection():
    array = grid(30, 30)
    rows = np.random.default_rng(1).choice(900, 60, replace=False)
    assert lattice_pitch(array[rows], array[rows] * 55.0) == pytest.approx(55.0)


@pytest.mark.parametrize("layout", ["square", "hex"])
@pytest.mark.parametrize("n", [12, 25, 60])
def test_scattered_spots_of_a_section_keep_its_pitch(layout: str, n: int):
    """So few spots are neighbors by chance that their offsets say nothing: here none of these are, or some far ones."""
    array, xy = lay_out((6500.0, 6500.0), 100.0, layout)
    for seed in range(5):
        some = np.random.default_rng(seed).permutation(len(array))[:n]
        assert lattice_pitch(array[some], xy[some]) == pytest.approx(100.0)
        assert is_interleaved(array[some]) == (layout == "hex")


@pytest.mark.parametrize(
    ("array", "pixels", "words"),
    [
        (grid(), rotated(grid(), 100, 0)[np.random.default_rng(0).permutation(108)], "do not follow the array"),
        ([[1, 1], [20, 1], [40, 30]], [[0, 0], [1, 1], [2, 2]], "neighbors"),
        ([[1, 1]], [[5, 5]], "at least two spots"),
        ([[1, 1], [2, np.nan]], [[5, 5], [6, 6]], "1 array positions are NaN"),
        ([[1, 1], [2, 1], [3, 1]], [[5, 5], [6, 6]], "2 spots"),
        ([[1, 1], [2, 1], [3, 1]], [[5, 5], [5, 5], [5, 5]], "same pixel position"),
    ],
)
def test_positions_that_are_no_lattice(array, pixels, words):
    with pytest.raises(ValueError, match=words):
        lattice_mpp(array, pixels, 200)


def test_real_sections(data_root):
    expected = {"A2": 0.917, "B4": 0.688, "C2": 0.688, "F3": 0.687}
    for section, mpp in expected.items():
        table = pd.read_csv(data_root / f"her2st/data/ST-spotfiles/{section}_selection.tsv", sep="\t")
        pixels = table[["pixel_x", "pixel_y"]]
        assert lattice_mpp(table[["new_x", "new_y"]], pixels, 200) == pytest.approx(mpp, abs=0.001)
        assert lattice_mpp(table[["x", "y"]], pixels, 200) == pytest.approx(mpp, rel=0.005)
    table = pd.read_csv(data_root / "mob/alignment_table_MOB1.tsv", sep="\t").query("selected == 1")
    assert is_interleaved(table[["x", "y"]])
    assert lattice_mpp(table[["x", "y"]], table[["pixel_x", "pixel_y"]], 141.42) == pytest.approx(4.37, abs=0.01)


# --- layouts and sublattices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["square", "hex"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_lattice_is_made_of_coarser_ones(layout: str, factor: int):
    array, xy = lay_out((1000.0, 800.0), 40.0, layout)
    assert lattice_pitch(array, xy) == pytest.approx(40)
    np.testing.assert_allclose(xy.min(axis=0) + xy.max(axis=0), (1000, 800), atol=1e-9)
    assert xy.min() >= 10
    parts = sublattices(array, factor)
    assert len(parts) == factor**2
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(array)))
    for part in parts:
        near = np.sort(np.linalg.norm(xy[part][:, None] - xy[part][None], axis=2), axis=1)
        np.testing.assert_allclose(near[:, 1], 40 * factor)
        # inside, spots have as many neighbors as before
        assert (near < 1.01 * 40 * factor).sum(axis=1).max() - 1 == (4 if layout == "square" else 6)


def test_a_field_narrower_than_the_pitch():
    _, xy = lay_out((60.0, 300.0), 100.0, "square")
    np.testing.assert_allclose(xy, [[30, 50], [30, 150], [30, 250]])
    assert len(lay_out((40.0, 300.0), 100.0, "square")[0]) == 0


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, 270])
def test_swapped_pixels_differ_from_rotated_ones(degrees: float):
    rng = np.random.default_rng(0)
    array = np.argwhere(rng.random((20, 20)) < 0.8)
    turn = np.deg2rad(degrees)
    matrix = 50 * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    xy = array @ matrix + rng.normal(0, 5, array.shape) + 3000
    assert not is_transposed(array, xy)
    assert is_transposed(array, xy[:, ::-1]) == (degrees in (0, 30, 180))
    # mirrored along an axis, as the other side of a section is: no swap
    if degrees % 180 == 0:
        assert not is_transposed(array, xy * [-1, 1])


def test_pixels_that_do_not_follow_the_array_are_not_called_swapped():
    rng = np.random.default_rng(1)
    array = np.argwhere(np.ones((8, 8)))
    assert not any(is_transposed(array, rng.random(array.shape)) for _ in range(20))
