"""Toy tissue in the folders of each platform goes from the reader to a report, by the calls of the documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import squidpy as sq
import tifffile
from anndata import AnnData
from PIL import Image

from sthggep import datasets, pl, pp, tl

spatialdata_io = pytest.importorskip("spatialdata_io")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*deprecated:FutureWarning")

SIZE_UM = 320  # the only field of view: smaller ones take most of the time
QUIET = {"show_progress_bar": False}


def toy_image(toy: AnnData) -> np.ndarray:
    """Return the full-resolution image of toy tissue."""
    (library,) = toy.uns["spatial"].values()
    return library["images"].get("fullres", library["images"]["hires"])


def shrunk(image: np.ndarray, factors: dict[str, int]) -> dict[str, np.ndarray]:
    return {name: np.asarray(Image.fromarray(image).reduce(factor)) for name, factor in factors.items()}


def positions(toy: AnnData, barcodes: list[str]) -> pd.DataFrame:
    """The table of positions of Space Ranger, with columns x and y in pixels."""
    x, y = toy.obsm["spatial"].T
    rows, columns = toy.obs["array_y"].to_numpy(), toy.obs["array_x"].to_numpy()
    values = {"in_tissue": 1, "array_row": rows, "array_col": columns, "y": y, "x": x}
    return pd.DataFrame(values, index=barcodes)


def write_counts(writers: SimpleNamespace, path: Path, toy: AnnData, barcodes: list[str], **attrs: Any) -> None:
    ids = [f"ENSMUSG{number:011d}" for number in range(toy.n_vars)]
    writers.counts(path, barcodes, toy.X, ids, list(toy.var_names), **attrs)


def assert_to_report(data: Any, genes: list[str], tmp_path: Path, **places: Any) -> AnnData:
    """Train on the left half, predict and judge the right one, export and report all; return the predictions."""
    table = data if isinstance(data, AnnData) else data[places.get("table_key", "table")]
    x = table.obsm["spatial"][:, 0]
    table.obs["left"] = x < np.median(x)
    pp.features(data, size_um=SIZE_UM, encoding="tissue", flips=False, **places, **QUIET)
    model = tl.fit(data, measured="left", genes=genes, size_um=SIZE_UM, n_members=0, **places, **QUIET)
    tl.predict(data, model, **places, **QUIET)
    assert np.isfinite(table.obsm["hggep"]).all()
    scores, verdicts = tl.evaluate(data, **places), tl.trust(data, **places)
    assert list(scores.index) == list(verdicts.index) == genes
    # the tissue says where stroma and fat are, and nothing of the noise
    assert scores.loc[["STRO1", "FAT1"], "pearson"].min() > max(0.25, scores.loc["NOISE1", "pearson"])
    pl.gene_map(data, ["STRO1"], save=tmp_path / "map.png", **places)
    page = pl.report(data, tmp_path / "report.html", model=model, **places).read_text()
    assert all(f'"{gene}"' in page for gene in genes)
    predicted = tl.to_adata(data, table_key=places.get("table_key", "table"))
    predicted.to_df().to_parquet(tmp_path / "predicted.parquet")
    back = pd.read_parquet(tmp_path / "predicted.parquet")
    np.testing.assert_array_equal(back.to_numpy(), table.obsm["hggep"])
    assert list(back.index) == list(table.obs_names)
    assert list(back.columns) == genes
    return predicted


# --- Visium -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def visium() -> AnnData:
    """About 200 spots of toy tissue on the array of Visium."""
    return datasets.toy(seed=3, size_um=(1900.0, 1900.0), mpp=2.0, pitch_um=100.0, layout="hex", n_genes=14)


@pytest.fixture
def visium_outs(visium: AnnData, writers: SimpleNamespace, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes ``outs`` of a version of Space Ranger, with the name of the library or without it."""

    def write(version: int, *, library: str | None = "toy") -> Path:
        path = tmp_path / "outs"
        barcodes = [f"{'ACGT'[i % 4]}{i:015d}-1" for i in range(visium.n_obs)]
        attrs = {} if library is None else {"library_ids": np.array([library.encode()])}
        write_counts(writers, path / "filtered_feature_bc_matrix.h5", visium, barcodes, **attrs)
        image = toy_image(visium)
        small = shrunk(image, {"hires": 2, "lowres": 8})
        writers.spatial(path, version, positions(visium, barcodes), small, {"hires": 0.5, "lowres": 0.125}, 2.0)
        tifffile.imwrite(path / "slide.tif", image, photometric="rgb", tile=(256, 256))
        return path

    return write


@pytest.mark.parametrize(("version", "read"), [(1, sc.read_visium), (2, sq.read.visium)], ids=["scanpy", "squidpy"])
def test_visium_as_anndata(visium: AnnData, visium_outs: Callable[..., Path], version: int, read: Any, tmp_path: Path):
    outs = visium_outs(version)
    adata = read(outs, source_image_path=outs / "slide.tif")
    assert_to_report(adata, list(visium.var_names), tmp_path)
    assert list(adata.uns["spatial"]) == ["toy"]


def test_visium_without_the_name_of_its_library(visium: AnnData, visium_outs: Callable[..., Path], tmp_path: Path):
    """Space Ranger 3 with CytAssist: the readers want the name, as the documentation says."""
    outs = visium_outs(3, library=None)
    with pytest.raises(KeyError, match="library_ids"):
        sq.read.visium(outs)
    with pytest.raises(ValueError, match="dataset_id"):
        spatialdata_io.visium(outs)
    sdata = spatialdata_io.visium(outs, dataset_id="toy", fullres_image_file="slide.tif")
    predicted = assert_to_report(sdata, list(visium.var_names), tmp_path)
    adata = sq.read.visium(outs, library_id="toy", source_image_path=outs / "slide.tif")
    np.testing.assert_allclose(predicted[adata.obs_names].obsm["spatial"], adata.obsm["spatial"])


# --- Visium HD ----------------------------------------------------------------------------------------------------


def test_visium_hd(writers: SimpleNamespace, tmp_path: Path):
    toy = datasets.toy(seed=3, size_um=(700.0, 700.0), mpp=1.0, pitch_um=16.0, n_genes=14, counts_per_spot=800.0)
    places = toy.obs[["array_y", "array_x"]].itertuples(index=False)
    barcodes = [f"s_016um_{row:05}_{column:05}-1" for row, column in places]
    path, image = tmp_path / "outs", toy_image(toy)
    write_counts(
        writers,
        path / "binned_outputs/square_016um/filtered_feature_bc_matrix.h5",
        toy,
        barcodes,
        library_ids=np.array([b"toy"]),
    )
    names = {"y": "pxl_row_in_fullres", "x": "pxl_col_in_fullres"}
    bins = positions(toy, barcodes).rename(columns=names).rename_axis("barcode").reset_index()
    writers.bins(path, 16, bins, 1.0)
    writers.hd_images(path, shrunk(image, {"hires": 2, "lowres": 8}), image)
    sdata = spatialdata_io.visium_hd(
        path, dataset_id="toy", bin_size=16, fullres_image_file=path / "slide.tif", load_segmentations_only=False
    )
    assert_to_report(sdata, list(toy.var_names), tmp_path, table_key="square_016um")


# --- Xenium -------------------------------------------------------------------------------------------------------


def test_xenium(writers: SimpleNamespace, tmp_path: Path):
    """Cells of toy tissue; the H&E has pixels of another size than the instrument's."""
    toy = datasets.toy(seed=3, size_um=(900.0, 900.0), mpp=1.0, pitch_um=40.0, layout="hex", n_genes=14)
    scale = 1.0 / writers.xenium_px
    pixels = np.rint(toy.obsm["spatial"] * scale - 0.5).astype(np.int64)
    side = round(900 * scale)
    path = tmp_path / "output-XETG00000__0000000__Region_1"
    ids = writers.xenium(path, pixels, (side, side), toy_image(toy), np.diag([scale, scale, 1.0]))
    write_counts(writers, path / "cell_feature_matrix.h5", toy, ids)
    sdata = spatialdata_io.xenium(path, cells_as_circles=True, transcripts=False)
    predicted = assert_to_report(sdata, list(toy.var_names), tmp_path)
    assert predicted.n_obs == toy.n_obs
