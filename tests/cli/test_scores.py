"""The shell commands that score: evaluate and cross-validate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sthggep import tl

SIZES = ("--size-um", 320, "--size-um", 640)  # of the features in `files`
FAST = (*SIZES, "--weights", "random", "--n-members", 1, "--max-epochs", 1, "--device", "cpu")


# ---------------------------------------------------------------- evaluate


def test_scores_as_tables(shell, files, model):
    for slide, name in ((files[0], "p.h5ad"), (files[2], "q.h5ad")):
        tl.predict(slide, model, show_progress_bar=False)
        slide.write_h5ad(name)
    result = shell("evaluate", "p.h5ad", "q.h5ad", "--out", "scores.csv", "--summary", "sections.csv")
    assert result.exit_code == 0, result.stderr
    scores = pd.read_csv("scores.csv")
    assert list(scores.columns[:3]) == ["file", "section", "gene"]
    assert list(scores["section"].unique()) == ["toy1", "toy3"]
    expected = tl.evaluate(files[2])
    np.testing.assert_allclose(scores.loc[scores["file"] == "q.h5ad", "pearson"], expected["pearson"])
    sections = pd.read_csv("sections.csv").set_index("section")
    row = tl.summary(files[2]).loc["toy3"]
    assert sections.loc["toy3", "pearson_low"] == pytest.approx(row["pearson_low"])
    (line,) = [line for line in result.stdout.splitlines() if line.lstrip().startswith("toy3")]
    assert line.split()[1:4] == ["75", "16", f"{row['pearson']:.3f}"]
    assert f"{row['pearson_low']:.3f} to {row['pearson_high']:.3f}" in line
    assert f"{100 * row['of_ceiling']:.0f} %" in line
    assert f"Mean over 2 sections: Pearson {sections['pearson'].mean():.3f}." in result.stdout
    assert dict(sections["trained_on"]) == {"toy1": True, "toy3": False}
    assert "toy1 (trained on)" in result.stdout
    best = scores.groupby("gene")["pearson"].mean().nlargest(10)
    best_lines = result.stdout.split("Best 10 of 16 genes\n")[1].splitlines()[1:]
    assert [line.split()[0] for line in best_lines] == list(best.index)
    assert [line.split()[1] for line in best_lines] == [f"{value:.3f}" for value in best]


def test_mistakes_of_files(shell, files, tmp_path):
    (tmp_path / "broken.h5ad").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "slide.txt").write_text("x")
    for name, words in {
        "broken.h5ad": "broken.h5ad cannot be read: an AnnData (.h5ad, .zarr), a SpatialData (.zarr) or a folder of Space Ranger was expected.",
        "empty.zarr": "empty.zarr cannot be read",
        "slide.txt": "unknown ending",
        "absent.h5ad": "Slides beside it: a.h5ad, b.h5ad",
    }.items():
        result = shell("evaluate", name)
        assert result.exit_code == 1
        assert words in result.stderr
    result = shell("evaluate", "a.h5ad", "--key", "mine")
    assert result.exit_code == 1
    assert (
        "Error: a.h5ad: 'mine' is not in obsm" in result.stderr
    )  # without the quotes that a KeyError puts around its message
    assert "Call `sthggep predict --key-added mine` first" in result.stderr
    result = shell("evaluate", "a.h5ad", "--out", "b.h5ad")
    assert (result.exit_code, "A file for a table ends in .csv or .tsv, found b.h5ad" in result.stderr) == (1, True)


# ---------------------------------------------------------------- cross-validate


def test_held_out_patients_and_an_interruption(shell, files):
    words = ("cross-validate", "a.h5ad", "b.h5ad", "c.h5ad", "--out", "cv", "--baseline", "ridge", *FAST)
    result = shell(*words)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in Path("cv").iterdir()} == {"scores.csv", "cross_validation.png", "run.yaml", "folds"}
    assert Path("cv/cross_validation.png").stat().st_size > 5000
    scores = pd.read_csv("cv/scores.csv")
    assert set(scores["method"]) == {"hggep", "ridge", "ceiling"}
    means = scores[scores["metric"] == "pearson"].groupby(["section", "method"])["value"].mean()
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("toy2")]
    assert line.split()[1:4] == ["P2", f"{means['toy2', 'hggep']:.3f}", f"{means['toy2', 'ridge']:.3f}"]
    assert f"Fold 2 of 3 (P2 held out): PCC hggep {means['toy2', 'hggep']:.3f}" in result.stderr

    Path("cv/folds/fold-001.json").unlink()
    Path("cv/scores.csv").unlink()
    repeat = shell("cross-validate", "--config", "cv/run.yaml")
    assert repeat.exit_code == 0, repeat.stderr
    assert "2 of 3 folds are finished already" in repeat.stderr
    assert repeat.stdout == result.stdout
    pd.testing.assert_frame_equal(pd.read_csv("cv/scores.csv"), scores)
    assert yaml.safe_load(Path("cv/run.yaml").read_text())["baseline"] == ["ridge"]

    other = shell(*words, "--seed", 1)
    assert (other.exit_code, "these differ: 'seed'" in other.stderr) == (1, True)
    result = shell("cross-validate", "a.h5ad", "b.h5ad", "--out", ".")
    assert (result.exit_code, "holds no cross-validation and stays unchanged" in result.stderr) == (1, True)


def test_held_out_targets(shell, files):
    for slide, name in zip(files, "abc", strict=True):
        slide.obs["score"] = slide.obsm["spatial"][:, 0] / 1000
        slide.write_h5ad(f"{name}.h5ad")
    words = ("cross-validate", "a.h5ad", "b.h5ad", "--out", "cv", "--baseline", "mean", "--targets", "obs:score", *FAST)
    result = shell(*words)
    assert result.exit_code == 0, result.stderr
    scores = pd.read_csv("cv/scores.csv")
    assert set(scores["gene"]) == {"score"}
    assert set(scores["method"]) == {"hggep", "mean"}
    assert "Pearson correlation, mean over targets" in result.stdout
    assert "ceiling" not in result.stdout


def test_verdicts_are_compared_and_printed(shell, files):
    words = ("cross-validate", "a.h5ad", "b.h5ad", "c.h5ad", "--out", "cv", "--baseline", "none", *FAST)
    result = shell(*words, "--trust")
    assert result.exit_code == 0, result.stderr
    scores = pd.read_csv("cv/scores.csv")
    toy2 = scores[scores["section"] == "toy2"]
    trusted = toy2[(toy2["metric"] == "trusted") & (toy2["value"] == 1)]["gene"]
    correlated = set(toy2[(toy2["metric"] == "correlated") & (toy2["value"] == 1)]["gene"])
    _, printed = result.stdout.split("Verdicts\n")
    (line,) = [line for line in printed.splitlines() if line.startswith("toy2")]
    share = "-" if trusted.empty else f"{len(correlated & set(trusted)) / len(trusted):.0%}"
    assert line.split()[1:3] == [str(len(trusted)), share]
    novelty = toy2[toy2["metric"] == "novelty"]["value"]
    assert line.split()[-1] == f"{novelty.iloc[0]:.2f}"
    assert yaml.safe_load(Path("cv/run.yaml").read_text())["trust"] is True


def test_intervals_are_scored_and_drawn(shell, files):
    words = ("cross-validate", "a.h5ad", "b.h5ad", "c.h5ad", "--out", "cv", "--baseline", "none", *FAST)
    result = shell(*words, "--interval", "0.8", "--interval", "0.5")
    assert result.exit_code == 0, result.stderr
    scores = pd.read_csv("cv/scores.csv")
    assert set(scores["metric"]) >= {"coverage", "width", "interval_score"}
    assert set(scores["level"].dropna()) == {0.5, 0.8}
    assert Path("cv/calibration.png").stat().st_size > 5000
    assert "calibration.png" in result.stderr
    assert yaml.safe_load(Path("cv/run.yaml").read_text())["interval"] == [0.8, 0.5]
    wrong = shell(*words[:5], "other", "--interval", "90")
    assert (wrong.exit_code, "from 0.5 to 0.99, found 90" in wrong.stderr) == (1, True)
    assert "--interval must be a share such as 0.9" in wrong.stderr


# ---------------------------------------------------------------- report


def test_a_page_of_a_slide_and_of_a_model(shell, files, model):
    import json
    import re

    model.save(shell.folder / "model")
    shell("predict", "a.h5ad", "--model", "model", "--out", "p.h5ad")
    result = shell("report", "p.h5ad", "--model", "model", "--genes", "STRO1,FAT1", "--out", "page.html")
    assert result.exit_code == 0, result.stderr
    assert "page.html written" in result.stderr
    data = json.loads(
        re.search(r"^const DATA = (.*);$", (shell.folder / "page.html").read_text(), re.MULTILINE).group(1)
    )
    assert data["genes"] == ["STRO1", "FAT1"]
    assert data["sections"][0]["name"] == "toy1"
    assert shell("report", "p.h5ad", "--out", "page.html").exit_code == 1  # the page exists
    assert shell("report", "p.h5ad", "--tiles", "folder", "--out", "fine.html").exit_code == 0
    assert list((shell.folder / "fine_tiles" / "0" / "0").glob("*.jpg"))
    assert shell("report", "--model", "model", "--out", "model.html").exit_code == 0
    assert "Nothing to report" in (failure := shell("report", "--out", "none.html")).stderr
    assert failure.exit_code == 2
