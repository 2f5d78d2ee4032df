"""Microns per pixel as metadata state them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from sthggep import io
from sthggep._image._level import open_levels, read_mpp
from sthggep._image._microns import as_number, check_mpp, check_possible, mpp_in_metadata, um_per

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *(
            (unit, 1.0)
            for unit in ("µm", "\u03bcm", "um", "UM", "micron", "Microns", "micrometer", "micrometres", "\\u00B5m")
        ),
        *((unit, 1.0) for unit in ("\u00c2\u00b5m", "&#181;m", " um. ", "\ufffdm")),
        *((unit, 1e3) for unit in ("mm", "MM", "millimeter")),
        *((unit, 1e-3) for unit in ("nm", "nanometers")),
        *((unit, 25400.0) for unit in ("inch", "in", "Inches", '"')),
        *(("cm", 1e4), ("centimetre", 1e4), ("m", 1e6), ("pm", 1e-6), ("Å", 1e-4)),
        *((unit, None) for unit in ("pixel", "", "reference frame", "s")),
    ],
)
def test_units(unit: str, expected: float | None):
    assert um_per(unit) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 0.5),
        pytest.param("0.5", 0.5, id="text"),
        ("0,5", 0.5),
        pytest.param(b"0.5", 0.5, id="bytes"),
        (np.array([0.5]), 0.5),
        (np.float32(0.5), 0.5),
        (" 5e-1 ", 0.5),
    ],
    ids=repr,
)
def test_numbers(value: object, expected: float):
    assert as_number(value) == expected
    assert mpp_in_metadata(value, "mpp") == expected


@pytest.mark.parametrize("value", [(0.25, 0.25), np.array([[0.25], [0.25]]), ("0,25", "0,25")])
def test_both_sides(value: object):
    assert mpp_in_metadata(value, "mpp") == 0.25


@pytest.mark.handles(
    "sthggep ignores the microns per pixel of the file. It uses `mpp=` or the distance of the spots; without both it raises an error that names the entry."
)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(np.nan, id="NaN"),
        pytest.param(0, id="zero"),
        pytest.param(-0.5, id="negative"),
        pytest.param(np.inf, id="infinite"),
        pytest.param("", id="empty text"),
        pytest.param("unknown", id="a word"),
        pytest.param(True, id="a truth value"),
        pytest.param((0.25, 0.5), id="pixels that are not square"),
        pytest.param((0.2, 0.2, 0.2), id="three numbers"),
        pytest.param({"x": 0.5}, id="a dictionary"),
        pytest.param(0.0005, id="millimeters"),
        pytest.param(250, id="nanometers"),
    ],
)
def test_senseless_values_name_their_place(value: object):
    with pytest.raises(ValueError, match=r"the place.*pass `mpp=`"):
        mpp_in_metadata(value, "the place")


@pytest.mark.handles("sthggep raises a TypeError: `mpp` must be one number.")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("2.0", id="mpp= as text"),
        pytest.param((2.0, 2.0), id="mpp= as a pair"),
        pytest.param(np.array([2.0, 2.0]), id="mpp= as an array of two"),
        pytest.param(True, id="mpp= as a truth value"),
        pytest.param(2j, id="mpp= as a complex number"),
    ],
)
def test_the_argument_is_one_number(value: object):
    with pytest.raises(TypeError, match="`mpp` must be one number"):
        check_mpp(value)


def test_the_argument_may_state_what_metadata_may_not():
    assert [check_possible(check_mpp(value)) for value in (0.02, 50, np.float32(0.5), np.array(2.0))] == [
        0.02,
        50,
        0.5,
        2,
    ]
    for value in (0.0005, 250):
        with pytest.raises(ValueError, match=r"`mpp` must be .* By the distance of the spots it is 0\.5"):
            check_possible(value, 0.5)


# --- files --------------------------------------------------------------------------------------------------------


def ome(path: Path, *images: tuple[np.ndarray, dict], names: tuple[str, ...] = ()) -> Path:
    with tifffile.TiffWriter(path, ome=True) as out:
        for i, (pixels, metadata) in enumerate(images):
            name = {"Name": names[i]} if names else {}
            out.write(pixels, photometric="rgb", metadata={"axes": "YXS", **metadata, **name})
    return path


def microns(x: object, y: object = None, unit: str = "µm") -> dict[str, object]:
    y = x if y is None else y
    return {"PhysicalSizeX": x, "PhysicalSizeXUnit": unit, "PhysicalSizeY": y, "PhysicalSizeYUnit": unit}


@pytest.mark.parametrize("first", ["macro", "scan"])
def test_microns_of_the_series_that_is_read(tmp_path: Path, first: str):
    images = [(PIXELS[::8, ::8].copy(), microns(8.0)), (PIXELS, microns(0.25))]
    path = ome(tmp_path / "slide.ome.tif", *(images if first == "macro" else images[::-1]))
    slide = io.read_slide(path)
    assert slide.attrs["sthggep"]["mpp"] == 0.25
    assert slide["image"]["scale0"]["image"].shape == (3, 64, 80)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (microns(250.0, unit="nm"), 0.25),
        (microns(0.00025, unit="mm"), 0.25),
        (microns(0.25, 0.2505), pytest.approx(0.25, rel=2e-3)),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}, 0.25),
        (microns(0.25, unit="pixel"), None),
        (microns(0.25, 0.5), None),
        (microns(0.0), None),
        (microns(0.0005), None),
        (microns(30.0), None),
    ],
    ids=["nm", "mm", "nearly square", "x alone", "pixel", "not square", "zero", "too fine", "too coarse"],
)
def test_what_ome_states(tmp_path: Path, metadata: dict, expected: object):
    path = ome(tmp_path / "slide.ome.tif", (PIXELS, metadata))
    assert read_mpp(path) == expected
    assert io.read_slide(path, mpp=0.7).attrs["sthggep"]["mpp"] == 0.7


def test_decimal_commas_in_ome(tmp_path: Path):
    path = ome(tmp_path / "slide.ome.tif", (PIXELS, microns(0.25)))
    path.write_bytes(path.read_bytes().replace(b'PhysicalSizeX="0.25"', b'PhysicalSizeX="0,25"'))
    assert read_mpp(path) == 0.25


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"description": "Aperio Image\r\n|MPP = 0,2527|Left = 1"}, 0.2527),
        ({"description": "Aperio Image\r\n|MPP = 0.25.27|Left"}, None),
        ({"resolution": (40000, 20000), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (40000, 40200), "resolutionunit": "CENTIMETER"}, pytest.approx(0.25, rel=5e-3)),
        ({"resolution": (101600, 101600), "resolutionunit": "INCH"}, 0.25),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "micron", "axes": "YXS"}}, 0.25),
        ({"imagej": True, "resolution": (4000.0, 4000.0), "metadata": {"unit": "mm", "axes": "YXS"}}, 0.25),
        ({"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "pixel", "axes": "YXS"}}, None),
    ],
    ids=[
        *("decimal comma", "two points", "not square", "nearly square", "inch", "print", "micron", "mm", "pixel"),
    ],
)
def test_what_other_tiffs_state(tmp_path: Path, options: dict, expected: object):
    tifffile.imwrite(tmp_path / "slide.tif", PIXELS, photometric="rgb", **options)
    assert read_mpp(tmp_path / "slide.tif") == expected


def test_senseless_ome_gives_way_to_the_resolution(tmp_path: Path):
    path = tmp_path / "slide.ome.tif"
    options = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "photometric": "rgb"}
    tifffile.imwrite(path, PIXELS, metadata={"axes": "YXS", **microns(0.0)}, ome=True, **options)
    assert read_mpp(path) == 0.5


# --- several series -----------------------------------------------------------------------------------------------


BIG = np.random.default_rng(1).integers(0, 255, (96, 100, 3), dtype=np.uint8)


def test_two_slides_in_one_file_need_a_choice(tmp_path: Path):
    path = ome(tmp_path / "slide.ome.tif", (PIXELS, microns(0.25)), (BIG, microns(0.5)))
    with pytest.raises(ValueError, match=r"several images.*series 0.*80 x 64 px.*series 1.*series=1"):
        open_levels(path)
    for series, pixels, mpp in ((0, PIXELS, 0.25), (1, BIG, 0.5)):
        slide = io.read_slide(path, series=series)
        np.testing.assert_array_equal(np.moveaxis(slide["image"]["scale0"]["image"].values, 0, -1), pixels)
        assert slide.attrs["sthggep"]["mpp"] == mpp
    with pytest.raises(ValueError, match="has no series 2"):
        open_levels(path, 2)


def test_a_small_scan_beside_a_large_macro_needs_a_choice(tmp_path: Path):
    small = PIXELS[:20, :40].copy()
    path = ome(tmp_path / "slide.ome.tif", (BIG, microns(8.0)), (small, microns(0.25)))
    with pytest.raises(ValueError, match="several images"):
        open_levels(path)
    path = ome(tmp_path / "named.ome.tif", (BIG, microns(8.0)), (small, microns(0.25)), names=("macro image", "scan"))
    assert open_levels(path)[0].shape == (20, 40)
    assert read_mpp(path) == 0.25


def test_stains_and_masks_in_one_file_are_left_out(tmp_path: Path):
    path = tmp_path / "slide.ome.tif"
    stains = np.zeros((5, 96, 100), np.uint8)
    mask = np.zeros((96, 100), np.int32)
    with tifffile.TiffWriter(path, ome=True) as out:
        out.write(stains, photometric="minisblack", metadata={"axes": "CYX", **microns(1.0)})
        out.write(PIXELS, photometric="rgb", metadata={"axes": "YXS", **microns(0.25)})
        out.write(mask, photometric="minisblack", metadata={"axes": "YX", **microns(1.0)})
    assert open_levels(path)[0].shape == (64, 80)
    assert read_mpp(path) == 0.25
    with pytest.raises(ValueError, match=re.escape(str(path))):
        open_levels(path, 0)


def test_a_picture_of_other_proportions_is_no_resolution(tmp_path: Path):
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "tile": (32, 32)}
        tif.write(BIG, subifds=2, **options)
        tif.write(BIG[::2, ::2].copy(), subfiletype=1, **options)
        tif.write(BIG[:20, :60].copy(), subfiletype=1, **options)
    assert [level.shape for level in open_levels(path)] == [(96, 100), (48, 50)]
