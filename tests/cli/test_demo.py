"""`sthggep demo`."""

from __future__ import annotations

from dataclasses import replace

import anndata
import pandas as pd
import pytest

from sthggep import HGGEP, tl
from sthggep._cli import _demo
from sthggep._cli._demo import run_demo
from sthggep._cli._files import check_contents


@pytest.fixture
def small_demo(monkeypatch, slides):
    """The demo, on small toy sections with features and with one short network."""
    from sthggep._training import _presets

    default = _presets.PRESETS["default"]
    inputs, recipe = replace(default.inputs, sizes_um=(640.0,)), replace(default.recipe, max_epochs=2)
    short = replace(default, n_members=1, inputs=inputs, recipe=recipe)
    monkeypatch.setitem(_presets.PRESETS, "default", short)
    monkeypatch.setattr(_demo, "_draw_toy", lambda _: (slides[:2], slides[2]))
    monkeypatch.delenv("STHGGEP_WEIGHTS", raising=False)


def test_demo_writes_the_files_that_it_lists(small_demo, shell):
    result = shell("demo", "--out", "demo")
    assert result.exit_code == 0, result.stderr
    log = result.stderr
    assert "Predict the held-out section toy3" in log
    out = shell.folder / "demo"
    files = {path.name for path in out.iterdir()}
    figures = {"gene_map.png", "crop.png", "scores.png", "history.png", "patches.png"}
    assert files == {"scores.csv", "model", "predicted.h5ad", *figures}
    assert all(name in log for name in files)
    assert all((out / name).stat().st_size > 5000 for name in figures)
    scores = pd.read_csv(out / "scores.csv", index_col="gene")
    mean = f"{scores['pearson'].mean():.3f}"
    assert (result.stdout + log).count(mean) == 1  # printed once
    assert f"Best 10 of {len(scores)} genes" in result.stdout
    assert HGGEP.load(out / "model").genes == list(scores.index)
    repeat = tl.evaluate(anndata.read_h5ad(out / "predicted.h5ad"))
    pd.testing.assert_series_equal(repeat["pearson"], scores["pearson"])
    assert "sthggep predict SLIDE.h5ad --model demo/model" in log
    assert "import" not in log
    check_contents(out, "scores.csv", "demo")  # the demo may overwrite its own folder


def test_demo_leaves_other_folders_alone(tmp_path, shell):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="stays unchanged"):
        run_demo(tmp_path)
    with pytest.raises(FileExistsError, match="stays unchanged"):
        run_demo(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("sections", "words"),
    [(["C2"], "dataset:section"), (["her3st:C2"], "her2st"), (["mob:MOB1", "mob:MOB1"], "Nothing is left")],
)
def test_demo_sections_are_checked(tmp_path, sections, words):
    with pytest.raises(ValueError, match=words):
        run_demo(tmp_path / "out", sections=sections)
    assert not (tmp_path / "out").exists()


def test_demo_on_real_tissue(data_root, monkeypatch):
    monkeypatch.setenv("STHGGEP_DATA", str(data_root))
    train, test = _demo._read_sections(["mob:MOB3"])
    assert [_demo._name(a) for a in (*train, test)] == ["MOB1", "MOB3"]
    images = test.uns["spatial"]["MOB3"]["images"]
    _demo._drop_image_on_disk(test)
    assert "fullres" not in images
    tl._request.resolve(test)  # the image is read from its own file
