"""Coordinates (`obsm["spatial"]`) in other forms, and slides that are still on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sthggep import pl, pp, tl
from sthggep._slides._resolve import resolve_one

QUIET = {"show_progress_bar": False}


@pytest.fixture
def slide(toy: ad.AnnData) -> ad.AnnData:
    return toy.copy()


def table(slide: ad.AnnData, xy: np.ndarray, columns: list[Any] | None = None) -> pd.DataFrame:
    return pd.DataFrame(xy, index=slide.obs_names, columns=columns)


FORMS = [
    pytest.param(lambda s, xy: table(s, xy), id="a table"),
    pytest.param(lambda s, xy: table(s, xy, ["x", "y"]), id="a table with columns x and y"),
    pytest.param(lambda s, xy: table(s, xy[:, ::-1], ["y", "x"]), id="a table with y before x"),
    pytest.param(
        lambda s, xy: table(s, np.column_stack([xy, xy[:, 0]]), ["x", "y", "z"]), id="a table with x, y and z"
    ),
    pytest.param(lambda s, xy: np.column_stack([xy, np.full(len(xy), np.nan)]), id="three columns"),
    pytest.param(lambda s, xy: np.rint(xy).astype(np.int32), id="integers"),
    pytest.param(lambda s, xy: np.rint(xy).astype(np.uint16), id="integers without a sign"),
    pytest.param(lambda s, xy: xy.astype(object), id="numbers as objects"),
    pytest.param(lambda s, xy: xy.astype(str), id="numbers as text"),
    pytest.param(lambda s, xy: sparse.csr_matrix(xy), id="a sparse matrix"),
    pytest.param(lambda s, xy: da.from_array(xy, chunks=7), id="a dask array"),
]


@pytest.mark.handles("sthggep reads the columns named x and y, or else the first two columns.")
@pytest.mark.parametrize("form", FORMS)
def test_forms_that_are_read(slide: ad.AnnData, form: Callable[[ad.AnnData, np.ndarray], Any]):
    xy = np.asarray(slide.obsm["spatial"])
    slide.obsm["spatial"] = form(slide, xy)
    np.testing.assert_allclose(resolve_one(slide).xy, xy, atol=0.5)


@pytest.mark.handles("sthggep rejects the coordinates and names the expected form.")
@pytest.mark.parametrize(
    ("form", "words"),
    [
        pytest.param(lambda s, xy: xy[:, :1], r"shape \(\d+, 1\)", id="one column"),
        pytest.param(lambda s, xy: table(s, np.array([["a", "b"]] * len(xy))), "must hold numbers", id="words"),
        pytest.param(
            lambda s, xy: np.where(np.arange(len(xy))[:, None] < 2, np.nan, xy),
            "2 spots without coordinates",
            id="NaN for two spots",
        ),
        pytest.param(
            lambda s, xy: np.where(np.arange(len(xy))[:, None] < 1, np.inf, xy),
            "1 spot without coordinates",
            id="infinity",
        ),
        pytest.param(lambda s, xy: xy * 0, "have the same coordinates", id="zeros"),
        pytest.param(lambda s, xy: xy * 100, "lie outside the image", id="pixels of another image"),
    ],
)
def test_forms_that_are_refused(slide: ad.AnnData, form: Callable[[ad.AnnData, np.ndarray], Any], words: str):
    slide.obsm["spatial"] = form(slide, np.asarray(slide.obsm["spatial"]))
    with pytest.raises(ValueError, match=words):
        resolve_one(slide)


def test_spots_off_the_tissue_need_no_coordinates(slide: ad.AnnData):
    slide.obs["in_tissue"] = [0] + [1] * (slide.n_obs - 1)
    slide.obsm["spatial"][0] = np.nan
    assert resolve_one(slide).n_spots == slide.n_obs - 1


# --- the whole way, under another key -----------------------------------------------------------------------------


@pytest.fixture
def predicted(slide: ad.AnnData, light_model) -> ad.AnnData:
    slide.obsm["X_spatial"] = slide.obsm.pop("spatial")
    tl.predict(slide, light_model, spatial_key="X_spatial", **QUIET)
    return slide


def test_coordinates_under_another_key_come_along(predicted: ad.AnnData, light_model, tmp_path: Path):
    made = tl.to_adata(predicted)
    np.testing.assert_array_equal(made.obsm["X_spatial"], predicted.obsm["X_spatial"])
    assert "spatial" not in made.obsm
    assert pl.gene_map(made, made.var_names[0], image=False, spatial_key="X_spatial").axes
    del predicted.uns["hggep"]["params"]["spatial_key"]  # as earlier predictions
    assert "X_spatial" not in tl.to_adata(predicted).obsm
    assert "X_spatial" in tl.to_adata(predicted, spatial_key="X_spatial").obsm
    with pytest.raises(KeyError, match="'xy' is not in obsm, which holds"):
        tl.to_adata(predicted, spatial_key="xy")
    tl.predict(predicted, light_model, spatial_key="X_spatial", out=tmp_path / "out.h5ad", key_added="file", **QUIET)
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(written.obsm["X_spatial"], predicted.obsm["X_spatial"])


@pytest.mark.parametrize("columns", [["x", "y"], ["y", "x"], [0, 1]])
def test_a_table_of_coordinates_goes_into_predictions_as_an_array(slide: ad.AnnData, light_model, columns: list[Any]):
    xy = np.asarray(slide.obsm["spatial"])
    slide.obsm["spatial"] = table(slide, xy[:, ::-1] if columns[0] == "y" else xy, columns)
    tl.predict(slide, light_model, **QUIET)
    made = tl.to_adata(slide)
    assert isinstance(made.obsm["spatial"], np.ndarray)
    np.testing.assert_array_equal(made.obsm["spatial"], xy)


def test_a_grid_over_a_slide_whose_coordinates_have_another_key(slide: ad.AnnData, light_model, tmp_path: Path):
    from sthggep._slides._places import Places
    from sthggep.tl._slide_files import open_with_spots

    slide.obsm["X_spatial"] = slide.obsm.pop("spatial")
    slide.write_h5ad(tmp_path / "slide.h5ad")
    grid, places = open_with_spots(tmp_path / "slide.h5ad", Places(spatial_key="X_spatial"), 200.0)
    tl.predict(grid, light_model, spatial_key=places.spatial_key, **QUIET)
    assert np.isfinite(grid.obsm["hggep"]).all()


# --- slides that are still on disk --------------------------------------------------------------------------------


@pytest.mark.handles("sthggep rejects the slide. The message says: call `adata.to_memory()`.")
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda data, model: tl.predict(data, model, **QUIET), id="a lazily read slide to predict"),
        pytest.param(lambda data, model: tl.to_adata(data), id="a lazily read prediction"),
        pytest.param(lambda data, model: tl.evaluate(data), id="a lazily read slide to score"),
        pytest.param(lambda data, model: pp.patches(data, size_um=80), id="a lazily read slide to cut"),
        pytest.param(lambda data, model: pp.gene_panel(data), id="a lazily read slide to choose genes"),
        pytest.param(lambda data, model: pl.gene_map(data, "FAT1"), id="a lazily read slide to draw"),
    ],
)
def test_lazily_read(slide: ad.AnnData, light_model, tmp_path: Path, call):
    slide.write_zarr(tmp_path / "slide.zarr")
    with pytest.raises(TypeError, match=r"`adata\.to_memory\(\)`"):
        call(ad.experimental.read_lazy(tmp_path / "slide.zarr"), light_model)


@pytest.mark.parametrize("sparse_chunks", [False, True])
def test_counts_in_dask_give_the_same(slide: ad.AnnData, light_model, sparse_chunks: bool):
    expected = slide.copy()
    dense = slide.X.toarray() if sparse.issparse(slide.X) else np.asarray(slide.X)
    lazy = da.from_array(dense, chunks=(10, slide.n_vars))
    slide.X = lazy.map_blocks(sparse.csr_matrix) if sparse_chunks else lazy
    tables = []
    for data in (slide, expected):
        tl.predict(data, light_model, **QUIET)
        tables.append((pp.gene_panel(data), tl.evaluate(data)))
    assert tables[0][0] == tables[1][0]
    pd.testing.assert_frame_equal(tables[0][1], tables[1][1])
