"""Finished blocks of features on disk that were damaged, or are another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sthggep._encoders._encode import encode

SIZES = (120.0,)
OPTIONS = {"flips": False, "batch_size": 1}


@pytest.fixture(scope="module")
def expected(slide, frozen) -> np.ndarray:
    return encode(slide, frozen, SIZES, **OPTIONS)[0].values


def flip(first: Path, other: Path) -> None:
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)


def nan(first: Path, other: Path) -> None:
    np.save(first, np.full_like(np.load(first), np.nan))


def swap(first: Path, other: Path) -> None:
    content = first.read_bytes()
    first.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.handles(
    "sthggep computes the block again and logs a warning. The features equal those of a run without stored blocks."
)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flip, id="one flipped bit"),
        pytest.param(nan, id="a file that numpy reads, of other values"),
        pytest.param(swap, id="the files of two blocks, swapped"),
        pytest.param(lambda first, other: first.write_bytes(first.read_bytes()[:-1]), id="the last byte missing"),
        pytest.param(lambda first, other: first.write_bytes(first.read_bytes() + b"0"), id="a byte too many"),
        pytest.param(lambda first, other: first.write_bytes(b""), id="an empty file"),
        pytest.param(lambda first, other: first.write_bytes(b"\0" * first.stat().st_size), id="a file of zeros"),
    ],
)
def test_made_again(damage, slide, frozen, expected, tmp_path, caplog):
    encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS)
    first, other = sorted(tmp_path.iterdir())
    before = {path: path.read_bytes() for path in (first, other)}
    damage(first, other)
    (again,) = encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS)
    np.testing.assert_array_equal(again.values, expected)
    assert f"{first} are damaged; they are computed again" in caplog.text
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    caplog.clear()
    encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS)
    assert "damaged" not in caplog.text
