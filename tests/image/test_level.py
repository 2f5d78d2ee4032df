"""Levels: boxes cut from images of any kind and any file."""

from __future__ import annotations

import gzip
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from PIL import Image, ImageFile

from sthggep._image._level import Level, open_levels, read_mpp


def position_image(height: int = 300, width: int = 400) -> np.ndarray:
    """Pixels that hold their position: red x, green y (modulo 256), blue the number of the 256-block."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8)


class CountingSource:
    """An array that records each read."""

    reads: list[tuple] = []  # noqa: RUF012

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __getitem__(self, index):
        CountingSource.reads.append(str(index))
        return self.array[index]

    def __dask_tokenize__(self):
        return "counting"


# --- reading boxes ------------------------------------------------------------------------------------------------


def as_zarr(array: np.ndarray):
    copy = zarr.create_array(store=zarr.storage.MemoryStore(), shape=array.shape, dtype=array.dtype, chunks=(64, 64, 3))
    copy[:] = array
    return copy


@pytest.mark.parametrize(
    "wrap",
    [
        np.asarray,
        lambda a: da.from_array(a, chunks=(64, 100, 3)),
        as_zarr,
        lambda a: xr.DataArray(a, dims=("y", "x", "c")),
        lambda a: xr.DataArray(da.from_array(a, chunks=(64, 100, 2)), dims=("y", "x", "c")),
    ],
    ids=["numpy", "dask", "zarr", "xarray", "xarray of dask"],
)
def test_boxes_are_x0_y0_x1_y1(wrap):
    image = position_image()
    level = Level(wrap(image), (1.0, 1.0), "yxc")
    assert level.shape == (300, 400)
    first, second = level.read(np.array([[30, 10, 50, 20], [257, 260, 300, 299]]))
    assert first.dtype == np.uint8
    assert first.shape == (10, 20, 3)
    np.testing.assert_array_equal(first[0, 0], [30, 10, 0])
    np.testing.assert_array_equal(second, image[260:299, 257:300])


def test_axes_orders_agree():
    image = position_image()
    box = [[7, 9, 21, 33]]
    expected = Level(image, axes="yxc").read(box)[0]
    np.testing.assert_array_equal(Level(np.moveaxis(image, -1, 0), axes="cyx").read(box)[0], expected)
    gray = Level(image[..., 0], axes="yx").read(box)[0]
    np.testing.assert_array_equal(gray, np.repeat(expected[..., :1], 3, axis=-1))


@pytest.mark.parametrize("lazy", [False, True])
def test_pixels_outside_the_image_are_white(lazy):
    image = position_image() // 2
    level = Level(da.from_array(image, chunks=100) if lazy else image)
    corner, outside, whole = level.read([[-5, -3, 4, 6], [1000, 1000, 1010, 1020], [-1, -1, 401, 301]])
    assert (corner[:3] == 255).all()
    assert (corner[:, :5] == 255).all()
    np.testing.assert_array_equal(corner[3:, 5:], image[:6, :4])
    assert outside.shape == (20, 10, 3)
    assert (outside == 255).all()
    np.testing.assert_array_equal(whole[1:-1, 1:-1], image)
    assert (whole[[0, -1]] == 255).all()


def test_each_chunk_is_read_once_for_a_block():
    source = CountingSource(position_image(512, 512))
    level = Level(da.from_array(source, chunks=(128, 128, 3), asarray=False, meta=np.empty((0, 0, 0), np.uint8)))
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 400, (200, 2))
    CountingSource.reads = []
    patches = level.read(np.hstack([corners, corners + 112]))
    assert len(CountingSource.reads) == len(set(CountingSource.reads)) == 16
    assert len(patches) == 200


def test_no_boxes():
    assert Level(position_image()).read(np.empty((0, 4), dtype=int)) == []


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[0.0, 0.0, 5.0, 5.0]], "integers"),
        ([[0, 0, 5]], "integers"),
        ([[5, 0, 5, 5]], "x1 > x0"),
        ([[0, 9, 5, 5]], "x1 > x0"),
    ],
)
def test_bad_boxes(boxes, words):
    with pytest.raises(ValueError, match=words):
        Level(position_image()).read(boxes)


def test_pixels_of_the_image_are_not_changed():
    image = np.full((20, 20, 4), 100, dtype=np.uint8)
    original = image.copy()
    Level(image).read([[0, 0, 10, 10]])[0][:] = 0
    rgb = position_image(20, 20)
    Level(rgb).read([[0, 0, 10, 10]])[0][:] = 0
    np.testing.assert_array_equal(image, original)
    np.testing.assert_array_equal(rgb, position_image(20, 20))


# --- values -------------------------------------------------------------------------------------------------------


def one_value(array: np.ndarray, axes: str = "yxc") -> list[int]:
    return Level(array, axes=axes).read([[0, 0, 2, 2]])[0][0, 0].tolist()


def filled(values: list[float], dtype: type, size: int = 8) -> np.ndarray:
    return np.broadcast_to(np.array(values, dtype=dtype), (size, size, len(values))).copy()


def test_alpha_is_laid_over_white():
    assert one_value(filled([100, 0, 200, 255], np.uint8)) == [100, 0, 200]
    assert one_value(filled([100, 0, 200, 0], np.uint8)) == [255, 255, 255]
    assert one_value(filled([100, 0, 200, 51], np.uint8)) == [224, 204, 244]
    assert one_value(filled([0.5, 0, 1, 0.5], np.float32)) == [191, 128, 255]


def test_float_in_unit_range_is_stretched():
    assert one_value(filled([0.0, 0.5, 1.0], np.float64)) == [0, 128, 255]
    assert one_value(filled([-0.1, 0.2, 1.04], np.float32)) == [0, 51, 255]


def test_float_around_zero_is_refused():
    with pytest.raises(ValueError, match=r"found -1 to 1.*`\(image \+ 1\) / 2`"):
        one_value(filled([-1.0, 0.2, 1.0], np.float32))


def test_float_beyond_one_is_0_to_255():
    assert one_value(filled([0.6, 128.4, 260.0], np.float32)) == [1, 128, 255]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint32])
def test_integers_by_their_range(dtype):
    assert one_value(filled([0, 128, 255], dtype)) == [0, 128, 255]
    assert one_value(filled([0, 257 * 128, 65535], dtype)) == [0, 128, 255]


def test_range_is_decided_once_for_the_level(caplog):
    image = np.full((600, 600, 3), 40000, dtype=np.uint16)
    image[:50, :50] = 200  # without the rest, this corner would look like 8 bits
    level = Level(da.from_array(image, chunks=100))
    with caplog.at_level(logging.INFO, logger="sthggep"):
        dark = level.read([[0, 0, 10, 10]])[0]
        level.read([[300, 300, 310, 310]])
    assert (dark == 1).all()
    assert [record.message for record in caplog.records] == [
        "image values (uint16, up to 40000 in a sample) are read as 0-65535."
    ]


def test_missing_values_are_white():
    image = filled([0.2, 0.4, 0.6], np.float32)
    image[0, 0] = np.nan
    patch = Level(image).read([[0, 0, 2, 2]])[0]
    assert patch[0, 0].tolist() == [255, 255, 255]
    assert patch[1, 1].tolist() == [51, 102, 153]
    assert one_value(np.full((4, 4), np.nan), "yx") == [255, 255, 255]


@pytest.mark.parametrize(
    ("array", "axes", "words"),
    [
        (np.zeros((5, 5, 2), np.uint8), "yxc", r"found 2 \(shape \(5, 5, 2\)"),
        (np.zeros((7, 5, 5), np.uint8), "cyx", "found 7"),
        (np.zeros((5, 5), bool), "yx", "found bool"),
        (np.zeros((5, 5), complex), "yx", "found complex"),
        (np.zeros((5, 5), np.uint8), "yxc", "3 dimensions"),
        (np.zeros((5, 5, 3), np.uint8), "xyc", "'xyc'"),
        (np.zeros((0, 5, 3), np.uint8), "yxc", "empty"),
    ],
)
def test_arrays_that_are_no_image_are_refused(array, axes, words):
    with pytest.raises(ValueError, match=words):
        Level(array, axes=axes)


# --- files --------------------------------------------------------------------------------------------------------

TIFFS = {
    "tiled": {"tile": (128, 128), "compression": "deflate"},
    "strips": {"rowsperstrip": 16, "compression": "deflate"},
    "one piece": {},
    "big endian": {"byteorder": ">"},
    "bigtiff": {"bigtiff": True, "tile": (64, 64)},
}


@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS)
def test_tiff_is_lazy_and_exact(tmp_path: Path, options):
    image = position_image()
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, image, photometric="rgb", **options)
    (level,) = open_levels(path)
    assert hasattr(level.array, "dask")
    assert level.scale == (1.0, 1.0)
    np.testing.assert_array_equal(level.read([[100, 50, 380, 290]])[0], image[50:290, 100:380])
    copy = pickle.loads(pickle.dumps(level))
    np.testing.assert_array_equal(copy.read([[0, 0, 9, 7]])[0], image[:7, :9])


def test_uint16_big_endian_and_gray_tiff(tmp_path: Path):
    image = position_image()[..., 0].astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "gray.tif", image, byteorder=">", photometric="minisblack")
    patch = open_levels(tmp_path / "gray.tif")[0].read([[10, 0, 20, 5]])[0]
    assert patch[0, :, 0].tolist() == list(range(10, 20))
    assert (patch[..., 0] == patch[..., 2]).all()


def test_pyramid_keeps_its_exact_ratio(tmp_path: Path):
    path = tmp_path / "pyramid.svs"
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "tile": (64, 64)}
        tif.write(
            position_image(301, 401), subifds=2, resolution=(20000, 20000), resolutionunit="CENTIMETER", **options
        )
        tif.write(position_image(150, 200), subfiletype=1, **options)
        tif.write(position_image(75, 100), subfiletype=1, **options)
    levels = open_levels(path)
    assert [level.shape for level in levels] == [(301, 401), (150, 200), (75, 100)]
    assert levels[1].scale == (200 / 401, 150 / 301)
    assert levels[2].scale == (100 / 401, 75 / 301)
    assert levels[2].read([[5, 6, 7, 8]])[0][0, 0].tolist() == [5, 6, 0]
    assert read_mpp(path) == pytest.approx(0.5)


def test_svs_without_its_thumbnail_and_label(tmp_path: Path):
    path = tmp_path / "slide.svs"
    options = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=False) as tif:
        tif.write(position_image(), tile=(64, 64), description="Aperio Image\r\n400x300|MPP = 0.5", **options)
        tif.write(position_image(75, 100), description="Aperio Image\r\n400x300 -> 100x75", **options)
        tif.write(position_image(150, 200), tile=(64, 64), description="Aperio Image\r\n-> 200x150", **options)
        tif.write(position_image(30, 30), description="Aperio Image\r\nlabel 30x30", **options)
    assert [level.shape for level in open_levels(path)] == [(300, 400), (150, 200)]
    assert read_mpp(path) == pytest.approx(0.5)


def test_ome_tiff_channels_first(tmp_path: Path):
    path = tmp_path / "slide.ome.tif"
    metadata = {"axes": "CYX", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(path, np.moveaxis(position_image(), -1, 0), photometric="minisblack", metadata=metadata)
    (level,) = open_levels(path)
    assert level.read([[20, 30, 25, 35]])[0][0, 0].tolist() == [20, 30, 0]
    assert read_mpp(path) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (25400, 25400), "resolutionunit": "INCH"}, 1.0),
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (5, 5), "resolutionunit": "NONE"}, None),
        ({"description": "Aperio Image Library\r\n400x300 |AppMag = 40|MPP = 0.2527|Left = 1"}, 0.2527),
        ({"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "um", "axes": "YXS"}}, 0.25),
        ({}, None),
    ],
    ids=["inch", "cm", "print resolution", "no unit", "aperio", "imagej", "nothing"],
)
def test_stated_microns_per_pixel(tmp_path: Path, options, expected):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, position_image(), photometric="rgb", **options)
    assert read_mpp(path) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpg.gz"])
def test_plain_files(tmp_path: Path, suffix: str):
    image = np.full((60, 80, 3), (200, 100, 150), dtype=np.uint8)
    path = tmp_path / f"slide{suffix}"
    plain = tmp_path / path.name.removesuffix(".gz")
    Image.fromarray(image).save(plain)
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
    (level,) = open_levels(path)
    assert level.shape == (60, 80)
    assert np.abs(level.read([[0, 0, 80, 60]])[0].astype(int) - image).max() <= 2
    assert read_mpp(path) is None


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_plain_modes(tmp_path: Path, mode: str):
    picture = Image.new("L", (30, 20), 255).convert("I;16" if mode == "I;16" else mode)
    path = tmp_path / ("white.tif" if mode == "CMYK" else "white.png")
    if mode == "CMYK":
        path = tmp_path / "white.jpg"
    picture.save(path)
    (patch,) = open_levels(path)[0].read([[0, 0, 30, 20]])
    assert patch.shape == (20, 30, 3)
    assert (patch == 255).all()


def test_large_images_are_read_and_the_limit_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "large.png"
    Image.new("RGB", (300, 200)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert open_levels(path)[0].shape == (200, 300)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("name", ["slide.jpg", "slide.png", "slide.jpg.gz", "tiled.tif", "whole.tif"])
@pytest.mark.parametrize("fraction", [0.5, 0.02])
def test_truncated_files_raise(tmp_path: Path, name: str, fraction: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # another library may have set it
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    path = tmp_path / name
    if path.suffix == ".tif":
        tifffile.imwrite(path, noise, photometric="rgb", **(TIFFS["tiled"] if name == "tiled.tif" else {}))
    else:
        Image.fromarray(noise).save(tmp_path / "whole.jpg" if ".jpg" in name else path)
    data = path.read_bytes() if path.exists() else (tmp_path / "whole.jpg").read_bytes()
    data = gzip.compress(data) if name.endswith(".gz") else data
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(ValueError, match=rf"{name}.*(truncated|damaged|not an image)"):
        open_levels(path)


def test_damaged_tile_is_named_when_it_is_read(tmp_path: Path):
    path = tmp_path / "slide.tif"
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    tifffile.imwrite(path, noise, photometric="rgb", tile=(64, 64), compression="deflate")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20000] = bytes(20000)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"slide\.tif is damaged"):
        open_levels(path)[0].read([[0, 0, 400, 300]])


def test_files_that_are_no_images(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="absent"):
        open_levels(tmp_path / "absent.tif")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_mpp(tmp_path / "absent.tif")
    with pytest.raises(ValueError, match="is a folder"):
        open_levels(tmp_path)
    (tmp_path / "table.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match=r"table\.tsv is not an image.*expected TIFF"):
        open_levels(tmp_path / "table.tsv")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"empty\.jpg"):
        open_levels(tmp_path / "empty.jpg")


def test_stacks_and_odd_channels_are_refused(tmp_path: Path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 40, 50), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match=r"stack\.tif holds an image with axes .*single plane"):
        open_levels(tmp_path / "stack.tif")
    tifffile.imwrite(
        tmp_path / "if.ome.tif", np.zeros((7, 40, 50), np.uint8), photometric="minisblack", metadata={"axes": "CYX"}
    )
    with pytest.raises(ValueError, match=r"if\.ome\.tif: .*found 7"):
        open_levels(tmp_path / "if.ome.tif")


def test_missing_imagecodecs_says_what_to_install(tmp_path: Path):
    pytest.importorskip("imagecodecs", reason="Needs imagecodecs to write the file")
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, position_image(), photometric="rgb", tile=(64, 64), compression="jpeg")
    assert open_levels(path)[0].shape == (300, 400)
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from sthggep._image._level import open_levels\n"
        f"try: open_levels({str(path)!r})\n"
        "except ImportError as error: print(error)"
    )
    message = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'pip install "sthggep[wsi]"' in message
    assert str(path) in message


@pytest.mark.handles("sthggep reads the pixel as white glass and logs it.")
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["a pixel of NaN", "an infinite pixel"])
def test_pixels_without_a_value_are_mentioned(value, caplog):
    pixels = np.full((8, 8, 3), 0.5, dtype=np.float32)
    pixels[2, 3] = value
    with caplog.at_level("WARNING", logger="sthggep"):
        (patch,) = Level(pixels, source=f"{value}.tif").read([[0, 0, 8, 8]])
    assert patch[2, 3].tolist() == [255, 255, 255]
    assert patch[0, 0].tolist() == [128, 128, 128]
    assert "without a value" in caplog.text
