"""Pictures that stand beside the H&E, or in its place, in an AnnData or a SpatialData."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity

from sthggep import pp
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one

XY = np.array([[100.0, 80.0], [200.0, 150.0], [310.0, 220.0]])


def tissue() -> NDArray[np.uint8]:
    """Glass with tissue in one half, 400 x 300 pixels."""
    rgb = np.full((300, 400, 3), 240, np.uint8)
    rgb[60:260, 40:200] = (200, 120, 170)
    rgb[90:150, 80:140] = (90, 60, 140)
    return rgb


HE = tissue()
LABELS = np.kron(np.arange(12).reshape(3, 4), np.ones((100, 100))).astype(int)


def section(images: dict[str, object], scales: dict[str, float] | None = None, **metadata: object) -> ad.AnnData:
    adata = ad.AnnData(np.ones((3, 2), np.float32))
    adata.obsm["spatial"] = XY.copy()
    factors = {f"tissue_{key}_scalef": (scales or {}).get(key, 1.0) for key in images}
    adata.uns["spatial"] = {"S1": {"images": dict(images), "scalefactors": factors, "metadata": metadata}}
    return adata


def assert_is_he(adata: ad.AnnData, half: int = 10, **options: object) -> None:
    for patch, (x, y) in zip(pp.patches(adata, size_px=2 * half, **options)[:], XY.astype(int), strict=True):
        np.testing.assert_allclose(patch, HE[y - half : y + half, x - half : x + half], atol=1)


# --- which of several ---------------------------------------------------------------------------------------------


@pytest.mark.handles("sthggep reads the image in color. To read the other image, pass `image_key=`.")
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(LABELS.astype(np.int32), id="mask of labels beside the H&E"),
        pytest.param(LABELS.astype(np.uint16), id="mask of 16 bits beside the H&E"),
        pytest.param(LABELS > 3, id="mask of truth values beside the H&E"),
        pytest.param(sparse.csr_matrix(LABELS), id="sparse mask beside the H&E"),
        pytest.param(HE[..., 0], id="gray image (DAPI) beside the H&E"),
        pytest.param(np.zeros((300, 400, 5), np.uint8), id="five stains beside the H&E"),
        pytest.param(np.zeros((300, 400, 2), np.float32), id="two stains beside the H&E"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_what_stands_beside_the_he(other: object, order: int):
    images = dict([("hires", HE), ("another", other)][::order])
    adata = section(images)
    assert_is_he(adata)
    del adata.uns["spatial"]["S1"]["scalefactors"]["tissue_another_scalef"]
    assert_is_he(adata)


@pytest.mark.handles("sthggep does not choose between the images. It lists their keys: pass one as `image_key=`.")
@pytest.mark.parametrize(
    ("other", "scale"),
    [
        pytest.param(HE[40:260, 40:360], 1.0, id="crop beside hires"),
        pytest.param(HE[:150], 1.0, id="upper half beside hires"),
        pytest.param(255 - HE, 1.0, id="image of the same size that shows something else"),
        pytest.param(np.repeat(LABELS[..., None] * 20, 3, -1).astype(np.uint8), 1.0, id="mask in color beside hires"),
        pytest.param(HE[:, ::-1].copy(), 1.0, id="mirrored image beside hires"),
        pytest.param(np.rot90(HE).copy(), 1.0, id="turned image beside hires"),
        pytest.param(HE, 0.9, id="scale factor that does not fit"),
    ],
)
def test_images_that_disagree(other: NDArray[np.uint8], scale: float):
    adata = section({"hires": HE[::2, ::2], "another": other}, {"hires": 0.5, "another": scale})
    with pytest.raises(ValueError, match=r"no resolutions of one image.*`image_key=` \(one of 'hires', 'another'\)"):
        resolve_one(adata)
    assert resolve_one(adata, Places(image_key="hires")).levels[0].scale == (0.5, 0.5)
    if scale == 1.0 and other.shape == HE.shape:
        assert resolve_one(adata, Places(image_key="another")).levels[0].shape == (300, 400)


@pytest.mark.parametrize("turned", [False, True])
def test_a_source_file_that_shows_something_else_is_doubted(tmp_path: Path, turned: bool, recwarn):
    """Its size is that of hires, so that it may be the raw file of a slide that was brightened."""
    Image.fromarray(HE[::-1, ::-1] if turned else HE).save(tmp_path / "he.png")
    adata = section({"hires": HE[::2, ::2]}, {"hires": 0.5}, source_image_path=str(tmp_path / "he.png"))
    assert [level.scale[0] for level in resolve_one(adata).levels] == [1.0, 0.5]
    said = [str(warning.message) for warning in recwarn if "`image_key='hires'`" in str(warning.message)]
    assert len(said) == turned


def test_two_gray_images_that_disagree():
    adata = section({"hires": HE[..., 0], "dapi": 255 - HE[..., 0]})
    with pytest.raises(ValueError, match="no resolutions of one image"):
        resolve_one(adata)


def test_masks_alone_are_no_image():
    with pytest.raises(ValueError, match=r"holds no H&E image, but what looks like masks: 'segmentation'"):
        resolve_one(section({"segmentation": LABELS.astype(np.int32)}))


# --- in what form -------------------------------------------------------------------------------------------------


def as_file(kind: type) -> Callable[[Path], object]:
    def write(folder: Path) -> object:
        Image.fromarray(HE).save(folder / "he.png")
        return kind(folder / "he.png")

    return write


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: Image.fromarray(HE), id="image of Pillow"),
        pytest.param(lambda _: Image.fromarray(HE).convert("RGBA"), id="image of Pillow with alpha"),
        pytest.param(lambda _: Image.fromarray(HE).convert("CMYK"), id="image of Pillow in CMYK"),
        pytest.param(lambda _: Image.fromarray(HE).quantize(16), id="image of Pillow with a palette"),
        pytest.param(as_file(str), id="path as text"),
        pytest.param(as_file(Path), id="path"),
        pytest.param(lambda folder: np.array(as_file(str)(folder)), id="path in an array"),
        pytest.param(lambda _: xr.DataArray(HE, dims=("y", "x", "c")), id="xarray of y, x, c"),
        pytest.param(lambda _: xr.DataArray(np.moveaxis(HE, -1, 0), dims=("c", "y", "x")), id="xarray of c, y, x"),
        pytest.param(
            lambda _: xr.DataArray(HE[:, :, None], dims=("y", "x", "z", "channels")), id="xarray with one plane of z"
        ),
        pytest.param(
            lambda _: xr.DataArray(HE[..., ::-1], dims=("y", "x", "c"), coords={"c": ["b", "g", "r"]}),
            id="xarray of blue, green, red",
        ),
        pytest.param(lambda _: xr.DataArray(HE), id="xarray without names of dimensions"),
        pytest.param(lambda _: HE.tolist(), id="list of lists"),
        pytest.param(lambda _: da.from_array(HE, chunks=(64, 64, 3)), id="dask"),
    ],
)
def test_forms_of_an_image(tmp_path: Path, make):
    assert_is_he(section({"hires": make(tmp_path)}))


@pytest.mark.handles("sthggep rejects the image and lists the accepted types.")
@pytest.mark.parametrize(
    ("image", "error"),
    [
        pytest.param(None, TypeError, id="no image at all"),
        pytest.param(b"\xff\xd8", TypeError, id="bytes of a JPEG"),
        pytest.param(7, TypeError, id="a number as image"),
        pytest.param([[1, 2], [3]], TypeError, id="list of unequal lists"),
        pytest.param(xr.DataArray(HE, dims=("a", "b", "c")), TypeError, id="xarray of unknown dimensions"),
        pytest.param(xr.Dataset({"he": (("y", "x", "c"), HE)}), TypeError, id="data set of xarray"),
        pytest.param(Image.new("LAB", (4, 4)), ValueError, id="image of Pillow in CIELab"),
        pytest.param("absent.png", FileNotFoundError, id="path of no file"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), ValueError, id="image of no height"),
    ],
)
def test_what_is_no_image(image: object, error: type[Exception]):
    with pytest.raises(error, match=r"hires|absent\.png|LAB|empty"):
        resolve_one(section({"hires": image}))


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("form", ["uns", "float", "SpatialData"])
def test_depth_of_arrays(bits: int, form: str):
    deep = HE.astype(np.uint16) * 257 if bits == 16 else HE.astype(np.uint16) << (bits - 8)
    deep = deep.astype(np.float32) if form == "float" else deep
    data = spatial(he=deep) if form == "SpatialData" else section({"hires": deep})
    assert_is_he(data)


@pytest.mark.handles("sthggep rejects the image: it holds labels, or its values are outside the range of images.")
@pytest.mark.parametrize(
    "image",
    [
        pytest.param(HE.astype(np.uint32) * 1000, id="integers beyond 65535"),
        pytest.param(HE.astype(np.float64) * 1000, id="floats beyond 65535"),
        pytest.param(HE / 127.5 - 1, id="floats from -1 to 1"),
    ],
)
def test_values_of_no_image(image: NDArray[np.generic]):
    with pytest.raises(ValueError, match="Expected image values"):
        pp.patches(section({"hires": image}), size_px=20)[:]


@pytest.mark.handles("sthggep rejects the image: an alpha channel is opaque or transparent nearly everywhere.")
@pytest.mark.parametrize(
    "fourth",
    [
        pytest.param(np.zeros((300, 400)), id="fourth channel of zeros"),
        pytest.param(LABELS * 15, id="fourth channel of a stain"),
        pytest.param(np.full((300, 400), 7), id="fourth channel of one small value"),
    ],
)
@pytest.mark.parametrize("form", ["uns", "SpatialData"])
def test_a_fourth_channel_that_is_no_alpha(fourth: NDArray[np.generic], form: str):
    image = np.concatenate([HE, fourth[..., None].astype(np.uint8)], axis=-1)
    with pytest.raises(ValueError, match="the fourth is no alpha"):
        resolve_one(spatial(he=image) if form == "SpatialData" else section({"hires": image}))


# --- SpatialData --------------------------------------------------------------------------------------------------


def element(image: NDArray[np.generic], names: list[str] | None = None):
    lazy = da.from_array(np.moveaxis(np.atleast_3d(image), -1, 0), chunks=(4, 128, 128))
    return Image2DModel.parse(lazy, dims=("c", "y", "x"), c_coords=names, transformations={"global": Identity()})


def spatial(**images: object) -> SpatialData:
    """A SpatialData with images, arrays or pairs of an array and the names of its channels."""
    table = ad.AnnData(np.ones((3, 2), np.float32))
    table.obs["region"], table.obs["spot_id"] = "spots", np.arange(3)
    table.obs["region"] = table.obs["region"].astype("category")
    shapes = ShapesModel.parse(XY, geometry=0, radius=5, transformations={"global": Identity()})
    elements = {key: element(*image) if isinstance(image, tuple) else element(image) for key, image in images.items()}
    table = TableModel.parse(table, region="spots", region_key="region", instance_key="spot_id")
    return SpatialData(images=elements, shapes={"spots": shapes}, tables={"table": table})


FIVE = np.zeros((300, 400, 5), np.uint8)


@pytest.mark.parametrize(
    "images",
    [
        pytest.param({"he": HE, "mask": LABELS.astype(np.int32)}, id="mask"),
        pytest.param({"he": HE, "dapi": HE[..., 0]}, id="gray"),
        pytest.param({"dapi": (HE[..., :1], ["DAPI"]), "he": HE}, id="gray with a name"),
        pytest.param({"stains": (FIVE, ["DAPI", "18S", "a", "b", "c"]), "he": HE}, id="five stains"),
        pytest.param({"stains": (255 - HE, ["DAPI", "CD3", "CD8"]), "he": HE}, id="three stains"),
        pytest.param({"he": (HE, ["r", "g", "b"]), "other": 255 - HE}, id="colors with names"),
        pytest.param({"he": (HE[..., ::-1], ["b", "g", "r"])}, id="blue, green, red"),
        pytest.param({"he": (HE, ["Red", "Green", "Blue"])}, id="names in full"),
        pytest.param({"A_full_image": HE, "A_hires_image": HE[::2, ::2]}, id="full and hires"),
        pytest.param({"A_full_image": HE, "A_cytassist_image": 255 - HE}, id="CytAssist"),
    ],
)
def test_the_image_of_a_spatialdata(images: dict):
    assert_is_he(spatial(**images))


@pytest.mark.handles("sthggep does not choose an image. Pass `image_key=`.")
@pytest.mark.parametrize(
    ("images", "words"),
    [
        pytest.param({"he": HE, "crop": HE[:200, :300]}, r"several images \('he', 'crop'\)", id="crop beside the H&E"),
        pytest.param({"A_full_image": HE, "he": HE}, "several images", id="full image beside another"),
        pytest.param({"stains": (HE, ["DAPI", "CD3", "CD8"])}, "none in color or gray.*stains", id="stains alone"),
        pytest.param({"dapi": (HE[..., :1], ["DAPI"])}, "none in color or gray.*stains", id="DAPI alone"),
        pytest.param({"mask": LABELS.astype(np.int32)}, "none in color or gray.*a mask", id="mask alone"),
    ],
)
def test_images_of_a_spatialdata_to_choose_from(images: dict, words: str):
    sdata = spatial(**images)
    with pytest.raises((ValueError, KeyError), match=words):
        resolve_one(sdata)
    key = next(iter(images))
    if key == "stains":
        with pytest.warns(UserWarning, match="'DAPI', 'CD3', 'CD8': these are no colors"):
            assert_is_he(sdata, image_key=key)
    elif key != "dapi" and key != "mask":
        assert_is_he(sdata, image_key=key)


def test_scales_of_several_images_are_refused():
    scales = {f"scale{i}": xr.Dataset({"image": element(image)}) for i, image in enumerate((HE, HE[:100, :300]))}
    sdata = spatial(he=HE)
    sdata.images["he"] = xr.DataTree.from_dict(scales)
    with pytest.raises(ValueError, match="resolutions of the image 'he' are not of one image"):
        resolve_one(sdata)
