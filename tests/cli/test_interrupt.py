"""Ctrl-C in a command of the shell, and files that commands write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sthggep import datasets
from sthggep._cli._command import Run
from sthggep._cli._fit import save_model
from sthggep._log import on_interrupt


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(call, words, id=f"Ctrl-C in sthggep {words.split()[0]}")
        for call, words in (
            ("_fit.read_slides", "fit a.h5ad --out m"),
            ("_outputs.kind_of", "predict a.h5ad --out p.h5ad"),
            ("_cross_validate.read_slides", "cross-validate a.h5ad b.h5ad --out cv"),
            ("_evaluate.kind_of", "evaluate a.h5ad"),
            ("_report.kind_of", "report a.h5ad --out r.html"),
            ("_demo.check_contents", "demo --out demo"),
        )
    ],
)
@pytest.mark.handles("The command ends with exit code 130 and leaves no incomplete file.")
def test_an_interrupt_ends_with_its_exit_code(shell, monkeypatch: pytest.MonkeyPatch, call: str, words: str):
    monkeypatch.setattr(f"sthggep._cli.{call}", interrupt)
    result = shell(*words.split())
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
    assert result.stderr.count("Interrupted.") == 1
    assert list(Path().iterdir()) == []


def test_an_interrupt_that_the_library_explained_is_not_said_twice(shell, monkeypatch: pytest.MonkeyPatch):
    def explained(*_: object, **__: object) -> None:
        with on_interrupt(lambda: "Nothing is stored."):
            raise KeyboardInterrupt

    monkeypatch.setattr("sthggep._cli._fit.read_slides", explained)
    result = shell("fit", "a.h5ad", "--out", "m")
    assert result.exit_code == 130
    assert result.stderr.count("Interrupted.") == 1
    assert "Warning: Interrupted. Nothing is stored." in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Signals of Unix.")
@pytest.mark.handles("The process ends with exit code 130 and a message, without a traceback.")
@pytest.mark.parametrize("when", [pytest.param("fit", id="Ctrl-C in a process of its own while it trains")])
def test_a_signal_in_the_shell(tmp_path: Path, when: str):
    datasets.toy(size_um=(900.0, 900.0), mpp=4.0, n_genes=8).write_h5ad(tmp_path / "a.h5ad")
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it\n"
        "from sthggep import tl\n"
        "import sthggep._training._train as training\n"
        "training.train = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "from sthggep._cli import main\n"
        f"main(['{when}', 'a.h5ad', '--out', 'm', '--obsm', 'morphology'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 130, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("Interrupted. Nothing is stored") == 1
    assert not (tmp_path / "m").exists()


def test_an_error_still_ends_with_1(shell):
    assert shell("evaluate", "absent.h5ad").exit_code == 1


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="Needs links.")
def test_the_record_of_a_run_follows_no_link(tmp_path: Path):
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "run.yaml").symlink_to(tmp_path / "theirs")
    Run("seed: 0\n", show=False).write_options(tmp_path)
    assert (tmp_path / "theirs").read_text() == "precious"
    assert (tmp_path / "run.yaml").read_text() == "seed: 0\n"


class Model:
    """Writes a file in place of a model."""

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        if folder.exists() and not overwrite:
            raise FileExistsError
        folder.mkdir()


def test_a_model_finds_a_place_when_its_folder_is_taken(tmp_path: Path):
    for name in ("m", "m-2"):
        (tmp_path / name).mkdir()
    assert save_model(Model(), tmp_path / "m", overwrite=False) == tmp_path / "m-3"
    assert (tmp_path / "m-3").is_dir()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param("fit a.h5ad --out m --n-members -1", "--n-members", id="a negative number of networks"),
        pytest.param("fit a.h5ad --out m --max-epochs -1", "--max-epochs", id="a negative number of epochs"),
        pytest.param("fit a.h5ad --out m --seed -1", "--seed", id="a negative seed"),
        pytest.param("fit a.h5ad --out m --learning-rate 0", "--learning-rate", id="a learning rate of 0"),
        pytest.param("fit a.h5ad --out m --size-um -5", "--size-um", id="a negative field of view"),
        pytest.param("fit a.h5ad --out m --mpp 0", "--mpp", id="0 microns per pixel"),
        pytest.param(
            "predict a.h5ad --out p.h5ad --mpp 0,5",
            "--mpp': A positive number was expected, found '0,5'. Write a point for the comma: 0.5.",
            id="microns per pixel with a comma",
        ),
        pytest.param(
            "predict a.h5ad --out p.h5ad --spacing-um 55um",
            "--spacing-um': A positive number was expected, found '55um'.",
            id="a distance with its unit",
        ),
        pytest.param(
            "fit a.h5ad --out m --n-members 1.5",
            "--n-members': A whole number of 0 or more was expected, found '1.5'.",
            id="one and a half networks",
        ),
        pytest.param("predict a.h5ad --out p.h5ad --batch-size 0", "--batch-size", id="batches of no patch"),
        pytest.param("predict a.h5ad --out p.h5ad --spacing-um 0", "--spacing-um", id="a grid without spacing"),
        pytest.param("predict a.h5ad --out p.h5ad --window many", "--window", id="a window that is no number"),
        pytest.param("predict a.h5ad --out p.h5ad --key-added a/b", "--key-added", id="a key with a slash"),
        pytest.param("predict a.h5ad --out a.txt/p.h5ad", "--out", id="a folder that is a file"),
        pytest.param("fit a.h5ad --out a.txt/m", "--out", id="a folder of the model that is a file"),
        pytest.param("cross-validate a.h5ad --out a.txt/cv", "--out", id="a folder of the folds that is a file"),
        pytest.param("demo --out a.txt/demo", "--out", id="a folder of the demo that is a file"),
        pytest.param("evaluate a.h5ad --out a.txt/s.csv", "--out", id="a folder of the table that is a file"),
        pytest.param("demo --seed 4294967296", "--seed", id="a seed that is too large"),
    ],
)
@pytest.mark.handles("The command rejects the value before it reads a slide. The message names the option.")
def test_bad_options_are_refused_before_slides_are_read(
    shell, monkeypatch: pytest.MonkeyPatch, words: str, message: str
):
    Path("a.txt").touch()
    Path("a.h5ad").touch()  # no slide: whoever reads it fails
    monkeypatch.setattr("sthggep.tl.fit", lambda *_, **__: pytest.fail("work has started"))
    result = shell(*words.split())
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "cannot be read" not in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["a.h5ad", "a.txt"]
