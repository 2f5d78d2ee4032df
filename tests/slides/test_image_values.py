"""Images whose values no H&E image has."""

from __future__ import annotations

import io
import sys

import dask.array as da
import numpy as np
import pytest
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

from sthggep import datasets, pp
from sthggep._log import Default, log
from sthggep._slides._resolve import resolve_one

QUIET = {"show_progress_bar": False}


@pytest.fixture(scope="module")
def he(toy: AnnData) -> NDArray[np.uint8]:
    return toy.uns["spatial"]["toy1"]["images"]["hires"]


def with_image(toy: AnnData, image: object) -> AnnData:
    slide = toy.copy()
    slide.uns["spatial"]["toy1"]["images"]["hires"] = image
    return slide


def spatial_data(image: NDArray[np.generic]) -> SpatialData:
    sdata = datasets.toy(size_um=(2000.0, 2000.0), mpp=2.0, n_genes=20, as_spatialdata=True)
    (name,) = sdata.images
    systems = get_transformation(sdata.images[name], get_all=True)
    pixels = np.moveaxis(np.atleast_3d(image), -1, 0)
    sdata.images[name] = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=systems)
    return sdata


@pytest.mark.handles("sthggep rejects the image. The message says how to convert floats and how to name the H&E.")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: np.rint(p / 255).astype(np.uint8), id="floats from 0 to 1 as integers of 8 bits"),
        pytest.param(lambda p: np.rint(p / 255).astype(np.int16), id="floats from 0 to 1 as integers of 16 bits"),
        pytest.param(lambda p: (p[..., 0] < 150).astype(np.uint8), id="a gray mask of 0 and 1"),
        pytest.param(lambda p: (p < 150).astype(np.uint8), id="a mask of 0 and 1 in color"),
    ],
)
def test_images_of_0_and_1(toy: AnnData, he: NDArray[np.uint8], change):
    image = change(he)
    words = r"from 0 to 255, or from 0 to 1 as floats, found only 0 and 1 as u?int\d+\. .*\(image \* 255\)\.round.*`image_key=`"
    for slide in (with_image(toy, image), with_image(toy, da.from_array(image)), spatial_data(image)):
        with pytest.raises(ValueError, match=words):
            pp.features(slide, "shufflenet", size_um=100, weights="random", **QUIET)
        with pytest.raises(ValueError, match=words):
            pp.tissue_grid(slide)


@pytest.mark.parametrize(
    "container", [with_image, lambda _, image: spatial_data(image)], ids=["AnnData", "SpatialData"]
)
def test_the_range_of_values_is_logged_once_a_section_with_its_name(
    toy: AnnData, he: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, container
):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    monkeypatch.setattr(log, "handlers", [Default()])
    monkeypatch.setattr(log, "propagate", False)
    for brightest in (1.0, 0.9):  # another call may see another largest value
        slide = container(toy, (he / 255 * brightest).astype(np.float32))
        for level in resolve_one(slide).levels:
            level.sample(50)
    lines = [line for line in stream.getvalue().splitlines() if "image values" in line]
    assert len(lines) == 1
    assert lines[0].startswith("Section toy1: image values (float32, up to ")
    assert lines[0].endswith(" in a sample) are read as 0-1.")
