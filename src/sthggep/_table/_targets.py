"""What is learned instead of genes: cell-type fractions, signature scores, any numbers in ``obsm`` or ``obs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, has_key, listing, unique
from sthggep._table._user_features import feature_names, given_features, same_features

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
        """Where they stand in a table."""
        return "obs" if self.key is None else f"obsm[{self.key!r}]"

    @property
    def units(self) -> str:
        """Their scale, in words."""
        return f"as in {self.where}"

    def to_dict(self) -> dict[str, str]:
        """Plain types, for JSON and ``uns``; the names stand beside it already."""
        return {"from": "obs"} if self.key is None else {"from": "obsm", "key": self.key}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], names: Sequence[str]) -> Targets:
        """Back from plain types."""
        return cls(tuple(names), str(record["key"]) if str(record["from"]) == "obsm" else None)

    def absent(self, slide: Slide) -> str:
        """Why nothing is known of them in a section, in a few words; empty where they are there, whatever they hold."""
        if self.key is not None:
            return "" if self.key in slide.adata.obsm else f"{self.where} is not there"
        missing = [name for name in self.names if name not in slide.adata.obs]
        return f"obs has no column {listing(missing, 3)}" if missing else ""

    def read(self, slide: Slide) -> Values:
        """Values of a section, ``(n_spots, n_targets)``, or an error that says what is wrong with them."""
        if self.key is None:
            return np.column_stack([_column(slide, name) for name in self.names])
        found = given_features(slide, self.key)
        same_features(slide, self.key, self.names, "the targets")
        if found.shape[1] != len(self.names):
            msg = (
                f"{self.where} of section {slide.name!r} must hold {counted(self.names, 'target')}, found {found.shape[1]} "
                "columns."
            )
            raise ValueError(msg)
        return found


def find_targets(targets: str | Sequence[str], slides: Sequence[Slide]) -> Targets:
    """The targets that were asked for, checked in every section.

    Raises
    ------
    KeyError, ValueError
        They are not there, are not numbers, or do not vary: there is nothing to learn.
    """
    first = slides[0]
    if isinstance(targets, str):
        if targets in first.adata.obs and targets not in first.adata.obsm:
            msg = f"{targets!r} is a column of obs, not a key of obsm. Pass columns as a list: `targets=[{targets!r}]`."
            raise KeyError(msg)
        width = given_features(first, targets).shape[1]
        names = feature_names(first, targets) or [f"{targets}_{i}" for i in range(width)]
        found = Targets(tuple(names), targets)
    else:
        found = Targets(tuple(map(str, targets)))
    if not found.names:
        msg = "`targets` is empty. Pass a key of obsm, or a list of columns of obs."
        raise ValueError(msg)
    unique(found.names, "The targets", "Name each once.")
    spread_of([found.read(slide) for slide in slides], found)
    return found


def spread_of(values: Sequence[Values], targets: Targets) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each target over all spots of all sections."""
    pooled = np.concatenate(values).astype(np.float64)
    mean, std = pooled.mean(axis=0), pooled.std(axis=0)
    constant = [
        name for name, spread, about in zip(targets.names, std, mean, strict=True) if spread <= 1e-6 * abs(about)
    ]
    if constant:
        msg = (
            f"There is nothing to learn of {listing(constant, 5)} in {targets.where}: the same in all {len(pooled)} spots. "
            "Leave such targets out."
        )
        raise ValueError(msg)
    return mean, std


def _column(slide: Slide, name: str) -> Values:
    """A column of ``obs``, if it holds a number for each spot."""
    column = has_key(slide.adata.obs, name, "obs", "Name columns of obs that every slide has.")
    values = pd.to_numeric(pd.Series(column).iloc[slide.rows].astype(object), errors="coerce").to_numpy(
        dtype=np.float32
    )
    broken = int((~np.isfinite(values)).sum())
    if broken:
        msg = (
            f"obs[{name!r}] of section {slide.name!r} must hold a finite number for each spot, but {counted(broken, 'spot')} "
            f"of {slide.n_spots} {'has' if broken == 1 else 'have'} none. Fill them, or leave these spots out."
        )
        raise ValueError(msg)
    return values
