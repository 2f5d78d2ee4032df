"""Real Visium sections, slides and reader fixtures: from the reader to a report, or to a refusal that says what to call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import squidpy as sq
from anndata import AnnData
from PIL import Image

from sthggep import HGGEP, datasets, io, pl, pp, tl

spatialdata_io = pytest.importorskip("spatialdata_io")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*deprecated:FutureWarning")

SIZE_UM = 640  # the only field of view: smaller ones take most of the time
N_SPOTS = 160
QUIET = {"show_progress_bar": False}


def folder(root: Path, name: str) -> Path:
    """Return a folder of the data; skip the test by its name where it is absent."""
    path = root / name
    if not path.exists():
        pytest.skip(f"Needs {name} in $STHGGEP_DATA.")
    return path


def nearest(adata: AnnData, center: np.ndarray | None = None) -> np.ndarray:
    """Positions of the spots around a center, by default the middle of the section."""
    xy = adata.obsm["spatial"]
    center = np.median(xy, axis=0) if center is None else center
    return np.sort(np.argsort(((xy - center) ** 2).sum(axis=1), kind="stable")[:N_SPOTS])


def to_report(slide: AnnData, path: Path, **learned: Any) -> tuple[HGGEP, AnnData, pd.DataFrame]:
    """Train on the left half, predict the right one and write its report; return model, right half and scores."""
    pp.features(slide, size_um=SIZE_UM, encoding="tissue", flips=False, **QUIET)
    x = slide.obsm["spatial"][:, 0]
    left, right = (slide[half].copy() for half in (x < np.median(x), x >= np.median(x)))
    model = tl.fit(left, size_um=SIZE_UM, n_members=0, **learned, **QUIET)
    tl.predict(right, model, **QUIET)
    assert np.isfinite(right.obsm["hggep"]).all()
    scores, verdicts = tl.evaluate(right), tl.trust(right)
    assert list(scores.index) == list(verdicts.index) == model.genes
    page = pl.report(right, path / "report.html", model=model).read_text()
    assert [gene for gene in model.genes if json.dumps(gene) not in page] == []
    return model, right, scores


# --- sections -----------------------------------------------------------------------------------------------------


def test_mouse_brain(data_root: Path, tmp_path: Path):
    """No metadata: microns per pixel come from the array, and the panel holds a named marker."""
    whole = anndata.read_h5ad(folder(data_root, "visium/mouse_brain/whole_100_genes.h5ad"))
    brain = whole[nearest(whole)].copy()
    panel = pp.gene_panel(brain, max_genes=12, include=["Clu"])
    assert "Clu" in panel
    model, right, scores = to_report(brain, tmp_path, genes=panel)
    assert model.training.mpp == [pytest.approx(0.725, rel=1e-3)]
    assert scores["ceiling"].median() > 0.5
    assert scores["pearson"].mean() > 0.1
    pl.gene_map(right, "Clu", save=tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_mouse_embryo(data_root: Path, tmp_path: Path):
    """A folder of Space Ranger without the name of its library: the readers want it. AnnData and SpatialData agree."""
    outs = folder(data_root, "visium/mouse_embryo")
    with pytest.raises(KeyError, match="library_ids"):
        sq.read.visium(outs)
    with pytest.raises(ValueError, match="dataset_id"):
        spatialdata_io.visium(outs)
    adata = sq.read.visium(outs, library_id="embryo", source_image_path=outs / "fullres_3000px.jpg")
    with pytest.raises(ValueError, match=r"'Ptp4a1'.*var_names_make_unique"):
        pp.gene_panel(adata)
    adata.var_names_make_unique()
    near = nearest(adata)
    embryo = adata[near].copy()
    panel = pp.gene_panel(embryo, max_genes=12)
    model, right, scores = to_report(embryo, tmp_path, genes=panel)
    assert model.training.mpp == [pytest.approx(4.667, rel=1e-2)]
    assert scores["ceiling"].median() > 0.3

    sdata = spatialdata_io.visium(outs, dataset_id="embryo", fullres_image_file="fullres_3000px.jpg")
    sdata["table"].var_names_make_unique()
    sdata.tables["table"] = sdata["table"][near].copy()
    tl.predict(sdata, model, **QUIET)
    rows = sdata["table"].obs_names.get_indexer(right.obs_names)
    np.testing.assert_allclose(sdata["table"].obsm["hggep"][rows], right.obsm["hggep"], atol=0.1)
    pl.report(sdata, tmp_path / "sdata.html", model=model)
    assert "embryo" in (tmp_path / "sdata.html").read_text()


@pytest.mark.parametrize("where", ["obs", "obsm"])
def test_glioblastoma(data_root: Path, tmp_path: Path, where: str):
    """Scores are no counts: they are refused as genes, and learned as targets."""
    whole = anndata.read_h5ad(folder(data_root, "visium/glioblastoma/scores.h5ad"))
    tumor = whole[nearest(whole)].copy()
    names = list(tumor.var_names)
    if where == "obs":
        with pytest.raises(ValueError, match="raw counts, found values that are not whole"):
            tl.fit(tumor, **QUIET)
        targets: Any = names
    else:
        tumor.obsm["scores"] = tumor.obs[names]
        tumor.obs = tumor.obs.drop(columns=names)
        targets = "scores"
    model, right, scores = to_report(tumor, tmp_path, targets=targets)
    assert model.genes == names
    assert scores["pearson"].notna().all()
    # on the scale of the scores, which are shares
    means = whole[right.obs_names].to_df().mean()
    np.testing.assert_allclose(right.obsm["hggep"].mean(axis=0), means, atol=0.25)


# --- slides without spots -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy_model() -> HGGEP:
    toy = datasets.toy(size_um=(1500.0, 1500.0), mpp=2.0, n_genes=8)
    return tl.fit(toy, genes=list(toy.var_names), size_um=SIZE_UM, n_members=0, **QUIET)


@pytest.mark.parametrize(
    ("name", "mpp"), [("tcga-cr-7395-01a-01-ts1.svs", None), ("cmu-1-small-region.svs", 0.499)], ids=["tcga", "cmu"]
)
def test_slide_without_spots(data_root: Path, tmp_path: Path, toy_model: HGGEP, name: str, mpp: float | None):
    """A slide that does not state its microns per pixel is refused until they are passed."""
    path = folder(data_root, "slides") / name
    slide = io.read_slide(path)
    assert slide.attrs["sthggep"]["mpp"] == (None if mpp is None else pytest.approx(mpp))
    if mpp is None:
        with pytest.raises(ValueError, match=r"microns per pixel are not known.*Pass `mpp=`.*0\.25 at 40x"):
            pp.tissue_grid(slide)
        assert list(slide.tables) == []
        slide = io.read_slide(path, mpp=0.5)
    grid = pp.tissue_grid(slide, spacing_um=200)
    assert grid.obs["tissue_fraction"].min() >= 0.5
    tl.predict(slide, toy_model, **QUIET)
    assert slide["tissue_grid"].obsm["hggep"].shape == (grid.n_obs, len(toy_model.genes))
    # of toy tissue nothing is promised here
    assert set(tl.trust(slide)["verdict"]) == {"cannot be judged"}
    page = pl.report(slide, tmp_path / "report.html", model=toy_model).read_text()
    assert all(json.dumps(gene) in page for gene in toy_model.genes)


def test_files_that_are_no_slide(data_root: Path):
    slides = folder(data_root, "slides")
    with pytest.raises(ValueError, match=r"small_dicom\.dcm is truncated or damaged"):
        io.read_slide(slides / "small_dicom.dcm")
    plain = io.read_slide(slides / "kidney-48-5.tif")
    with pytest.raises(ValueError, match=r"microns per pixel are not known.*Pass `mpp=`"):
        pp.tissue_grid(plain)


# --- fixtures of readers ------------------------------------------------------------------------------------------


def test_visium_with_the_lowres_image_only(data_root: Path):
    """50 barcodes of which 22 are under tissue: the reader parses them, and lowres is used only if you name it."""
    outs = folder(data_root, "reader_fixtures/VisiumIO") / "10xVisium/section1/outs"
    counts = "raw_feature_bc_matrix.h5"
    with pytest.raises(OSError, match="hires_image"):
        sc.read_visium(outs, count_file=counts, library_id="section1")
    sdata = spatialdata_io.visium(outs, dataset_id="section1", counts_file=counts)
    assert sdata["table"].shape == (50, 49)
    with pytest.raises(KeyError, match=r"found only a preview, 'section1_lowres_image'.*Pass `image_key=`"):
        tl.fit(sdata, **QUIET)
    patches = pp.patches(sdata, size_um=160, image_key="section1_lowres_image")
    assert len(patches) == 22
    assert patches.slide.mpp == pytest.approx(0.7253 / 0.0510, rel=2e-2)


def test_visium_1_of_scanpy(data_root: Path):
    """100 barcodes on a hires image with transparency: the array gives the scale, and patches show no transparency."""
    adata = sc.read_visium(folder(data_root, "reader_fixtures/scanpy_visium_data") / "1.0.0")
    adata.var_names_make_unique()
    patches = pp.patches(adata, size_um=160, size_px=8)
    assert len(patches) == adata.n_obs == 100
    assert patches.slide.mpp == pytest.approx(0.725, rel=1e-3)
    assert patches[:].shape == (100, 8, 8, 3)


def test_visium_hd_without_feature_slices(data_root: Path):
    """The reader refuses the folder; a table built by hand has its places, and wants an image."""
    outs = folder(data_root, "reader_fixtures/VisiumIO")
    with pytest.raises(RuntimeError, match="feature slice file"):
        spatialdata_io.visium_hd(outs, dataset_id="hd")
    bins = outs / "binned_outputs/square_002um"
    adata = sc.read_10x_h5(bins / "filtered_feature_bc_matrix.h5")
    adata.var_names_make_unique()
    places = pd.read_parquet(bins / "spatial/tissue_positions.parquet").set_index("barcode")
    adata.obs = adata.obs.join(places)
    adata.obsm["spatial"] = adata.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    with pytest.raises(KeyError, match=r"has no image: .*found none"):
        pp.patches(adata, size_um=16)
    factors = json.loads((bins / "spatial/scalefactors_json.json").read_text())
    lowres = np.asarray(Image.open(bins / "spatial/tissue_lowres_image.png"))
    adata.uns["spatial"] = {"hd": {"images": {"lowres": lowres}, "scalefactors": factors}}
    with pytest.raises(KeyError, match="found only 'lowres'; pass `image_key=`"):
        pp.patches(adata, size_um=16)


def test_xenium_without_its_experiment(data_root: Path):
    path = folder(data_root, "reader_fixtures/SpatialExperimentIO") / "Xenium_small"
    with pytest.raises(FileNotFoundError, match=r"experiment\.xenium"):
        spatialdata_io.xenium(path)
