"""Scores of genes beside their noise ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import has_key, listing, one_of, unique
from sthggep._keys import prediction_keys
from sthggep._slides._anndata import table_of
from sthggep._table._prediction_rows import on_training_tissue
from sthggep.pl._figure import COLORS, figure_of, new_figure, save_figure, style
from sthggep.pl._score_panels import (
    FEW_GENES,
    LABELS,
    SOME_GENES,
    Compared,
    PanelLegend,
    ceiling_label,
    draw_boxes,
    draw_compared,
    draw_legends,
    height_of,
    rank_ticks,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

NEXT_LABEL = 9.5  # points from one gene's name to the next
BEST_MARGIN = 0.8  # inches above and below the names of the best genes
TREND = 0.3  # fraction of the genes in the window that smooths the ceiling


@checked
def scores(
    data: AnnData | SpatialData | pd.DataFrame,
    *,
    key: str | Sequence[str] = "hggep",
    metric: str = "pearson",
    n_top: int = 10,
    table_key: str = "table",
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw the score of every gene, best first, beside its noise ceiling; of several predictions, side by side.

    The x axis is the rank of the gene, the y axis its score; a dot is a gene. Counts are noisy, so even a perfect
    prediction reaches only a limited correlation with them. This ceiling is gray: one bar for each gene, or for more
    than 100 genes one dot for each gene and a line that smooths the dots over the rank; a gene whose counts show noise only
    has no bar. The title gives the mean score
    and, over the genes that have a ceiling, the fraction of the ceiling that the prediction reaches. With more than 30
    genes, a second panel names the best. With several sections, a dot is the mean of a gene over sections, and a further
    panel shows a box of the genes for each section.

    With several predictions of the slide (``key=["hggep", "ridge"]``), each has its color. The genes are those that all
    predictions score, in the order of the first, with one dot for each prediction; for more than 100 genes each prediction is
    a curve over the rank by its own scores. A second panel shows a box of the genes for each prediction. The figure does
    not say whether a difference is more than chance: :func:`sthggep.tl.compare` does.

    Parameters
    ----------
    data
        Slide with scores (call :func:`sthggep.tl.evaluate` on it first), or the DataFrame that this call returns.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`; or a list of them to compare, for which ``data``
        must be a slide. One name is without effect on a DataFrame.
    metric
        ``"pearson"``, ``"spearman"`` or ``"rmse"`` (lower is better). Only Pearson has a ceiling.
    n_top
        Number of the best genes to name, as far as they fit; 0 omits their panel.
    table_key
        Table of a SpatialData.
    figsize
        Width and height in inches. Default: a size that fits the content.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.
    ax
        Axes to draw all genes into, without the panels of the best genes and of the sections. Default: a new figure.

    Returns
    -------
    The figure, or ``ax`` if you pass it. The axes of the figure are: all genes, then, if the figure has these panels,
    the best genes and the sections, or the predictions.

    Raises
    ------
    KeyError
        The slide has no scores of this prediction.
    ValueError
        The metric is not among the scores, no gene has a score, or there are several keys for a DataFrame, a name twice, or
        more than six.

    See Also
    --------
    sthggep.pl.compare : Draw what :func:`sthggep.tl.compare` returns, with intervals of the differences.

    Examples
    --------
    >>> sthggep.tl.evaluate(slide)
    >>> sthggep.pl.scores(slide, save="scores.png")

    Two predictions side by side:

    >>> sthggep.tl.evaluate(slide, "ridge")
    >>> sthggep.pl.scores(slide, key=["hggep", "ridge"])
    """
    keys = [key] if isinstance(key, str) else list(key)
    if len(keys) != 1:
        return _compared(data, keys, metric, table_key, figsize, dpi, save, ax)
    (key,) = keys
    table, trained_on = _table(data, key, table_key)
    one_of(metric, [column for column in LABELS if column in table], "metric")
    by_gene = _by_gene(table, metric)
    with style():
        if ax is not None:
            draw_legends(_draw_genes(ax, by_gene, metric, _names_of(table), trained_on))
            save_figure(figure_of(ax), save)
            return ax
        widths = {"genes": 4.4}
        if n_top > 0 and by_gene[metric].notna().sum() > FEW_GENES:
            widths["best"] = 1.6
        if "section" in table and table["section"].nunique() > 1:
            widths["sections"] = 2.2
        # No wider than a journal's page
        figure = new_figure(figsize or (min(sum(widths.values()), 7.2), 3.0), dpi)
        row = figure.subplots(1, len(widths), squeeze=False, width_ratios=list(widths.values()))[0]
        panels = dict(zip(widths, row, strict=True))
        legends = _draw_genes(panels["genes"], by_gene, metric, _names_of(table), trained_on)
        if "best" in panels:
            fit = max(1, int((figure.get_figheight() - BEST_MARGIN) * 72 / NEXT_LABEL))
            _draw_best(panels["best"], by_gene.iloc[: min(n_top, fit)], metric)
        if "sections" in panels:
            legends.append(_draw_sections(panels["sections"], table, metric))
        draw_legends(legends)
        save_figure(figure, save)
    return figure


def _compared(
    data: AnnData | SpatialData | pd.DataFrame,
    keys: list[str],
    metric: str,
    table_key: str,
    figsize: tuple[float, float] | None,
    dpi: float,
    save: str | Path | None,
    ax: Axes | None,
) -> Figure | Axes:
    """Draw the scores of several predictions of a slide."""
    if isinstance(data, pd.DataFrame) or not keys:
        found = f"a DataFrame, and the keys {listing(keys)}" if keys else "an empty list"
        msg = (
            f"Several `key` name predictions of one slide, found {found}. Pass the slide with its predictions; to compare "
            "predictions of other objects or files, call `sthggep.tl.compare`."
        )
        raise ValueError(msg)
    unique(keys, "`key`", "Name each prediction once.")
    tables = {key: _table(data, key, table_key) for key in keys}
    for table, _ in tables.values():
        one_of(metric, [column for column in LABELS if column in table], "metric")
    by_gene = {key: _by_gene(table, metric) for key, (table, _) in tables.items()}
    scored = Compared.of(by_gene, metric, on_training_tissue=any(trained for _, trained in tables.values()))
    with style():
        if ax is not None:
            draw_compared(ax, scored)
            save_figure(figure_of(ax), save)
            return ax
        figure = new_figure(figsize or (7.2, height_of(scored)), dpi)
        genes, boxes = figure.subplots(1, 2, width_ratios=(4.6, 2.2))
        draw_compared(genes, scored)
        groups = {key: scored.scores[key] for key in keys}
        draw_legends([draw_boxes(boxes, groups, metric, scored.mean_ceilings, "prediction")])
        save_figure(figure, save)
    return figure


def _table(data: AnnData | SpatialData | pd.DataFrame, key: str, table_key: str) -> tuple[pd.DataFrame, bool]:
    """The scores, and whether the model was trained on some of the slide's sections."""
    trained_on = False
    if isinstance(data, pd.DataFrame):
        table = data
    else:
        uns = table_of(data, table_key).uns
        call = f"Call `sthggep.tl.evaluate(data, {key!r})` first."
        table = has_key(uns, prediction_keys(key).scores, "uns", call)
        trained_on = on_training_tissue(table_of(data, table_key), key)
    if not any(column in table for column in LABELS):
        msg = (
            f"A table of scores with one of the columns {listing(LABELS)} was expected, found the columns "
            f"{listing(table.columns)}. Call `sthggep.tl.evaluate(slide)` to compute one."
        )
        raise KeyError(msg)
    return table, trained_on


def _by_gene(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Score and ceiling of each gene, averaged over sections, best first; genes without a score come last."""
    has_ceiling = metric == "pearson" and "ceiling" in table and table["ceiling"].notna().any()
    columns = [metric, "ceiling"] if has_ceiling else [metric]
    means = table[columns].groupby(table.index.astype(str), sort=False).mean()
    if not means[metric].notna().any():
        msg = f"No gene has a {LABELS[metric]}: the measured or the predicted values of every gene are constant."
        raise ValueError(msg)
    return means.sort_values(metric, ascending=metric == "rmse", na_position="last", kind="stable")


def _names_of(table: pd.DataFrame) -> str:
    """What the rows are: targets have no ceiling, since only counts can be split."""
    return "targets" if "ceiling" in table and table["ceiling"].isna().all() else "genes"


def _draw_genes(ax: Axes, by_gene: pd.DataFrame, metric: str, what: str, trained_on: bool) -> list[PanelLegend]:
    """Draw a dot for each gene and its ceiling; return the legend, of which there is none without a ceiling."""
    scored = by_gene[by_gene[metric].notna()]
    n = len(scored)
    rank = np.arange(1, n + 1)
    size = 4.0 if n <= FEW_GENES else max(1.8, 4.0 - n / 250)
    ceiling = _draw_ceiling(ax, rank, scored["ceiling"], 0.8 * size) if "ceiling" in scored else {}
    (dots,) = ax.plot(rank, scored[metric], "o", ms=size, mew=0, color=COLORS[0], label=LABELS[metric], zorder=3)
    margin = max(0.8, 0.01 * n)
    ax.set_xlim(1 - margin, n + margin)
    ax.set(ylabel=LABELS[metric], title=_title(scored, metric) + "\n(on training tissue)" * trained_on)
    constant = f"; {len(by_gene) - n} constant, left out" if n < len(by_gene) else ""
    ax.set_xlabel(f"{what}, best first ({n}{constant})")
    if metric != "rmse":
        ax.axhline(0, color="black", lw=0.6, zorder=2)
    if n <= FEW_GENES:
        ax.set_xticks(rank, scored.index, rotation=90)
    else:
        ax.set_xticks(rank_ticks(n))
    return [PanelLegend(ax, ceiling | {LABELS[metric]: dots}, 4.0 / size)] if ceiling else []


def _draw_ceiling(ax: Axes, rank: NDArray[np.int_], ceiling: pd.Series, size: float) -> dict[str, object]:
    """Draw a gray bar for each gene; of many genes a dot each, and a smooth line. Return the handles of the legend."""
    if len(rank) <= SOME_GENES:
        label = ceiling_label(ceiling)
        return {label: ax.bar(rank, ceiling, width=0.7, color="0.87", label=label, zorder=1)}
    from statsmodels.nonparametric.smoothers_lowess import lowess

    (dots,) = ax.plot(rank, ceiling, "o", color="0.72", mew=0, ms=size, label="noise ceiling", zorder=1)
    finite = ceiling.notna().to_numpy()
    smooth = lowess(ceiling[finite], rank[finite], frac=TREND, it=0, return_sorted=False)
    (line,) = ax.plot(rank[finite], smooth.clip(min=0), color="0.35", lw=1.2, label="noise ceiling, smoothed", zorder=2)
    return {"noise ceiling; line: smoothed": (dots, line)}


def _draw_best(ax: Axes, best: pd.DataFrame, metric: str) -> None:
    """Draw names, scores and ceilings of the best genes, the best on top."""
    rank = np.arange(1, len(best) + 1)
    bars = " (bar: ceiling)" if "ceiling" in best else ""
    if bars:
        ax.barh(rank, best["ceiling"], height=0.7, color="0.87", label="noise ceiling", zorder=1)
    ax.plot(best[metric], rank, "o", ms=4.0, mew=0, color=COLORS[0], label=LABELS[metric], zorder=3)
    ax.set_yticks(rank, best.index)
    ax.tick_params(axis="y", length=0)
    ax.set(ylim=(len(best) + 0.6, 0.4), title=f"best {len(best)}{bars}", xlabel=LABELS[metric])
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))


def _title(scored: pd.DataFrame, metric: str) -> str:
    title = f"mean {scored[metric].mean():.3f}"
    complete = scored.dropna()
    if "ceiling" not in complete or complete.empty:
        return title
    ceiling = complete["ceiling"].mean()
    return f"{title}, {100 * complete[metric].mean() / ceiling:.0f} % of the noise ceiling ({ceiling:.3f})"


def _draw_sections(ax: Axes, table: pd.DataFrame, metric: str) -> PanelLegend:
    """Draw a box of the genes for each section, their mean, and the mean ceiling; return its legend."""
    by_section = table.groupby(table["section"].astype(str), sort=False)
    groups = {str(name): rows[metric] for name, rows in by_section}
    ceilings = (
        [rows["ceiling"].mean() for _, rows in by_section] if "ceiling" in table and metric == "pearson" else None
    )
    return draw_boxes(ax, groups, metric, ceilings, "section")
