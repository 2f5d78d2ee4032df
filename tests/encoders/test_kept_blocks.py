"""Blocks of features that stay on disk: made once, found again, and never those of something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sthggep import datasets
from sthggep._encoders._encode import encode
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._encoders._kept_blocks import BlockStore
from sthggep._encoders._sweep import PatchEncoding
from sthggep._slides._resolve import resolve_one

SIZES = (120.0, 240.0)
OPTIONS = {"flips": False, "batch_size": 1}


@pytest.fixture(scope="module")
def slide():
    return resolve_one(datasets.toy(seed=5, size_um=(1200.0, 1200.0), mpp=4.0, n_genes=4))


@pytest.fixture(scope="module")
def frozen() -> FrozenEncoder:
    return FrozenEncoder("shufflenet_he", None, torch.device("cpu"))


@pytest.fixture(scope="module")
def expected(slide, frozen) -> list[np.ndarray]:
    return encode(slide, frozen, SIZES, **OPTIONS)


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """Numbers of the blocks that are encoded."""
    numbers, make = [], BlockStore.make

    def counted(self, number, done=None):
        numbers.append(number)
        return make(self, number, done)

    monkeypatch.setattr(BlockStore, "make", counted)
    return numbers


def kept(slide, frozen, folder: Path) -> BlockStore:
    return BlockStore.of(folder, PatchEncoding(slide, frozen, SIZES, **OPTIONS))


def test_blocks_hold_what_there_is_without_them(slide, frozen, expected, made, tmp_path):
    blocks = kept(slide, frozen, tmp_path / "blocks")
    assert [len(rows) for rows in blocks.rows][:-1] == [16] * (len(blocks.rows) - 1)
    assert np.sort(np.concatenate(blocks.rows)).tolist() == list(range(slide.n_spots))
    assert blocks.missing() == list(range(len(blocks.rows))) == [0, 1]
    blocks.make(1)
    assert blocks.missing() == [0]
    found = encode(slide, frozen, SIZES, block_folder=tmp_path / "blocks", **OPTIONS)
    assert made == [1, 0]
    np.testing.assert_array_equal(found, expected)
    on_disk = encode(slide, frozen, SIZES, block_folder=tmp_path / "blocks", folder=tmp_path, **OPTIONS)
    assert made == [1, 0]
    np.testing.assert_array_equal([rows[:] for rows in on_disk], expected)
    assert all(path.suffix == ".npy" for path in (tmp_path / "blocks").iterdir())


def test_a_broken_block_is_made_again(slide, frozen, expected, made, tmp_path):
    encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS)
    first, second = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:1000])
    np.save(second, np.zeros((2, 3, 4), np.float32))
    made.clear()
    np.testing.assert_array_equal(encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS), expected)
    assert sorted(made) == [0, 1]


def test_blocks_of_something_else_are_not_taken(slide, frozen, made, tmp_path):
    encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS)
    made.clear()
    other = datasets.toy(seed=5, size_um=(1200.0, 1200.0), mpp=4.0, n_genes=4)
    image = next(iter(other.uns["spatial"].values()))["images"]["hires"]
    image[0, 0] = 255 - image[0, 0]
    another_image = resolve_one(other)
    assert kept(another_image, frozen, tmp_path).missing() == [0, 1]
    random = FrozenEncoder("shufflenet_he", "random", torch.device("cpu"))
    assert kept(slide, random, tmp_path).missing() == [0, 1]
    with_flips = PatchEncoding(slide, frozen, SIZES, flips=True, batch_size=1)
    assert BlockStore.of(tmp_path, with_flips).missing() == [0, 1]
    assert kept(slide, frozen, tmp_path).missing() == []


def test_weights_that_nothing_tells_apart(slide, frozen, monkeypatch, tmp_path):
    monkeypatch.setattr(frozen, "weights", "unversioned")
    assert kept(slide, frozen, tmp_path) is None
    encode(slide, frozen, SIZES[:1], block_folder=tmp_path, **OPTIONS)
    assert list(tmp_path.iterdir()) == []
