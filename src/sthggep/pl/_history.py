"""Training curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sthggep._checks import listing
from sthggep.pl._figure import COLOURS, DOT, new_figure, save_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN, VALIDATION = COLOURS[0], COLOURS[1]


def history(
    history: Any,
    *,
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
) -> Figure:
    """Draw how training went: the loss, and the correlation on held-out tissue.

    Each member of an ensemble is a thin line, their mean over the epochs that all of them reached a bold one. A dot
    marks each member's best epoch: the highest validation Pearson correlation, without one the lowest loss.

    Parameters
    ----------
    history
        Model (its ``history`` is drawn), or a DataFrame with columns ``epoch``, ``train_loss`` and, where there are,
        ``member``, ``val_loss``, ``val_pearson``.
    figsize
        Width and height in inches.
    dpi
        Resolution on the screen; files are written with 300.
    save
        File to write; its ending chooses the format.

    Returns
    -------
    The figure: loss on the left, validation correlation on the right where there was validation.

    Raises
    ------
    KeyError
        The table lacks a column.
    TypeError
        Neither a model nor a DataFrame was passed.
    ValueError
        The model has not been trained.
    """
    table = _table(history)
    has_validation = "val_pearson" in table and bool(table["val_pearson"].notna().any())
    best = _best_rows(table)
    with style():
        figure = new_figure(figsize or ((6.6, 2.6) if has_validation else (3.6, 2.6)), dpi)
        axes = figure.subplots(1, 2 if has_validation else 1, squeeze=False)[0]
        _curves(axes[0], table, best, "train_loss", "training", TRAIN)
        if "val_loss" in table and table["val_loss"].notna().any():
            _curves(axes[0], table, best, "val_loss", "validation", VALIDATION)
        axes[0].set(ylabel="loss", title="Loss")
        axes[0].legend(loc="best")
        if has_validation:
            _curves(axes[1], table, best, "val_pearson", "validation", VALIDATION)
            axes[1].set(ylabel="mean Pearson correlation", title=_best_title(table.loc[best]))
        save_figure(figure, save)
    return figure


def _table(history: Any) -> pd.DataFrame:
    table = history if isinstance(history, pd.DataFrame) else getattr(history, "history", None)
    if not isinstance(table, pd.DataFrame):
        msg = f"A trained model or its `history` (a DataFrame) was expected, found {type(history).__name__}."
        raise TypeError(msg)
    if table.empty:
        msg = "The history is empty: the model was not trained here. Call `sthggep.tl.fit(slides)` first."
        raise ValueError(msg)
    absent = [column for column in ("epoch", "train_loss") if column not in table]
    if absent:
        msg = f"The history lacks {listing(absent)}; its columns are {listing(table.columns)}."
        raise KeyError(msg)
    table = table.reset_index(drop=True)
    return table if "member" in table else table.assign(member=0)


def _best_rows(table: pd.DataFrame) -> list[Any]:
    """Row of each member's best epoch."""
    rows = []
    for _, member in table.groupby("member", sort=True):
        for column, sign in (("val_pearson", -1), ("val_loss", 1), ("train_loss", 1)):
            if column in member and member[column].notna().any():
                rows.append((sign * member[column]).idxmin())
                break
    return rows


def _best_title(best: pd.DataFrame) -> str:
    values, epochs = best["val_pearson"], best["epoch"]
    if len(best) == 1:
        return f"Validation: best {values.iloc[0]:.3f}, epoch {epochs.iloc[0]}"
    return f"Validation: best {values.mean():.3f} (mean of {len(best)}), epochs {epochs.min()}–{epochs.max()}"


def _curves(ax: Axes, table: pd.DataFrame, best: list[Any], column: str, label: str, colour: str) -> None:
    """One thin line a member, the mean in bold, a dot at each member's best epoch."""
    from matplotlib.ticker import MaxNLocator

    wide = table.pivot_table(index="epoch", columns="member", values=column)
    alone = wide.shape[1] == 1
    for member in wide.columns:
        line = wide[member].dropna()
        look = {"lw": 1.6, "label": label} if alone else {"lw": 0.7, "alpha": 0.5}
        ax.plot(line.index, line, color=colour, **look)
    common = wide.dropna()
    if not alone:
        ax.plot(common.index, common.mean(axis=1), color=colour, lw=2, label=f"{label}, mean of {wide.shape[1]}")
    if column != "train_loss":
        dots = table.loc[best]
        ax.plot(dots["epoch"], dots[column], "o", color=colour, label="best epoch", **DOT)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
