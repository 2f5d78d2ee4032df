from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sthggep import pl

Make = Callable[..., AnnData]


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ceiling = rng.uniform(0.3, 0.9, n)
    scores = {"pearson": ceiling * rng.uniform(-0.1, 1, n), "rmse": rng.uniform(0, 1, n), "ceiling": ceiling}
    return pd.DataFrame(scores, index=pd.Index([f"GENE{i}" for i in range(n)], name="gene"))


def dots(ax, label: str = "Pearson correlation"):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


def test_sorted_dots_and_ceiling_of_few_genes():
    scores = table(10)
    (ax,) = pl.scores(scores).axes
    best = scores.sort_values("pearson", ascending=False)
    np.testing.assert_allclose(dots(ax).get_ydata(), best["pearson"])
    assert [text.get_text() for text in ax.get_xticklabels()] == list(best.index)
    np.testing.assert_allclose([bar.get_height() for bar in ax.containers[0]], best["ceiling"])
    share = 100 * scores["pearson"].mean() / scores["ceiling"].mean()
    assert ax.get_title() == (
        f"mean {scores['pearson'].mean():.3f}, {share:.0f} % of the noise ceiling ({scores['ceiling'].mean():.3f})"
    )
    assert ax.get_ylabel() == "Pearson correlation"
    assert ax.get_xlabel() == "genes, best first (10)"


@pytest.mark.parametrize("metric", ["pearson", "rmse"])
def test_names_of_the_best_do_not_overlap(metric: str):
    scores = table(400)
    figure = pl.scores(scores, metric=metric, n_top=12)
    (ax,) = figure.axes
    best = scores.sort_values(metric, ascending=metric == "rmse").index[:12]
    assert [text.get_text() for text in ax.texts] == list(best)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_bbox_patch() or text for text in ax.texts]
    extents = [super(type(text), text).get_window_extent(renderer) for text in boxes]  # the name without its line
    assert not any(a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i])
    inside = ax.get_window_extent(renderer)
    assert all(inside.y0 <= box.y0 and box.y1 <= inside.y1 and inside.x0 <= box.x0 for box in extents)
    first_dot = ax.transData.transform((1, 0))[0]
    assert all(box.x1 < first_dot for box in extents)
    # Each line ends at its own gene
    assert [text.xy[1] for text in ax.texts] == pytest.approx(scores.loc[best, metric].tolist())


def test_many_names_are_cut_to_what_fits():
    (ax,) = pl.scores(table(400), n_top=400).axes
    assert 10 < len(ax.texts) < 40


def test_ceiling_of_many_genes_is_a_band():
    (ax,) = pl.scores(table(400)).axes
    assert len(ax.collections) == 1
    line = dots(ax, "noise ceiling (median, quartiles)")
    assert 0.3 < min(line.get_ydata()) < max(line.get_ydata()) < 0.9


def test_constant_genes_are_counted():
    scores = table(10)
    scores.loc[["GENE0", "GENE1"], "pearson"] = np.nan
    (ax,) = pl.scores(scores).axes
    assert len(dots(ax).get_ydata()) == 8
    assert ax.get_xlabel() == "genes, best first (8; 2 constant, left out)"
    with pytest.raises(ValueError, match="No gene"):
        pl.scores(scores.assign(pearson=np.nan))


def test_sections():
    parts = [table(20, seed).assign(section=name) for seed, name in enumerate(["A", "B", "C"])]
    scores = pd.concat(parts)
    genes, sections = pl.scores(scores).axes
    means = scores.groupby("gene")["pearson"].mean().sort_values(ascending=False)
    np.testing.assert_allclose(dots(genes).get_ydata(), means)
    assert [text.get_text() for text in sections.get_xticklabels()] == ["A", "B", "C"]
    np.testing.assert_allclose(dots(sections, "mean").get_ydata(), [part["pearson"].mean() for part in parts])
    (ceiling,) = sections.collections
    np.testing.assert_allclose([s[0][1] for s in ceiling.get_segments()], [part["ceiling"].mean() for part in parts])


def test_one_section_needs_no_second_panel():
    assert len(pl.scores(table(20).assign(section="A")).axes) == 1


def test_own_axes():
    _, ax = plt.subplots()
    assert pl.scores(table(50), ax=ax) is ax
    assert len(dots(ax).get_ydata()) == 50


def test_scores_of_a_slide(section: Make, tmp_path):
    adata = section()
    with pytest.raises(KeyError, match=r"tl\.evaluate"):
        pl.scores(adata)
    adata.uns["hggep_scores"] = table(10)
    figure = pl.scores(adata, save=tmp_path / "scores.svg")
    assert len(dots(figure.axes[0]).get_ydata()) == 10
    assert (tmp_path / "scores.svg").exists()


def test_errors():
    with pytest.raises(ValueError, match="Did you mean 'pearson'"):
        pl.scores(table(5), metric="pearso")
    with pytest.raises(KeyError, match="'pearson'"):
        pl.scores(pd.DataFrame({"x": [1]}))
