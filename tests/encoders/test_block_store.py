"""Blocks of features on disk: encoded once, reused, and never mistaken for those of other pixels or encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sthggep import datasets
from sthggep._encoders._block_store import BlockStore
from sthggep._encoders._encode import encode
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._encoders._sweep import PatchEncoding
from sthggep._slides._resolve import resolve_one

SIZES = (120.0, 240.0)
OPTIONS = {"flips": False, "batch_size": 1}


@pytest.fixture(scope="module")
def expected(slide, frozen) -> list[np.ndarray]:
    return [stage.values for stage in encode(slide, frozen, SIZES, **OPTIONS)]


@pytest.fixture
def encoded_numbers(monkeypatch) -> list[int]:
    """Numbers of the blocks that are encoded."""
    numbers, make = [], BlockStore.make

    def counting_make(self, number, progress=None):
        numbers.append(number)
        return make(self, number, progress)

    monkeypatch.setattr(BlockStore, "make", counting_make)
    return numbers


def open_store(slide, frozen, folder: Path) -> BlockStore:
    return BlockStore.of(folder, PatchEncoding(slide, frozen, SIZES, **OPTIONS))


def test_blocks_hold_the_same_features_as_without_blocks(slide, frozen, expected, encoded_numbers, tmp_path):
    blocks = open_store(slide, frozen, tmp_path / "blocks")
    assert [len(rows) for rows in blocks.rows][:-1] == [16] * (len(blocks.rows) - 1)
    assert np.sort(np.concatenate(blocks.rows)).tolist() == list(range(slide.n_spots))
    assert blocks.missing() == list(range(len(blocks.rows))) == [0, 1]
    blocks.make(1)
    assert blocks.missing() == [0]
    features = encode(slide, frozen, SIZES, block_folder=tmp_path / "blocks", **OPTIONS)
    assert encoded_numbers == [1, 0]
    np.testing.assert_array_equal([stage.values for stage in features], expected)
    on_disk = encode(slide, frozen, SIZES, block_folder=tmp_path / "blocks", folder=tmp_path, **OPTIONS)
    assert encoded_numbers == [1, 0]
    np.testing.assert_array_equal([stage.values[:] for stage in on_disk], expected)
    assert all(path.suffix == ".npy" for path in (tmp_path / "blocks").iterdir())


def test_a_broken_block_is_encoded_again(slide, frozen, expected, encoded_numbers, tmp_path):
    encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS)
    first, second = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:1000])
    np.save(second, np.zeros((2, 3, 4), np.float32))
    encoded_numbers.clear()
    again = encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS)
    np.testing.assert_array_equal([stage.values for stage in again], expected)
    assert [stage.moments for stage in again] == [None, None]  # patches say nothing of the tissue around
    assert sorted(encoded_numbers) == [0, 1]


def test_blocks_of_other_images_or_encoders_are_not_reused(slide, frozen, encoded_numbers, tmp_path):
    encode(slide, frozen, SIZES, block_folder=tmp_path, **OPTIONS)
    encoded_numbers.clear()
    other = datasets.toy(seed=5, size_um=(1200.0, 1200.0), mpp=4.0, n_genes=4)
    image = next(iter(other.uns["spatial"].values()))["images"]["hires"]
    image[0, 0] = 255 - image[0, 0]
    changed_slide = resolve_one(other)
    assert open_store(changed_slide, frozen, tmp_path).missing() == [0, 1]
    random = FrozenEncoder("shufflenet_he", "random", torch.device("cpu"))
    assert open_store(slide, random, tmp_path).missing() == [0, 1]
    with_flips = PatchEncoding(slide, frozen, SIZES, flips=True, batch_size=1)
    assert BlockStore.of(tmp_path, with_flips).missing() == [0, 1]
    assert open_store(slide, frozen, tmp_path).missing() == []


def test_weights_without_an_id_have_no_blocks(slide, frozen, monkeypatch, tmp_path):
    monkeypatch.setattr(frozen, "weights", "unversioned")
    assert open_store(slide, frozen, tmp_path) is None
    encode(slide, frozen, SIZES[:1], block_folder=tmp_path, **OPTIONS)
    assert list(tmp_path.iterdir()) == []
