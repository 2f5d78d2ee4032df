"""Images whose values no H&E image has."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from anndata import AnnData
from numpy.typing import NDArray
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

from sthggep import datasets, pp

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


@pytest.mark.handles("sthggep refuses it, and says how to convert floats or how to name the H&E.")
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
