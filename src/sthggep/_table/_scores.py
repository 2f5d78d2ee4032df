"""Scores of a prediction, and the noise ceiling of a gene."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._table._counts import log10_cp10k

N_SPLITS = 5


def score(predicted: NDArray[np.float32], measured: NDArray[np.float32]) -> pd.DataFrame:
    """Pearson, Spearman and RMSE of each column; a constant column has no correlation (NaN)."""
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
    """Pearson correlation of each pair of columns, shape (n_columns,); NaN for a constant one."""
    from scipy.stats import pearsonr

    if len(a) < 2:
        return np.full(a.shape[1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant columns are counted and said once, by the caller
        return np.asarray(pearsonr(a.astype(np.float64), b.astype(np.float64), axis=0).statistic)


def noise_ceiling(raw: NDArray[np.float32], rng: np.random.Generator, n_splits: int = N_SPLITS) -> NDArray[np.float64]:
    """Highest Pearson correlation that noise in the counts leaves room for, one a gene of the panel."""
    whole = raw.astype(np.int64)
    halves = []
    for _ in range(n_splits):
        half = rng.binomial(whole, 0.5).astype(np.float32)
        halves.append(column_pearson(log10_cp10k(half), log10_cp10k(raw - half)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a gene without counts has no ceiling: NaN
        r = np.clip(np.nanmean(halves, axis=0), 0, None)
    return np.asarray(np.sqrt(2 * r / (1 + r)), dtype=np.float64)
