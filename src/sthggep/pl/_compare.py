"""Predictions of several methods side by side: means by section, paired differences, and genes against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import one_of
from sthggep.pl._figure import COLORS, DOT, figure_of, new_figure, save_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sthggep.tl import Comparison

MEAN = "mean"  # the baseline, which is the line at 0
ALL = "all sections"
MARKERS = "osD^vP"
MOST_METHODS = 6
SLOT = 0.7  # fraction of a section's height that its methods take
ROW = 0.17  # inches of a method in a section
LETTER = 0.06  # inches of a letter in the names of sections
OF_UNIT = {
    "patients": "over patients",
    "sections": "over sections",
    "spots": "over blocks of spots",
    "genes": "over genes",
}


@checked
def compare(
    results: Comparison,
    *,
    method: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
) -> Figure:
    """Draw the scores of several methods on the same spots and genes.

    Left: sections as rows, and at the bottom the mean over sections. A marker is the mean Pearson correlation over genes,
    its line spans the quartiles of the genes, the gray bar is the mean noise ceiling, and the line at 0 is the baseline that
    predicts the mean. Middle: the paired difference of each method to the first one with its interval; the title names
    what the interval samples. Methods whose line crosses 0 cannot be told from the first. Right: each dot is a gene (mean
    over sections), its correlation by ``method`` against that by the first; dots above the diagonal are genes that
    ``method`` predicts better. An asterisk marks a method that was trained on this tissue or its patients, a question mark
    one of which that is not known. With one method there is only the left panel.

    Parameters
    ----------
    results
        What :func:`sthggep.tl.compare` returns, with up to six methods.
    method
        The method of the right panel. Default: the second one.
    figsize
        Width and height in inches. Default: a size that fits the content.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.

    Returns
    -------
    The figure. Its axes are the sections, the differences and the genes.

    Raises
    ------
    TypeError
        ``results`` is no comparison.
    ValueError
        There are more than six methods, or ``method`` is none of them.

    Examples
    --------
    >>> result = sthggep.tl.compare({"ours": "hggep", "theirs": "theirs.h5ad"}, slide)
    >>> sthggep.pl.compare(result, save="comparison.png")
    """
    methods = _check(results)
    if method is not None:
        one_of(method, methods[1:], "method")
    rows = [str(name) for name in dict.fromkeys(results.scores["section"])]
    rows += [ALL] * (len(rows) > 1)
    panels = ("sections", "differences", "genes") if len(methods) > 1 else ("sections",)
    with style():
        figure = new_figure(figsize or _size(rows, len(methods), len(panels)), dpi)
        axes = np.atleast_1d(figure.subplots(1, len(panels), width_ratios=(1.15, 1.0, 1.0)[: len(panels)]))
        _draw_sections(axes[0], results, methods, rows)
        if len(methods) > 1:
            _draw_differences(axes[1], results, methods, rows)
            _draw_genes(axes[2], results, methods[0], method or methods[1], methods)
        save_figure(figure, save)
    return figure


def _check(results: Comparison) -> list[str]:
    """Names of the methods, without the baseline; refuse what is no comparison."""
    if not hasattr(results, "scores") or not hasattr(results, "differences"):
        msg = f"What `sthggep.tl.compare` returns was expected, found {type(results).__name__}."
        raise TypeError(msg)
    methods = [str(name) for name in results.summary.index if name != MEAN]
    if len(methods) > MOST_METHODS:
        msg = f"Up to {MOST_METHODS} methods can be told apart in one figure, found {len(methods)}. Compare fewer at a time."
        raise ValueError(msg)
    return methods


def _size(rows: list[str], n_methods: int, n_panels: int) -> tuple[float, float]:
    height = 1.15 + len(rows) * max(0.28, ROW * n_methods)
    names = LETTER * max(map(len, rows))
    return (3.4 if n_panels == 1 else 7.6) + min(names, 2.0), float(np.clip(height, 2.6, 12.0))


def _draw_sections(ax: Axes, results: Comparison, methods: list[str], rows: list[str]) -> None:
    """Draw mean and quartiles of each method in each section, and the ceiling."""
    ax.axvline(0, color="black", lw=0.6, zorder=1)
    by_section = results.scores.groupby(["method", "section"], sort=False)["pearson"]
    table = pd.DataFrame(
        {"mean": by_section.mean(), "low": by_section.quantile(0.25), "high": by_section.quantile(0.75)}
    )
    for i, method in enumerate(methods):
        own = table.loc[method]
        y = np.arange(len(own)) + _shift(i, len(methods))
        ax.hlines(y, own["low"], own["high"], color=COLORS[i], lw=1.0, alpha=0.5, zorder=3)
        x = list(own["mean"])
        if rows[-1] == ALL:
            x, y = [*x, float(own["mean"].mean())], np.append(y, len(own) + _shift(i, len(methods)))
        ax.plot(x, y, ls="", marker=MARKERS[i], color=COLORS[i], label=_label(results, method), **DOT)
    judged = results.scores[results.scores["method"] == methods[0]].dropna(subset="pearson")
    ceiling = list(judged.groupby("section", sort=False)["ceiling"].mean())
    if rows[-1] == ALL:
        ceiling.append(float(np.mean(ceiling)))
    ax.vlines(
        ceiling,
        np.arange(len(rows)) - SLOT / 2,
        np.arange(len(rows)) + SLOT / 2,
        color="0.55",
        lw=2.0,
        label="noise ceiling",
        zorder=2,
    )
    _name_rows(ax, rows)
    ax.set(xlabel="Pearson correlation\n(mean and quartiles of genes)")
    figure_of(ax).legend(
        *ax.get_legend_handles_labels(), loc="outside upper left", ncols=len(methods) + 1, handletextpad=0.3
    )


def _draw_differences(ax: Axes, results: Comparison, methods: list[str], rows: list[str]) -> None:
    """Draw the difference of each method to the first one, with its interval."""
    ax.axvline(0, color=COLORS[0], lw=1.0, zorder=1)
    units: dict[str, list[str]] = {}
    for i, method in enumerate(methods[1:], start=1):
        for y, section in enumerate(rows):
            row = _widest(results.differences, method, section)
            where = y + _shift(i - 1, len(methods) - 1)
            ax.hlines(where, row["low"], row["high"], color=COLORS[i], lw=1.2, zorder=3)
            ax.plot([row["difference"]], [where], ls="", marker=MARKERS[i], color=COLORS[i], **DOT)
            kind = "all" if section == ALL else "section"
            units.setdefault(kind, []).append(str(row["unit"]))
    _name_rows(ax, rows)
    ax.set_yticklabels([])
    ax.set_xlabel(f"difference to {methods[0]}")
    level = 100 * float(str(results.parameters["level"]))
    kinds = [" or ".join(OF_UNIT[unit] for unit in dict.fromkeys(names)) for names in units.values()]
    last = f",\nlast row {kinds[1]}" if kinds[1:] and kinds[1] != kinds[0] else ""
    ax.set_title(f"{level:g} % intervals {kinds[0]}{last}")


def _widest(differences: pd.DataFrame, method: str, section: str) -> pd.Series:
    """The difference of a method in a section, by the widest unit that has an interval."""
    own = differences[(differences["method"] == method) & (differences["section"] == section)]
    return own.sort_values("unit", key=lambda units: units.map(list(OF_UNIT).index)).iloc[0]


def _draw_genes(ax: Axes, results: Comparison, reference: str, method: str, methods: list[str]) -> None:
    """Draw the correlation of each gene by two methods."""
    from matplotlib.ticker import MaxNLocator

    means = results.scores.groupby(["method", "gene"], sort=False)["pearson"].mean()
    pair = pd.DataFrame({"x": means[reference], "y": means[method]}).dropna()
    low, high = float(pair.min().min()), float(pair.max().max())
    margin = 0.05 * (high - low or 1.0)
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color="0.4", lw=0.8, ls="--", zorder=1)
    size = 3.5 if len(pair) <= 100 else 2.0
    ax.plot(pair["x"], pair["y"], "o", ms=size, mew=0, alpha=0.7, color=COLORS[methods.index(method)], zorder=3)
    ax.set(xlim=ends, ylim=ends, aspect="equal", xlabel=reference, ylabel=method)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    better = int((pair["y"] > pair["x"]).sum())
    ax.set_title(f"{method} better in {better} of {len(pair)} genes")


def _shift(i: int, n: int) -> float:
    """Place of the i-th of ``n`` methods beside the middle of its row."""
    return (i - (n - 1) / 2) * SLOT / n


def _name_rows(ax: Axes, rows: list[str]) -> None:
    ax.set_yticks(np.arange(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    for y in range(0, len(rows), 2):
        ax.axhspan(y - 0.5, y + 0.5, color="0.96", lw=0, zorder=0)
    if rows[-1] == ALL:
        ax.axhline(len(rows) - 1.5, color="0.6", lw=0.6, zorder=1)
        if ax.get_yticklabels():
            ax.get_yticklabels()[-1].set_fontweight("bold")


def _label(results: Comparison, method: str) -> str:
    """Name of a method, with a mark of what is known of leaks."""
    leak = results.summary.loc[method, "leak"]
    return f"{method} (?)" if leak == "not known" else f"{method}*" if leak else method
