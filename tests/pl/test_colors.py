"""Tissue colors of new slides beside those of the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from matplotlib.figure import Figure

from sthggep import HGGEP, datasets, pl
from sthggep._slides._colors import read_colors, tissue_colors
from sthggep._slides._resolve import resolve_one


def toy(seed: int = 0) -> AnnData:
    return datasets.toy(seed=seed, size_um=(1600.0, 1200.0), mpp=4.0, n_genes=4)


def rows(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_new_slides_stand_beside_the_sections_of_the_model(tmp_path: Path):
    slide = toy()
    figure = pl.colors({"mine": slide}, save=tmp_path / "colors.pdf")
    assert (tmp_path / "colors.pdf").stat().st_size > 1000
    *training_rows, new = rows(figure)
    assert training_rows == ["B4", "C2", "C3", "C4", "C5"]
    training_means = np.array([colors.mean for colors in read_colors(HGGEP.from_pretrained("her2st").training.colors)])
    slide_colors = tissue_colors(resolve_one(slide))
    assert slide_colors is not None
    far = np.linalg.norm(
        slide_colors.mean - np.clip(slide_colors.mean, training_means.min(axis=0), training_means.max(axis=0))
    )
    assert new == f"mine: {far:.1f}"
    assert figure.axes[0].get_yticklabels()[-1].get_fontweight() == ("bold" if far > 9 else "normal")
    dots, diamonds = figure.axes[1].collections
    np.testing.assert_allclose(dots.get_offsets(), training_means[:, [1, 2]])
    np.testing.assert_allclose(diamonds.get_offsets(), [slide_colors.mean[1:]])
    # A new slide hides no section of the training
    assert diamonds.get_zorder() < dots.get_zorder()
    assert diamonds.get_sizes() > dots.get_sizes()
    np.testing.assert_allclose(
        figure.axes[2].collections[1].get_offsets(), [[slide_colors.mean[1], slide_colors.mean[0]]]
    )


def test_slides_may_replace_the_model():
    slide = toy()
    assert rows(pl.colors(toy(1), [slide]))[-1] != rows(pl.colors(slide, [slide]))[-1]
    assert rows(pl.colors(slide, [slide]))[-1].endswith(": 0.0")


def test_slides_without_colors_are_refused():
    old = HGGEP.from_pretrained("her2st")
    old.training.colors.clear()
    with pytest.raises(ValueError, match=r"has no record of colors.*pl\.colors\(data, slides\)"):
        pl.colors(toy(), old)
    blank = toy()
    images = next(iter(blank.uns["spatial"].values()))["images"]
    images["hires"] = np.full_like(images["hires"], 240)
    with pytest.raises(ValueError, match="Tissue under the spots was expected"):
        pl.colors(blank)
