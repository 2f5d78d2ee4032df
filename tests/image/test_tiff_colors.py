"""Colors and depth of image files."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sthggep._image._level import open_levels

Pixels = NDArray[np.generic]


def picture() -> NDArray[np.uint8]:
    """Glass, tissue and a nucleus, with one pixel of black in a corner and one of white."""
    rgb = np.full((96, 128, 3), 240, np.uint8)
    rgb[20:70, 30:90] = (200, 120, 170)
    rgb[30:50, 40:60] = (90, 60, 140)
    rgb[0, 0], rgb[-1, -1] = 0, 255
    return rgb


RGB = picture()
GRAY = np.asarray(Image.fromarray(RGB).convert("L"))
GRAY_AS_RGB = np.repeat(GRAY[..., None], 3, axis=-1)


def by_pillow(mode: str, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(RGB).convert(mode).save(path, **options)


def by_tifffile(pixels: Pixels, **options: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def with_extra(value: int, kind: str, dtype: type = np.uint8) -> Callable[[Path], None]:
    pixels = RGB.astype(dtype) * (257 if dtype == np.uint16 else 1)
    extra = np.full((96, 128, 1), value, dtype)
    return by_tifffile(np.concatenate([pixels, extra], axis=-1), photometric="rgb", extrasamples=[kind])


def premultiplied(planar: bool = False) -> Callable[[Path], None]:
    alpha = np.full((96, 128, 1), 128, np.uint8)
    pixels = np.concatenate([np.rint(RGB * (alpha / 255)).astype(np.uint8), alpha], axis=-1)
    options = {"photometric": "rgb", "extrasamples": ["assocalpha"]}
    if planar:
        return by_tifffile(np.moveaxis(pixels, -1, 0), planarconfig="separate", **options)
    return by_tifffile(pixels, **options)


def retagged(write: Callable[[Path], None], **values: int) -> Callable[[Path], None]:
    """Write a TIFF file, then change numbers of its tags."""

    def write_and_change(path: Path) -> None:
        write(path)
        with tifffile.TiffFile(path, mode="r+b") as tif:
            for name, value in values.items():
                tif.pages.first.tags[name].overwrite(value)

    return write_and_change


def packed() -> NDArray[np.uint8]:
    """Gray of 12 bits, two values in three bytes."""
    deep = (GRAY.astype(np.uint16) << 4) | (GRAY >> 4)
    first, second = deep[:, ::2], deep[:, 1::2]
    return (
        np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8).reshape(96, 192)
    )


NEEDS_CODECS = pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is None, reason="Needs imagecodecs")
JPEG = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 98}, "subsampling": (1, 1)}
HALF_WHITE = np.rint(RGB * (128 / 255) + 127).clip(0, 255)


@pytest.mark.handles("sthggep reads the colors that image viewers show.")
@pytest.mark.parametrize(
    ("write", "expected"),
    [
        pytest.param(by_pillow("CMYK"), RGB, id="TIFF in CMYK"),
        pytest.param(by_pillow("CMYK", compression="tiff_adobe_deflate"), RGB, id="TIFF in CMYK, compressed"),
        pytest.param(lambda path: Image.fromarray(RGB).quantize(16).save(path), RGB, id="TIFF with a palette"),
        pytest.param(by_pillow("YCbCr"), RGB, id="TIFF in YCbCr, uncompressed"),
        pytest.param(by_tifffile(RGB, **JPEG), RGB, id="TIFF of JPEG in YCbCr", marks=NEEDS_CODECS),
        pytest.param(by_tifffile(255 - GRAY, photometric="miniswhite"), GRAY_AS_RGB, id="TIFF whose white is zero"),
        pytest.param(
            by_tifffile(255 - GRAY, photometric="miniswhite", tile=(32, 32), compression="zlib"),
            GRAY_AS_RGB,
            id="TIFF in tiles whose white is zero",
        ),
        pytest.param(
            by_tifffile(GRAY > 128, photometric="minisblack"),
            np.where(GRAY_AS_RGB > 128, 255, 0),
            id="TIFF of black and white",
        ),
        pytest.param(
            by_tifffile(GRAY <= 128, photometric="miniswhite"),
            np.where(GRAY_AS_RGB > 128, 255, 0),
            id="TIFF of black and white whose white is zero",
        ),
        pytest.param(
            retagged(by_tifffile(packed(), photometric="minisblack", metadata=None), ImageWidth=128, BitsPerSample=12),
            GRAY_AS_RGB,
            id="TIFF of 12 packed bits",
            marks=NEEDS_CODECS,
        ),
        pytest.param(
            by_tifffile(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"),
            RGB,
            id="TIFF of color planes",
        ),
        pytest.param(by_tifffile(RGB.astype(np.uint16) * 257, photometric="rgb"), RGB, id="TIFF of 16 bits"),
        pytest.param(by_tifffile((RGB / 255).astype(np.float32), photometric="rgb"), RGB, id="TIFF of floats in 0-1"),
        pytest.param(by_tifffile(RGB.astype(np.float32), photometric="rgb"), RGB, id="TIFF of floats in 0-255"),
        pytest.param(by_tifffile(RGB.astype(np.float32) * 257, photometric="rgb"), RGB, id="TIFF of floats in 0-65535"),
        *(
            pytest.param(
                by_tifffile(RGB.astype(np.uint16) << (bits - 8), photometric="rgb"),
                RGB,
                id=f"TIFF of {bits} bits in 16",
            )
            for bits in (9, 10, 12, 14)
        ),
    ],
)
def test_colors(tmp_path: Path, write, expected):
    write(tmp_path / "slide.tif")
    pixels = open_levels(tmp_path / "slide.tif")[0].read([[0, 0, 128, 96]])[0]
    assert np.abs(pixels.astype(int) - expected).max() <= 8


@pytest.mark.handles(
    "sthggep lays a channel over white only if the file declares it as alpha, and ignores other extra samples."
)
@pytest.mark.parametrize(
    ("write", "expected"),
    [
        pytest.param(with_extra(0, "unspecified"), RGB, id="fourth sample of zeros that is unspecified"),
        pytest.param(with_extra(77, "unspecified"), RGB, id="fourth sample that is unspecified"),
        pytest.param(with_extra(0, "unspecified", np.uint16), RGB, id="fourth sample of 16 bits that is unspecified"),
        pytest.param(with_extra(128, "unassalpha"), HALF_WHITE, id="straight alpha"),
        pytest.param(premultiplied(), HALF_WHITE, id="premultiplied alpha"),
        pytest.param(premultiplied(planar=True), HALF_WHITE, id="premultiplied alpha in planes"),
        pytest.param(
            by_tifffile(
                np.stack([GRAY, np.full_like(GRAY, 255)], axis=-1),
                photometric="minisblack",
                planarconfig="contig",
                extrasamples=["unassalpha"],
            ),
            GRAY_AS_RGB,
            id="gray with alpha",
        ),
        pytest.param(
            by_tifffile(
                np.stack([GRAY, np.zeros_like(GRAY)], axis=-1),
                photometric="minisblack",
                planarconfig="contig",
                extrasamples=["unspecified"],
            ),
            GRAY_AS_RGB,
            id="gray with an unspecified sample",
        ),
    ],
)
def test_further_samples(tmp_path: Path, write, expected):
    write(tmp_path / "slide.tif")
    pixels = open_levels(tmp_path / "slide.tif")[0].read([[0, 0, 128, 96]])[0]
    assert np.abs(pixels.astype(int) - expected).max() <= 2


RGB_FILE = by_tifffile(RGB, photometric="rgb")


@pytest.mark.handles("sthggep rejects the file and names the unsupported feature.")
@pytest.mark.parametrize(
    ("write", "words"),
    [
        pytest.param(retagged(RGB_FILE, PhotometricInterpretation=8), "CIELAB", id="TIFF in CIELab"),
        pytest.param(retagged(RGB_FILE, PhotometricInterpretation=9), "ICCLAB", id="TIFF in ICCLab"),
        pytest.param(retagged(RGB_FILE, PhotometricInterpretation=32845), "LOGLUV", id="TIFF in LogLuv"),
        pytest.param(retagged(RGB_FILE, PhotometricInterpretation=6), "YCBCR", id="TIFF in subsampled YCbCr"),
        pytest.param(retagged(RGB_FILE, PhotometricInterpretation=5), "SEPARATED", id="TIFF of inks other than CMYK"),
        pytest.param(
            by_tifffile(65535 - GRAY.astype(np.uint16) * 16, photometric="miniswhite"),
            "MINISWHITE",
            id="TIFF of unknown depth whose white is zero",
        ),
        pytest.param(
            by_tifffile(
                np.concatenate([RGB, RGB[..., :1]], axis=-1),
                photometric="minisblack",
                planarconfig="contig",
            ),
            "4 samples of gray",
            id="TIFF of four gray samples",
        ),
        pytest.param(
            by_tifffile(RGB.astype(np.uint32) * 70000, photometric="rgb"), "up to 1.785e", id="TIFF of 32-bit integers"
        ),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, write, words):
    write(tmp_path / "slide.tif")
    with pytest.raises(ValueError, match=words):
        open_levels(tmp_path / "slide.tif")[0].read([[0, 0, 128, 96]])


def channels(names: list[str | None], pixels: Pixels) -> Callable[[Path], None]:
    metadata = {"axes": "CYX", "Channel": {"Name": names}} if names else {"axes": "CYX"}
    return by_tifffile(pixels, photometric="minisblack", metadata=metadata)


PLANES = np.moveaxis(RGB, -1, 0)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        pytest.param(channels(["Blue", "Green", "Red"], PLANES[::-1]), RGB, id="blue, green, red"),
        pytest.param(
            channels(["DAPI", "R", "G", "B"], np.concatenate([255 - PLANES[:1], PLANES])),
            RGB,
            id="colors beside a stain",
        ),
        pytest.param(channels(["Channel 0", "Channel 1", "Channel 2"], PLANES), RGB, id="numbered"),
        pytest.param(channels([], PLANES), RGB, id="unnamed"),
    ],
)
def test_channels_of_ome_are_taken_by_name(tmp_path: Path, write, expected):
    write(tmp_path / "slide.ome.tif")
    np.testing.assert_array_equal(open_levels(tmp_path / "slide.ome.tif")[0].read([[0, 0, 128, 96]])[0], expected)


@pytest.mark.handles("sthggep rejects the image and lists its channels.")
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(channels(["DAPI", "CD3", "CD8"], PLANES), id="fluorescence of three channels"),
        pytest.param(channels(["DAPI"], PLANES[:1]), id="fluorescence of one channel"),
        pytest.param(
            channels(["DAPI", "CD3", "CD8", "PanCK"], np.concatenate([PLANES, PLANES[:1]])),
            id="fluorescence of four channels",
        ),
    ],
)
def test_stains_are_no_colors(tmp_path: Path, write):
    write(tmp_path / "slide.ome.tif")
    with pytest.raises(ValueError, match=r"'DAPI'.*stains, not colors"):
        open_levels(tmp_path / "slide.ome.tif")


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_png_of_16_bits(tmp_path: Path, bits: int):
    """Pillow would keep the upper 8 bits alone: a 12-bit camera's slide would be black."""
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels = RGB.astype(np.uint16) * 257 if bits == 16 else RGB.astype(np.uint16) << (bits - 8)
    (tmp_path / "slide.png").write_bytes(imagecodecs.png_encode(pixels))
    pixels = open_levels(tmp_path / "slide.png")[0].read([[0, 0, 128, 96]])[0]
    assert np.abs(pixels.astype(int) - RGB).max() <= 1


def test_all_resolutions_have_one_range(tmp_path: Path):
    """The largest values of a 12-bit slide are lost in its coarsest resolution, which alone would pass for 10 bits."""
    fine = np.full((256, 256, 3), 900, np.uint16)
    fine[::16, ::16] = 4095
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tif:
        options = {"photometric": "rgb", "tile": (64, 64)}
        tif.write(fine, subifds=1, **options)
        tif.write(np.full((64, 64, 3), 900, np.uint16), subfiletype=1, **options)
    levels = open_levels(tmp_path / "slide.tif")
    coarse = levels[1].read([[0, 0, 4, 4]])[0]
    assert (coarse == round(900 * 255 / 4095)).all()
    assert (levels[0].read([[1, 1, 4, 4]])[0] == coarse[0, 0]).all()


def test_a_dark_image_of_odd_depth_is_doubted(tmp_path: Path):
    tifffile.imwrite(tmp_path / "slide.tif", np.full((64, 64, 3), 2100, np.uint16), photometric="rgb")
    with pytest.warns(UserWarning, match=r"up to 2100 \(uint16\), which sthggep takes for 12 bits"):
        open_levels(tmp_path / "slide.tif")[0].read([[0, 0, 4, 4]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["tif", "jpg", "tif.gz"])
def test_pixels_are_read_as_they_are_stored(tmp_path: Path, kind: str, orientation: int, caplog):
    """Coordinates refer to stored pixels: sthggep turns no image, and says so."""
    path = tmp_path / f"slide.{kind}"
    plain = tmp_path / path.name.removesuffix(".gz")
    if kind == "jpg":
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(RGB).save(path, exif=exif, quality=95, subsampling=0)
    else:
        tifffile.imwrite(plain, RGB, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    if kind.endswith("gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
    pixels = open_levels(path)[0].read([[0, 0, 128, 96]])[0]
    assert np.abs(pixels[5:90, 5:120].astype(int) - RGB[5:90, 5:120]).mean() < 2
    assert ("as they are stored" in caplog.text) == (orientation != 1)
