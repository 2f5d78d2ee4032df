"""Data from the readers of each platform: every patch comes from the place of its spot, with the counts of that spot."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scanpy as sc
import squidpy as sq
from PIL import Image

from sthggep import pp, tl
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one
from sthggep._slides._slide import Slide
from sthggep._table._counts import read_panel_counts

spatialdata_io = pytest.importorskip("spatialdata_io")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*deprecated:FutureWarning")

Folders = Callable[[int], object]


def assert_counts_of_spots(slide: Slide, folder) -> None:
    """Check that rows have the folder's barcodes and the counts that encode their place in the array."""
    spots = folder.spots.loc[[str(name) for name in slide.adata.obs_names[slide.rows]]]
    counts = read_panel_counts(slide.adata, ["COL", "ROW"], rows=slide.rows)
    np.testing.assert_array_equal(counts, spots[["array_col", "array_row"]])
    # symbols and Ensembl ids name the same genes, since readers return both
    np.testing.assert_array_equal(
        read_panel_counts(slide.adata, ["ENSG00000000002.7", "ENSG00000000001.2"], rows=slide.rows), counts[:, ::-1]
    )


def assert_in_place(data, folder, atol: float = 1e-6, **options: object) -> Slide:
    """Check that patches hold the pixels around the true places of the spots, at full resolution."""
    patches = pp.patches(data, size_px=16, **options)
    spots = folder.spots.loc[[str(name) for name in patches.slide.adata.obs_names[patches.slide.rows]]]
    xy = spots[["x", "y"]].to_numpy(dtype=float)
    np.testing.assert_allclose(patches.slide.xy, xy, atol=atol)
    corners = patches.boxes()[:, :2].astype(int)
    assert np.abs(corners + 8 - xy).max() <= 1
    for patch, (x, y) in zip(patches[:], corners, strict=True):
        np.testing.assert_array_equal(patch, folder.image[y : y + 16, x : x + 16])
    assert_counts_of_spots(patches.slide, folder)
    return patches.slide


def assert_on_ramp(slide: Slide, folder, step: float = 4.0) -> None:
    """Check that colors of a coarser image give the place of the spots, to one of its pixels."""
    spots = folder.spots.loc[[str(name) for name in slide.adata.obs_names[slide.rows]]]
    width = 4 / slide.levels[0].scale[0]
    patches = pp.Patches(slide, size_um=width * slide.require_mpp(), size_px=4)
    middle = (patches[:][..., :2].mean(axis=(1, 2)) + 0.5) * step
    np.testing.assert_allclose(middle, spots[["x", "y"]], atol=1 / slide.levels[0].scale[0] + step)


# --- Visium -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_visium_as_spatialdata(visium_folder: Folders, version: int):
    folder = visium_folder(version)
    sdata = spatialdata_io.visium(folder.path, dataset_id="S1", fullres_image_file="slide.tif")
    slide = assert_in_place(sdata, folder)
    assert slide.name == "S1"
    assert slide.n_spots == folder.spots["in_tissue"].sum()
    assert slide.mpp == pytest.approx(folder.mpp, rel=1e-3)
    assert slide.spot_diameter == pytest.approx(65 / folder.mpp)


def test_visium_as_spatialdata_without_the_full_resolution(visium_folder: Folders):
    folder = visium_folder(2)
    slide = resolve_one(spatialdata_io.visium(folder.path, dataset_id="S1"))
    assert slide.mpp == pytest.approx(folder.mpp * 4, rel=1e-3)  # of the hires image
    np.testing.assert_allclose(slide.xy * 4, folder.spots.loc[slide.adata.obs_names, ["x", "y"]])
    patches = pp.Patches(slide, size_um=4 * slide.mpp, size_px=4)
    np.testing.assert_allclose((patches[:][..., :2].mean(axis=(1, 2)) + 0.5), slide.xy, atol=1.5)
    assert_counts_of_spots(slide, folder)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("read", [sq.read.visium, sc.read_visium], ids=["squidpy", "scanpy"])
@pytest.mark.parametrize("full", [True, False], ids=["fullres", "hires"])
def test_visium_as_anndata(visium_folder: Folders, version: int, read: Callable, full: bool, tmp_path: Path):
    folder = visium_folder(version)
    path = folder.path
    if full:
        # A file is used if it shows the same as the smaller image
        path = shutil.copytree(folder.path, tmp_path / "outs")
        Image.fromarray(folder.image).reduce(4).save(path / "spatial" / "tissue_hires_image.png")
    adata = read(path, source_image_path=path / "slide.tif" if full else None)
    with pytest.raises(ValueError, match=r"'MATR3'.*var_names_make_unique"):
        resolve_one(adata)
    adata.var_names_make_unique()
    slide = resolve_one(adata)
    assert (slide.name, slide.mpp) == ("S1", pytest.approx(folder.mpp, rel=1e-3))
    if full:
        assert_in_place(adata, folder)
        assert [level.scale[0] for level in slide.levels] == [1.0, 0.25]
    else:
        assert_on_ramp(slide, folder)
        assert_counts_of_spots(slide, folder)


def test_spots_off_the_tissue(visium_folder: Folders, caplog: pytest.LogCaptureFixture):
    folder = visium_folder(2)
    adata = sq.read.visium(folder.path, counts_file="raw_feature_bc_matrix.h5")
    adata.var_names_make_unique()
    sdata = spatialdata_io.visium(folder.path, dataset_id="S1", counts_file="raw_feature_bc_matrix.h5")
    n_on_tissue = int(folder.spots["in_tissue"].sum())
    for data, table in ((adata, adata), (sdata, sdata["table"])):
        assert table.n_obs == len(folder.spots)
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="sthggep"):
            slide = resolve_one(data)
        assert (
            f"leaves out {len(folder.spots) - n_on_tissue} of {len(folder.spots)} spots, which are off the tissue"
            in caplog.text
        )
        assert slide.n_spots == n_on_tissue
        assert (table.obs["in_tissue"].to_numpy()[slide.rows] == 1).all()
        assert_counts_of_spots(slide, folder)
        pp.features(data, size_um=80, weights="random", encoder="shufflenet", flips=False, show_progress_bar=False)
        with_features = np.isfinite(table.obsm["X_shufflenet_80"]).all(axis=1)
        np.testing.assert_array_equal(with_features, table.obs["in_tissue"] == 1)
        pp.hypergraph(data, features="X_shufflenet_80")
        assert table.obsm["hypergraph"].shape == (table.n_obs, 2 * n_on_tissue)
        assert table.obsm["hypergraph"].sum(axis=1)[~with_features].sum() == 0
    table.obs["in_tissue"] = 0
    with pytest.raises(ValueError, match=r"expected spots on tissue, but obs\['in_tissue'\] is 0 for all 100"):
        resolve_one(sdata)
    del table.obs["in_tissue"]
    assert resolve_one(sdata).n_spots == 100


# --- Visium HD ----------------------------------------------------------------------------------------------------


def read_hd(folder, **options: object):
    return spatialdata_io.visium_hd(
        folder.path,
        dataset_id="S1",
        fullres_image_file=folder.path / "slide.tif",
        load_segmentations_only=False,
        **options,
    )


@pytest.mark.parametrize("squares", [True, False])
def test_visium_hd(hd_folder, squares: bool, caplog: pytest.LogCaptureFixture):
    sdata = read_hd(hd_folder, bin_size=8, bins_as_squares=squares)
    with caplog.at_level(logging.INFO, logger="sthggep"):
        slide = assert_in_place(sdata, hd_folder)
    assert "The SpatialData holds one table, 'square_008um'; sthggep uses it" in caplog.text
    assert slide.n_spots == hd_folder.spots["in_tissue"].sum()
    assert slide.mpp == pytest.approx(0.5)


def test_visium_hd_with_several_bins(hd_folder):
    sdata = read_hd(hd_folder)
    with pytest.raises(KeyError, match=r"'table' is not in the tables.*'square_008um', 'square_016um'.*table_key"):
        resolve_one(sdata)
    assert_in_place(sdata, hd_folder, table_key="square_008um")
    coarse = resolve_one(sdata, Places(table_key="square_016um"))
    assert (coarse.mpp, coarse.pitch()) == (pytest.approx(0.5), pytest.approx(32))


# --- Xenium -------------------------------------------------------------------------------------------------------


def test_xenium_with_a_turned_image(xenium_folder):
    sdata = spatialdata_io.xenium(xenium_folder.path)
    assert sdata["table"].uns["spatialdata_attrs"]["region"] == "cell_labels"
    # the H&E is the image in color; cells are labels of a raster; no metadata state the pixel size of the H&E
    slide = assert_in_place(sdata, xenium_folder)
    assert (slide.image, slide.name) == ("he_image", "cell_labels")
    assert (slide.mpp, slide.mpp_source) == (pytest.approx(xenium_folder.mpp, rel=1e-6), "metadata")
    assert len(slide.levels) == 5


def test_xenium_cells_as_circles(xenium_folder):
    sdata = spatialdata_io.xenium(xenium_folder.path, cells_as_circles=True, transcripts=False)
    slide = assert_in_place(sdata, xenium_folder)
    assert slide.mpp == pytest.approx(xenium_folder.mpp, rel=1e-6)
    assert slide.spot_diameter == pytest.approx(2 * np.sqrt(60 / np.pi) / xenium_folder.mpp)


def test_xenium_with_fluorescence_images_only(xenium_folder):
    sdata = spatialdata_io.xenium(xenium_folder.path, aligned_images=False, transcripts=False)
    with pytest.raises(KeyError, match=r"none in color or gray.*'morphology_focus': stains.*image_key="):
        resolve_one(sdata)
    with pytest.warns(UserWarning, match="these are no colors"):
        slide = resolve_one(sdata, Places(image_key="morphology_focus"))
    assert (slide.image, slide.mpp) == ("morphology_focus", pytest.approx(0.2125))


def test_missing_labels_are_named(xenium_folder):
    sdata = spatialdata_io.xenium(xenium_folder.path, transcripts=False)
    sdata["table"].obs["cell_labels"] += 1
    with pytest.raises(ValueError, match="name the labels 'cell_labels' by their number, but 1 of them"):
        resolve_one(sdata)


def test_small_labels_are_found_in_a_finer_raster(xenium_folder, monkeypatch: pytest.MonkeyPatch):
    from sthggep._slides import _labels

    sdata = spatialdata_io.xenium(xenium_folder.path, transcripts=False)
    fine = resolve_one(sdata).xy
    monkeypatch.setattr(_labels, "ENOUGH_PX", 1)  # begin with the coarsest, 43 × 56
    assert np.abs(resolve_one(sdata).xy - fine).max() < 10
    sdata["table"].uns["spatialdata_attrs"]["region"] = "nucleus_labels"
    sdata["table"].obs["region"] = "nucleus_labels"
    monkeypatch.undo()
    np.testing.assert_allclose(resolve_one(sdata).xy, fine, atol=1e-6)


def test_labels_without_coordinates_have_the_centers_of_their_pixels():
    from xarray import DataArray

    from sthggep._slides._labels import _centers

    raster = np.array([[1, 1, 0], [0, 2, 2], [0, 2, 2]])
    for coords, scale in ({}, 1.0), ({"x": [2.0, 6.0, 10.0], "y": [2.0, 6.0, 10.0]}, 4.0):
        centers = _centers(DataArray(raster, dims=("y", "x"), coords=coords))
        np.testing.assert_allclose(centers.loc[1, ["x", "y"]], np.array([1.0, 0.5]) * scale)
        np.testing.assert_allclose(centers.loc[2, ["x", "y"]], np.array([2.0, 2.0]) * scale)


# --- predictions on them ------------------------------------------------------------------------------------------


def test_prediction_on_visium_is_written_to_the_table(visium_folder: Folders, light_model, tmp_path):
    from spatialdata import read_zarr

    folder = visium_folder(2)
    sdata = spatialdata_io.visium(folder.path, dataset_id="S1", fullres_image_file="slide.tif")
    tl.predict(sdata, light_model, show_progress_bar=False)
    sdata.write(tmp_path / "s.zarr")
    copy = read_zarr(tmp_path / "s.zarr")
    np.testing.assert_array_equal(copy["table"].obsm["hggep"], sdata["table"].obsm["hggep"])
    assert list(copy["table"].uns["hggep"]["genes"]) == light_model.genes
    predicted = tl.to_adata(copy)
    copy["predicted"] = predicted
    assert copy["predicted"].uns["spatialdata_attrs"]["region"] == "S1"
