"""Advice of the library in the words of the shell."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pytest

from sthggep._cli import main
from sthggep._cli._advice import in_shell_words


def said(text: str, command: str = "predict") -> str:
    return in_shell_words(text, main.commands[command], main.commands.values())


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        ("predict", "Pass `mpp=`, or `key_added='mine'`.", "Pass --mpp, or --key-added mine."),
        ("predict", "Pass `overwrite=True`.", "Pass --overwrite."),
        ("predict", "`genes=[...]` or `library_key`", "--genes or --library-key"),
        ("predict", "Pass `window=None`.", "Pass --window none."),
        ("predict", "Pass `shapes_key='my spots'`.", "Pass --shapes-key 'my spots'."),
        ("predict", "you passed `mpp=0.25`", "you passed --mpp 0.25"),
        ("fit", "Pass `genes=['A', 'B']`.", "Pass --genes A,B."),
        ("fit", "Pass `targets=['score', 'purity']`.", "Pass --targets obs:score,purity."),
        ("fit", "pass `weights=<file>`", "pass --weights FILE"),
        ("fit", "`validation='blocks'` or `validation=None`", "--validation blocks or --validation none"),
        ("cross-validate", "or `baselines=['mean']`", "or --baseline mean"),
    ],
)
def test_arguments_become_options(command: str, text: str, words: str):
    assert said(text, command) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("`sthggep.tl.predict(data, model, key_added='hggep')`", "`sthggep predict`"),  # the default
        ("`sthggep.tl.predict(data, model, key_added='b')`", "`sthggep predict --key-added b`"),
        ("`sthggep.tl.fit(slides, genes=[...])`", "`sthggep fit --genes`"),
        ("`sthggep.tl.fit(slides, n_members=3)`", "`sthggep fit --n-members 3`"),
        ("`tl.fit(encoding='tissue')`", "`sthggep fit --encoding tissue`"),
        ("`sthggep.tl.evaluate(data, 'hggep')`", "`sthggep evaluate`"),
        ("`sthggep.tl.cross_validate`", "`sthggep cross-validate`"),
        ("`sthggep.tl.predict_cohort` or `tl.predict(out=)`", "`sthggep predict --workers` or `sthggep predict --predictions-only`"),
        ("the folder that `model.save` wrote", "the folder that `sthggep fit` wrote"),
        ("call `sthggep.pp.tissue_grid(data)`", "pass --spacing-um"),
    ],
)  # fmt: skip
def test_calls_become_commands(text: str, words: str):
    assert said(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "`sthggep.pl.patches(data)`",
        "`genes=sthggep.pp.gene_panel(slides, include=['A'])`",
        "`sthggep.io.read_slide(path, series=1)`",
        "`sthggep.pp.tissue_grid(data)`",
    ],
)
def test_calls_without_a_command_are_marked(text: str):
    assert said(f"See {text}.", "fit") == f"See {text} in Python."


@pytest.mark.parametrize(
    "text",
    [
        "`anndata.read_h5ad`",
        "`adata.obs_names_make_unique()`",
        "obs['mpp']",
        "`X`",
        "`uns['spatial']`",
        "`model.genes`",
    ],
)
def test_other_words_stay(text: str):
    assert said(text) == text


# --- as a user sees it


def test_a_slide_without_prediction(shell, files):
    result = shell("evaluate", "a.h5ad")
    assert result.exit_code == 1
    assert "Call `sthggep predict` first." in result.stderr
    assert "tl.predict" not in result.stderr


def test_several_sections(shell, files, model):
    model.save("m")
    slides = [slide.copy() for slide in files[:2]]
    both = ad.concat(slides, uns_merge="unique", index_unique="-", label="sample")
    both.write_h5ad("both.h5ad")
    result = shell("predict", "both.h5ad", "--model", "m", "--out", "p.h5ad")
    assert "Pass --library-key: the column of obs" in result.stderr
    assert "library_key" not in result.stderr


def test_lines_of_the_log(shell, files, monkeypatch: pytest.MonkeyPatch):
    slide = files[0].copy()
    slide.layers["counts"] = slide.X.copy()
    slide.X = slide.X * 0.5
    slide.write_h5ad("normalized.h5ad")

    def stop(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr("sthggep._training._train.train", stop)
    lines = shell("fit", "normalized.h5ad", "--out", "m", "--obsm", "morphology").stderr
    assert "Reading raw counts from layers['counts']. Pass --layer to read another layer." in lines
    assert not Path("m").exists()
