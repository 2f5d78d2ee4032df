"""Folders of Space Ranger, which the shell reads: names, matrices, images, refusals, and a model from a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
from PIL import Image

from sthggep import HGGEP, datasets, pp, tl
from sthggep._slides._container_files import kind_of, read_container, slide_name
from sthggep._slides._resolve import resolve_one

pytestmark = pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")


@pytest.fixture
def sample(writers: SimpleNamespace, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a sample: the folder, whose parts the tests rename."""
    toy = datasets.toy(seed=3, size_um=(1500.0, 1500.0), mpp=2.0, pitch_um=100.0, layout="hex", n_genes=14)
    toy.uns["truth"] = [f"{'ACGT'[i % 4]}{i:015d}-1" for i in range(toy.n_obs)]

    def write(folder: str = "patient7/outs", *, library: str | None = None) -> Path:
        import pandas as pd

        path, barcodes = tmp_path / folder, toy.uns["truth"]
        attrs = {} if library is None else {"library_ids": np.array([library.encode()])}
        ids = [f"ENSG{number:011d}" for number in range(toy.n_vars)]
        counts = path / "filtered_feature_bc_matrix.h5"
        writers.counts(counts, barcodes, toy.X, ids, [*toy.var_names[:-1], toy.var_names[0]], **attrs)
        (stored,) = toy.uns["spatial"].values()
        image = np.asarray(stored["images"].get("fullres", stored["images"]["hires"]))
        small = {
            "hires": np.asarray(Image.fromarray(image).reduce(2)),
            "lowres": np.asarray(Image.fromarray(image).reduce(8)),
        }
        x, y = toy.obsm["spatial"].T
        rows, columns = toy.obs["array_y"].to_numpy(), toy.obs["array_x"].to_numpy()
        places = pd.DataFrame({"in_tissue": 1, "array_row": rows, "array_col": columns, "y": y, "x": x}, index=barcodes)
        writers.spatial(path, 2, places, small, {"hires": 0.5, "lowres": 0.125}, 2.0)
        Image.fromarray(image).save(tmp_path / "slide.png")
        return path

    return write


def test_a_sample_is_read_under_the_name_of_its_folder(sample, tmp_path):
    outs = sample()
    assert kind_of(outs) == "anndata"
    assert slide_name(outs) == slide_name(outs.parent) == "patient7"
    for path in (outs, outs.parent):
        adata = read_container(path, tmp_path / "slide.png")
        slide = resolve_one(adata)
        assert slide.name == "patient7"
        assert slide.levels[0].scale == (1.0, 1.0)
        assert adata.var_names.is_unique
    # without the image at full resolution, it is the hires one
    assert resolve_one(read_container(outs)).levels[0].scale == (0.5, 0.5)
    assert list(read_container(sample("b", library="lib")).uns["spatial"]) == ["lib"]


def test_matrices_by_their_names(sample):
    outs = sample()
    matrix = outs / "filtered_feature_bc_matrix.h5"
    matrix.rename(outs / "GSM1_filtered_feature_bc_matrix.h5")
    assert read_container(outs).n_vars == 14
    (outs / "GSM1_filtered_feature_bc_matrix.h5").rename(outs / "raw_feature_bc_matrix.h5")
    assert read_container(outs).n_vars == 14
    (outs / "x_raw_feature_bc_matrix.h5").write_bytes((outs / "raw_feature_bc_matrix.h5").read_bytes())
    with pytest.raises(ValueError, match=r"several matrices: 'raw_feature_bc_matrix\.h5', 'x_raw"):
        read_container(outs)
    for file in outs.glob("*.h5"):
        file.unlink()
    with pytest.raises(ValueError, match=r"holds no filtered_feature_bc_matrix\.h5\. It holds 'spatial'"):
        read_container(outs)


def test_what_is_no_visium_sample(sample, tmp_path):
    outs = sample()
    with pytest.raises(ValueError, match=r"no\.tif does not exist; the image at full resolution"):
        read_container(outs, tmp_path / "no.tif")
    with pytest.raises(
        ValueError, match=r"is a folder without `spatial/`.*a folder of Space Ranger.*It holds 'scalefactors"
    ):
        kind_of(outs / "spatial")
    (outs / "spatial" / "tissue_positions.parquet").touch()
    with pytest.raises(ValueError, match=r"is Visium HD\. Read it in Python: `spatialdata_io\.visium_hd"):
        read_container(outs)
    with pytest.raises(FileNotFoundError, match=r"Slides beside it: patient7\.$"):
        kind_of(tmp_path / "nosuch.h5ad")
    with pytest.raises(TypeError, match=r"`slides` must be .*`squidpy\.read\.visium` reads a folder of Space Ranger"):
        tl.fit(str(outs))


def test_from_a_folder_to_a_model_and_predictions(sample, shell):
    outs = sample()
    sample("second/outs")
    words = ("fit", outs, "--size-um", 320, "--n-members", 0, "--weights", "random", "--device", "cpu", "--out", "m")
    result = shell(*words, "--fullres-image", "slide.png", "--include", "NOISE1,FAT1", "--max-genes", 4)
    assert result.exit_code == 0, result.stderr
    model = HGGEP.load("m")
    panel = pp.gene_panel(read_container(outs), include=["NOISE1", "FAT1"], max_genes=4)
    assert {"NOISE1", "FAT1"} <= set(model.genes) == set(panel)
    assert model.training.sections == ["patient7"]
    assert model.training.image_mpp == pytest.approx([2.0], rel=1e-3)
    result = shell("predict", outs, "second", "--model", "m", "--out", "p/", "--fullres-image", "slide.png")
    assert result.exit_code == 1
    assert (
        "an image for each folder of Space Ranger among the slides, in their order: found 1 image for 2 folders"
        in result.stderr
    )
    result = shell("predict", outs, "second", "--model", "m", "--out", "p/")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in Path("p").iterdir()) == ["patient7.h5ad", "second.h5ad"]
    predicted = anndata.read_h5ad("p/second.h5ad")
    assert np.isfinite(predicted.obsm["hggep"]).all()
    result = shell("predict", outs, "--model", "m", "--out", "q/", "--workers", 2, "--fullres-image", "slide.png")
    assert "Leave out --workers" in result.stderr
    assert "Included: FAT1 (counts in " in shell(*words[:-1], "n", "--include", "FAT1").stderr
    result = shell("fit", outs, "--out", "o", "--fullres-image", "no.png")
    assert "--fullres-image: there is no file no.png" in result.stderr


@pytest.mark.parametrize("more", [("--genes", "FAT1,STRO1"), ("--targets", "obs:x"), ("--model", "m")])
def test_genes_to_include_are_of_a_panel_that_the_command_chooses(shell, files, more):
    for option in (("--include", "FAT1"), ("--max-genes", 5), ("--n-top", 9), ("--min-fraction", 0.2)):
        result = shell("fit", "a.h5ad", "--out", "m", *option, *more)
        assert result.exit_code == 1
        assert (
            "--include, --max-genes, --n-top and --min-fraction are of a panel that the command chooses"
            in result.stderr
        )
