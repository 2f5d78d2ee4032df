"""The shell commands, on files."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from sthggep import HGGEP, datasets, tl
from sthggep._cli import main

FAST = ("--weights", "random", "--n-members", 1, "--max-epochs", 1, "--device", "cpu")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def no_work(*_: object, **__: object) -> None:
    pytest.fail("work began")


# ---------------------------------------------------------------- a real process, as in a cluster job


def process(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "sthggep"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_fit_and_predict_in_processes_of_their_own(files, tmp_path):
    (tmp_path / "genes.txt").write_text("\n".join(files[0].var_names[:10]) + "\n\n")
    done = process("fit", "a.h5ad", "b.h5ad", "--out", "model", "--genes", "genes.txt", *FAST)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    said = done.stderr.splitlines()
    assert all(pd.Series(said).str.match(TIME)), done.stderr
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "a.h5ad: section toy1, 72 spots, 16 genes, 2 µm/px (from the metadata)" in done.stderr
    assert "Training 1 network: 10 genes, 2 sections (140 spots)" in done.stderr
    assert "Trained in" in done.stderr
    model = HGGEP.load("model")
    assert model.genes == list(files[0].var_names[:10])

    done = process("predict", "c.h5ad", "--model", "model", "--out", "d.h5ad")
    assert done.returncode == 0, done.stderr
    assert "d.h5ad written (1 of 1): 10 genes at 75 spots, obsm['hggep']" in done.stderr
    tl.predict(files[2], model, show_progress_bar=False)
    predicted = anndata.read_h5ad("d.h5ad").obsm["hggep"]
    np.testing.assert_allclose(predicted, files[2].obsm["hggep"], rtol=1e-4, atol=1e-5)

    done = process("predict", "c.h5ad", "--model", "model", "--out", "d.h5ad")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Error: d.h5ad exists already. Pass another --out" in done.stderr


# ---------------------------------------------------------------- fit


def test_every_option_of_fit_is_there():
    """What `tl.fit` takes, the command takes, and hands on."""
    of_function = set(inspect.signature(tl.fit).parameters) - {"trainer_kwargs", "show_progress_bar"}
    assert of_function <= {param.name for param in main.commands["fit"].params}
    of_function = set(inspect.signature(tl.cross_validate).parameters) - {"trainer_kwargs", "show_progress_bar"}
    names = {param.name for param in main.commands["cross-validate"].params} | {"baselines"}
    assert of_function <= names


def test_targets_from_the_shell():
    from sthggep._cli._files import targets_of

    assert targets_of(None) is None
    assert targets_of("fractions") == "fractions"
    assert targets_of("obs:score, purity") == ["score", "purity"]


def test_choices_are_those_of_the_library():
    from sthggep._slides._stain import METHODS
    from sthggep._training._presets import PRESETS
    from sthggep.tl._cross_validation._baselines import BASELINES

    choices = {param.name: getattr(param.type, "choices", ()) for param in main.commands["cross-validate"].params}
    assert list(choices["preset"]) == sorted(PRESETS)
    assert tuple(choices["stain"]) == METHODS
    assert set(choices["baseline"]) == {*BASELINES, "none"}


def test_options_arrive(shell, files, monkeypatch):
    given = {}

    class Fitted:
        def save(self, out, overwrite):
            out.mkdir()
            given["saved"] = (out, overwrite)

    def fit(slides, **options):
        given.update(options, slides=[slide.n_obs for slide in slides])
        return Fitted()

    monkeypatch.setattr("sthggep.tl.fit", fit)
    Path("more.txt").write_text("STRO1\n\n FAT1 \n")
    words = (
        "fit a.h5ad b.h5ad -o m --preset paper --genes more.txt --genes IMMU1,PLEO1 --weights w --max-epochs 3 --layer raw "
        "--mpp 1.9 --device cpu --seed 4 --encoder e --model old --n-members 2 --learning-rate 1e-4 --batch-size 8 "
        "--size-um 80 --size-um 160 --encoding tissue --stain macenko --obsm f --expression c.h5ad "
        "--validation toy1 --validation toy2 --image-key hires --window 500 -q"
    )
    done = shell(*words.split())
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert given.pop("saved") == (Path("m"), False)
    assert [slide.n_obs for slide in given.pop("expression")] == [75]
    assert given == {
        "targets": None,
        "checkpoint_dir": None,
        "slides": [72, 68],
        "genes": ["STRO1", "FAT1", "IMMU1", "PLEO1"],
        "preset": "paper",
        "model": "old",
        "validation": ["toy1", "toy2"],
        "encoder": "e",
        "weights": "w",
        "size_um": [80.0, 160.0],
        "encoding": "tissue",
        "stain": "macenko",
        "obsm": ["f"],
        "n_members": 2,
        "max_epochs": 3,
        "learning_rate": 1e-4,
        "layer": "raw",
        "mpp": 1.9,
        "image_key": "hires",
        "window": 500,
        "library_key": None,
        "table_key": "table",
        "shapes_key": None,
        "spatial_key": "spatial",
        "coordinate_system": None,
        "device": "cpu",
        "batch_size": 8,
        "seed": 4,
        "show_progress_bar": False,
    }


@pytest.mark.parametrize(("typed", "expected"), [((), "auto"), (("none",), None), (("blocks",), "blocks")])
def test_what_is_held_out(typed, expected):
    from sthggep._cli._fit import validation_of

    assert validation_of(typed) == expected


def test_nothing_is_trained_for_a_folder_that_is_taken(shell, files, monkeypatch):
    Path("model").mkdir()
    Path("model/thesis.txt").write_text("years of work")
    monkeypatch.setattr("sthggep.tl.fit", no_work)
    done = shell("fit", "a.h5ad", "--out", "model")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Error: 'model' exists already. Pass --overwrite to replace it, or another folder.\n" in done.stderr
    done = shell("fit", "a.h5ad", "--out", "model", "--overwrite")
    assert done.exit_code == 1
    assert "is not a model of sthggep" in done.stderr


def test_going_on_from_a_model(shell, files, model):
    model.save("old")
    done = shell("fit", "c.h5ad", "--out", "new", "--model", "old", "--max-epochs", 1, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert f"Fine-tuning 2 networks of {model.id}" in done.stderr
    assert HGGEP.load("new").training.model == model.id
    done = shell("fit", "c.h5ad", "--out", "other", "--model", "old", "--encoder", "shufflenet")
    assert (done.exit_code, "passed --encoder" in done.stderr) == (1, True)


# ---------------------------------------------------------------- predict


def test_several_slides_into_a_folder(shell, files, model):
    import spatialdata

    model.save("model")
    files[0].write_zarr("z.zarr")
    datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=2.0, n_genes=16, as_spatialdata=True).write("s.zarr")
    words = ("predict", "c.h5ad", "z.zarr", "s.zarr", "--model", "model", "--out", "predicted", "--key-added", "mine")
    done = shell(*words, "--genes", "FAT1,STRO1", "--latent")
    assert done.exit_code == 0, done.stderr
    assert "(3 of 3): 2 genes at 13 spots, obsm['mine']" in done.stderr
    assert sorted(path.name for path in Path("predicted").iterdir()) == ["c.h5ad", "s.zarr", "z.zarr"]
    tl.predict(files[2], model, genes=["FAT1", "STRO1"], show_progress_bar=False)
    written = anndata.read_h5ad("predicted/c.h5ad")
    np.testing.assert_allclose(written.obsm["mine"], files[2].obsm["hggep"], rtol=1e-4, atol=1e-5)
    assert written.obsm["X_mine"].shape == (75, 2 * 128)
    assert list(anndata.read_zarr("predicted/z.zarr").uns["mine"]["genes"]) == ["FAT1", "STRO1"]
    assert spatialdata.read_zarr("predicted/s.zarr")["table"].obsm["mine"].shape == (13, 2)

    before = Path("predicted/c.h5ad").stat().st_mtime_ns
    Path("predicted/z.zarr").rename("gone")
    done = shell(*words, "--skip-existing")
    assert done.exit_code == 0, done.stderr
    assert "2 of 3 output files exist already; their slides are skipped." in done.stderr
    assert Path("predicted/z.zarr").is_dir()
    assert Path("predicted/c.h5ad").stat().st_mtime_ns == before
    done = shell("predict", "c.h5ad", "--model", "model", "--out", "predicted/", "--key-added", "mine", "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert anndata.read_h5ad("predicted/c.h5ad").obsm["mine"].shape == (75, 16)


def test_the_bundled_model_is_the_default(shell, files, model, monkeypatch):
    asked = []
    monkeypatch.setattr("sthggep.model._load.load_model", lambda asked_for: asked.append(asked_for) or model)
    done = shell("predict", "a.h5ad", "--out", "d.h5ad")
    assert done.exit_code == 0, done.stderr
    assert asked[0] == "her2st"
    assert "This is the bundled model, for breast tumors only." in done.stderr
    assert "16 genes at 72 spots" in done.stderr
    assert "Call `sthggep cross-validate` for held-out scores." in done.stderr  # the library's warning, in shell words


def test_an_image_without_spots(shell, files, model):
    import spatialdata
    from PIL import Image

    model.save("model")
    picture = next(iter(files[2].uns["spatial"]["toy3"]["images"].values()))
    Image.fromarray(np.asarray(picture)).save("biopsy.png")
    words = ("predict", "biopsy.png", "--model", "model", "--mpp", 2)
    done = shell(*words, "--out", "p/", "--spacing-um", 400)
    assert done.exit_code == 0, done.stderr
    table = anndata.read_h5ad("p/biopsy.h5ad")
    assert 5 < table.n_obs < 75 / 2
    assert f"{table.n_obs} spots placed over the tissue, 400 µm apart" in done.stderr
    assert f"p/biopsy.h5ad written (1 of 1): 16 genes at {table.n_obs} spots" in done.stderr
    assert np.ptp(np.diff(np.unique(table.obsm["spatial"][:, 0]))) < 1e-6
    assert np.isfinite(table.obsm["hggep"]).all()
    done = shell(*words, "--out", "whole.zarr", "--spacing-um", 400)
    assert done.exit_code == 0, done.stderr
    written = spatialdata.read_zarr("whole.zarr")
    np.testing.assert_allclose(written["tissue_grid"].obsm["hggep"], table.obsm["hggep"], atol=1e-5)
    assert list(written.images) == ["image"]
    done = shell("predict", "c.h5ad", "--model", "model", "--out", "d.h5ad", "--spacing-um", 400)
    assert done.exit_code == 0, done.stderr
    assert anndata.read_h5ad("d.h5ad").n_obs == table.n_obs
    done = shell("evaluate", "biopsy.png")
    assert (done.exit_code, "no counts" in done.stderr) == (1, True)


def test_predictions_alone(shell, files, model):
    model.save("model")
    datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=2.0, n_genes=16, as_spatialdata=True).write("s.zarr")
    done = shell("predict", "c.h5ad", "s.zarr", "--model", "model", "--out", "p", "--predictions-only", "--window", 40)
    assert done.exit_code == 0, done.stderr
    assert "p/c.h5ad written (1 of 2): 16 genes at 75 spots, X" in done.stderr
    assert sorted(path.name for path in Path("p").iterdir()) == ["c.h5ad", "s.h5ad"]
    tl.predict(files[2], model, show_progress_bar=False)
    written = anndata.read_h5ad("p/c.h5ad")
    np.testing.assert_allclose(written.X, files[2].obsm["hggep"], rtol=1e-3, atol=1e-4)
    assert list(written.var_names) == model.genes
    assert anndata.read_h5ad("p/s.h5ad").shape == (13, 16)
    assert shell("predict", "c.h5ad", "--out", "d.h5ad", "--window", "some").exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.h5ad --out a.csv", "a.csv cannot hold this slide (an AnnData). Pass an --out that ends in .h5ad or .zarr."),
        ("s.zarr --out s.h5ad", "s.h5ad cannot hold this slide (a SpatialData). Pass an --out that ends in .zarr."),
        (
            "a.h5ad b.h5ad --out d.h5ad",
            "One output file holds one slide, found 2 slides. Pass a folder: --out predicted/",
        ),
        ("a.h5ad a.h5ad/../a.h5ad --out .", "a.h5ad/../a.h5ad does not exist"),
        ("a.h5ad --out a.h5ad", "a.h5ad is an input slide, which the command does not overwrite. Pass another --out."),
        ("a.h5ad sub/a.h5ad --out p/", "Several slides have the same output file in p"),
        ("a.h5ad --out b.h5ad", "b.h5ad exists already. Pass another --out"),
        ("a.h5ad --out d.h5ad --model absent", "No model is called 'absent'"),
        ("a.h5ad --out d.h5ad --genes absent.txt", "absent.txt"),
    ],
)
def test_nothing_is_predicted_for_a_mistake(shell, files, monkeypatch, words, message):
    if "s.zarr" in words:
        datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=4.0, n_genes=4, as_spatialdata=True).write("s.zarr")
    Path("sub").mkdir()
    files[0].write_h5ad("sub/a.h5ad")
    monkeypatch.setattr("sthggep.tl.predict", no_work)
    done = shell("predict", *words.split())
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
