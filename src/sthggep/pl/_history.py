"""Training curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sthggep._checks import listing
from sthggep.pl._figure import COLORS, DOT, new_figure, save_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN, VALIDATION = COLORS[0], COLORS[1]


def history(
    history: Any,
    *,
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
) -> Figure:
    """Draw how training went: the loss, and the correlation on held-out tissue.

    Each network of an ensemble is a thin line, their mean over the epochs that all of them reached a bold one. A dot
    marks the epoch whose weights each network kept: that of the highest validation Pearson correlation; where nothing was
    held out, the last. A cross marks where its training stopped, after the recipe's patience without gain.

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
    kept = table.loc[_kept_rows(table)]
    with style():
        figure = new_figure(figsize or ((6.6, 2.9) if has_validation else (3.6, 2.9)), dpi)
        axes = figure.subplots(1, 2 if has_validation else 1, squeeze=False)[0]
        _curves(axes[0], table, "train_loss", "training", TRAIN)
        judged = "train_loss"
        if "val_loss" in table and table["val_loss"].notna().any():
            _curves(axes[0], table, "val_loss", "validation", VALIDATION)
            judged = "val_loss"
        _mark(axes[0], table, kept, judged, has_validation)
        axes[0].set(ylabel="loss", title="Loss")
        if has_validation:
            _curves(axes[1], table, "val_pearson", "validation", VALIDATION)
            _mark(axes[1], table, kept, "val_pearson", has_validation)
            axes[1].set(ylabel="mean Pearson correlation", title=_kept_title(kept))
        columns = 4 if has_validation else 1
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, columnspacing=1.2
        )
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


def _kept_rows(table: pd.DataFrame) -> list[Any]:
    """Row of the epoch that each network kept, as training chooses it."""
    rows = []
    for _, member in table.groupby("member", sort=True):
        validated = "val_pearson" in member and member["val_pearson"].notna().any()
        rows.append(member["val_pearson"].idxmax() if validated else member["epoch"].idxmax())
    return rows


def _kept_title(kept: pd.DataFrame) -> str:
    first, last = kept["epoch"].min(), kept["epoch"].max()
    epochs = f"epoch kept ({first})" if len(kept) == 1 else f"epochs kept ({first}{f'–{last}' if first < last else ''})"
    return f"Validation: {kept['val_pearson'].mean():.3f} at the {epochs}"


def _curves(ax: Axes, table: pd.DataFrame, column: str, label: str, color: str) -> None:
    """One thin line a network, and the mean in bold."""
    from matplotlib.ticker import MaxNLocator

    wide = table.pivot_table(index="epoch", columns="member", values=column)
    alone = wide.shape[1] == 1
    for member in wide.columns:
        line = wide[member].dropna()
        look = {"lw": 1.6, "label": label} if alone else {"lw": 0.7, "alpha": 0.5}
        ax.plot(line.index, line, color=color, **look)
    common = wide.dropna()
    if not alone:
        ax.plot(common.index, common.mean(axis=1), color=color, lw=2, label=f"{label}, mean of {wide.shape[1]}")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _mark(ax: Axes, table: pd.DataFrame, kept: pd.DataFrame, column: str, has_validation: bool) -> None:
    """A dot where each network's weights are from, a cross where its training stopped."""
    color = TRAIN if column == "train_loss" else VALIDATION
    why = "best validation correlation" if has_validation else "the last: nothing was held out"
    ax.plot(kept["epoch"], kept[column], "o", color=color, label=f"epoch kept ({why})", **DOT)
    if has_validation:
        last = table.loc[table.groupby("member")["epoch"].idxmax()]
        cross: Any = {"marker": "x", "ms": 4, "mew": 1.0, "ls": "", "zorder": 3}
        ax.plot(last["epoch"], last[column], color=color, label="training stopped", **cross)
