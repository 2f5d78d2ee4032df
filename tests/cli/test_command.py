"""The shell commands, on files."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from sthggep import HGGEP, datasets, tl
from sthggep._cli import main

SIZES = ("--size-um", 320, "--size-um", 640)  # of the features in `files`
FAST = (*SIZES, "--weights", "random", "--n-members", 1, "--max-epochs", 1, "--device", "cpu")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def no_work(*_: object, **__: object) -> None:
    pytest.fail("work began")


# ---------------------------------------------------------------- a separate process, as in a cluster job


def process(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "sthggep"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_fit_and_predict_run_as_separate_processes(files, tmp_path):
    (tmp_path / "genes.txt").write_text("\n".join(files[0].var_names[:10]) + "\n\n")
    result = process("fit", "a.h5ad", "b.h5ad", "--out", "model", "--genes", "genes.txt", *FAST)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    log_lines = result.stderr.splitlines()
    assert all(pd.Series(log_lines).str.match(TIME)), result.stderr
    assert "\r" not in result.stderr
    assert "\x1b" not in result.stderr
    assert "a.h5ad: section toy1, 72 spots, 16 genes, 2 µm/px (from the metadata)" in result.stderr
    what = "Solving the closed form, and training up to 1 network beside it"
    assert f"{what}: 10 genes, 2 sections (140 spots), 1 epoch at most, on cpu." in result.stderr
    assert "Trained in" in result.stderr
    model = HGGEP.load("model")
    assert model.genes == list(files[0].var_names[:10])

    result = process("predict", "c.h5ad", "--model", "model", "--out", "d.h5ad")
    assert result.returncode == 0, result.stderr
    assert "d.h5ad written (1 of 1): 10 genes at 75 spots, obsm['hggep']" in result.stderr
    tl.predict(files[2], model, show_progress_bar=False)
    predicted = anndata.read_h5ad("d.h5ad").obsm["hggep"]
    np.testing.assert_allclose(predicted, files[2].obsm["hggep"], rtol=1e-4, atol=1e-5)

    result = process("predict", "c.h5ad", "--model", "model", "--out", "d.h5ad")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "Error: d.h5ad exists already. Pass another --out" in result.stderr


# ---------------------------------------------------------------- fit


def test_fit_command_has_every_option_of_tl_fit():
    """The command takes every option of `tl.fit` and passes it on."""
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


def test_fit_command_passes_its_options_to_tl_fit(shell, files, monkeypatch):
    keywords = {}

    class Fitted:
        def save(self, out, overwrite):
            out.mkdir()
            keywords["saved"] = (out, overwrite)

    def fit(slides, **options):
        keywords.update(options, slides=[slide.n_obs for slide in slides])
        return Fitted()

    monkeypatch.setattr("sthggep.tl.fit", fit)
    Path("more.txt").write_text("STRO1\n\n FAT1 \n")
    words = (
        "fit a.h5ad b.h5ad -o m --preset paper --genes more.txt --genes IMMU1,PLEO1 --weights w --max-epochs 3 --layer raw "
        "--absent mask --mpp 1.9 --device cpu --seed 4 --encoder e --model old --n-members 2 --learning-rate 1e-4 --batch-size 8 "
        "--size-um 80 --size-um 160 --encoding tissue --flips --stain macenko --obsm f --expression c.h5ad "
        "--validation toy1 --validation toy2 --image-key hires --window 500 -q"
    )
    result = shell(*words.split())
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert keywords.pop("saved") == (Path("m"), False)
    assert [slide.n_obs for slide in keywords.pop("expression")] == [75]
    assert keywords == {
        "absent": "mask",
        "targets": None,
        "checkpoint_dir": None,
        "gene_sets": None,
        "measured": None,
        "min_counts": 1,
        "slides": [72, 68],
        "genes": ["STRO1", "FAT1", "IMMU1", "PLEO1"],
        "preset": "paper",
        "model": "old",
        "validation": ["toy1", "toy2"],
        "encoder": "e",
        "weights": "w",
        "size_um": [80.0, 160.0],
        "encoding": "tissue",
        "flips": True,
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


@pytest.mark.parametrize(("values", "expected"), [((), "auto"), (("none",), None), (("blocks",), "blocks")])
def test_validation_option_becomes_the_argument_of_tl_fit(values, expected):
    from sthggep._cli._fit import validation_of

    assert validation_of(values) == expected


def test_fit_refuses_an_existing_folder_before_training(shell, files, monkeypatch):
    Path("model").mkdir()
    Path("model/thesis.txt").write_text("years of work")
    monkeypatch.setattr("sthggep.tl.fit", no_work)
    result = shell("fit", "a.h5ad", "--out", "model")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: 'model' exists already. Pass --overwrite to replace it, or another folder.\n" in result.stderr
    result = shell("fit", "a.h5ad", "--out", "model", "--overwrite")
    assert result.exit_code == 1
    assert "is not a model of sthggep" in result.stderr


def test_fit_fine_tunes_a_model(shell, files, model):
    model.save("old")
    result = shell("fit", "c.h5ad", "--out", "new", "--model", "old", "--max-epochs", 1, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert f"Fine-tuning {model.id}: 16 genes, 1 section (75 spots)" in result.stderr
    assert HGGEP.load("new").training.model == model.id
    result = shell("fit", "c.h5ad", "--out", "other", "--model", "old", "--encoder", "shufflenet")
    assert (result.exit_code, "passed --encoder" in result.stderr) == (1, True)


# ---------------------------------------------------------------- predict


def test_predict_writes_several_slides_into_a_folder(shell, files, model):
    import spatialdata

    model.save("model")
    files[0].write_zarr("z.zarr")
    datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=2.0, n_genes=16, as_spatialdata=True).write("s.zarr")
    words = ("predict", "c.h5ad", "z.zarr", "s.zarr", "--model", "model", "--out", "predicted", "--key-added", "mine")
    result = shell(*words, "--genes", "FAT1,STRO1", "--latent")
    assert result.exit_code == 0, result.stderr
    assert "(3 of 3): 2 genes at 13 spots, obsm['mine']" in result.stderr
    assert sorted(path.name for path in Path("predicted").iterdir()) == ["c.h5ad", "s.zarr", "z.zarr"]
    tl.predict(files[2], model, genes=["FAT1", "STRO1"], show_progress_bar=False)
    prediction = anndata.read_h5ad("predicted/c.h5ad")
    np.testing.assert_allclose(prediction.obsm["mine"], files[2].obsm["hggep"], rtol=1e-4, atol=1e-5)
    assert prediction.obsm["X_mine"].shape == (75, 2 * 128)
    assert list(anndata.read_zarr("predicted/z.zarr").uns["mine"]["genes"]) == ["FAT1", "STRO1"]
    assert spatialdata.read_zarr("predicted/s.zarr")["table"].obsm["mine"].shape == (13, 2)

    modified = Path("predicted/c.h5ad").stat().st_mtime_ns
    Path("predicted/z.zarr").rename("gone")
    result = shell(*words, "--skip-existing")
    assert result.exit_code == 0, result.stderr
    assert "2 of 3 output files exist already; their slides are skipped." in result.stderr
    assert Path("predicted/z.zarr").is_dir()
    assert Path("predicted/c.h5ad").stat().st_mtime_ns == modified
    result = shell("predict", "c.h5ad", "--model", "model", "--out", "predicted/", "--key-added", "mine", "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert anndata.read_h5ad("predicted/c.h5ad").obsm["mine"].shape == (75, 16)


def test_the_bundled_model_is_the_default(shell, files, model, monkeypatch):
    names = []
    monkeypatch.setattr("sthggep.model._load.load_model", lambda name: names.append(name) or model)
    result = shell("predict", "a.h5ad", "--out", "d.h5ad")
    assert result.exit_code == 0, result.stderr
    assert names[0] == "her2st"
    assert "This is the bundled model, for breast tumors only." in result.stderr
    assert "16 genes at 72 spots" in result.stderr
    # the warning of the library, with the name of the command
    assert "Call `sthggep cross-validate` for held-out scores, or, with one section, train on a part" in result.stderr


def test_predict_learns_from_measured_spots(shell, files, model):
    model.save("model")
    files[2].obs["here"] = np.arange(files[2].n_obs) % 2 == 0
    files[2].write_h5ad("part.h5ad")
    words = ("predict", "part.h5ad", "--model", "model", "--measured", "here")
    result = shell(*words, "--min-counts", 2, "--out", "d.h5ad")
    assert result.exit_code == 0, result.stderr
    tl.predict(files[2], model, measured="here", min_counts=2, show_progress_bar=False)
    prediction = anndata.read_h5ad("d.h5ad")
    np.testing.assert_allclose(prediction.obsm["hggep"], files[2].obsm["hggep"], rtol=1e-4, atol=1e-4)
    assert prediction.obs["hggep_source"].astype(str).str.endswith("(measured)").sum() == files[2].obs["here"].sum()
    result = shell(*words, "--out", "e/", "--workers", 2)
    assert result.exit_code == 1
    assert "--measured names spots of one slide" in result.stderr


def test_predict_counts_the_verdicts_of_genes_sets_and_programs(shell, files, fit_options):
    genes = list(files[0].var_names)
    closed_form = {**fit_options, "n_members": 0, "validation": "sections"}
    tl.fit(files[:2], genes=genes, gene_sets={"some": genes[:2], "others": genes[2:4]}, **closed_form).save("judged")
    result = shell("predict", "c.h5ad", "--model", "judged", "--out", "d.h5ad")
    assert result.exit_code == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "by held-out tissue" in line]
    verdicts = tl.trust(anndata.read_h5ad("d.h5ad"))["verdict"].value_counts()
    counts = (
        f"{verdicts['spot']} spot by spot, {verdicts['region']} over regions, {verdicts['not predicted']} not predicted"
    )
    assert f"16 genes: {counts}" in line
    assert re.search(r"; 2 gene sets: \d spot by spot, .*; \d+ programs?: \d+ spot by spot, ", line)


def test_predict_places_spots_on_a_bare_image(shell, files, model):
    import spatialdata
    from PIL import Image

    model.save("model")
    picture = next(iter(files[2].uns["spatial"]["toy3"]["images"].values()))
    Image.fromarray(np.asarray(picture)).save("biopsy.png")
    words = ("predict", "biopsy.png", "--model", "model", "--mpp", 2)
    result = shell(*words, "--out", "p/", "--spacing-um", 400)
    assert result.exit_code == 0, result.stderr
    table = anndata.read_h5ad("p/biopsy.h5ad")
    assert 5 < table.n_obs < 75 / 2
    assert f"{table.n_obs} spots placed over the tissue, 400 µm apart" in result.stderr
    assert f"p/biopsy.h5ad written (1 of 1): 16 genes at {table.n_obs} spots" in result.stderr
    assert np.ptp(np.diff(np.unique(table.obsm["spatial"][:, 0]))) < 1e-6
    assert np.isfinite(table.obsm["hggep"]).all()
    result = shell(*words, "--out", "whole.zarr", "--spacing-um", 400)
    assert result.exit_code == 0, result.stderr
    sdata = spatialdata.read_zarr("whole.zarr")
    np.testing.assert_allclose(sdata["tissue_grid"].obsm["hggep"], table.obsm["hggep"], atol=1e-5)
    assert list(sdata.images) == ["image"]
    result = shell("predict", "c.h5ad", "--model", "model", "--out", "d.h5ad", "--spacing-um", 400)
    assert result.exit_code == 0, result.stderr
    assert anndata.read_h5ad("d.h5ad").n_obs == table.n_obs
    result = shell("evaluate", "biopsy.png")
    assert (result.exit_code, "no counts" in result.stderr) == (1, True)


def test_predict_writes_predictions_only(shell, files, model):
    model.save("model")
    datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=2.0, n_genes=16, as_spatialdata=True).write("s.zarr")
    result = shell(
        "predict", "c.h5ad", "s.zarr", "--model", "model", "--out", "p", "--predictions-only", "--window", 40
    )
    assert result.exit_code == 0, result.stderr
    assert "p/c.h5ad written (1 of 2): 16 genes at 75 spots, X" in result.stderr
    assert sorted(path.name for path in Path("p").iterdir()) == ["c.h5ad", "s.h5ad"]
    tl.predict(files[2], model, show_progress_bar=False)
    predictions = anndata.read_h5ad("p/c.h5ad")
    np.testing.assert_allclose(predictions.X, files[2].obsm["hggep"], rtol=1e-3, atol=1e-4)
    assert list(predictions.var_names) == model.genes
    assert anndata.read_h5ad("p/s.h5ad").shape == (13, 16)
    assert shell("predict", "c.h5ad", "--out", "d.h5ad", "--window", "some").exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "a.h5ad --out a.xlsx",
            "a.xlsx cannot hold this slide (an AnnData). Pass an --out that ends in .h5ad, .zarr, .csv, .tsv or .parquet.",
        ),
        (
            "s.zarr --out s.h5ad",
            "s.h5ad cannot hold this slide (a SpatialData). Pass an --out that ends in .zarr, .csv, .tsv or .parquet.",
        ),
        (
            "a.h5ad b.h5ad --out d.h5ad",
            "One output file holds one slide, found 2 slides. Pass a folder: --out predicted/",
        ),
        ("a.h5ad a.h5ad/../a.h5ad --out .", "a.h5ad/../a.h5ad does not exist"),
        ("a.h5ad --out a.h5ad", "a.h5ad is an input slide, which the command does not overwrite. Pass another --out."),
        ("a.h5ad sub/a.h5ad --out p/", "would all be written to p"),
        ("a.h5ad --out b.h5ad", "b.h5ad exists already. Pass another --out"),
        ("a.h5ad --out d.h5ad --model absent", "No model is called 'absent'"),
        ("a.h5ad --out d.h5ad --genes absent.txt", "absent.txt"),
    ],
)
def test_predict_refuses_bad_arguments_before_work_starts(shell, files, monkeypatch, words, message):
    if "s.zarr" in words:
        datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=4.0, n_genes=4, as_spatialdata=True).write("s.zarr")
    Path("sub").mkdir()
    files[0].write_h5ad("sub/a.h5ad")
    monkeypatch.setattr("sthggep.tl.predict", no_work)
    result = shell("predict", *words.split())
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
