"""Features of the user in ``obsm``, checked; all sections hold the same columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import counted, has_key, listing
from sthggep._disk._digest import digest

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide


def read_user_features(slide: Slide, key: str) -> NDArray[np.float32]:
    """Read features of the user from ``obsm``: any array, sparse matrix or table of numbers."""
    values = has_key(slide.adata.obsm, key, "obsm", "Compute these features first, for all slides in the same way.")
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    try:
        features: NDArray[np.float32] = values[slide.rows].astype(np.float32)
    except (TypeError, ValueError) as error:
        msg = f"obsm[{key!r}] must hold numbers in section {slide.name!r}, found other values: {error}."
        raise ValueError(msg) from error
    n_broken = int((~np.isfinite(features)).any(axis=1).sum()) if features.ndim == 2 else len(features)
    if features.ndim != 2 or n_broken:
        fault = f"NaN or infinity in {counted(n_broken, 'spot')}" if features.ndim == 2 else f"shape {values.shape}"
        msg = f"obsm[{key!r}] must hold a row of finite numbers for each spot of section {slide.name!r}, found {fault}."
        raise ValueError(msg)
    return features


def read_feature_names(slide: Slide, key: str) -> list[str] | None:
    """Return the columns of a table in ``obsm``; ``None`` for an array, which names no columns."""
    columns = getattr(slide.adata.obsm[key], "columns", None)
    return None if columns is None else [str(name) for name in columns]


def check_feature_names(slide: Slide, key: str, names: Sequence[str] | None, where: str) -> None:
    """Reject a table whose columns differ from the expected names or from their order."""
    columns = read_feature_names(slide, key)
    if columns is None or names is None or columns == list(names):
        return
    pairs = enumerate(zip(columns, names, strict=False))
    first = next((i for i, (column, name) in pairs if column != name), min(len(columns), len(names)))
    msg = (
        f"obsm[{key!r}] of section {slide.name!r} must hold the columns of {where}, in that order. They differ from "
        f"column {first} on: expected {listing(names[first:], 3)}, found {listing(columns[first:], 3)}."
    )
    raise ValueError(msg)


def hash_user_features(slide: Slide, obsm: Sequence[str]) -> str | None:
    """Hash the user's features of a section; ``None`` where there are none."""
    return digest(*(read_user_features(slide, key) for key in obsm)) if obsm else None
