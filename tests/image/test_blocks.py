"""Images read in blocks: each block about once, few blocks in memory, never the whole image."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest

from sthggep._image import _blocks
from sthggep._image._level import Level

BLOCK = 64


class Source:
    """Pixels that record which parts were read."""

    def __init__(self, height: int, width: int) -> None:
        y, x = np.mgrid[:height, :width]
        self.array = np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8)
        self.shape, self.dtype, self.ndim = self.array.shape, self.array.dtype, 3
        self.read: list[tuple[int, int]] = []
        self.largest = 0

    def __getitem__(self, index):
        part = self.array[index]
        self.read.append((index[0].start, index[1].start))
        self.largest = max(self.largest, part.size)
        return part

    def __dask_tokenize__(self):
        return id(self)

    def lazy(self, chunks=(BLOCK, BLOCK, 3)):
        return da.from_array(self, chunks=chunks, asarray=False, meta=np.empty((0, 0, 0), np.uint8))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """A cache of 30 of the 320 blocks of the image."""
    monkeypatch.setattr(_blocks, "HELD_BYTES", 30 * BLOCK * BLOCK * 3)
    return 30


def boxes_around(xy: np.ndarray, width: int = 40) -> np.ndarray:
    corner = (xy - width // 2).astype(int)
    return np.hstack([corner, corner + width])


def read_in(level: Level, source: Source, xy: np.ndarray, order: np.ndarray, batch: int = 16) -> None:
    """Read batch after batch; check each against numpy, and the size of the cache."""
    assert level.blocks is not None
    for start in range(0, len(order), batch):
        boxes = boxes_around(xy[order[start : start + batch]])
        for (x0, y0, x1, y1), patch in zip(boxes, level.read(boxes), strict=True):
            np.testing.assert_array_equal(patch, source.array[y0:y1, x0:x1])
        assert len(level.blocks._cache) <= level.blocks.capacity


def test_a_sweep_reads_each_block_about_once(small):
    source = Source(1280, 1024)
    level = Level(source.lazy())
    xy = np.random.default_rng(0).uniform(30, (990, 1250), (1500, 2))
    read_in(level, source, xy, level.sweep(xy))
    assert len(set(source.read)) == 320
    # Two rows of 16 blocks are read again at each of the two seams between the bands
    assert len(source.read) <= 320 + 2 * 2 * 16
    assert level.blocks.n_read == len(source.read)
    assert source.largest == BLOCK * BLOCK * 3


def test_without_the_sweep_blocks_are_read_again_and_the_pixels_are_the_same(small):
    source = Source(1280, 1024)
    level = Level(source.lazy())
    xy = np.random.default_rng(0).uniform(30, (990, 1250), (600, 2))
    read_in(level, source, xy, np.arange(len(xy)))
    assert len(source.read) > 2 * 320


def test_one_call_of_many_boxes_in_any_order_holds_few_blocks(small):
    source = Source(1280, 1024)
    level = Level(source.lazy())
    xy = np.random.default_rng(1).uniform(30, (990, 1250), (800, 2))
    patches = level.read(boxes_around(xy))
    for (x0, y0, x1, y1), patch in zip(boxes_around(xy), patches, strict=True):
        np.testing.assert_array_equal(patch, source.array[y0:y1, x0:x1])
    assert len(source.read) <= 320 + 2 * 2 * 16
    assert len(level.blocks._cache) <= small


def test_a_sweep_of_an_image_that_fits_reads_each_block_once():
    source = Source(640, 640)
    level = Level(source.lazy())
    xy = np.random.default_rng(0).uniform(0, 640, (300, 2))
    for i in level.sweep(xy):
        level.read(boxes_around(xy[[i]]))
    assert len(source.read) == len(set(source.read)) == 100


def test_boxes_larger_than_the_cache(small):
    source = Source(640, 640)
    level = Level(source.lazy())
    (whole,) = level.read([[0, 0, 640, 640]])
    np.testing.assert_array_equal(whole, source.array)
    assert level.blocks._cache == {}


@pytest.mark.parametrize("chunks", [(100, 37, 2), (640, 640, 3), (64, 640, 1)])
def test_any_chunks_and_axes(small, chunks):
    source = Source(320, 320)
    boxes = np.array([[0, 0, 320, 5], [30, 40, 90, 200], [-10, -10, 20, 20], [310, 300, 350, 340]])
    expected = Level(source.array).read(boxes)
    for array, axes in ((source.array, "yxc"), (np.moveaxis(source.array, -1, 0), "cyx")):
        array_chunks = chunks if axes == "yxc" else (chunks[2], *chunks[:2])
        level = Level(da.from_array(array, chunks=array_chunks), axes=axes)
        for patch, expected_patch in zip(level.read(boxes), expected, strict=True):
            np.testing.assert_array_equal(patch, expected_patch)


def test_pickling_leaves_out_the_cache():
    level = Level(da.from_array(Source(128, 128).array, chunks=(64, 64, 3)))
    level.read([[0, 0, 10, 10]])
    back = pickle.loads(pickle.dumps(level))
    assert len(level.blocks._cache) == 1
    assert len(back.blocks._cache) == 0
    np.testing.assert_array_equal(back.read([[5, 5, 90, 90]])[0], level.read([[5, 5, 90, 90]])[0])
