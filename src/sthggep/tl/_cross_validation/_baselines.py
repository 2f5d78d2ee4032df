"""What a model must beat: the mean, the most alike patch, and ridge, on the same frozen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._table._scores import column_pearson

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge

    from sthggep._encoders._sweep import FeatureArray

Floats = NDArray[np.float32]
PENALTIES = (1.0, 1e1, 1e2, 1e3, 1e4, 1e5)
INNER_FOLDS = 5  # at most: each costs as much as a fit


@dataclass(frozen=True)
class FeatureView:
    """A section as far as prediction may look at it: no counts."""

    n_spots: int
    stages: Sequence[FeatureArray] = ()

    @property
    def standardized(self) -> Floats:
        """Features of all stages with mean 0 and spread 1 over the section, which takes out its stain and scanner."""
        if not self.stages:
            msg = "This baseline needs features."
            raise ValueError(msg)
        features = np.hstack([stage[:] for stage in self.stages])
        spread = np.maximum(features.std(axis=0), 1e-6)
        return np.asarray((features - features.mean(axis=0)) / spread, dtype=np.float32)


@dataclass(frozen=True)
class BaselineSample:
    """A section to learn from: expression of those spots that have counts."""

    section: FeatureView
    expression: Floats
    filled: NDArray[np.bool_]
    xy: NDArray[np.float64]

    @property
    def pair(self) -> tuple[Floats, Floats]:
        """Features and expression of the spots that have counts."""
        return self.section.standardized[self.filled], self.expression[self.filled]


def mean(train: Sequence[BaselineSample], test: Sequence[FeatureView]) -> list[Floats]:
    """Each gene's mean over all training spots, everywhere."""
    flat = _mean(train)
    return [np.tile(flat, (section.n_spots, 1)) for section in test]


def nearest_patch(train: Sequence[BaselineSample], test: Sequence[FeatureView]) -> list[Floats]:
    """Expression of the training spot whose surroundings look most alike."""
    from sklearn.neighbors import NearestNeighbors

    x, y = (np.vstack(parts) for parts in zip(*(section.pair for section in train), strict=True))
    index = NearestNeighbors(n_neighbors=1).fit(x)
    return [y[index.kneighbors(section.standardized, return_distance=False)[:, 0]] for section in test]


def ridge(train: Sequence[BaselineSample], test: Sequence[FeatureView]) -> list[Floats]:
    """Linear within sections, around the training mean; the penalty is chosen on training tissue left out."""
    from sklearn.linear_model import Ridge

    pairs = [section.pair for section in train if section.filled.any()]
    x = np.vstack([found for found, _ in pairs])
    y = np.vstack([found - found.mean(axis=0) for _, found in pairs])
    model = Ridge(choose_penalty(x, y, _parts(train))).fit(x, y)
    return [_predicted(model, s.standardized) + _mean(train) for s in test]


def choose_penalty(x: Floats, y: Floats, parts: NDArray[np.intp]) -> float:
    """The penalty whose predictions of parts left out correlate best, mean over genes, then over parts."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold

    n_parts = len(np.unique(parts))
    if n_parts < 2:
        return PENALTIES[len(PENALTIES) // 2]
    found = np.zeros(len(PENALTIES))
    for kept, left_out in GroupKFold(min(INNER_FOLDS, n_parts)).split(x, groups=parts):
        for i, penalty in enumerate(PENALTIES):
            predicted = _predicted(Ridge(penalty).fit(x[kept], y[kept]), x[left_out])
            found[i] += _mean_correlation(predicted, y[left_out], parts[left_out])
    return PENALTIES[int(found.argmax())]


def _predicted(model: Ridge, x: Floats) -> Floats:
    """One column a target; of a single one scikit-learn drops the axis."""
    return np.asarray(model.predict(x), dtype=np.float32).reshape(len(x), -1)


def _mean_correlation(predicted: Floats, measured: Floats, parts: NDArray[np.intp]) -> float:
    """Within each part, mean over genes; summed over parts. What has no correlation counts as none."""
    found = [column_pearson(predicted[parts == part], measured[parts == part]) for part in np.unique(parts)]
    return float(sum(np.nan_to_num(np.mean(np.nan_to_num(part))) for part in found))


def _parts(train: Sequence[BaselineSample]) -> NDArray[np.intp]:
    """What is left out together: a training section, or a block of tissue where there is only one."""
    from sthggep._slides._lattice import spatial_blocks

    filled = [section for section in train if section.filled.any()]
    if len(filled) > 1:
        return np.repeat(np.arange(len(filled)), [int(section.filled.sum()) for section in filled])
    (only,) = filled
    blocks = [spatial_blocks(only.xy, fold, INNER_FOLDS) for fold in range(INNER_FOLDS)]
    return np.asarray(np.argmax(blocks, axis=0)[only.filled], dtype=np.intp)


def _mean(train: Sequence[BaselineSample]) -> Floats:
    known = np.vstack([section.expression[section.filled] for section in train])
    return np.asarray(known.mean(axis=0, dtype=np.float64), dtype=np.float32)


BASELINES: dict[str, Callable[[Sequence[BaselineSample], Sequence[FeatureView]], list[Floats]]] = {
    "mean": mean,
    "nearest_patch": nearest_patch,
    "ridge": ridge,
}
NEED_FEATURES = ("nearest_patch", "ridge")
