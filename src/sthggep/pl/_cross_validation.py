"""Scores on held-out sections: the model, its baselines and the noise ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import listing, one_of
from sthggep.pl._figure import COLORS, DOT, figure_of, new_figure, save_figure, style
from sthggep.pl._score_panels import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODEL, CEILING = "hggep", "ceiling"
COLUMNS = ("group", "section", "method", "gene", "metric", "value")
MARKERS = "osD^vP"
LETTER = 0.065  # inches of a letter in the names of sections
TITLE_INCHES = 6.5  # width of the title in one line
SLOT = 0.76  # fraction of a section's width that its methods take


@checked
def cross_validation(
    results: pd.DataFrame,
    *,
    metric: str = "pearson",
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw the scores of the model and its baselines on each held-out section.

    The x axis lists the held-out sections, group by group, and at the end the mean over sections; the y axis is the
    metric. A marker is the mean over genes, its line spans the lower to the upper quartile of the genes, and the gray
    bar is the mean noise ceiling. The title gives the mean score of the model, its fraction of the ceiling, and the
    score of the best baseline. An asterisk marks a section whose patient has other sections among the training ones.

    Parameters
    ----------
    results
        The table that :func:`sthggep.tl.cross_validate` returns, or rows of it.
    metric
        ``"pearson"``, ``"spearman"`` or ``"rmse"`` (lower is better). Only Pearson has a ceiling.
    figsize
        Width and height in inches. Default: a size that fits the content.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.
    ax
        Axes to draw into. Default: a new figure.

    Returns
    -------
    The figure, or ``ax`` if you pass it.

    Raises
    ------
    TypeError
        ``results`` is no table.
    KeyError
        ``results`` lacks a column of the results of a cross-validation.
    ValueError
        The metric is not among the results.

    Examples
    --------
    >>> results = sthggep.tl.cross_validate(slides)
    >>> sthggep.pl.cross_validation(results, save="held_out.png")
    """
    check_results(results, COLUMNS)
    one_of(metric, [name for name in LABELS if name in set(results["metric"])], "metric")
    summary = _summary(results, metric)
    sections = results[["section", "group"]].drop_duplicates("section").sort_values("group", key=_first_appearance)
    with style():
        if ax is not None:
            _draw(ax, summary, sections, results, metric)
            save_figure(figure_of(ax), save)
            return ax
        n = len(sections) + (len(sections) > 1)
        width = float(np.clip(1.0 + 0.17 * n * summary["method"].nunique(), 4.4, 11.0))
        figure = new_figure(figsize or (width, 3.0), dpi)
        _draw(figure.subplots(), summary, sections, results, metric)
        save_figure(figure, save)
    return figure


def check_results(results: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse what is not the table of a cross-validation."""
    if not hasattr(results, "columns"):
        msg = f"The table of `sthggep.tl.cross_validate` was expected, found {type(results).__name__}."
        raise TypeError(msg)
    absent = [column for column in columns if column not in results]
    if absent:
        msg = (
            f"Results of `sthggep.tl.cross_validate` were expected, with the columns {listing(columns)}; {listing(absent)} "
            f"are missing, the columns are {listing(results.columns)}."
        )
        raise KeyError(msg)


def _first_appearance(groups: pd.Series) -> pd.Series:
    """Number of each row's group, in the order in which the groups appear; a key to sort by."""
    return pd.Series(pd.factorize(groups)[0], index=groups.index)


def _summary(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean and quartiles over genes of each method (and of the ceiling) in each section."""
    metrics = (metric, CEILING) if metric == "pearson" else (metric,)
    values = results[results["metric"].isin(metrics)].groupby(["method", "section"], sort=False)["value"]
    table = pd.DataFrame({"mean": values.mean(), "low": values.quantile(0.25), "high": values.quantile(0.75)})
    return table.reset_index()


def _methods(summary: pd.DataFrame) -> list[str]:
    """Methods without the ceiling: the model first, then the others in their order."""
    methods = [str(name) for name in summary["method"].unique() if name != CEILING]
    return sorted(methods, key=lambda name: name != MODEL)


def _draw(ax: Axes, summary: pd.DataFrame, sections: pd.DataFrame, results: pd.DataFrame, metric: str) -> None:
    names = [str(name) for name in sections["section"]]
    positions = np.arange(len(names), dtype=float)
    several = len(names) > 1
    methods = _methods(summary)
    step = SLOT / len(methods)
    if metric != "rmse":
        ax.axhline(0, color="black", lw=0.6, zorder=1)
    for i, method in enumerate(methods):
        scores = summary[summary["method"] == method].set_index("section").reindex(names)
        shift = (i - (len(methods) - 1) / 2) * step
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        ax.vlines(positions + shift, scores["low"], scores["high"], color=color, lw=1.0, alpha=0.5, zorder=3)
        x, y = [*(positions + shift)], [*scores["mean"]]
        if several:
            x, y = [*x, len(names) + shift], [*y, scores["mean"].mean()]
        ax.plot(x, y, ls="", marker=marker, color=color, label=_label(method), **DOT)
    _draw_ceiling(ax, summary, names, several)
    _draw_groups(ax, sections)
    _name_sections(ax, names, results, several)
    ax.set(ylabel=LABELS[metric], xlim=(-0.6, len(names) - 0.4 + several))
    narrow = figure_of(ax).get_size_inches()[0] < TITLE_INCHES
    ax.set_title(_title(summary, methods, metric, narrow=narrow), pad=16 if _grouped(sections) else 6)
    _draw_legend(ax)


def _draw_legend(ax: Axes) -> None:
    """Extend the y axis, and list all methods above the data, with what marker and line mean."""
    handles, labels = ax.get_legend_handles_labels()
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.22 * (high - low))
    ax.legend(
        handles,
        labels,
        title="mean; line = quartiles of genes",
        title_fontsize=7,
        alignment="left",
        loc="upper left",
        ncols=len(labels),
        borderaxespad=0.2,
        columnspacing=1.2,
        handletextpad=0.3,
        handlelength=1.4,
    )


def _label(method: str) -> str:
    return "HGGEP" if method == MODEL else method.replace("_", " ")


def _draw_ceiling(ax: Axes, summary: pd.DataFrame, names: list[str], several: bool) -> None:
    ceiling = summary[summary["method"] == CEILING].set_index("section")["mean"].reindex(names)
    if ceiling.notna().any():
        y = [*ceiling, ceiling.mean()] if several else [*ceiling]
        x = np.arange(len(y))
        ax.hlines(y, x - SLOT / 2, x + SLOT / 2, color="0.55", lw=2.0, label="noise ceiling", zorder=2)


def _grouped(sections: pd.DataFrame) -> bool:
    return bool((sections["group"].astype(str) != sections["section"].astype(str)).any())


def _draw_groups(ax: Axes, sections: pd.DataFrame) -> None:
    """Draw a band behind every second group, and the names of the groups above."""
    if not _grouped(sections):
        return
    groups = sections["group"].astype(str).to_numpy()
    for i, group in enumerate(dict.fromkeys(groups)):
        first, last = np.flatnonzero(groups == group)[[0, -1]]
        if i % 2 == 0:
            ax.axvspan(first - 0.5, last + 0.5, color="0.95", lw=0, zorder=0)
        ax.annotate(
            group,
            ((first + last) / 2, 1),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )


def _name_sections(ax: Axes, names: list[str], results: pd.DataFrame, several: bool) -> None:
    leaks = set(results.loc[results["leak"] != "", "section"]) if "leak" in results else set()
    labels = [f"{name}*" if name in leaks else name for name in names] + ["mean"] * several
    width = figure_of(ax).get_size_inches()[0] * ax.get_position().width / len(labels)
    long = max(map(len, labels)) * LETTER > width
    ax.set_xticks(np.arange(len(labels)), labels, rotation=90 if long else 0)
    if several:
        ax.get_xticklabels()[-1].set_fontweight("bold")
        ax.axvline(len(names) - 0.5, 0, 0.8, color="0.6", lw=0.6, zorder=1)
    key = results.attrs.get("parameters", {}).get("group_key", "section")
    grouped = "" if key == "section" else f", by {key}"
    footnote = "   (* trained on other sections of the same patient)" if leaks else ""
    ax.set_xlabel(f"held-out section{grouped}{footnote}")


def _title(summary: pd.DataFrame, methods: list[str], metric: str, *, narrow: bool) -> str:
    """Mean score of the model, its fraction of the ceiling, and the best baseline."""
    means = summary.groupby("method")["mean"].mean()
    parts = []
    if MODEL in means:
        parts.append(f"{_label(MODEL)} {means[MODEL]:.3f}")
        if CEILING in means:
            parts[0] += f", {100 * means[MODEL] / means[CEILING]:.0f} % of the noise ceiling ({means[CEILING]:.3f})"
    others = means[[name for name in methods if name != MODEL]].dropna()
    if len(others):
        best = str(others.idxmin() if metric == "rmse" else others.idxmax())
        parts.append(f"best baseline: {_label(best)} {others[best]:.3f}")
    return "\n".join(parts) if narrow else "; ".join(parts)
