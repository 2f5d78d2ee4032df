"""Training curves."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import listing
from sthggep.pl._figure import COLORS, DOT, new_figure, save_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sthggep.model import HGGEP

TRAIN, VALIDATION = COLORS[0], COLORS[1]


@checked
def history(
    history: HGGEP | pd.DataFrame,
    *,
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
) -> Figure:
    """Draw training curves: the loss, and the correlation on held-out tissue, by epoch.

    The x axes show the epoch, counted from 1 as in the log. The left y axis is the loss on training and held-out tissue; the right one is the mean
    Pearson correlation over genes on held-out tissue. A thin line is one network of an ensemble; a bold line is the mean
    of the networks, over the epochs that all of them reached. A dot marks the epoch whose weights a network keeps: the
    epoch of the highest validation correlation, or the last one without held-out tissue. A cross marks the epoch at
    which early stopping ended the training of a network.

    Parameters
    ----------
    history
        Model (the function draws its ``history``), or a DataFrame with the columns ``epoch``, which counts from 1 as in
        ``model.history``, and ``train_loss`` and, if there are, ``member``, ``val_loss`` and ``val_pearson``.
    figsize
        Width and height in inches. Default: a size that fits the content.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.

    Returns
    -------
    The figure: the loss on the left and, if tissue was held out, the validation correlation on the right.

    Raises
    ------
    KeyError
        The table lacks a column.
    TypeError
        ``history`` is neither a model nor a DataFrame.
    ValueError
        The model has not been trained.

    Examples
    --------
    >>> model = sthggep.tl.fit(slides)
    >>> sthggep.pl.history(model, save="training.png")
    """
    table = _table(history)
    has_validation = "val_pearson" in table and bool(table["val_pearson"].notna().any())
    best = table.loc[_best_rows(table)]
    with style():
        figure = new_figure(figsize or ((6.6, 2.9) if has_validation else (3.6, 2.9)), dpi)
        axes = figure.subplots(1, 2 if has_validation else 1, squeeze=False)[0]
        _curves(axes[0], table, "train_loss", "training", TRAIN)
        loss_column = "train_loss"
        if "val_loss" in table and table["val_loss"].notna().any():
            _curves(axes[0], table, "val_loss", "validation", VALIDATION)
            loss_column = "val_loss"
        _mark(axes[0], table, best, loss_column, has_validation)
        axes[0].set(ylabel="loss", title="Loss")
        if getattr(history, "is_closed_form", False):
            figure.suptitle("A network that was tried: it earned no share, the closed form predicts alone", fontsize=8)
        if has_validation:
            _curves(axes[1], table, "val_pearson", "validation", VALIDATION)
            _mark(axes[1], table, best, "val_pearson", has_validation)
            axes[1].set(ylabel="mean Pearson correlation", title=_validation_title(best))
        columns = 4 if has_validation else 1
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, columnspacing=1.2
        )
        save_figure(figure, save)
    return figure


def _table(history: object) -> pd.DataFrame:
    table = history if isinstance(history, pd.DataFrame) else getattr(history, "history", None)
    if not isinstance(table, pd.DataFrame):
        msg = f"A trained model or its `history` (a DataFrame) was expected, found {type(history).__name__}."
        raise TypeError(msg)
    if table.empty:
        msg = (
            "A history of one epoch at least was expected, found an empty one: the closed form of this model was solved "
            "without a network, or sthggep did not train it. Call `sthggep.tl.fit(slides)` to train one."
        )
        raise ValueError(msg)
    absent = [column for column in ("epoch", "train_loss") if column not in table]
    if absent:
        msg = f"The history lacks {listing(absent)}; its columns are {listing(table.columns)}."
        raise KeyError(msg)
    table = table.reset_index(drop=True)
    return table if "member" in table else table.assign(member=1)


def _best_rows(table: pd.DataFrame) -> list[Hashable]:
    """Row of the epoch whose weights each network keeps, by the rule of the training."""
    rows = []
    for _, member in table.groupby("member", sort=True):
        validated = "val_pearson" in member and member["val_pearson"].notna().any()
        rows.append(member["val_pearson"].idxmax() if validated else member["epoch"].idxmax())
    return rows


def _validation_title(best: pd.DataFrame) -> str:
    first, last = best["epoch"].min(), best["epoch"].max()
    epochs = f"epoch kept ({first})" if len(best) == 1 else f"epochs kept ({first}{f'–{last}' if first < last else ''})"
    return f"Validation: {best['val_pearson'].mean():.3f} at the {epochs}"


def _curves(ax: Axes, table: pd.DataFrame, column: str, label: str, color: str) -> None:
    """Draw one thin line for each network, and the mean in bold."""
    from matplotlib.ticker import MaxNLocator

    wide = table.pivot_table(index="epoch", columns="member", values=column)
    single = wide.shape[1] == 1
    for member in wide.columns:
        line = wide[member].dropna()
        if single:
            ax.plot(line.index, line, color=color, lw=1.6, label=label)
        else:
            ax.plot(line.index, line, color=color, lw=0.7, alpha=0.5)
    common = wide.dropna()
    if not single:
        ax.plot(common.index, common.mean(axis=1), color=color, lw=2, label=f"{label}, mean of {wide.shape[1]}")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _mark(ax: Axes, table: pd.DataFrame, best: pd.DataFrame, column: str, has_validation: bool) -> None:
    """Mark the epoch whose weights each network keeps by a dot, and the end of its training by a cross."""
    color = TRAIN if column == "train_loss" else VALIDATION
    rule = "best validation correlation" if has_validation else "the last: nothing was held out"
    ax.plot(best["epoch"], best[column], "o", color=color, label=f"epoch kept ({rule})", **DOT)
    if has_validation:
        last = table.loc[table.groupby("member")["epoch"].idxmax()]
        ax.plot(last["epoch"], last[column], "x", color=color, ms=4, mew=1.0, zorder=3, label="training stopped")
