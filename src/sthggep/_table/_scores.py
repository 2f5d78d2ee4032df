"""Scores of a prediction, and the noise ceiling of a gene."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._table._counts import log10_cp10k

N_SPLITS = 5
INTERVAL_METRICS = ("coverage", "width", "interval_score")


def score(predicted: NDArray[np.float32], measured: NDArray[np.float32]) -> pd.DataFrame:
    """Compute Pearson, Spearman and RMSE of each column; the correlation of a constant column is NaN."""
    from scipy.stats import rankdata

    return pd.DataFrame(
        {
            "pearson": column_pearson(predicted, measured),
            "spearman": column_pearson(rankdata(predicted, axis=0), rankdata(measured, axis=0)),
            "rmse": np.sqrt(np.mean((predicted.astype(np.float64) - measured) ** 2, axis=0)),
            "mean_observed": measured.mean(axis=0, dtype=np.float64),
        }
    )


def column_pearson(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Correlate each pair of columns by Pearson, shape (n_columns,); a constant column gets NaN."""
    return correlate(a.astype(np.float64), b.astype(np.float64), constant=np.nan)


def correlate(a: NDArray[np.floating], b: NDArray[np.floating], *, constant: float = 0.0) -> NDArray[np.float64]:
    """Correlate each pair of columns by Pearson, in the precision of the values; ``constant`` for a constant column."""
    if len(a) < 2:
        return np.full(a.shape[1], constant)
    least = (8 * np.finfo(a.dtype).eps) ** 2  # of the mean square: what rounding leaves of a constant
    totals = [np.einsum("ij,ij->j", x, x) for x in (a, b)]
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    squares = [np.einsum("ij,ij->j", x, x) for x in (a, b)]
    varies = np.logical_and(*(part > least * total for part, total in zip(squares, totals, strict=True)))
    norm = np.sqrt(squares[0].astype(np.float64)) * np.sqrt(squares[1].astype(np.float64))
    r = np.einsum("ij,ij->j", a, b) / np.where(varies, norm, 1.0)
    return np.asarray(np.where(varies, np.clip(r, -1, 1), constant), dtype=np.float64)


def mean_of_known(values: Sequence[NDArray[np.floating]] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Average over the first axis, without NaN, in the precision of the values; NaN where all are."""
    stacked = np.asarray(values)
    known = ~np.isnan(stacked)
    if known.all():
        return np.asarray(stacked.mean(axis=0))
    n = known.sum(axis=0)
    return np.asarray(np.where(n > 0, np.where(known, stacked, 0).sum(axis=0) / np.maximum(n, 1), np.nan))


def noise_ceiling(raw: NDArray[np.float32], rng: np.random.Generator, n_splits: int = N_SPLITS) -> NDArray[np.float64]:
    """Estimate the highest Pearson correlation that noise in the counts allows, one value a panel gene."""
    trials = raw.astype(np.int64)
    agreements = []
    for _ in range(n_splits):
        half = rng.binomial(trials, 0.5).astype(np.float32)
        agreements.append(column_pearson(log10_cp10k(half), log10_cp10k(raw - half)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a gene without counts has no ceiling: NaN
        return ceiling_of_halves(np.nanmean(agreements, axis=0))


def ceiling_of_halves(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn the correlation of two halves of the counts into the ceiling at full depth (Spearman & Brown 1910)."""
    r = np.clip(r, 0, None)
    return np.asarray(np.sqrt(2 * r / (1 + r)), dtype=np.float64)


def score_intervals(
    lower: NDArray[np.float32], upper: NDArray[np.float32], measured: NDArray[np.float32], level: float
) -> pd.DataFrame:
    """Score intervals of each gene: coverage, mean width, and the interval score of Winkler (1972), lower is better."""
    missed = np.clip(lower - measured, 0, None) + np.clip(measured - upper, 0, None)
    coverage, width = coverage_and_width(lower, upper, measured)
    scores = (coverage, width, (upper - lower + 2 / (1 - level) * missed).mean(axis=0))
    return pd.DataFrame(dict(zip(INTERVAL_METRICS, scores, strict=True)))


def coverage_and_width(
    lower: NDArray[np.float32], upper: NDArray[np.float32], measured: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute of each gene the share of measurements inside the intervals, and the mean width of these; NaN without intervals."""
    inside = (measured >= lower) & (measured <= upper)
    known = ~np.isnan(lower).any(axis=0)
    return np.where(known, inside.mean(axis=0), np.nan), (upper - lower).mean(axis=0, dtype=np.float64)
