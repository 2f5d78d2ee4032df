"""Baselines on the same frozen features: the mean, the nearest patch, and ridge regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._table._scores import column_pearson

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge

    from sthggep._encoders._sweep import FeatureArray

Floats = NDArray[np.float32]
PENALTIES = (1.0, 1e1, 1e2, 1e3, 1e4, 1e5)
INNER_FOLDS = 5  # at most; each costs a fit for every penalty


@dataclass(frozen=True)
class FeatureView:
    """What a baseline may read of a section that it predicts: features, no counts."""

    n_spots: int
    stages: Sequence[FeatureArray] = ()

    @property
    def standardized(self) -> Floats:
        """Features of all stages with mean 0 and standard deviation 1 over the section, to remove stain and scanner."""
        if not self.stages:
            msg = "This baseline needs features."
            raise ValueError(msg)
        features = np.hstack([stage[:] for stage in self.stages])
        spread = np.maximum(features.std(axis=0), 1e-6)
        return np.asarray((features - features.mean(axis=0)) / spread, dtype=np.float32)


@dataclass(frozen=True)
class BaselineSample:
    """A training section: features, expression (NaN in genes that it lacks), and which spots have counts."""

    section: FeatureView
    expression: Floats
    filled: NDArray[np.bool_]
    xy: NDArray[np.float64]

    @property
    def pair(self) -> tuple[Floats, Floats]:
        """Features and expression of the spots that have counts."""
        return self.section.standardized[self.filled], self.expression[self.filled]


def mean(train: Sequence[BaselineSample], test: Sequence[FeatureView]) -> list[Floats]:
    """Predict each gene's mean over all training spots."""
    means = _gene_means(train)
    return [np.tile(means, (section.n_spots, 1)) for section in test]


def nearest_patch(train: Sequence[BaselineSample], test: Sequence[FeatureView]) -> list[Floats]:
    """Predict the expression of the training spot with the nearest features."""
    from sklearn.neighbors import NearestNeighbors

    x, y = (np.vstack(parts) for parts in zip(*(section.pair for section in train), strict=True))
    index = NearestNeighbors(n_neighbors=1).fit(x)
    return [y[index.kneighbors(section.standardized, return_distance=False)[:, 0]] for section in test]


def ridge(train: Sequence[BaselineSample], test: Sequence[FeatureView]) -> list[Floats]:
    """Predict by ridge regression within sections, around the training mean; held-out tissue decides the penalty."""
    from sklearn.linear_model import Ridge

    pairs = [section.pair for section in train if section.filled.any()]
    x = np.vstack([features for features, _ in pairs])
    y = np.vstack([expression - expression.mean(axis=0) for _, expression in pairs])
    model = Ridge(choose_penalty(x, y, _parts(train))).fit(x, y)
    return [_predict(model, s.standardized) + _gene_means(train) for s in test]


def choose_penalty(x: Floats, y: Floats, parts: NDArray[np.intp]) -> float:
    """Choose the penalty whose predictions of held-out parts correlate best, on average over genes, then over parts."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold

    n_parts = len(np.unique(parts))
    if n_parts < 2:
        return PENALTIES[len(PENALTIES) // 2]
    correlations = np.zeros(len(PENALTIES))
    for train, held_out in GroupKFold(min(INNER_FOLDS, n_parts)).split(x, groups=parts):
        for i, penalty in enumerate(PENALTIES):
            predicted = _predict(Ridge(penalty).fit(x[train], y[train]), x[held_out])
            correlations[i] += _summed_correlation(predicted, y[held_out], parts[held_out])
    return PENALTIES[int(correlations.argmax())]


def predict_by(name: str, train: Sequence[BaselineSample], test: Sequence[FeatureView]) -> list[Floats]:
    """Predict by a baseline; where sections lack genes, each gene by the sections that hold it."""
    known = np.stack([~np.isnan(section.expression).any(axis=0) for section in train])
    if known.all():
        return BASELINES[name](train, test)
    patterns, of_gene = np.unique(known, axis=1, return_inverse=True)
    out = [np.empty((section.n_spots, known.shape[1]), dtype=np.float32) for section in test]
    for i, pattern in enumerate(patterns.T):
        genes = np.flatnonzero(of_gene.ravel() == i)
        holding = [
            replace(each, expression=each.expression[:, genes])
            for each, holds in zip(train, pattern, strict=True)
            if holds
        ]
        for values, part in zip(out, BASELINES[name](holding, test), strict=True):
            values[:, genes] = part
    return out


def _predict(model: Ridge, x: Floats) -> Floats:
    """Predict one column for each target; scikit-learn drops the axis of a single one."""
    return np.asarray(model.predict(x), dtype=np.float32).reshape(len(x), -1)


def _summed_correlation(predicted: Floats, measured: Floats, parts: NDArray[np.intp]) -> float:
    """Mean correlation over genes within each part, summed over parts; an undefined correlation counts as 0."""
    correlations = [column_pearson(predicted[parts == part], measured[parts == part]) for part in np.unique(parts)]
    return float(sum(np.nan_to_num(np.mean(np.nan_to_num(part))) for part in correlations))


def _parts(train: Sequence[BaselineSample]) -> NDArray[np.intp]:
    """Number of the part that each spot is held out with: its section, or a block of tissue if there is one section."""
    from sthggep._slides._lattice import spatial_blocks

    filled = [section for section in train if section.filled.any()]
    if len(filled) > 1:
        return np.repeat(np.arange(len(filled)), [int(section.filled.sum()) for section in filled])
    (only,) = filled
    blocks = [spatial_blocks(only.xy, fold, INNER_FOLDS) for fold in range(INNER_FOLDS)]
    return np.asarray(np.argmax(blocks, axis=0)[only.filled], dtype=np.intp)


def _gene_means(train: Sequence[BaselineSample]) -> Floats:
    """Mean of each gene over the training spots with counts."""
    expression = np.vstack([section.expression[section.filled] for section in train])
    return np.asarray(expression.mean(axis=0, dtype=np.float64), dtype=np.float32)


BASELINES: dict[str, Callable[[Sequence[BaselineSample], Sequence[FeatureView]], list[Floats]]] = {
    "mean": mean,
    "nearest_patch": nearest_patch,
    "ridge": ridge,
}
NEED_FEATURES = ("nearest_patch", "ridge")
