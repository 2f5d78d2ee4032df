"""Per-gene scores against what noise in the counts leaves attainable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import has_key, listing, one_of
from sthggep._keys import prediction_keys
from sthggep._slide import table_of
from sthggep.pl._figure import COLOURS, DOT, figure_of, new_figure, save_figure, style

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

LABELS = {"pearson": "Pearson correlation", "spearman": "Spearman correlation", "rmse": "RMSE"}
FEW_GENES = 30
NEXT_LABEL = 9.0  # points from one gene's name to the next
LETTER_SHARE = 0.02  # room for a letter of the names, as a share of the width of the dots


def scores(
    data: AnnData | SpatialData | pd.DataFrame,
    *,
    key: str = "hggep",
    metric: str = "pearson",
    n_top: int = 10,
    table_key: str = "table",
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw the score of every gene, best first, against its noise ceiling.

    Counts are noisy: even a perfect prediction correlates with them only so far. That ceiling is drawn in gray;
    the title says which share of it was reached, on average over the genes that have one. With several sections a
    gene's dot is its mean over sections, and a second panel shows the sections.

    Parameters
    ----------
    data
        Slide that :func:`sthggep.tl.evaluate` was called on, or the DataFrame that it returned.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`. A DataFrame needs none.
    metric
        ``"pearson"``, ``"spearman"`` or ``"rmse"`` (low is good; it is drawn without a ceiling, as Spearman is).
    n_top
        How many of the best genes are named.
    table_key
        Table of a SpatialData.
    figsize
        Width and height in inches.
    dpi
        Resolution on the screen; files are written with 300.
    save
        File to write; its ending chooses the format.
    ax
        Axes to draw the genes into; sections are then left out.

    Returns
    -------
    The figure, or ``ax`` where it was passed.

    Raises
    ------
    KeyError
        There are no scores yet.
    ValueError
        The metric is not among the scores, or no gene has a score.
    """
    table = _table(data, key, table_key)
    one_of(metric, [column for column in LABELS if column in table], "metric")
    by_gene = _by_gene(table, metric)
    sections = "section" in table and table["section"].nunique() > 1 and ax is None
    with style():
        if ax is not None:
            _draw_genes(ax, by_gene, metric, n_top)
            save_figure(figure_of(ax), save)
            return ax
        figure = new_figure(figsize or (6.8 if sections else 4.6, 3.0), dpi)
        axes = figure.subplots(1, 1 + sections, squeeze=False, width_ratios=(2.2, 1)[: 1 + sections])[0]
        if sections:
            _draw_sections(axes[1], table, metric)
        _draw_genes(axes[0], by_gene, metric, n_top)
        save_figure(figure, save)
    return figure


def _table(data: AnnData | SpatialData | pd.DataFrame, key: str, table_key: str) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        table = data
    else:
        first = f"Call `sthggep.tl.evaluate(data, {key!r})` first."
        table = has_key(table_of(data, table_key).uns, prediction_keys(key).scores, "uns", first)
    if not any(column in table for column in LABELS):
        msg = f"Scores have one of the columns {listing(LABELS)}; these are {listing(table.columns)}."
        raise KeyError(msg)
    return table


def _by_gene(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Score and ceiling of each gene, averaged over sections, best first; genes without a score come last."""
    columns = [metric, "ceiling"] if metric == "pearson" and "ceiling" in table else [metric]
    means = table[columns].groupby(table.index.astype(str), sort=False).mean()
    if not means[metric].notna().any():
        msg = f"No gene has a {LABELS[metric]}: all are constant, measured or predicted."
        raise ValueError(msg)
    return means.sort_values(metric, ascending=metric == "rmse", na_position="last", kind="stable")


def _draw_genes(ax: Axes, by_gene: pd.DataFrame, metric: str, n_top: int) -> None:
    scored = by_gene[by_gene[metric].notna()]
    n = len(scored)
    rank = np.arange(1, n + 1)
    if "ceiling" in scored:
        _draw_ceiling(ax, rank, scored["ceiling"])
    size = 4.0 if n <= FEW_GENES else max(1.8, 4.0 - n / 250)
    ax.plot(rank, scored[metric], "o", ms=size, mew=0, color=COLOURS[0], label=LABELS[metric], zorder=3)
    ax.set_xlim(0.2, n + 0.8)
    ax.set(ylabel=LABELS[metric], title=_title(scored, metric))
    constant = f"; {len(by_gene) - n} constant, left out" if n < len(by_gene) else ""
    ax.set_xlabel(f"genes, best first ({n}{constant})")
    if metric != "rmse":
        ax.plot([0.2, n + 0.8], [0, 0], color="black", lw=0.6, zorder=2)
    if "ceiling" in scored:
        _legend_above(ax, markerscale=4.0 / size)
    if n <= FEW_GENES:
        ax.set_xticks(rank, scored.index, rotation=90)
    elif n_top > 0:
        _name_top(ax, n, scored[metric].iloc[:n_top])


def _draw_ceiling(ax: Axes, rank: NDArray[np.int_], ceiling: pd.Series) -> None:
    """A gray bar a gene; where they are many, the median and the quartiles of neighbouring ranks."""
    if len(rank) <= FEW_GENES:
        ax.bar(rank, ceiling, width=0.7, color="0.87", label="noise ceiling", zorder=1)
        return
    near = ceiling.rolling(max(9, len(rank) // 20), center=True, min_periods=1)
    ax.fill_between(rank, near.quantile(0.25), near.quantile(0.75), color="0.87", lw=0, zorder=1)
    ax.plot(rank, near.median(), color="0.5", lw=1.2, label="noise ceiling (median, quartiles)", zorder=2)


def _legend_above(ax: Axes, **options: Any) -> None:
    """A legend in one line over everything drawn, for which the axes grow."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.1 * (high - low))
    ax.legend(loc="upper right", ncols=2, borderaxespad=0, columnspacing=1.2, handletextpad=0.5, **options)


def _title(scored: pd.DataFrame, metric: str) -> str:
    title = f"mean {scored[metric].mean():.3f}"
    both = scored.dropna()
    if "ceiling" not in both or both.empty:
        return title
    ceiling = both["ceiling"].mean()
    return f"{title}, {100 * both[metric].mean() / ceiling:.0f} % of the noise ceiling ({ceiling:.3f})"


def _name_top(ax: Axes, n: int, top: pd.Series) -> None:
    """Names of the best genes in a column of their own, left of the dots, far enough apart to be read."""
    figure = figure_of(ax)
    ax.set_xlim(-(0.1 + LETTER_SHARE * max(map(len, top.index))) * n, n + 0.8)
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 < tick <= n])
    low, high = ax.get_ylim()
    figure.draw_without_rendering()  # only now is the height of the axes known
    step = NEXT_LABEL / 72 * figure.dpi / ax.get_window_extent().height * (high - low)
    top = top.iloc[: int((high - low) / step) - 2]
    # Evenly spaced around the dots' own heights, and inside the axes, below the legend
    span = step * (len(top) - 1)
    highest = min(max(float(top.mean()) + span / 2, low + span + step / 2), high - 2 * step)
    places = highest - step * np.arange(len(top))
    if top.iloc[0] < top.iloc[-1]:  # low is good: the best stands lowest
        places = places[::-1]
    line = {"arrowstyle": "-", "lw": 0.4, "color": "0.4", "shrinkA": 0, "shrinkB": 1.5, "relpos": (1, 0.5)}
    for x, (name, y) in enumerate(top.items(), start=1):
        where = (-0.05 * n, places[x - 1])
        ax.annotate(str(name), (x, y), xytext=where, fontsize=7, ha="right", va="center", arrowprops=line, zorder=4)


def _draw_sections(ax: Axes, table: pd.DataFrame, metric: str) -> None:
    """Spread of the genes in each section, their mean, and the mean ceiling."""
    by_section = table.groupby(table["section"].astype(str), sort=False)
    names = [str(name) for name in by_section.groups]
    groups = [by_section.get_group(name)[metric].dropna() for name in names]
    at = np.arange(1, len(names) + 1)
    thin = {"color": "black", "linewidth": 0.7}
    ax.boxplot(
        groups,
        positions=at,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": "0.93", "linewidth": 0.7},
        medianprops=thin,
        whiskerprops=thin,
        capprops=thin,
        flierprops={"markersize": 2, "markeredgewidth": 0.4, "markeredgecolor": "0.5"},
    )
    ax.plot(at, [group.mean() for group in groups], "o", color=COLOURS[0], label="mean", **DOT)
    if metric == "pearson" and "ceiling" in table:
        ceiling = [by_section.get_group(name)["ceiling"].mean() for name in names]
        ax.hlines(ceiling, at - 0.4, at + 0.4, color=COLOURS[1], lw=1.5, label="mean ceiling", zorder=3)
    long = max(len(name) for name in names) > 4 or len(names) > 8
    ax.set_xticks(at, names, rotation=90 if long else 0)
    ax.set(title="by section", ylabel=LABELS[metric], xlabel="section")
    if metric != "rmse":
        ax.axhline(0, color="black", lw=0.6, zorder=0)
    _legend_above(ax)
