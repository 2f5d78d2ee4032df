"""The shell commands and the demo behind one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from sthggep._demo import run_demo

from sthggep import HGGEP, datasets, tl
from sthggep._cli import main


def sthggep(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "sthggep"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_fit_predict_evaluate_on_files(slides, tmp_path):
    for slide, name in zip(slides, ("a", "b", "c"), strict=True):
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    (tmp_path / "genes.txt").write_text("\n".join(slides[0].var_names[:10]) + "\n")
    options = ("--genes", "genes.txt", "--weights", "random", "--max-epochs", 1, "--device", "cpu")
    done = sthggep("fit", "a.h5ad", "b.h5ad", "--out", "model", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = HGGEP.load(tmp_path / "model")
    assert model.genes == list(slides[0].var_names[:10])

    done = sthggep("predict", "c.h5ad", "--model", "model", "--out", "d.h5ad", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 genes" in done.stdout
    predicted = anndata.read_h5ad(tmp_path / "d.h5ad")
    tl.predict(slides[2], model, show_progress_bar=False)
    np.testing.assert_allclose(predicted.obsm["hggep"], slides[2].obsm["hggep"], rtol=1e-4, atol=1e-5)

    done = sthggep("evaluate", "d.h5ad", "--out", "scores.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "scores.csv", index_col="gene")
    np.testing.assert_allclose(table["pearson"], tl.evaluate(predicted)["pearson"], rtol=1e-6)

    again = sthggep("predict", "c.h5ad", "--model", "model", "--out", "d.h5ad", cwd=tmp_path)
    assert again.returncode == 2
    assert "d.h5ad exists already" in again.stderr


def test_spatialdata_on_disk(model, tmp_path):
    import spatialdata

    toy = datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=2.0, n_genes=16, as_spatialdata=True)
    toy.write(tmp_path / "toy.zarr")
    model.save(tmp_path / "model")
    done = sthggep("predict", "toy.zarr", "--model", "model", "--out", "out.zarr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    back = spatialdata.read_zarr(tmp_path / "out.zarr")
    assert back["table"].obsm["hggep"].shape == (toy["table"].n_obs, 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "absent.h5ad"), "absent.h5ad does not exist"),
        (("evaluate", "slide.txt"), "unknown ending"),
        (("predict", "slide.h5ad", "--model", "absent", "--out", "x.h5ad"), "No model at"),
    ],
)
def test_mistakes_are_one_line(tmp_path, slides, words, message):
    (tmp_path / "slide.txt").write_text("x")
    slides[0].write_h5ad(tmp_path / "slide.h5ad")
    done = sthggep(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- the same without a process of its own


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path):
    """Runs a command here, in an empty folder; gives its exit code and what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sthggep", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), *capsys.readouterr()

    return run


def no_work(*_: object, **__: object) -> None:
    pytest.fail("work began")


def test_nothing_is_trained_for_a_folder_that_is_taken(shell, tmp_path, monkeypatch, slides):
    slides[0].write_h5ad("a.h5ad")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    monkeypatch.setattr("sthggep.tl.fit", no_work)
    code, said, fault = shell("fit", "a.h5ad", "--out", "model")
    assert (code, said) == (2, "")
    assert fault == "Error: 'model' exists already. Pass `overwrite=True` to replace it, or another folder.\n"
    code, _, fault = shell("fit", "a.h5ad", "--out", "model", "--overwrite")
    assert code == 2
    assert "is not a model of sthggep" in fault


def test_nothing_is_predicted_for_a_file_that_cannot_hold_it(shell, monkeypatch, slides):
    slides[0].write_h5ad("a.h5ad")
    datasets.toy(seed=4, size_um=(900.0, 900.0), mpp=4.0, n_genes=4, as_spatialdata=True).write("b.zarr")
    monkeypatch.setattr("sthggep.tl.predict", no_work)
    code, _, fault = shell("predict", "a.h5ad", "--model", "model", "--out", "a.csv")
    assert (code, fault) == (
        2,
        "Error: a.csv cannot hold this slide (AnnData): pass an --out that ends in .h5ad or .zarr.\n",
    )
    code, _, fault = shell("predict", "b.zarr", "--model", "model", "--out", "b.h5ad")
    assert (code, fault) == (
        2,
        "Error: b.h5ad cannot hold this slide (SpatialData): pass an --out that ends in .zarr.\n",
    )


def test_mistakes_of_files(shell, tmp_path, slides):
    slides[0].write_h5ad("a.h5ad")
    code, _, fault = shell("fit", "a.h5ad", "--out", "model", "--genes", "genes.txt")
    assert code == 2
    assert "genes.txt" in fault  # the system's own words, not its number
    (tmp_path / "broken.h5ad").write_bytes(b"\x89HDF\r\n")
    code, _, fault = shell("evaluate", "broken.h5ad")
    assert code == 2
    assert fault.startswith("Error: ")
    assert "broken.h5ad" in fault or "file" in fault
    (tmp_path / "empty.zarr").mkdir()
    code, _, fault = shell("evaluate", "empty.zarr")
    assert code == 2
    assert fault.startswith("Error: ")
    code, _, fault = shell("evaluate", "a.h5ad", "--key", "mine")
    assert code == 2
    assert fault.startswith("Error: 'mine' is not in obsm")  # without the quotes around that a KeyError has
    assert fault.count("\n") == 1


def test_options_arrive(shell, slides, monkeypatch, tmp_path):
    given = {}
    slides[0].write_h5ad("a.h5ad")

    class Fitted:
        def save(self, out, overwrite):
            given["saved"] = (out, overwrite)

    def fit(slides, **options):
        given.update(options, n_slides=len(slides))
        return Fitted()

    monkeypatch.setattr("sthggep.tl.fit", fit)
    (tmp_path / "genes.txt").write_text("STRO1\n\n FAT1 \n")
    words = (
        "fit a.h5ad a.h5ad --out m --preset paper --genes genes.txt --weights w --max-epochs 3 --layer raw --mpp 0.5"
    )
    code, _, fault = shell(
        *words.split(),
        "--library-key",
        "which",
        "--device",
        "cpu",
        "--seed",
        4,
        "--table-key",
        "t",
        "--encoder",
        "e",
        "--model",
        "old",
    )
    assert code == 0, fault
    assert given.pop("saved") == (Path("m"), False)
    assert given == {
        "n_slides": 2,
        "preset": "paper",
        "model": Path("old"),
        "encoder": "e",
        "genes": ["STRO1", "FAT1"],
        "weights": "w",
        "max_epochs": 3,
        "layer": "raw",
        "mpp": 0.5,
        "library_key": "which",
        "device": "cpu",
        "seed": 4,
        "table_key": "t",
    }


def test_anndata_as_zarr(shell, slides, model):
    slides[2].write_zarr("c.zarr")
    model.save("model")
    code, said, fault = shell("predict", "c.zarr", "--model", "model", "--out", "d.zarr", "--key-added", "mine")
    assert code == 0, fault
    assert said == f"16 genes of {slides[2].n_obs} spots, under obsm['mine'] in d.zarr\n"
    tl.predict(slides[2], model, show_progress_bar=False)
    np.testing.assert_allclose(anndata.read_zarr("d.zarr").obsm["mine"], slides[2].obsm["hggep"], rtol=1e-4, atol=1e-5)


def test_help_names_the_commands(tmp_path):
    done = sthggep("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("demo", "fit", "predict", "evaluate"))


@pytest.fixture
def small_demo(monkeypatch, slides):
    """The demo, on small toy sections described already and with one short network."""
    from dataclasses import replace

    from sthggep import _demo, _presets

    default = _presets.PRESETS["default"]
    short = replace(default, n_members=1, recipe=replace(default.recipe, max_epochs=2))
    monkeypatch.setitem(_presets.PRESETS, "default", short)
    monkeypatch.setattr(_demo, "_toy", lambda _: (slides[:2], slides[2]))
    monkeypatch.delenv("STHGGEP_WEIGHTS", raising=False)


def test_demo_leaves_what_it_says(small_demo, slides, tmp_path):
    out = tmp_path / "demo"
    said = "\n".join(run_demo(out))
    assert "toy3, which training did not see" in said
    assert "Next, in Python" in said
    written = {path.name for path in out.iterdir()}
    assert written == {"scores.csv", "gene_map.png", "scores.png", "history.png", "patches.png", "model"}
    assert all((out / name).stat().st_size > 5000 for name in written if name.endswith(".png"))
    scores = pd.read_csv(out / "scores.csv", index_col="gene")
    assert f"{scores['pearson'].mean():.3f} over {len(scores)} genes" in said
    assert HGGEP.load(out / "model").genes == list(scores.index)
    list(run_demo(out))  # its own folder it may write again


def test_demo_leaves_other_folders_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="left alone"):
        list(run_demo(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("sections", "words"),
    [(["C2"], "dataset:section"), (["her3st:C2"], "her2st"), (["mob:MOB1", "mob:MOB1"], "Nothing is left")],
)
def test_demo_sections_are_checked(tmp_path, sections, words):
    with pytest.raises(ValueError, match=words):
        list(run_demo(tmp_path / "out", sections=sections))
    assert not (tmp_path / "out").exists()


def test_demo_on_real_tissue(data_root, monkeypatch):
    from sthggep import _demo

    monkeypatch.setenv("STHGGEP_DATA", str(data_root))
    train, test = _demo._real(["mob:MOB3"])
    assert [_demo._name(a) for a in (*train, test)] == ["MOB1", "MOB3"]


def test_going_on_from_a_model(shell, slides, model, tmp_path):
    model.save(tmp_path / "old")
    slides[2].write_h5ad(tmp_path / "c.h5ad")
    code, _, said = shell("fit", "c.h5ad", "--out", "new", "--model", "old", "--max-epochs", 1, "--device", "cpu")
    assert code == 0, said
    tuned = HGGEP.load(tmp_path / "new")
    assert tuned.training["model"] == model.id
    code, _, said = shell("predict", "c.h5ad", "--model", "new", "--out", "d.h5ad", "--latent", "--key-added", "mine")
    assert code == 0, said
    assert anndata.read_h5ad(tmp_path / "d.h5ad").obsm["X_mine"].shape[1] == 2 * 128
    code, _, said = shell("fit", "c.h5ad", "--out", "other", "--model", "old", "--encoder", "shufflenet")
    assert (code, "`encoder` passed" in said) == (2, True)
