"""Tiles of the report: together they are the image, at every resolution."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from PIL import Image

from sthggep._image._level import Level, as_pyramid
from sthggep._slides._slide import Slide
from sthggep.pl import _report_tiles
from sthggep.pl._report_tiles import Pyramid, tiles_in_folder, tiles_in_page
from sthggep.pl._tissue import View

WIDTH, HEIGHT = 1500, 1130


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Smooth colors, which JPEG keeps: red grows with x, green with y."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def slide_of(levels: list[Level]) -> Slide:
    return Slide("S", AnnData(np.zeros((1, 1))), np.array([0]), np.array([[9.0, 9.0]]), tuple(as_pyramid(levels)))


def assemble(tiles: dict, number: int, read) -> np.ndarray:
    """Lay the tiles of a resolution beside each other."""
    width, height = (-(-tiles[name] // 2**number) for name in ("width", "height"))
    whole = Image.new("RGB", (width, height))
    columns = -(-width // tiles["side"])
    for row in range(-(-height // tiles["side"])):
        for column in range(columns):
            part = Image.open(io.BytesIO(read(number, column, row, columns)))
            whole.paste(part, (column * tiles["side"], row * tiles["side"]))
    return np.asarray(whole)


def from_page(tiles: dict):
    return lambda number, column, row, columns: base64.b64decode(tiles["images"][number][row * columns + column])


def test_tiles_of_each_resolution_are_the_image(image):
    view = View(100, 1400, 30, 1130, None)
    tiles = tiles_in_page(slide_of([Level(image)]), view, 10**7)
    assert (tiles["width"], tiles["height"], tiles["folder"]) == (1300, 1100, None)
    assert [len(level) for level in tiles["images"]] == [9, 4, 1]
    wanted = Image.fromarray(image[30:1130, 100:1400])
    for number in range(3):
        whole = assemble(tiles, number, from_page(tiles))
        assert np.abs(whole - np.asarray(wanted.reduce(2**number)).astype(int)).max() <= 12


def test_pixels_of_a_tile_are_those_of_its_place():
    """Noise shows a shift by a part of a pixel, which smooth colors hide."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pyramid = Pyramid.of(slide_of([Level(noise)]), View(100, 1400, 30, 1130, None))
    for column, row in ((0, 0), (1, 0), (2, 2)):
        left, top = 100 + 512 * column, 30 + 512 * row
        tile = np.asarray(pyramid._read(column, row))
        np.testing.assert_array_equal(tile, noise[top : top + len(tile), left : left + tile.shape[1]])
        assert tile.shape[:2] == (min(512, 1130 - top), min(512, 1400 - left))


def test_a_page_takes_no_more_bytes_than_allowed():
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    slide, view = slide_of([Level(noise)]), View(0, WIDTH, 0, HEIGHT, None)
    sizes = {}
    for most in (1_000_000, 400_000):
        tiles = tiles_in_page(slide, view, most)
        sizes[most] = tiles["width"]
        assert sum(len(text) for level in tiles["images"] for text in level) <= most
        assert tiles["width"] / tiles["height"] == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    assert 400 < sizes[400_000] < sizes[1_000_000] < WIDTH


def test_a_folder_holds_the_image_as_fine_as_it_is(image, tmp_path):
    slide, view = slide_of([Level(image)]), View(0, WIDTH, 0, HEIGHT, None)
    tiles = tiles_in_folder(slide, view, tmp_path / "0", "tiles/0")
    assert (tiles["width"], tiles["images"], tiles["folder"]) == (WIDTH, [], "tiles/0")

    def read(number: int, column: int, row: int, columns: int) -> bytes:
        return Path(tmp_path / "0" / str(number) / f"{column}_{row}.jpg").read_bytes()

    assert np.abs(assemble(tiles, 0, read) - image.astype(int)).max() <= 12
    assert len(list(tmp_path.rglob("*.jpg"))) == 9 + 4 + 1


def test_of_several_resolutions_the_smallest_that_is_enough_is_read(image):
    coarse = np.asarray(Image.fromarray(image).reduce(2))
    slide = slide_of([Level(image), Level(coarse, (0.5, 0.5))])
    view = View(0, WIDTH, 0, HEIGHT, None)
    assert Pyramid.of(slide, view).level is slide.levels[0]
    half = Pyramid.of(slide, view, WIDTH * HEIGHT / 4)
    assert half.level is slide.levels[1]
    assert (half.width, half.height) == (750, 565)


def test_coordinates_are_those_of_the_full_resolution(image):
    # The stored image is a quarter as wide as the coordinates say
    slide = slide_of([Level(image, (0.25, 0.25))])
    tiles = tiles_in_page(slide, View(2000, 4000, 1000, 2000, None), 10**7)
    assert (tiles["width"], tiles["height"]) == (500, 250)
    whole = assemble(tiles, 0, from_page(tiles))
    assert np.abs(whole - image[250:500, 500:1000].astype(int)).max() <= 12


def test_a_large_single_resolution_is_made_smaller_first(image, monkeypatch):
    monkeypatch.setattr(_report_tiles, "LARGE_PX", 1000)
    slide, view = slide_of([Level(image)]), View(0, WIDTH, 0, HEIGHT, None)
    pyramid = Pyramid.of(slide, view, WIDTH * HEIGHT / 16)
    assert pyramid.level.shape == (283, 375)
    tiles = {"width": pyramid.width, "height": pyramid.height, "side": 512}
    texts = _report_tiles._as_text(pyramid)
    whole = assemble(tiles | {"images": texts}, 0, from_page({"images": texts}))
    wanted = np.asarray(Image.fromarray(image).resize((pyramid.width, pyramid.height), Image.Resampling.BOX))
    assert np.abs(whole - wanted.astype(int)).max() <= 12
