"""Bare slides as SpatialData."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
import tifffile
from PIL import Image
from spatialdata.transformations import Identity, get_transformation

from sthggep._slides._spatialdata import _element_levels
from sthggep.io import read_slide


def position_image(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, np.zeros_like(x)], axis=-1).astype(np.uint8)


@pytest.fixture
def tiff(tmp_path: Path) -> Path:
    path = tmp_path / "slide.tif"
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "deflate"}
    tifffile.imwrite(
        path, position_image(2100, 3001), resolution=(40000, 40000), resolutionunit="CENTIMETER", **options
    )
    return path


def test_single_resolution_becomes_a_lazy_pyramid(tiff: Path):
    sdata = read_slide(tiff)
    assert list(sdata.images) == ["image"]
    assert sdata.attrs["sthggep"] == {"mpp": pytest.approx(0.25), "source_image_path": str(tiff)}
    levels = _element_levels(sdata["image"])
    assert [level.shape for level in levels] == [(2100, 3001), (1050, 1500), (525, 750)]
    assert all(hasattr(level.array, "dask") for level in levels)
    assert get_transformation(sdata["image"], get_all=True) == {"global": Identity()}
    full = position_image(2100, 3001)
    np.testing.assert_array_equal(levels[0].read([[1000, 900, 1100, 950]])[0], full[900:950, 1000:1100])
    half = full[:, :3000].reshape(1050, 2, 1500, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(levels[1].read([[0, 0, 1500, 1050]])[0], half, atol=0.51)


def test_scales_of_the_file_keep_their_exact_ratio(tmp_path: Path):
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "tile": (64, 64)}
        tif.write(position_image(803, 1001), subifds=1, **options)
        tif.write(position_image(200, 250), subfiletype=1, **options)
    sdata = read_slide(path, mpp=0.5)
    assert sdata.attrs["sthggep"]["mpp"] == 0.5
    first, second = _element_levels(sdata["image"])
    assert first.shape == (803, 1001)
    assert second.shape == (200, 250)
    assert second.scale == pytest.approx((250 / 1001, 200 / 803))


def test_jpeg_without_stated_size(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Image.fromarray(position_image(100, 120)).save(tmp_path / "slide.jpg")
    sdata = read_slide(tmp_path / "slide.jpg")
    assert sdata.attrs["sthggep"]["mpp"] is None
    assert "pass `mpp=`" in caplog.text
    assert _element_levels(sdata["image"])[0].shape == (100, 120)


def test_gray_and_rgba(tmp_path: Path):
    tifffile.imwrite(tmp_path / "gray.tif", position_image(50, 60)[..., 0], photometric="minisblack")
    gray = read_slide(tmp_path / "gray.tif", mpp=1)
    assert gray["image"]["scale0"]["image"].dims == ("c", "y", "x")
    Image.new("RGBA", (60, 50), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    (level,) = _element_levels(read_slide(tmp_path / "clear.png", mpp=1)["image"])
    assert (level.read([[0, 0, 60, 50]])[0] == 255).all()


def test_the_slide_survives_zarr(tiff: Path, tmp_path: Path):
    sdata = read_slide(tiff)
    sdata.write(tmp_path / "s.zarr")
    copy = sd.read_zarr(tmp_path / "s.zarr")
    assert copy.attrs["sthggep"]["mpp"] == pytest.approx(0.25)
    assert [level.shape for level in _element_levels(copy["image"])] == [(2100, 3001), (1050, 1500), (525, 750)]


def test_bad_arguments(tiff: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="positive"):
        read_slide(tiff, mpp=-1)
    with pytest.raises(FileNotFoundError, match=r"no\.svs"):
        read_slide(tmp_path / "no.svs")


def test_real_slide(data_root: Path):
    path = next((data_root / "her2st/data/ST-imgs/C/C3").glob("*.jpg"))
    sdata = read_slide(path, mpp=0.69)
    level = _element_levels(sdata["image"])[-1]
    assert max(level.shape) <= 1024
    assert 100 < level.read([[0, 0, *level.shape[::-1]]])[0].mean() < 250
