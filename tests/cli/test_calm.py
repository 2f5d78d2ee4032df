"""Devices that are checked first, tables of predictions, and a model that nobody has chosen."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from sthggep import HGGEP, datasets, tl


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize(
    "words", ["fit a.h5ad --out m", "predict a.h5ad --out p.h5ad", "cross-validate a.h5ad --out cv"]
)
@pytest.mark.parametrize(
    ("option", "device"), [("--gpu", "gpu"), ("--gpus", "gpu"), ("--cuda", "cuda"), ("--cpu", "cpu")]
)
def test_an_option_for_a_device_is_answered_with_the_right_one(shell, words: str, option: str, device: str):
    result = shell(*words.split(), option)
    assert result.exit_code == 2
    text = " ".join(result.stderr.split())
    assert f"No such option: {option}. Pass --device {device}; without it a GPU is used if there is one." in text
    assert "Did you mean" not in text


def test_a_command_without_devices_says_so(shell):
    text = " ".join(shell("demo", "--gpu").stderr.split())
    assert "No such option: --gpu. sthggep demo takes none: a GPU is used if there is one." in text


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    "words",
    [
        pytest.param("fit a.h5ad --out m", id="a GPU that is not there, in sthggep fit"),
        pytest.param("predict a.h5ad --out p.h5ad", id="a GPU that is not there, in sthggep predict"),
        pytest.param("cross-validate a.h5ad --out cv", id="a GPU that is not there, in sthggep cross-validate"),
    ],
)
@pytest.mark.handles("The command rejects the device before it reads a slide.")
def test_a_device_that_is_not_there_is_refused_before_slides_are_read(shell, words: str):
    Path("a.h5ad").touch()  # no slide: whoever reads it fails
    result = shell(*words.split(), "--device", "gpu")
    assert result.exit_code == 1
    assert "Device 'gpu' cannot be used here: torch sees no GPU" in result.stderr
    assert "Pass --device auto or --device cpu." in result.stderr
    assert [path.name for path in Path().iterdir()] == ["a.h5ad"]


def test_quiet_and_verbose_exclude_each_other(shell):
    result = shell("evaluate", "a.h5ad", "--quiet", "--verbose")
    assert result.exit_code == 2
    assert "--quiet shows fewer lines and --verbose more. Pass one of them." in result.stderr


# ---------------------------------------------------------------- tables of spots and genes


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.parquet"])
def test_predict_writes_a_table_of_spots_and_genes(shell, files, model: HGGEP, name: str):
    model.save("model")
    result = shell("predict", "c.h5ad", "--model", "model", "--out", name)
    assert result.exit_code == 0, result.stderr
    assert f"{name} written (1 of 1): 16 genes at 75 spots" in result.stderr
    assert "sthggep evaluate" not in result.stderr, "a table cannot be scored"
    readers = {".csv": pd.read_csv, ".tsv": lambda path, **kw: pd.read_csv(path, sep="\t", **kw)}
    table = pd.read_parquet(name) if name.endswith("parquet") else readers[Path(name).suffix](name, index_col=0)
    tl.predict(files[2], model, show_progress_bar=False)
    expected = tl.to_adata(files[2]).to_df()
    assert table.index.name == "spot"
    assert list(table.index.astype(str)) == list(expected.index)
    assert list(table.columns) == model.genes
    np.testing.assert_allclose(table, expected, rtol=1e-3, atol=1e-4)


def test_a_table_of_a_spatialdata_and_of_some_genes(shell, model: HGGEP):
    model.save("model")
    datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=2.0, n_genes=16, as_spatialdata=True).write("s.zarr")
    genes = f"{model.genes[3]},{model.genes[1]}"
    result = shell("predict", "s.zarr", "--model", "model", "--out", "s.csv", "--genes", genes)
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv("s.csv", index_col="spot")
    assert list(table.columns) == genes.split(",")
    assert table.shape == (13, 2)
    assert np.isfinite(table).all(axis=None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--out p.csv --latent", "p.csv is a table of the prediction alone, without what --latent asks for"),
        ("--out p.parquet --interval 0.9 --counts", "without what --counts and --interval asks for. Pass an --out that ends"),
        ("--out p.xlsx", "p.xlsx cannot hold this slide (an AnnData). Pass an --out that ends in .h5ad, .zarr, .csv, .tsv or .parquet"),
        ("b.h5ad --out p.csv", "One output file holds one slide, found 2 slides."),
    ],
)  # fmt: skip
def test_what_a_table_cannot_hold_is_refused_first(shell, files, monkeypatch, words: str, message: str):
    monkeypatch.setattr("sthggep.tl.predict", lambda *_, **__: pytest.fail("work began"))
    result = shell("predict", "a.h5ad", *words.split())
    assert result.exit_code == 1
    assert message in result.stderr


def test_parquet_without_its_package_is_refused_first(shell, files, monkeypatch):
    monkeypatch.setattr("sthggep.tl.predict", lambda *_, **__: pytest.fail("work began"))
    find = importlib.util.find_spec
    absent = ("pyarrow", "fastparquet")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in absent else find(name, *a))
    result = shell("predict", "a.h5ad", "--out", "p.parquet")
    assert result.exit_code == 1
    assert "p.parquet: Parquet needs pyarrow or fastparquet. Call `pip install pyarrow`" in result.stderr
    assert not Path("p.parquet").exists()


# ---------------------------------------------------------------- the bundled model


def test_the_bundled_model_is_refused_for_foreign_genes_before_work_starts(shell, monkeypatch):
    monkeypatch.setattr("sthggep.tl._predict_table._predict_sections", lambda *_, **__: pytest.fail("work began"))
    slide = datasets.toy(size_um=(900.0, 900.0), mpp=4.0, n_genes=4)
    slide.var_names = [f"mouse-{i}" for i in range(4)]
    slide.write_h5ad("m.h5ad")
    result = shell("predict", "m.h5ad", "--out", "p.h5ad")
    assert result.exit_code == 1
    assert "You passed no model. The bundled model, of breast tumors, predicts 853 genes" in result.stderr
    assert (
        "`sthggep fit`, and pass it as --model. To use the bundled model all the same, pass --model her2st."
        in result.stderr
    )
    assert not Path("p.h5ad").exists()


def test_the_bundled_model_by_its_name_predicts_foreign_tissue(shell, files, monkeypatch, model: HGGEP):
    monkeypatch.setattr("sthggep.model._load.load_model", lambda _: model)
    slide = anndata.read_h5ad("c.h5ad")
    slide.var_names = [f"mouse-{i}" for i in range(slide.n_vars)]
    slide.write_h5ad("m.h5ad")
    result = shell("predict", "m.h5ad", "--out", "p.csv", "--model", "her2st")
    assert result.exit_code == 0, result.stderr
    assert "Counts of this table cannot score the prediction." in result.stderr
    assert shell("predict", "m.h5ad", "--out", "q.csv").exit_code == 1
