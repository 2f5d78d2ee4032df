"""Numbers that the user brought in ``obsm``: checked, and the same in every section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import counted, has_key, listing
from sthggep._disk._digest import digest

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide


def given_features(slide: Slide, key: str) -> NDArray[np.float32]:
    """Features that the user brought in ``obsm``: any array, sparse matrix or table of numbers."""
    values = has_key(slide.adata.obsm, key, "obsm", "Compute those features first, for every slide alike.")
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    try:
        found = values[slide.rows].astype(np.float32)
    except (TypeError, ValueError) as reason:
        msg = f"obsm[{key!r}] must hold numbers, but in section {slide.name!r} it does not: {reason}."
        raise ValueError(msg) from reason
    broken = int((~np.isfinite(found)).any(axis=1).sum()) if found.ndim == 2 else len(found)
    if found.ndim != 2 or broken:
        fault = (
            f"there is NaN or infinity in {counted(broken, 'spot')}"
            if found.ndim == 2
            else f"its shape is {values.shape}"
        )
        msg = f"obsm[{key!r}] must hold a row of finite numbers for each spot of section {slide.name!r}, but {fault}."
        raise ValueError(msg)
    return found


def feature_names(slide: Slide, key: str) -> list[str] | None:
    """Names of the features in ``obsm``, where they have names: the columns of a table."""
    columns = getattr(slide.adata.obsm[key], "columns", None)
    return None if columns is None else [str(name) for name in columns]


def same_features(slide: Slide, key: str, names: Sequence[str] | None, where: str) -> None:
    """Refuse a table whose columns are others than expected, or stand in another order."""
    found = feature_names(slide, key)
    if found is None or names is None or found == list(names):
        return
    at = next(
        (i for i, pair in enumerate(zip(found, names, strict=False)) if pair[0] != pair[1]), min(len(found), len(names))
    )
    msg = (
        f"obsm[{key!r}] of section {slide.name!r} must hold the columns of {where}, in that order, but they differ from "
        f"column {at} on: {listing(found[at:], 3)} instead of {listing(names[at:], 3)}."
    )
    raise ValueError(msg)


def features_id(slide: Slide, obsm: Sequence[str]) -> str | None:
    """Changes with the features that the user brought."""
    return digest(*(given_features(slide, key) for key in obsm)) if obsm else None
