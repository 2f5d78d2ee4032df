"""Slides that OpenSlide reads, tested on a tiled TIFF, which the reader for TIFF leaves to OpenSlide here."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from sthggep import io
from sthggep._image import _files as _image_files
from sthggep._image._level import open_levels, read_mpp


@pytest.fixture
def slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """A slide of two resolutions, and its pixels."""
    pytest.importorskip("openslide")
    image = np.random.default_rng(0).integers(0, 255, (1500, 1100, 3), dtype=np.uint8)
    path = tmp_path / "slide.tiff"
    with tifffile.TiffWriter(path) as tif:
        for step in (1, 2):
            options = {"resolution": (4e4 / step,) * 2, "resolutionunit": 3, "subfiletype": step - 1}
            tif.write(image[::step, ::step], tile=(256, 256), photometric="rgb", metadata=None, **options)
    monkeypatch.setattr(_image_files, "_TIFF_STARTS", ())
    return path, image


def test_levels_and_pixels(slide):
    path, image = slide
    levels = open_levels(path)
    assert [level.shape for level in levels] == [(1500, 1100), (750, 550)]
    assert levels[1].scale == (0.5, 0.5)
    boxes = np.array([[0, 0, 20, 30], [1000, 1010, 1080, 1100], [1090, 1490, 1120, 1520]])
    for (x0, y0, x1, y1), patch in zip(boxes, levels[0].read(boxes), strict=True):
        inside = image[y0 : min(y1, 1500), x0 : min(x1, 1100)]
        np.testing.assert_array_equal(patch[: len(inside), : inside.shape[1]], inside)
    assert (levels[0].read(boxes)[2][10:, :] == 255).all()
    np.testing.assert_array_equal(levels[1].read([[30, 40, 60, 90]])[0], image[::2, ::2][40:90, 30:60])


def test_microns_and_the_whole_slide(slide):
    path, image = slide
    assert read_mpp(path) == pytest.approx(0.25)
    sdata = io.read_slide(path)
    assert sdata.attrs["sthggep"]["mpp"] == pytest.approx(0.25)
    pixels = sdata["image"]["scale0"]["image"]
    assert pixels.shape[1:] == (1500, 1100)
    np.testing.assert_array_equal(pixels[:3, :5, :7].values, np.moveaxis(image[:5, :7], -1, 0))


def test_levels_travel_to_other_processes(slide):
    path, image = slide
    level = open_levels(path)[0]
    level.read([[0, 0, 5, 5]])
    back = pickle.loads(pickle.dumps(level))
    np.testing.assert_array_equal(back.read([[3, 4, 9, 9]])[0], image[4:9, 3:9])


def test_damaged_slides_are_named(slide):
    path, _ = slide
    level = open_levels(path)[0]
    content = path.read_bytes()
    path.write_bytes(content[:9000])
    with pytest.raises(ValueError, match=r"slide\.tiff is (truncated|damaged|not an image)"):
        open_levels(path)[0].read([[900, 1300, 1000, 1400]])
    assert level.shape == (1500, 1100)


def test_without_openslide_an_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    path = tmp_path / "slide.mrxs"
    path.write_bytes(b"\xff\xd8\xff\xe0 not tried")
    with pytest.raises(ImportError, match=r'pip install "sthggep\[openslide\]"'):
        open_levels(path)
    other = tmp_path / "picture.png"
    other.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not an image that sthggep can read"):
        open_levels(other)
