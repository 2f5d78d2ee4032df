"""Targets other than genes: cell-type fractions, signature scores, any numbers in ``obsm`` or ``obs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, has_key, listing, unique
from sthggep._table._user_features import check_feature_names, read_feature_names, read_user_features

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Targets:
    """Named numbers of each spot: all columns of ``obsm[key]``, or with ``key=None`` columns of ``obs``."""

    names: tuple[str, ...]
    key: str | None = None

    @property
    def where(self) -> str:
        """Place of the targets in a table."""
        return "obs" if self.key is None else f"obsm[{self.key!r}]"

    @property
    def units(self) -> str:
        """Scale of the targets, in words."""
        return f"as in {self.where}"

    def to_dict(self) -> dict[str, str]:
        """Convert to plain types for JSON and ``uns``; the record around it holds the names."""
        return {"from": "obs"} if self.key is None else {"from": "obsm", "key": self.key}

    @classmethod
    def from_dict(cls, record: Mapping[str, object], names: Sequence[str]) -> Targets:
        """Restore targets from the record of :meth:`to_dict`."""
        return cls(tuple(names), str(record["key"]) if str(record["from"]) == "obsm" else None)

    def explain_absence(self, slide: Slide) -> str:
        """Say in a few words why a section lacks targets; empty where it has all of them, whatever their values."""
        if self.key is not None:
            return "" if self.key in slide.adata.obsm else f"{self.where} is not there"
        missing = [name for name in self.names if name not in slide.adata.obs]
        return f"obs has no column {listing(missing, 3)}" if missing else ""

    def read(self, slide: Slide) -> Values:
        """Read the values of a section, ``(n_spots, n_targets)``, and check that they are finite numbers."""
        if self.key is None:
            return np.column_stack([_column(slide, name) for name in self.names])
        values = read_user_features(slide, self.key)
        check_feature_names(slide, self.key, self.names, "the targets")
        if values.shape[1] != len(self.names):
            msg = (
                f"{self.where} of section {slide.name!r} must hold {counted(self.names, 'target')}, found {values.shape[1]} "
                "columns."
            )
            raise ValueError(msg)
        return values


def find_targets(targets: str | Sequence[str], slides: Sequence[Slide]) -> Targets:
    """Find the targets in all sections and check them.

    Raises
    ------
    KeyError, ValueError
        A section lacks a target, or a target holds no numbers or does not vary.
    """
    first = slides[0]
    if isinstance(targets, str):
        if targets in first.adata.obs and targets not in first.adata.obsm:
            msg = f"{targets!r} is a column of obs, not a key of obsm. Pass columns as a list: `targets=[{targets!r}]`."
            raise KeyError(msg)
        width = read_user_features(first, targets).shape[1]
        names = read_feature_names(first, targets) or [f"{targets}_{i}" for i in range(width)]
        record = Targets(tuple(names), targets)
    else:
        record = Targets(tuple(map(str, targets)))
    if not record.names:
        msg = "`targets` is empty. Pass a key of obsm, or a list of columns of obs."
        raise ValueError(msg)
    unique(record.names, "The targets", "Name each once.")
    mean_and_std([record.read(slide) for slide in slides], record)
    return record


def mean_and_std(values: Sequence[Values], targets: Targets) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean and standard deviation of each target over all spots; reject a target that does not vary."""
    pooled = np.concatenate(values).astype(np.float64)
    mean, std = pooled.mean(axis=0), pooled.std(axis=0)
    constant = [
        name
        for name, target_std, target_mean in zip(targets.names, std, mean, strict=True)
        if target_std <= 1e-6 * abs(target_mean)
    ]
    if constant:
        msg = (
            f"Each target must vary, but {listing(constant, 5)} in {targets.where} have one value in all {len(pooled)} spots. "
            "Leave these targets out."
        )
        raise ValueError(msg)
    return mean, std


def _column(slide: Slide, name: str) -> Values:
    """Read a column of ``obs`` and check that it holds a finite number for each spot."""
    column = has_key(slide.adata.obs, name, "obs", "Name columns of obs that every slide has.")
    values = pd.to_numeric(pd.Series(column).iloc[slide.rows].astype(object), errors="coerce").to_numpy(
        dtype=np.float32
    )
    n_broken = int((~np.isfinite(values)).sum())
    if n_broken:
        msg = (
            f"obs[{name!r}] of section {slide.name!r} must hold a finite number for each spot, but {counted(n_broken, 'spot')} "
            f"of {slide.n_spots} {'has' if n_broken == 1 else 'have'} none. Fill the values, or leave these spots out."
        )
        raise ValueError(msg)
    return values
