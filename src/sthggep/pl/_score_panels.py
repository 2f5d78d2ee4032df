"""Panels of scores: boxes of the genes by section or prediction, and several predictions gene by gene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep.pl._figure import COLORS, DOT, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

LABELS = {"pearson": "Pearson correlation", "spearman": "Spearman correlation", "rmse": "RMSE"}
FEW_GENES = 30  # up to so many, the figure names all genes
SOME_GENES = 100  # up to so many, each gene has a bar
MARKERS = "osD^vP"
HEIGHT, ROW, LETTER = 3.2, 0.14, 0.06  # inches of a comparison, of a row of its legend, of a letter of a long name
SHORT_NAME = 8  # letters of a name that needs no more room
LEGEND_GAP = 3.0, 10.0  # points between the legend and the data below it, and at least to the y axis


@dataclass(frozen=True)
class PanelLegend:
    """Entries of the legend of one panel, by their labels."""

    ax: Axes
    entries: Mapping[str, object]
    markerscale: float = 1.0

    @classmethod
    def of_labels(cls, ax: Axes) -> PanelLegend:
        """The labels of what was drawn."""
        artists, labels = ax.get_legend_handles_labels()
        return cls(ax, dict(zip(labels, artists, strict=True)))

    def draw(self, n_columns: int, *, wrap: bool = False) -> Legend:
        """Draw the legend into the upper right corner of the panel; to save width, wrap labels at their brackets."""
        return self.ax.legend(
            handles=list(self.entries.values()),
            labels=[label.replace(" (", "\n(") if wrap else label for label in self.entries],
            markerscale=self.markerscale,
            loc="upper right",
            ncols=n_columns,
            borderaxespad=0,
            columnspacing=1.0,
            handlelength=1.4,
            handletextpad=0.5,
        )


@dataclass(frozen=True)
class Compared:
    """Scores of several predictions, on the genes that all of them score."""

    scores: pd.DataFrame
    """Gene × prediction, best first by the first prediction."""
    ceiling: pd.Series | None
    """Noise ceiling of each gene: it is of the counts, not of a prediction."""
    metric: str
    n_left_out: int
    """Genes that only some of the predictions score."""
    on_training_tissue: bool

    @classmethod
    def of(cls, by_gene: Mapping[str, pd.DataFrame], metric: str, *, on_training_tissue: bool) -> Compared:
        """Join the tables of scores; refuse predictions without a common gene, and more than can be told apart."""
        if len(by_gene) > len(MARKERS):
            msg = f"Up to {len(MARKERS)} predictions can be told apart in one figure, found {len(by_gene)}. Name fewer in `key`."
            raise ValueError(msg)
        scores = pd.DataFrame({key: table[metric] for key, table in by_gene.items()})
        common = scores.dropna()
        if common.empty:
            msg = f"The predictions {', '.join(map(repr, by_gene))} have no gene in common that all of them score."
            raise ValueError(msg)
        first = next(iter(by_gene))
        common = common.sort_values(first, ascending=metric == "rmse", kind="stable")
        ceilings = [table["ceiling"] for table in by_gene.values() if "ceiling" in table]
        ceiling = ceilings[0].reindex(common.index) if ceilings else None
        return cls(common, ceiling, metric, len(scores) - len(common), on_training_tissue)

    @property
    def mean_ceilings(self) -> list[float] | None:
        """The mean ceiling, once for each prediction."""
        return None if self.ceiling is None else [float(self.ceiling.mean())] * self.scores.shape[1]


def draw_compared(ax: Axes, compared: Compared) -> None:
    """Draw a dot for each gene and prediction, and the ceiling of the gene; of many genes a curve by the rank of each."""
    scores, n, metric = compared.scores, len(compared.scores), compared.metric
    if n <= SOME_GENES:
        _draw_dots(ax, compared)
    else:
        _draw_curves(ax, compared)
    margin = max(0.8, 0.01 * n)
    ax.set_xlim(1 - margin, n + margin)
    left_out = f"; {compared.n_left_out} not scored by all, left out" if compared.n_left_out else ""
    order = f"best first by {scores.columns[0]}" if n <= SOME_GENES else "each curve by its own rank, best first"
    ax.set(ylabel=LABELS[metric], xlabel=f"genes, {order} ({n}{left_out})")
    if metric != "rmse":
        ax.axhline(0, color="black", lw=0.6, zorder=2)
    ax.legend(
        title="scores on training tissue" if compared.on_training_tissue else None,
        title_fontsize=7,
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=2,
        borderaxespad=0.2,
        columnspacing=1.0,
        handletextpad=0.5,
        handlelength=1.4,
    )
    if n <= FEW_GENES:
        ax.set_xticks(np.arange(1, n + 1), scores.index, rotation=90)
    else:
        ax.set_xticks(rank_ticks(n))


def _draw_dots(ax: Axes, compared: Compared) -> None:
    scores, rank = compared.scores, np.arange(1, len(compared.scores) + 1)
    if compared.ceiling is not None:
        ax.bar(rank, compared.ceiling, width=0.7, color="0.87", label=ceiling_label(compared.ceiling), zorder=1)
    for i, key in enumerate(scores):
        label = _name_with_mean(scores[key])
        (dots,) = ax.plot(rank, scores[key], MARKERS[i], color=COLORS[i], label=label, zorder=3)
        dots.set(markersize=4.0 if len(rank) <= FEW_GENES else 2.8, markeredgewidth=0, alpha=0.85)


def _draw_curves(ax: Axes, compared: Compared) -> None:
    scores, rank = compared.scores, np.arange(1, len(compared.scores) + 1)
    ascending = compared.metric == "rmse"
    if compared.ceiling is not None:
        ceiling = compared.ceiling.sort_values(ascending=ascending)
        ax.plot(rank, ceiling, color="0.55", lw=1.6, label="noise ceiling", zorder=2)
    for i, key in enumerate(scores):
        label = _name_with_mean(scores[key])
        ax.plot(rank, scores[key].sort_values(ascending=ascending), color=COLORS[i], lw=1.4, label=label, zorder=3)


def _name_with_mean(scores: pd.Series) -> str:
    return f"{scores.name}: mean {scores.mean():.3f}"


def draw_boxes(
    ax: Axes, groups: Mapping[str, pd.Series], metric: str, ceilings: list[float] | None, what: str
) -> PanelLegend:
    """Draw a box of the genes for each section or prediction, their mean, and the mean ceiling; return its legend."""
    names = list(groups)
    values = [groups[name].dropna() for name in names]
    positions = np.arange(1, len(names) + 1)
    thin = {"color": "black", "linewidth": 0.7}
    ax.boxplot(
        values,
        positions=positions,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": "0.93", "linewidth": 0.7},
        medianprops=thin,
        whiskerprops=thin,
        capprops=thin,
        flierprops={"markersize": 2, "markeredgewidth": 0.4, "markeredgecolor": "0.5"},
    )
    means = [group.mean() for group in values]
    if what == "prediction":
        for i, mean in enumerate(means):  # as in the panel of the genes
            label = "mean" if i == 0 else None
            ax.plot([i + 1], [mean], MARKERS[i], color=COLORS[i], label=label, **DOT)
    else:
        ax.plot(positions, means, "o", color=COLORS[0], label="mean", **DOT)
    if ceilings is not None:
        color = "0.35" if what == "prediction" else COLORS[1]
        ax.hlines(ceilings, positions - 0.4, positions + 0.4, color=color, lw=1.5, label="mean ceiling", zorder=3)
    long = max(len(name) for name in names) > 4 + 4 * (len(names) < 4) or len(names) > 8
    ax.set_xticks(positions, names, rotation=90 if long else 0)
    ax.set(title=f"by {what}", ylabel=LABELS[metric], xlabel=what)
    if metric != "rmse":
        ax.axhline(0, color="black", lw=0.6, zorder=0)
    return PanelLegend.of_labels(ax)


def ceiling_label(ceiling: pd.Series) -> str:
    """The legend of the bars, which says why some genes have none."""
    return "noise ceiling" if (ceiling > 0).all() else "noise ceiling (no bar: counts show noise only)"


def rank_ticks(n: int) -> list[int]:
    """The first and the last rank, and round ones between them, far enough from the ends that the numbers do not touch."""
    from matplotlib.ticker import MaxNLocator

    between = MaxNLocator(5, steps=[1, 2, 5, 10], integer=True).tick_values(1, n)
    return [1, *(int(tick) for tick in between if 0.06 * n < tick < 0.9 * n), n]


def draw_legends(legends: Sequence[PanelLegend]) -> None:
    """Draw legends inside their panels, in as few lines as fit the width, and extend the y axes: no legend covers data.

    Call it when all panels of the figure are drawn: what the panels hold decides about their sizes.
    """
    if not legends:
        return
    drawn = [legend.draw(2) for legend in legends]
    figure_of(legends[0].ax).draw_without_rendering()  # fixes the sizes of the panels
    for legend, artist in zip(legends, drawn, strict=True):
        panel, point = legend.ax.get_window_extent(), figure_of(legend.ax).dpi / 72
        below, beside = (gap * point for gap in LEGEND_GAP)
        if artist.get_window_extent().width + beside > panel.width:
            artist = legend.draw(1)
        if artist.get_window_extent().width + beside > panel.width:
            artist = legend.draw(1, wrap=True)
        height = artist.get_window_extent().height
        covered = min((height + below) / panel.height, 0.8)
        low, high = legend.ax.get_ylim()
        legend.ax.set_ylim(low, low + (high - low) / (1 - covered))


def height_of(scored: Compared) -> float:
    """Inches that a figure of several predictions needs: the legend has two columns, and long names are upright."""
    names = [str(key) for key in scored.scores]
    rows = (len(names) + (scored.ceiling is not None) + 1) // 2 + scored.on_training_tissue
    letters = max(map(len, names)) - SHORT_NAME
    return HEIGHT + ROW * max(rows - 2, 0) + LETTER * max(letters, 0)
