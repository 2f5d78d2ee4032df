"""The tables of a legacy Spatial Transcriptomics section, checked and matched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, listing, unique, warn_user
from sthggep._log import log
from sthggep.io._st_files import read_table

_ID = r"^\s*[Xx]?(-?\d+(?:\.\d+)?)[xX_](-?\d+(?:\.\d+)?)\s*$"
FEW = 0.05  # of the spots
MOST_PLACES = 1e9  # a side of the array, or pixels a side of the image; larger numbers are neither
MOST_COUNTS = 2**31
_SPOT_COLUMNS = ("x", "y", "pixel_x", "pixel_y")


@dataclass(frozen=True)
class Counts:
    """A counts table: array positions, gene names, values (spots x genes)."""

    positions: NDArray[np.int64]
    genes: list[str]
    values: NDArray[np.number]


def read_counts(source: str | Path | pd.DataFrame) -> Counts:
    """Raw counts, spots x genes, with every check that needs no other table."""
    table = read_table(source, "counts", named_rows=True)
    if table.empty:
        msg = f"The counts table is empty (shape {table.shape}); expected spots x genes."
        raise ValueError(msg)
    positions = _positions_of_ids(table)
    unique(zip(*positions.T.tolist(), strict=True), "Array positions of the counts", "Sum or drop the repeated rows.")
    genes = table.columns.astype(str).tolist()
    unique(genes, "Gene names of the counts", "Sum, rename or drop the repeated columns.")
    values = _count_values(table)
    _check_raw(values)
    return Counts(positions, genes, values)


def _count_values(table: pd.DataFrame) -> NDArray[np.number]:
    """Read the numbers of a table; of nullable and sparse types, too."""
    other = [str(name) for name, dtype in table.dtypes.items() if dtype.kind not in "uifb"]
    if other:
        msg = f"The counts hold {counted(other, 'column')} without numbers: {listing(other, 5)}. Drop them first."
        raise ValueError(msg)
    values = table.to_numpy()
    return table.to_numpy(dtype=np.float64, na_value=np.nan) if values.dtype == object else values


def _positions_of_ids(table: pd.DataFrame) -> NDArray[np.int64]:
    ids = pd.Series(table.index.astype(str))
    numbers = ids.str.extract(_ID).astype(float)
    bad = ~(numbers.abs() < MOST_PLACES).all(axis=1)
    if not bad.any():
        positions: NDArray[np.int64] = np.rint(numbers.to_numpy()).astype(np.int64)
        return positions
    columns = pd.Series(table.columns.astype(str))
    if columns.str.match(_ID).mean() > 0.5:
        hint = "Its columns are spots: transpose it (spots x genes is expected)."
    else:
        hint = "Row names must be array positions, such as 10x21."
    msg = f"{bad.sum()} of {len(ids)} row names of the counts are no array positions: {listing(ids[bad], 5)}. {hint}"
    raise ValueError(msg)


def _check_raw(values: NDArray[np.number]) -> None:
    problem = ""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        problem = f"{(~np.isfinite(values)).sum()} are missing or infinite"
    elif (values < 0).any():
        problem = f"{(values < 0).sum()} are negative (the least is {values.min():g})"
    elif values.dtype.kind == "f" and (values != np.rint(values)).any():
        problem = f"{(values != np.rint(values)).sum()} are not whole numbers"
    elif (values > MOST_COUNTS).any():
        problem = f"{(values > MOST_COUNTS).sum()} are larger than counts can be (the largest is {values.max():g})"
    if problem:
        msg = f"Expected raw counts, but {problem}. Pass the counts before any normalization."
        raise ValueError(msg)


def read_spots(source: str | Path | pd.DataFrame) -> pd.DataFrame:
    """All spots: `array_x`, `array_y` (integers), `refined_x`, `refined_y`, `pixel_x`, `pixel_y`, `selected`."""
    table = read_table(source, "spots")
    _need_columns(table, _SPOT_COLUMNS, "spots table")
    refined = ("new_x", "new_y") if {"new_x", "new_y"} <= set(table.columns) else ("x", "y")
    numbers = pd.DataFrame(
        {
            "array_x": _numbers(table, "x", "spots table"),
            "array_y": _numbers(table, "y", "spots table"),
            "refined_x": _numbers(table, refined[0], "spots table"),
            "refined_y": _numbers(table, refined[1], "spots table"),
            "pixel_x": _numbers(table, "pixel_x", "spots table"),
            "pixel_y": _numbers(table, "pixel_y", "spots table"),
            "selected": _numbers(table, "selected", "spots table") if "selected" in table else 1.0,
        }
    )
    if numbers.empty:
        msg = f"The spots table is empty (shape {table.shape}); expected a row a spot."
        raise ValueError(msg)
    for axis in ("array_x", "array_y"):
        numbers[axis] = np.rint(numbers[axis]).astype(np.int64)
    unique(_pairs(numbers), "Array positions of the spots table", "Drop the repeated rows.")
    return numbers


def match(counts: Counts, spots: pd.DataFrame, section: str) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Rows of the counts, and the selected spots they belong to, in the order of the counts.

    Raises
    ------
    ValueError
        If (nearly) nothing matches, or what matches is better matched with x and y swapped.
    """
    places = pd.MultiIndex.from_frame(spots[["array_x", "array_y"]])
    x, y = counts.positions.T
    spot_of_row = places.get_indexer(pd.MultiIndex.from_arrays([x, y]))
    swapped = int((places.get_indexer(pd.MultiIndex.from_arrays([y, x])) >= 0).sum())
    matched = int((spot_of_row >= 0).sum())
    if matched == 0 or swapped > matched:
        hint = "They do with x and y swapped in one of them." if swapped else "Are they of the same section?"
        msg = (
            f"{section}: only {matched} of {len(spot_of_row)} counts rows and {len(spots)} spots have the same array "
            f"position (counts: {_examples(counts.positions)}; spots: {_examples(places)}). {hint}"
        )
        raise ValueError(msg)
    selected = spots["selected"].to_numpy() != 0
    _report(section, "absent from the spots table", counts.positions[spot_of_row < 0], len(spot_of_row))
    without = selected & ~np.isin(np.arange(len(spots)), spot_of_row)
    _report(section, "without counts", spots.loc[without, ["array_x", "array_y"]].to_numpy(), int(selected.sum()))
    rows = np.flatnonzero((spot_of_row >= 0) & selected[spot_of_row])
    if not rows.size:
        msg = f"{section}: no spot is left: none of the {matched} matched ones has selected != 0."
        raise ValueError(msg)
    return rows, spots.iloc[spot_of_row[rows]].reset_index(drop=True)


def read_labels(source: str | Path | pd.DataFrame, spots: pd.DataFrame, section: str) -> pd.Categorical:
    """Labels of the spots, joined on array positions rounded to integers; missing for spots without a label."""
    table = read_table(source, "labels")
    _need_columns(table, ("x", "y", "label"), "labels table")
    complete = table.dropna(subset=["x", "y", "label"])
    named = pd.DataFrame(
        {axis: np.rint(_numbers(complete, axis, "labels table")).astype(np.int64) for axis in ("x", "y")}
    )
    named["label"] = [str(label) for label in complete["label"]]
    named = named.drop_duplicates()
    unique(zip(named["x"], named["y"], strict=True), f"{section}: positions of the labels", "Drop the repeated rows.")
    by_place = named.set_index(["x", "y"])["label"]
    labels = by_place.reindex(pd.MultiIndex.from_frame(spots[["array_x", "array_y"]]))
    if labels.isna().all():
        msg = (
            f"{section}: none of the {len(complete)} labels is at the array position of a spot (labels: "
            f"{_examples(by_place.index)}; spots: {_examples(_pairs(spots))}). x and y are array positions, not pixels."
        )
        raise ValueError(msg)
    log.info("%s: %d of %d spots have a label", section, labels.notna().sum(), len(spots))
    return pd.Categorical(labels.to_numpy())


def _need_columns(table: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        msg = f"The {what} lacks {listing(missing)}; it has {listing(table.columns)}."
        raise ValueError(msg)


def _numbers(table: pd.DataFrame, column: str, what: str) -> NDArray[np.float64]:
    values = _as_numbers(table[column])
    bad = ~(np.abs(values) < MOST_PLACES)
    if bad.any():
        examples = listing(table[column][bad], 3)
        msg = f"Column {column!r} of the {what} holds {counted(int(bad.sum()), 'value')} not a number: {examples}. Drop those rows."
        raise ValueError(msg)
    return values


def _as_numbers(column: pd.Series) -> NDArray[np.float64]:
    """Read numbers, also those written as text; NaN for all else, such as dates."""
    if column.dtype.kind in "uifb":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if column.dtype.kind not in "OUST":
        return np.full(len(column), np.nan)
    texts = column.astype(object).map(str, na_action="ignore")
    return pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _pairs(spots: pd.DataFrame) -> list[tuple[int, int]]:
    return list(zip(spots["array_x"].tolist(), spots["array_y"].tolist(), strict=True))


def _examples(positions: Iterable[Iterable[object]]) -> str:
    names = [f"{x}x{y}" for x, y in positions]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _report(section: str, why: str, positions: NDArray[np.int64], n: int) -> None:
    """Name the spots that are left out: all published data have a few, many are a fault."""
    if not len(positions):
        return
    msg = f"{section}: left out, since {why}: {len(positions)} of {counted(n, 'spot')} ({_examples(positions)})."
    if len(positions) <= FEW * n:
        log.info(msg)
    else:
        warn_user(f"{msg} Do both tables belong to this section, and are they complete?")
