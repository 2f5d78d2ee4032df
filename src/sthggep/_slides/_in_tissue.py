"""Spots on tissue, by Space Ranger's column of ``obs``, in any spelling of yes and no."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, listing
from sthggep._log import ONCE, log
from sthggep._slides._values import id_text, read_column

if TYPE_CHECKING:
    from sthggep._slides._anndata import SectionData

IN_TISSUE = "in_tissue"
YES, NO, MISSING = (
    ("1", "true", "t", "yes", "y"),
    ("0", "-0", "false", "f", "no", "n"),
    ("nan", "na", "<na>", "none", ""),
)


def spots_on_tissue(section: SectionData) -> NDArray[np.bool_]:
    """Which spots lie on tissue by ``obs["in_tissue"]``; all, if there is no such column or no value."""
    n_spots = len(section.rows)
    if IN_TISSUE not in section.adata.obs or not n_spots:
        return np.ones(n_spots, dtype=bool)
    column = read_column(section.adata.obs, IN_TISSUE).iloc[section.rows]
    codes, spellings = pd.factorize(column.map(id_text, na_action="ignore") if column.dtype == object else column)
    values = np.array([*(_meaning(spelling) for spelling in spellings), np.nan])
    _refuse_unknown([spelling for spelling, value in zip(spellings, values, strict=False) if value < 0], section)
    flags = values[codes]
    missing = np.isnan(flags)
    if missing.any() and (flags == 1).any():
        msg = (
            f"Section {section.name!r}: expected 1 or 0 for each spot in obs[{IN_TISSUE!r}], but it is missing for "
            f"{counted(int(missing.sum()), 'spot')} of {n_spots}. Fill it, or delete the column to use all spots."
        )
        raise ValueError(msg)
    # A column that marks nothing but spots off the tissue leaves the others on it
    on_tissue = flags != 0
    _report(on_tissue, section)
    return np.asarray(on_tissue, dtype=bool)


def _meaning(spelling: object) -> float:
    """1 for yes, 0 for no, NaN for a missing value, -1 for a spelling that says neither."""
    text = id_text(spelling).strip("'\" ").casefold()
    if text in MISSING:
        return np.nan
    return 1.0 if text in YES else 0.0 if text in NO else -1.0


def _refuse_unknown(spellings: list[object], section: SectionData) -> None:
    if spellings:
        msg = (
            f"Section {section.name!r}: expected 1 or 0 (True or False, yes or no) in obs[{IN_TISSUE!r}], found "
            f"{listing(spellings, 5)}. Correct that column, or delete it to use all spots."
        )
        raise ValueError(msg)


def _report(on_tissue: NDArray[np.bool_], section: SectionData) -> None:
    """Refuse a section without spots on tissue, and log the spots that are left out."""
    if not on_tissue.any():
        msg = (
            f"Section {section.name!r}: expected spots on tissue, but obs[{IN_TISSUE!r}] is 0 for all {len(on_tissue)}. "
            "Correct that column, or delete it to use all spots."
        )
        raise ValueError(msg)
    if not on_tissue.all():
        text = "Section %s: sthggep leaves out %d of %d spots, which are off the tissue (obs['in_tissue'] is 0)."
        log.info(text, section.name, int((~on_tissue).sum()), len(on_tissue), extra=ONCE)
