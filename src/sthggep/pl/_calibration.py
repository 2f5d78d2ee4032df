"""Intervals on held-out sections: how often they hold, and how wide they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep._arguments import checked
from sthggep.pl._cross_validation import check_results
from sthggep.pl._figure import DOT, distinct_colors, new_figure, save_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("section", "gene", "metric", "value")
SHOWN = 0.9  # level of the panels by section, or the one nearest to it


@checked
def calibration(
    results: pd.DataFrame,
    *,
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
) -> Figure:
    """Draw how often the model's intervals hold on each held-out section, and how wide they are.

    Left, where there are several levels, a curve for each section, in the color of its name in the other panels: the
    coverage of the median gene against the level. Curves on the diagonal are calibrated, curves below it promise too much.
    Then, at the level nearest to 0.9, coverage and width by section; widths are on the scale of the prediction. A marker is
    the median over genes, its line spans the quartiles.

    Parameters
    ----------
    results
        The table that :func:`sthggep.tl.cross_validate` returns with ``interval``: one level, or several for a curve.
    figsize
        Width and height in inches. Default: a size that fits the content.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.

    Returns
    -------
    The figure.

    Raises
    ------
    TypeError
        ``results`` is no table.
    KeyError
        ``results`` lacks a column of the results of a cross-validation.
    ValueError
        ``results`` holds no intervals.

    Examples
    --------
    >>> results = sthggep.tl.cross_validate(slides, interval=[0.5, 0.8, 0.9, 0.95])
    >>> sthggep.pl.calibration(results)
    """
    check_results(results, COLUMNS)
    known = (
        results[results["metric"].isin(["coverage", "width"])].dropna(subset="value")
        if "level" in results
        else results[:0]
    )
    if not len(known):
        msg = "`results` holds no intervals. Pass `interval=0.9` to `sthggep.tl.cross_validate`, or several levels for a curve."
        raise ValueError(msg)
    values = known.groupby(["metric", "section", "level"], sort=False)["value"]
    table = pd.DataFrame({"median": values.median(), "low": values.quantile(0.25), "high": values.quantile(0.75)})
    table = table.reset_index()
    names = [str(name) for name in known["section"].unique()]
    of_targets = results.attrs.get("parameters", {}).get("targets") is not None
    what = "target" if of_targets else "gene"
    levels = np.sort(known["level"].unique())
    shown = float(levels[np.abs(levels - SHOWN).argmin()])
    with style():
        several = len(levels) > 1
        size = figsize or (float(np.clip(2.0 + 2.0 * several + 0.5 * len(names), 4.5 + 2.0 * several, 11.0)), 2.8)
        figure = new_figure(size, dpi)
        *curves, coverage, width = figure.subplots(1, 2 + several)
        for ax in curves:
            _draw_curves(ax, table[table["metric"] == "coverage"], names, what)
        for ax, metric in ((coverage, "coverage"), (width, "width")):
            _draw_sections(ax, table[(table["metric"] == metric) & (table["level"] == shown)], names)
            ax.set(ylabel=metric, title=f"{100 * shown:g} % intervals")
        coverage.axhline(shown, color="0.4", lw=0.8, ls="--", zorder=1)
        coverage.set_ylim(min(coverage.get_ylim()[0], shown - 0.05), 1.0)
        width.set_ylim(bottom=0)
        width.annotate(
            f"dot: median {what}\nline: quartiles", (0.03, 0.03), xycoords="axes fraction", fontsize=7, color="0.4"
        )
        save_figure(figure, save)
    return figure


def _draw_curves(ax: Axes, coverage: pd.DataFrame, names: list[str], what: str) -> None:
    """Draw the coverage of the median gene against the level, a curve for each section."""
    least = float(min(coverage["level"].min(), coverage["median"].min())) - 0.03
    ax.plot([least, 1], [least, 1], color="0.4", lw=0.8, ls="--", zorder=1)
    for name, color in zip(names, distinct_colors(len(names)), strict=True):
        rows = coverage[coverage["section"].astype(str) == name].sort_values("level")
        ax.plot(rows["level"], rows["median"], color=color, marker="o", lw=1.0, label=name, **DOT)
    ax.set(xlim=(least, 1), ylim=(least, 1), xlabel="level of the intervals", ylabel=f"coverage of the median {what}")
    ax.set_title("held-out sections")
    ax.annotate("too wide", (0.04, 0.96), xycoords="axes fraction", fontsize=7, color="0.4", va="top")
    ax.annotate("too narrow", (0.96, 0.04), xycoords="axes fraction", fontsize=7, color="0.4", ha="right")


def _draw_sections(ax: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    """Draw median and quartiles over the genes of each section."""
    rows = rows.assign(section=rows["section"].astype(str)).set_index("section").reindex(names)
    low, median, high = (rows[column].to_numpy(dtype=np.float64) for column in ("low", "median", "high"))
    colors = distinct_colors(len(names))
    for x, color in enumerate(colors):
        ax.vlines(x, low[x], high[x], color=color, lw=1.0, alpha=0.6)
        ax.plot([x], [median[x]], ls="", marker="o", color=color, **DOT)
    long = max(map(len, names)) > 4
    ax.set_xticks(np.arange(len(names)), names, rotation=90 if long else 0)
    for text, color in zip(ax.get_xticklabels(), colors, strict=True):
        text.set_color(color)  # the key to the curves
    ax.set_xlim(-0.6, len(names) - 0.4)
