"""Sections of a SpatialData: transformations, pyramids, several images and regions."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr
from numpy.typing import NDArray
from shapely import box
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import (
    Affine,
    Identity,
    Scale,
    Sequence,
    Translation,
    get_transformation,
    get_transformation_between_coordinate_systems,
)

from sthggep import datasets, io, pp
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve, resolve_image, resolve_one

WIDTH, HEIGHT = 400, 300
XY = np.array([[100.0, 80.0], [200.0, 150.0], [310.0, 220.0], [60.0, 200.0]])


def exact_image(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Pixels that hold their position: red x, green y (modulo 256), blue the number of the block of 256."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8)


def image_element(image: NDArray[np.uint8], systems: dict, scale_factors: list[int] | None = None):
    lazy = da.from_array(np.moveaxis(image, -1, 0), chunks=(3, 64, 64))
    return Image2DModel.parse(lazy, dims=("c", "y", "x"), scale_factors=scale_factors, transformations=systems)


def table_for(regions: dict[str, NDArray[np.int64]], obs: dict | None = None) -> ad.AnnData:
    """A table whose rows name the shapes of each region by their index."""
    instances = np.concatenate(list(regions.values()))
    names = np.repeat(list(regions), [len(one) for one in regions.values()])
    adata = ad.AnnData(
        np.ones((len(instances), 2), np.float32),
        obs=pd.DataFrame(
            {"region": pd.Categorical(names), "spot_id": instances, **(obs or {})},
            index=[f"{name}-{i}" for name, i in zip(names, instances, strict=True)],
        ),
        var=pd.DataFrame(index=["G1", "G2"]),
    )
    return TableModel.parse(adata, region=list(regions), region_key="region", instance_key="spot_id")


def build(
    images: dict,
    shapes_systems: dict,
    xy: NDArray[np.float64] = XY,
    *,
    radius: float = 10.0,
    obs: dict | None = None,
    region: str = "spots",
) -> SpatialData:
    shapes = ShapesModel.parse(xy, geometry=0, radius=radius, transformations=shapes_systems)
    return SpatialData(
        images=images, shapes={region: shapes}, tables={"table": table_for({region: np.arange(len(xy))}, obs)}
    )


def assert_refused(sdata: SpatialData, error: type[Exception], words: str, call=resolve, **options: object) -> None:
    """Check that the call raises with these words and changes nothing."""
    table = next(iter(sdata.tables.values()), ad.AnnData())
    before = (table.copy(), {name: set(get_transformation(e, get_all=True)) for name, e in sdata.images.items()})
    with pytest.raises(error, match=words):
        call(sdata, **options)
    pd.testing.assert_frame_equal(table.obs, before[0].obs)
    assert (set(table.obsm), set(table.uns)) == (set(before[0].obsm), set(before[0].uns))
    assert {name: set(get_transformation(e, get_all=True)) for name, e in sdata.images.items()} == before[1]


def assert_exact(patches: pp.Patches, xy: NDArray[np.float64], image: NDArray[np.uint8], half: int = 10) -> None:
    for patch, (x, y) in zip(patches[:], np.asarray(xy).astype(int), strict=True):
        np.testing.assert_array_equal(patch, image[y - half : y + half, x - half : x + half])


# --- transformations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale_factors", [None, [2], [2, 2]])
def test_single_and_multiscale_images(scale_factors):
    image = exact_image()
    sdata = build({"he": image_element(image, {"global": Identity()}, scale_factors)}, {"global": Identity()})
    patches = pp.patches(sdata, size_px=20)
    assert [level.scale for level in patches.slide.levels] == [
        (0.5**i, 0.5**i) for i in range(len(scale_factors or []) + 1)
    ]
    assert_exact(patches, XY, image)
    assert patches.slide.spot_diameter == 20
    assert patches.slide.name == "spots"


def test_rows_are_matched_to_shapes_by_instance():
    image = exact_image()
    sdata = build({"he": image_element(image, {"global": Identity()})}, {"global": Identity()})
    sdata.shapes["spots"] = sdata.shapes["spots"].iloc[[2, 0, 3, 1]]
    sdata.tables["table"] = sdata.tables["table"][[3, 1, 0]].copy()
    patches = pp.patches(sdata, size_px=20)
    np.testing.assert_array_equal(patches.slide.xy, XY[[3, 1, 0]])
    assert_exact(patches, XY[[3, 1, 0]], image)


def test_spots_in_microns_over_a_scaled_and_shifted_image():
    # as Xenium: spots in µm, image with its own pixel size and corner
    image = exact_image()
    to_um = Sequence([Scale([0.5, 0.5], ("x", "y")), Translation([7.0, -11.0], ("x", "y"))])
    sdata = build(
        {"he": image_element(image, {"um": to_um}, [2])}, {"um": Identity()}, XY * 0.5 + [7.0, -11.0], radius=5
    )
    patches = pp.patches(sdata, size_px=20)
    np.testing.assert_allclose(patches.slide.xy, XY)
    assert_exact(patches, np.rint(patches.slide.xy), image)
    assert patches.slide.spot_diameter == pytest.approx(20)


@pytest.mark.parametrize("degrees", [90, 180, 30])
def test_patches_are_upright_in_the_pixels_of_a_rotated_image(degrees):
    image = exact_image()
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle), 30], [np.sin(angle), np.cos(angle), -20], [0, 0, 1]])
    matrix[:2, :2] *= 0.25
    turn = Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
    world = XY @ matrix[:2, :2].T + matrix[:2, 2]
    sdata = build({"he": image_element(image, {"global": turn})}, {"global": Identity()}, world, radius=1)
    slide = resolve_one(sdata)
    np.testing.assert_allclose(slide.xy, XY, atol=1e-9)
    assert slide.spot_diameter == pytest.approx(8)
    sdata.shapes["spots"].geometry = sdata.shapes["spots"].geometry.translate(1e-4, 1e-4)  # off the seam between pixels
    half = pp.patches(sdata, size_px=20).boxes()
    np.testing.assert_allclose(half[:, 0], XY[:, 0] - 10, atol=1)
    assert_exact(pp.patches(sdata, size_px=20), half[:, :2] + 10, image)


def test_patches_of_polygons_are_at_their_center():
    image = exact_image()
    from shapely.geometry import box

    squares = gpd.GeoDataFrame(geometry=[box(x - 4, y - 4, x + 4, y + 4) for x, y in XY])
    sdata = build({"he": image_element(image, {"global": Identity()})}, {"global": Identity()})
    sdata.shapes["spots"] = ShapesModel.parse(squares, transformations={"global": Identity()})
    slide = resolve_one(sdata)
    np.testing.assert_allclose(slide.xy, XY)
    assert slide.spot_diameter is None


# --- the Visium layout --------------------------------------------------------------------------------------------


def visium(full: bool = True) -> SpatialData:
    """Data as of `spatialdata_io.visium`: one system of full-resolution pixels, two of smaller images, none "global"."""
    hires = {"S1_downscaled_hires": Identity(), "S1": Scale([4, 4], ("x", "y"))}
    lowres = {"S1_downscaled_lowres": Identity(), "S1": Scale([10, 10], ("x", "y"))}
    images = {
        "S1_hires_image": image_element(exact_image(100, 75), hires),
        "S1_lowres_image": image_element(exact_image(40, 30), lowres),
    }
    if full:
        images["S1_full_image"] = image_element(exact_image(), {"S1": Identity()}, [2])
    systems = {
        "S1": Identity(),
        "S1_downscaled_hires": Scale([0.25, 0.25], ("x", "y")),
        "S1_downscaled_lowres": Scale([0.1, 0.1], ("x", "y")),
    }
    sdata = build(images, systems, region="S1")
    sdata.tables["table"].uns["spatial"] = {"library": {"metadata": {"mpp": 0.5, "software_version": "x"}}}
    return sdata


def test_visium_layout():
    sdata = visium()
    with pytest.raises(
        RuntimeError, match="Multiple equal paths"
    ):  # the transformation of spatialdata does not work here
        get_transformation_between_coordinate_systems(sdata, sdata["S1"], sdata["S1_hires_image"])
    patches = pp.patches(sdata, size_px=20)
    assert_exact(patches, XY, exact_image())
    assert (patches.slide.mpp, patches.slide.mpp_source) == (0.5, "metadata")


def test_visium_layout_with_hires_only():
    slide = resolve_one(visium(full=False))
    np.testing.assert_allclose(slide.xy, XY / 4)
    assert_exact(pp.Patches(slide, size_px=10), np.floor(XY / 4), exact_image(100, 75), half=5)
    assert slide.size == (100, 75)
    assert slide.spot_diameter == pytest.approx(5)
    # the table refers to full-resolution pixels; each pixel of this image holds 16 of them
    assert slide.mpp == pytest.approx(2.0)


def test_visium_layout_with_lowres_only():
    sdata = visium(full=False)
    del sdata.images["S1_hires_image"]
    assert_refused(sdata, KeyError, "found only a preview, 'S1_lowres_image', too coarse.*Pass `image_key=`")
    assert resolve_one(sdata, Places(image_key="S1_lowres_image")).size == (40, 30)


def test_image_of_another_coordinate_system():
    sdata = visium()
    assert resolve_one(sdata, Places(image_key="S1_lowres_image")).size == (40, 30)
    np.testing.assert_allclose(resolve_one(sdata, Places(coordinate_system="S1_downscaled_hires")).xy, XY / 4)
    assert_refused(
        sdata,
        KeyError,
        "not in coordinate system 'global'; they are in 'S1'",
        places=Places(coordinate_system="global"),
    )
    assert_refused(
        sdata, KeyError, "'he' is not in the images of the SpatialData, which holds", places=Places(image_key="he")
    )
    assert_refused(
        sdata,
        KeyError,
        "found no image",
        places=Places(image_key="S1_full_image", coordinate_system="S1_downscaled_hires"),
    )


# --- several images, several regions ------------------------------------------------------------------------------


def test_several_images_need_a_choice():
    image = exact_image()
    images = {
        "he": image_element(image, {"global": Identity(), "he_px": Identity()}),
        "dapi": image_element(255 - image, {"global": Identity()}),
    }
    sdata = build(images, {"global": Identity(), "he_px": Identity()})
    assert_refused(
        sdata, ValueError, r"several images \('dapi', 'he'\).*`image_key=` or `coordinate_system=`|'he', 'dapi'"
    )
    assert_exact(pp.patches(sdata, size_px=20, image_key="dapi"), XY, 255 - image)
    assert_exact(pp.patches(sdata, size_px=20, coordinate_system="he_px"), XY, image)


def two_regions() -> SpatialData:
    images = {
        "A_full_image": image_element(exact_image(), {"A": Identity()}),
        "B_full_image": image_element(255 - exact_image(), {"B": Identity()}),
    }
    shapes = {
        name: ShapesModel.parse(xy, geometry=0, radius=10, transformations={name: Identity()})
        for name, xy in {"A": XY[:2], "B": XY[2:]}.items()
    }
    table = table_for({"A": np.arange(2), "B": np.arange(2)})
    return SpatialData(images=images, shapes=shapes, tables={"table": table[[3, 0, 2, 1]].copy()})


def test_regions_of_one_table_are_sections():
    sdata = two_regions()
    first, second = resolve(sdata)
    assert (first.name, first.rows.tolist(), second.name, second.rows.tolist()) == ("A", [1, 3], "B", [0, 2])
    np.testing.assert_array_equal(second.xy, XY[[3, 2]])
    assert_exact(pp.Patches(first, size_px=20), XY[:2], exact_image())
    assert_exact(pp.patches(sdata, shapes_key="B", size_px=20), XY[[3, 2]], 255 - exact_image())
    assert_refused(sdata, ValueError, "One section was expected, found 2: 'A', 'B'", call=pp.patches)
    assert_refused(sdata, KeyError, "does not annotate 'C'; it annotates 'A', 'B'", places=Places(shapes_key="C"))


def test_a_region_without_spots():
    sdata = two_regions()
    table = sdata.tables["table"]
    only = table[table.obs["region"] == "A"].copy()
    only.uns["spatialdata_attrs"]["region"] = ["A"]
    sdata.tables["table"] = only
    only.uns["spatialdata_attrs"]["region"] = ["A", "B"]
    (section,) = resolve(sdata)
    assert (section.name, section.n_spots) == ("A", 2)
    assert_refused(sdata, ValueError, "no spots of region 'B'.*with rows: 'A'", places=Places(shapes_key="B"))


def test_missing_shapes_are_named():
    sdata = build({"he": image_element(exact_image(), {"global": Identity()})}, {"global": Identity()})
    whole = sdata.shapes["spots"]
    sdata.shapes["spots"] = whole.iloc[:3]
    assert_refused(sdata, ValueError, "lacks 1 of them: '3'")
    sdata.shapes["spots"] = whole.set_axis([0, 1, 2, 2]).rename_axis(None)
    sdata.tables["table"].obs["spot_id"] = [0, 1, 2, 2]
    assert_refused(sdata, ValueError, "index has duplicates")


def test_no_such_table():
    sdata = build({"he": image_element(exact_image(), {"global": Identity()})}, {"global": Identity()})
    assert_refused(
        sdata,
        KeyError,
        "'cells' is not in the tables of the SpatialData, which holds 'table'",
        places=Places(table_key="cells"),
    )
    del sdata.tables["table"]
    with pytest.raises(KeyError, match="which holds nothing"):
        pp.features(sdata, size_um=50, weights="random")


def test_spots_outside_the_image():
    sdata = build(
        {"he": image_element(exact_image(), {"global": Identity()})}, {"global": Identity()}, XY[:, ::-1] + 0.0
    )
    assert_refused(sdata, ValueError, "fit when x and y are swapped")
    sdata = build({"he": image_element(exact_image(), {"global": Identity()})}, {"global": Identity()}, XY * 10)
    assert_refused(sdata, ValueError, "4 of 4 spots lie outside")


# --- microns ------------------------------------------------------------------------------------------------------


def test_bin_size_of_visium_hd_is_in_the_name_of_its_shapes():
    y, x = np.divmod(np.arange(16), 4)
    xy = np.column_stack([x, y]) * 16.0 + 30
    sdata = build(
        {"he": image_element(exact_image(), {"S": Identity()})},
        {"S": Identity()},
        xy,
        obs={"array_row": y, "array_col": x},
        region="S_square_008um",
    )
    slide = resolve_one(sdata)
    assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.5), "spot pitch")


# --- pyramids and files -------------------------------------------------------------------------------------------


def with_spots(sdata: SpatialData, xy: NDArray[np.float64]) -> SpatialData:
    sdata.shapes["spots"] = ShapesModel.parse(xy, geometry=0, radius=10, transformations={"global": Identity()})
    sdata.tables["table"] = table_for({"spots": np.arange(len(xy))})
    return sdata


def test_levels_that_are_not_exact_halves(tmp_path: Path):
    # 603 pixels in 301 and in 150: factors of 2.0033 and 4.02
    y, x = np.mgrid[:603, :603] + 0.5
    full = np.stack([x * 255 / 603, y * 255 / 603, x * 0], axis=-1)
    levels = [np.asarray(full)]
    for side in (301, 150):
        at = (np.arange(side) + 0.5) * 255 / side
        levels.append(
            np.stack([np.tile(at, (side, 1)), np.tile(at[:, None], (1, side)), np.zeros((side, side))], axis=-1)
        )
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tif:
        for i, level in enumerate(levels):
            more = {"subifds": 2} if i == 0 else {"subfiletype": 1}
            tif.write(np.rint(level).astype(np.uint8), photometric="rgb", tile=(64, 64), **more)
    xy = np.array([[100.0, 120.0], [510.0, 510.0], [301.5, 480.0]])
    sdata = with_spots(io.read_slide(tmp_path / "slide.tif", mpp=0.5), xy)
    scales = []
    for size_um in (20, 45, 85):
        patches = pp.patches(sdata, size_um=size_um, size_px=40)
        scales.append(patches.level.scale[0])
        middle = patches[:][..., :2].mean(axis=(1, 2)) * 603 / 255
        np.testing.assert_allclose(middle, xy, atol=3.2)
        # the box is exact to half a pixel of its level
        center = (patches.boxes()[:, :2] + patches.boxes()[:, 2:]) / 2
        np.testing.assert_allclose(center, xy, atol=0.51 / patches.level.scale[0])
    assert scales == [1.0, pytest.approx(301 / 603), pytest.approx(150 / 603)]
    assert patches.slide.mpp_source == "metadata"


def test_zarr_round_trip_is_read_lazily(tmp_path: Path):
    image = exact_image()
    build({"he": image_element(image, {"global": Identity()}, [2])}, {"global": Identity()}).write(tmp_path / "s.zarr")
    sdata = read_zarr(tmp_path / "s.zarr")
    patches = pp.patches(sdata, size_px=20)
    assert all(hasattr(level.array, "dask") for level in patches.slide.levels)
    assert [level.scale for level in patches.slide.levels] == [(1.0, 1.0), (0.5, 0.5)]
    assert_exact(patches, XY, image)


def test_image_is_read_on_access():
    reads = []

    def block(block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return np.zeros((3, 64, 64), np.uint8)

    lazy = da.map_blocks(block, chunks=((3,), (64,) * 5, (64,) * 7), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    element = Image2DModel.parse(lazy, dims=("c", "y", "x"), transformations={"global": Identity()})
    patches = pp.patches(build({"he": element}, {"global": Identity()}), size_px=60)
    assert reads == []
    patches[:]
    assert len(reads) == len(set(reads)) < 20


# --- both forms of one section ------------------------------------------------------------------------------------


def test_toy_is_the_same_in_both_forms():
    options = {"size_um": (1200.0, 1000.0), "mpp": 1.0, "n_genes": 8, "seed": 3}
    adata, sdata = datasets.toy(**options), datasets.toy(**options, as_spatialdata=True)
    of_anndata, of_spatialdata = resolve_one(adata), resolve_one(sdata)
    np.testing.assert_allclose(of_anndata.xy, of_spatialdata.xy)
    assert (of_anndata.mpp, of_anndata.spot_diameter, of_anndata.name) == (
        of_spatialdata.mpp,
        of_spatialdata.spot_diameter,
        of_spatialdata.name,
    )
    np.testing.assert_array_equal(of_anndata.array_xy(), of_spatialdata.array_xy())
    for size in ({"size_px": 64}, {"size_um": 64, "size_px": 64}):
        np.testing.assert_array_equal(pp.patches(adata, **size)[:], pp.patches(sdata, **size)[:])


class WSIData(SpatialData):
    """Replaces the class of LazySlide's slides, a SpatialData with properties of the slide."""


def wsi(image: NDArray[np.uint8], mpp: float | None = 0.5) -> WSIData:
    """Make a slide as `wsidata` does: levels in their own pixels, a thumbnail, square tiles, a table of features."""
    levels = {
        f"scale{i}": xr.Dataset(
            {"image": image_element(image[::step, ::step], {"global": Scale([step] * 2, ("y", "x"))})}
        )
        for i, step in enumerate((1, 4))
    }
    small = image_element(image[::10, ::10], {"global": Scale([10, 10], axes=("x", "y"))})
    tiles = gpd.GeoDataFrame(geometry=[box(x - 8, y - 8, x + 8, y + 8) for x, y in XY])
    return WSIData(
        images={"wsi": xr.DataTree.from_dict(levels), "wsi_thumbnail": small},
        shapes={"tiles": ShapesModel.parse(tiles, transformations={"global": Identity()})},
        tables={"uni_tiles": table_for({"tiles": np.arange(len(XY))})},
        attrs={"slide_properties": {"mpp": mpp, "shape": [HEIGHT, WIDTH]}},
    )


def test_wsidata():
    image = exact_image()
    (slide,) = resolve(wsi(image))
    assert (slide.name, slide.image, slide.mpp, slide.mpp_source) == ("tiles", "wsi", 0.5, "metadata")
    np.testing.assert_allclose(slide.xy, XY)
    assert [level.scale for level in slide.levels] == [(1.0, 1.0), (0.25, 0.25)]
    fine = pp.patches(wsi(image), size_um=8.0, size_px=16)[:]
    for patch, (x, y) in zip(fine, XY.astype(int), strict=True):
        np.testing.assert_array_equal(patch, image[y - 8 : y + 8, x - 8 : x + 8])
    # The coarse level shows the same tissue
    coarse = pp.patches(wsi(image), size_um=32.0, size_px=16)[:]
    for patch, (x, y) in zip(coarse, XY, strict=True):
        np.testing.assert_allclose(patch[..., :2].mean(axis=(0, 1)), (x % 256, y), atol=3)
    # A thumbnail that `image_key` names has its own resolution
    (small,) = resolve(wsi(image), Places(image_key="wsi_thumbnail"))
    assert small.mpp == pytest.approx(5.0)
    bare = wsi(image)
    del bare.tables["uni_tiles"]
    assert resolve_image(bare).mpp == 0.5
    assert resolve_image(bare, Places(image_key="wsi_thumbnail")).mpp == pytest.approx(5.0)
    assert resolve(wsi(image, mpp=None))[0].mpp is None


def test_levels_with_other_factors_along_x_and_y():
    """The second level has half the rows, a quarter of the columns, and its own coordinates."""
    image = exact_image()
    sdata = wsi(image)
    coarse = image_element(image[::2, ::4], {"global": Scale([2, 4], ("y", "x"))})
    levels = {"scale0": sdata.images["wsi"]["scale0"].to_dataset(), "scale1": xr.Dataset({"image": coarse})}
    sdata.images["wsi"] = xr.DataTree.from_dict(levels)
    (slide,) = resolve(sdata)
    assert [level.scale for level in slide.levels] == [(1.0, 1.0), (0.25, 0.5)]
    assert [level.shape for level in slide.levels] == [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 4)]
    x, y = XY[1].astype(int)
    coarser = slide.levels[1]
    place = (np.array([x, y, x + 4, y + 2]) * np.tile(coarser.scale, 2)).astype(int)
    np.testing.assert_array_equal(coarser.read([place])[0][0, 0], image[y, x])


def test_subclasses_of_spatialdata_are_spatialdata():
    sdata = build({"he": image_element(exact_image(), {"global": Identity()})}, {"global": Identity()})
    wsi_data = WSIData(images=sdata.images, shapes=sdata.shapes, tables=sdata.tables)
    np.testing.assert_array_equal(resolve_one(wsi_data).xy, XY)
