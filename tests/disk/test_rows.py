"""Rows of arrays on disk."""

from __future__ import annotations

import numpy as np
import pytest

from sthggep._disk import _rows
from sthggep._disk._rows import RowFile


def test_rows_are_written_and_read_by_number(tmp_path):
    expected = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    file = RowFile.create(tmp_path / "a.npy", 50, 7)
    order = np.random.default_rng(1).permutation(50)
    for start in range(0, 50, 8):
        file[order[start : start + 8]] = expected[order[start : start + 8]]
    np.testing.assert_array_equal(file[:], expected)
    for rows in (np.array([4, 5, 6, 2, 49]), slice(10, 13), np.array([], dtype=int), np.array([3, 3])):
        np.testing.assert_array_equal(file[rows], expected[rows])
    assert (len(file), file.shape, file.dtype) == (50, (50, 7), np.float32)
    # NumPy reads the file
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)


def test_steps_cover_all_rows_and_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(_rows, "STEP_BYTES", 100)
    file = RowFile.create(tmp_path / "a.npy", 23, 5)
    steps = list(file.steps())
    assert [row for step in steps for row in range(step.start, step.stop)] == list(range(23))
    assert max(step.stop - step.start for step in steps) == 5
    before = file.checksum()
    file[np.array([22])] = np.ones((1, 5))
    assert file.checksum() != before


def test_files_that_hold_no_rows(tmp_path):
    np.save(tmp_path / "wrong.npy", np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"must hold rows of float32 numbers, found float64 of shape \(3, 4\)"):
        RowFile(tmp_path / "wrong.npy")
    RowFile.create(tmp_path / "a.npy", 10, 100)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:2000])
    with pytest.raises(ValueError, match="another or a truncated file"):
        RowFile(tmp_path / "a.npy")
    file = RowFile.create(tmp_path / "b.npy", 10, 100)
    (tmp_path / "b.npy").write_bytes(whole[:2000])
    with pytest.raises(ValueError, match="the file is truncated"):
        file[:]
