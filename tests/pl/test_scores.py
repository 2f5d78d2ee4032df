from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from sthggep import pl

Make = Callable[..., AnnData]


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    ceiling = rng.uniform(0.3, 0.9, n)
    scores = {"pearson": ceiling * rng.uniform(-0.1, 1, n), "rmse": rng.uniform(0, 1, n), "ceiling": ceiling}
    return pd.DataFrame(scores, index=pd.Index([f"GENE{i}" for i in range(n)], name="gene"))


def dots(ax, label: str = "Pearson correlation"):
    (match,) = [line for line in ax.lines if line.get_label() == label]
    return match


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


def test_scores_of_targets_are_called_so():
    scores = table(10).assign(ceiling=np.nan)
    assert pl.scores(scores).axes[0].get_xlabel() == "targets, best first (10)"


@pytest.mark.parametrize("metric", ["pearson", "rmse"])
def test_the_best_genes_have_their_own_panel(metric: str):
    scores = table(400)
    figure = pl.scores(scores, metric=metric, n_top=12)
    genes, best = figure.axes
    names = scores.sort_values(metric, ascending=metric == "rmse").index[:12]
    assert [text.get_text() for text in best.get_yticklabels()] == list(names)
    assert best.yaxis_inverted()  # the best gene is on top
    label = {"pearson": "Pearson correlation", "rmse": "RMSE"}[metric]
    np.testing.assert_allclose(dots(best, label).get_xdata(), scores.loc[names, metric])
    np.testing.assert_allclose(dots(best, label).get_ydata(), best.get_yticks())
    if metric == "pearson":
        np.testing.assert_allclose([bar.get_width() for bar in best.containers[0]], scores.loc[names, "ceiling"])
    assert not genes.texts
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in best.get_yticklabels()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 > genes.get_window_extent().x1 for box in boxes)


def test_as_many_names_as_fit_are_drawn():
    _, best = pl.scores(table(400), n_top=400).axes
    assert 10 < len(best.get_yticks()) < 40
    best.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in best.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert len(pl.scores(table(400), n_top=0).axes) == 1


@pytest.mark.parametrize(
    ("n", "ticks"), [(31, [1, 10, 20, 31]), (49, [1, 10, 20, 30, 40, 49]), (785, [1, 200, 400, 600, 785])]
)
def test_ranks_are_counted_from_one_to_the_last(n: int, ticks: list[int]):
    ax = pl.scores(table(n)).axes[0]
    assert list(ax.get_xticks()) == ticks
    # Only a margin is empty
    lowest, highest = ax.get_xlim()
    assert 0 < 1 - lowest < 0.03 * n
    assert 0 < highest - n < 0.03 * n


def test_ceiling_of_some_genes_is_a_bar_each():
    scores = table(80)
    ax = pl.scores(scores).axes[0]
    ceilings = scores.sort_values("pearson", ascending=False)["ceiling"]
    np.testing.assert_allclose([bar.get_height() for bar in ax.containers[0]], ceilings)


def test_ceiling_of_many_genes_is_a_dot_each_and_smooth():
    scores = table(400).sort_values("pearson", ascending=False)
    scores["ceiling"] = np.linspace(0.9, 0.4, 400) + np.random.default_rng(0).normal(0, 0.1, 400)
    scores.iloc[[3, 50], scores.columns.get_loc("ceiling")] = np.nan
    ax = pl.scores(scores).axes[0]
    np.testing.assert_allclose(dots(ax, "noise ceiling").get_ydata(), scores["ceiling"])
    line = dots(ax, "noise ceiling, smoothed")
    assert set(range(1, 401)) - set(line.get_xdata()) == {4, 51}  # ranks whose ceiling is not known
    np.testing.assert_allclose(line.get_ydata(), 0.9 - 0.5 * (line.get_xdata() - 1) / 399, atol=0.06)
    assert np.abs(np.diff(line.get_ydata())).max() < 0.005
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "noise ceiling; line: smoothed",
        "Pearson correlation",
    ]
    # With few known ceilings the line joins these; with none there is no line
    scores.iloc[2:, scores.columns.get_loc("ceiling")] = np.nan
    assert dots(pl.scores(scores).axes[0], "noise ceiling, smoothed").get_ydata() == pytest.approx(
        scores["ceiling"][:2]
    )
    assert pl.scores(scores.assign(ceiling=np.nan)).axes[0].get_legend() is None


def test_the_smooth_ceiling_is_not_negative():
    scores = table(400).sort_values("pearson", ascending=False)
    scores["ceiling"] = np.linspace(0.8, -0.08, 400).clip(min=0)  # a line through the last of them ends below 0
    line = dots(pl.scores(scores).axes[0], "noise ceiling, smoothed").get_ydata()
    assert line.min() == 0.0


def test_the_legend_explains_missing_bars():
    scores = table(10)
    assert pl.scores(scores).axes[0].get_legend().get_texts()[0].get_text() == "noise ceiling"
    for nothing in (0.0, np.nan):
        scores.iloc[3, scores.columns.get_loc("ceiling")] = nothing
        label = pl.scores(scores).axes[0].get_legend().get_texts()[0].get_text()
        assert label == "noise ceiling (no bar: counts show noise only)"


def with_predictions(adata: AnnData, n: int) -> AnnData:
    for seed, key in enumerate(["hggep", "ridge", "nearest"]):
        adata.uns[f"{key}_scores"] = table(n, seed).assign(ceiling=table(n)["ceiling"])
    return adata


def test_several_predictions_of_few_genes(section: Make):
    adata = with_predictions(section(), 12)
    adata.uns["ridge_scores"].loc["GENE3", "pearson"] = np.nan
    genes, boxes = pl.scores(adata, key=["ridge", "hggep"]).axes
    ridge = adata.uns["ridge_scores"]["pearson"].dropna().sort_values(ascending=False)
    assert [text.get_text() for text in genes.get_xticklabels()] == list(ridge.index)
    assert genes.get_xlabel() == "genes, best first by ridge (11; 1 not scored by all, left out)"
    hggep = adata.uns["hggep_scores"].loc[ridge.index]
    np.testing.assert_allclose(dots(genes, f"ridge: mean {ridge.mean():.3f}").get_ydata(), ridge)
    np.testing.assert_allclose(dots(genes, f"hggep: mean {hggep['pearson'].mean():.3f}").get_ydata(), hggep["pearson"])
    np.testing.assert_allclose([bar.get_height() for bar in genes.containers[0]], hggep["ceiling"])
    assert [text.get_text() for text in boxes.get_xticklabels()] == ["ridge", "hggep"]
    means = {line.get_ydata()[0] for line in boxes.lines if str(line.get_marker()) in "os" and len(line.get_ydata())}
    assert means >= {ridge.mean(), hggep["pearson"].mean()}
    colors = [line.get_color() for line in genes.lines[:2]]
    assert len(set(colors)) == 2


def test_several_predictions_of_many_genes_are_curves(section: Make):
    adata = with_predictions(section(), 300)
    genes = pl.scores(adata, key=["hggep", "ridge", "nearest"]).axes[0]
    for key in ("hggep", "ridge", "nearest"):
        own = adata.uns[f"{key}_scores"]["pearson"].sort_values(ascending=False)
        np.testing.assert_allclose(dots(genes, f"{key}: mean {own.mean():.3f}").get_ydata(), own)
    assert not genes.containers
    assert genes.get_xlabel() == "genes, each curve by its own rank, best first (300)"


def test_several_predictions_that_cannot_be_compared(section: Make):
    adata = with_predictions(section(), 12)
    with pytest.raises(KeyError, match=r"'absent_scores' is not in uns.*tl\.evaluate\(data, 'absent'\)"):
        pl.scores(adata, key=["hggep", "absent"])
    with pytest.raises(ValueError, match=r"one slide, found a DataFrame.*tl\.compare"):
        pl.scores(table(5), key=["hggep", "ridge"])
    with pytest.raises(ValueError, match="more than once: 'hggep'"):
        pl.scores(adata, key=["hggep", "hggep"])
    with pytest.raises(ValueError, match="an empty list"):
        pl.scores(adata, key=[])
    _, ax = plt.subplots()
    assert pl.scores(adata, key=["hggep", "ridge"], ax=ax) is ax
    assert len(pl.scores(adata, key=["hggep"]).axes) == 1


NAMES = ["hggep", "ridge", "mean", "nearest_patch", "a_very_long_name_of_a_model", "other_model"]


def all_figures(adata: AnnData, n: int) -> Iterator[tuple[str, Figure]]:
    """Figures of one prediction, of genes without a ceiling, of sections, and of two to six predictions."""
    nothing = table(n).assign(ceiling=lambda scores: scores["ceiling"].where(scores["ceiling"] > 0.4, 0.0))
    parts = [table(n, seed).assign(section=name) for seed, name in enumerate(["A", "B", "C"])]
    yield "one", pl.scores(table(n))
    yield "nothing", pl.scores(nothing)
    yield "sections", pl.scores(pd.concat(parts))
    for seed, key in enumerate(NAMES):
        adata.uns[f"{key}_scores"] = table(n, seed).assign(ceiling=table(n)["ceiling"])
    for k in range(2, len(NAMES) + 1):
        yield f"{k} predictions", pl.scores(adata, key=NAMES[:k])
    _, ax = plt.subplots(figsize=(2.5, 2))
    yield "own axes", pl.scores(nothing, ax=ax).figure


def drawn_in(ax: Axes) -> Iterator[tuple[str, Bbox]]:
    """The boxes of all dots, bars and whiskers in the axes, on the screen."""
    for line in ax.lines:
        places = line.get_transform().transform(np.column_stack(line.get_data(orig=False)))
        radius = line.get_markersize() / 2 * ax.figure.dpi / 72 if line.get_marker() not in ("", "None", None) else 0
        yield from (("line", Bbox.from_extents(*(place - radius), *(place + radius))) for place in places)
    yield from (("bar", patch.get_window_extent()) for patch in ax.patches)
    for lines in ax.collections:
        for segment in lines.get_segments():
            yield "ceiling", Bbox(lines.get_transform().transform(segment))


@pytest.mark.parametrize("n", [10, 60, 400])
def test_the_legend_touches_neither_axis_nor_data(section: Make, n: int):
    for name, figure in all_figures(section(), n):
        figure.canvas.draw()
        for i, ax in enumerate(figure.axes):
            if (legend := ax.get_legend()) is None:
                assert "best" in ax.get_title(), (name, i)
                continue
            box = legend.get_window_extent()
            around = [("y axis", ax.yaxis.get_tightbbox())]
            around += [("title", ax.title.get_window_extent())] if ax.get_title() else []
            around += [("panel", other.get_tightbbox()) for other in figure.axes if other is not ax]
            hit = [what for what, extent in (*around, *drawn_in(ax)) if box.overlaps(extent)]
            assert not hit, (name, i, hit)
            if box.y0 < ax.bbox.y1:  # inside the panel, clear of the line of its y axis
                assert box.x0 >= ax.bbox.x0 + 5 * figure.dpi / 72, (name, i)
            assert figure.bbox.x0 <= box.x0, (name, i)
            assert box.x1 <= figure.bbox.x1, (name, i)
            assert box.y1 <= figure.bbox.y1, (name, i)
            assert ax.get_window_extent().height > 1.2 * figure.dpi or name == "own axes", (name, i)
        plt.close(figure)


def test_a_legend_that_fits_has_one_line():
    for n in (10, 60, 400):
        texts = pl.scores(table(n)).axes[0].get_legend().get_texts()
        assert len({round(text.get_window_extent().y0) for text in texts}) == 1


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


def test_many_genes_and_sections_fit_on_a_page():
    parts = [table(60, seed).assign(section=name) for seed, name in enumerate(["A", "B"])]
    figure = pl.scores(pd.concat(parts))
    genes, best, sections = figure.axes
    assert figure.get_figwidth() <= 7.2
    assert (best.get_title(), sections.get_title()) == ("best 10 (bar: ceiling)", "by section")
    assert dots(genes).get_ydata().size == 60


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
