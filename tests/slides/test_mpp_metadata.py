"""Microns per pixel that metadata state, or state senselessly."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import tifffile

from sthggep import datasets, io, pp
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one


@pytest.fixture(scope="module")
def toy_slide() -> ad.AnnData:
    return datasets.toy(seed=0, size_um=(800, 800), mpp=2.0, n_genes=4)


@pytest.fixture
def slide(toy_slide: ad.AnnData) -> ad.AnnData:
    """A section of 2 µm a pixel, whose array tells nothing of it."""
    adata = toy_slide.copy()
    adata.obs = adata.obs[[]]
    library(adata)["metadata"].pop("pitch_um", None)
    return adata


def library(adata: ad.AnnData) -> dict:
    return next(iter(adata.uns["spatial"].values()))


@pytest.mark.handles(
    "sthggep ignores the value. It uses `mpp=` or the distance of the spots; without both it raises an error that names the entry."
)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(np.nan, id="mpp of NaN in the metadata"),
        pytest.param(0, id="mpp of zero in the metadata"),
        pytest.param("", id="mpp of empty text in the metadata"),
        pytest.param("n/a", id="mpp of a word in the metadata"),
        pytest.param(np.array([2.0, 3.0]), id="mpp of pixels that are not square in the metadata"),
        pytest.param(0.002, id="mpp in millimeters in the metadata"),
        pytest.param(2000, id="mpp in nanometers in the metadata"),
    ],
)
def test_senseless_mpp_is_overruled(slide: ad.AnnData, toy_slide: ad.AnnData, value: object, caplog):
    library(slide)["metadata"]["mpp"] = value
    assert resolve_one(slide, Places(mpp=2.0)).mpp == 2.0
    with pytest.raises(ValueError, match=r"uns\['spatial'\]\[.*\]\['metadata'\]\['mpp'\].*pass `mpp=`"):
        resolve_one(slide)
    with_pitch = toy_slide.copy()
    library(with_pitch)["metadata"] |= {"mpp": value, "pitch_um": library(toy_slide)["metadata"]["pitch_um"]}
    assert resolve_one(with_pitch).mpp == pytest.approx(2.0, rel=0.05)
    assert "sthggep does not use it" in caplog.text
    library(slide)["scalefactors"]["microns_per_pixel"] = 1.9
    assert resolve_one(slide).mpp == 1.9


@pytest.mark.parametrize("value", ["2.0", "2,0", np.array([2.0]), (2.0, 2.0)])
def test_numbers_in_other_forms(slide: ad.AnnData, value: object):
    library(slide)["metadata"]["mpp"] = value
    assert resolve_one(slide).mpp == 2.0


@pytest.mark.parametrize("value", [np.nan, "", "wide", -3])
def test_senseless_pitch_and_diameter_are_left_out(slide: ad.AnnData, value: object):
    library(slide)["metadata"] |= {"pitch_um": value, "mpp": 2.0}
    library(slide)["scalefactors"]["spot_diameter_fullres"] = value
    resolved = resolve_one(slide)
    assert (resolved.mpp, resolved.spot_diameter) == (2.0, None)


@pytest.mark.parametrize("value", [np.nan, "", 0.0005])
def test_senseless_mpp_of_a_spatialdata(value: object):
    sdata = datasets.toy(seed=0, size_um=(800, 800), mpp=2.0, n_genes=4, as_spatialdata=True)
    for table in sdata.tables.values():
        table.obs = table.obs[["region", "spot_id"]] if "spot_id" in table.obs else table.obs
        table.uns["spatial"] = {"x": {"metadata": {"mpp": value}}}
    assert resolve_one(sdata, Places(mpp=2.0)).mpp == 2.0
    with pytest.raises(ValueError, match=r"mpp in the metadata of the table.*pass `mpp=`"):
        resolve_one(sdata)


@pytest.mark.handles("sthggep rejects the value before it reads a pixel.")
@pytest.mark.parametrize(
    "mpp",
    [
        pytest.param(0.0005, id="mpp= in millimeters"),
        pytest.param(500.0, id="mpp= in nanometers"),
        pytest.param("2.0", id="mpp= of text"),
        pytest.param((2.0, 2.0), id="mpp= of two numbers"),
    ],
)
def test_the_argument(slide: ad.AnnData, mpp: object, tmp_path: Path):
    with pytest.raises((TypeError, ValueError), match="`mpp` must be"):
        pp.patches(slide, size_um=80, mpp=mpp)
    tifffile.imwrite(tmp_path / "slide.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises((TypeError, ValueError), match="`mpp` must be"):
        io.read_slide(tmp_path / "slide.tif", mpp=mpp)


def test_a_field_of_view_of_a_gigapixel_is_refused(slide: ad.AnnData):
    with pytest.raises(ValueError, match=r"40,000 full-resolution pixels wide, too large.*`mpp=`"):
        pp.patches(slide, size_um=80_000, mpp=2.0)


def test_large_fields_of_view_are_read_a_few_at_a_time(slide: ad.AnnData, monkeypatch: pytest.MonkeyPatch):
    whole = pp.patches(slide, size_um=160, size_px=20)[:]
    monkeypatch.setattr("sthggep._slides._patches._MOST_BYTES", 3 * 80**2 * 2)
    cut = pp.patches(slide, size_um=160, size_px=20)
    sizes = []
    read = cut.level.read
    monkeypatch.setattr(cut.level, "read", lambda boxes: sizes.append(len(boxes)) or read(boxes))
    np.testing.assert_array_equal(cut[:], whole)
    assert max(sizes) == 2
    assert sum(sizes) == len(cut)


@pytest.mark.parametrize("fits", [True, False])
def test_microns_of_a_file_count_if_it_holds_the_image(slide: ad.AnnData, tmp_path: Path, fits: bool):
    pixels = library(slide)["images"]["hires"]
    options = {"photometric": "rgb", "resolution": (1e4 / 1.5,) * 2, "resolutionunit": 3}
    tifffile.imwrite(tmp_path / "slide.tif", pixels if fits else pixels[: len(pixels) // 2], **options)
    library(slide)["metadata"] = {"source_image_path": str(tmp_path / "slide.tif")}
    assert resolve_one(slide).mpp == (pytest.approx(1.5, rel=1e-3) if fits else None)
