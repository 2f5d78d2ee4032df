"""Which spots of a table are measured, as the user says; and short codes by which a model recognizes them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import has_key, listing
from sthggep._slides._anndata import table_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide

Mask = NDArray[np.bool_]
DIGITS = 8  # of the code of a spot


def read_mask(table: AnnData, measured: str | Sequence[bool] | pd.Series) -> Mask:
    """Read which rows of a table are measured: a column of ``obs``, or a mask.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        It is not true or false for each spot.
    """
    what, values = "`measured`", measured
    if isinstance(measured, str):
        what = f"obs[{measured!r}]"
        values = has_key(table.obs, measured, "obs", "Pass the column that is true for measured spots, or a mask.")
    elif isinstance(measured, pd.Series) and not measured.index.equals(pd.RangeIndex(len(measured))):
        values = measured.reindex(table.obs_names) if set(measured.index) == set(table.obs_names) else measured
    column = pd.Series(np.asarray(values, dtype=object))
    if len(column) != table.n_obs or not set(column.unique()) <= {True, False}:
        found = f"{len(column)} values" if len(column) != table.n_obs else f"values {listing(column.unique(), 4)}"
        msg = f"{what} must be true or false for each of the {table.n_obs} spots, without gaps; found {found}."
        raise ValueError(msg)
    return column.to_numpy(dtype=bool)


def read_masks(
    objects: Sequence[AnnData | SpatialData],
    by_object: Sequence[Sequence[Slide]],
    measured: str | Sequence[bool] | Sequence[Sequence[bool]] | pd.Series,
    table_key: str,
    *,
    several: bool,
) -> list[Mask]:
    """Read which spots of each section are measured.

    Parameters
    ----------
    objects
        The slides.
    by_object
        Sections of each slide.
    measured
        A column of ``obs``; else a mask, or for ``several`` slides a list of masks.
    table_key
        Table of a SpatialData.
    several
        Whether the user passed a list of slides.

    Raises
    ------
    KeyError, ValueError
        As :func:`read_mask`; or there is not one mask for each slide.
    """
    values: list[Any] = [measured] * len(objects)
    if several and not isinstance(measured, str):
        values = list(measured)
        if len(values) != len(objects):
            msg = (
                f"`measured` must hold a mask for each of the {len(objects)} slides; found {len(values)} values. Pass a list with a "
                "mask for each, or a column of obs."
            )
            raise ValueError(msg)
    masks = [read_mask(table_of(data, table_key), value) for data, value in zip(objects, values, strict=True)]
    return [mask[section.rows] for mask, sections in zip(masks, by_object, strict=True) for section in sections]


def measured_alone(slides: Sequence[Slide], masks: Sequence[Mask | None]) -> list[Slide]:
    """Return the slides with their measured spots alone; without masks, as they are."""
    if not masks:
        return list(slides)
    return [
        slide if mask is None else replace(slide, rows=slide.rows[mask], xy=slide.xy[mask])
        for slide, mask in zip(slides, masks, strict=True)
    ]


def codes_of(names: Sequence[str]) -> str:
    """Join a code of eight hexadecimal digits for each name."""
    return "".join(f"{code:0{DIGITS}x}" for code in sorted({int(code) for code in _hashes(names)}))


def has_code(names: Sequence[str], codes: str) -> Mask:
    """Whether the code of each name is among those joined by :func:`codes_of`."""
    known = [int(codes[i : i + DIGITS], 16) for i in range(0, len(codes), DIGITS)]
    return np.isin(_hashes(names), np.array(known, dtype=np.uint64))


def _hashes(names: Sequence[str]) -> NDArray[np.uint64]:
    """The leading bits of a hash of each name."""
    hashes = pd.util.hash_array(np.array([str(name) for name in names], dtype=object))
    return np.asarray(hashes >> np.uint64(64 - 4 * DIGITS), dtype=np.uint64)
