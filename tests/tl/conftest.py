"""A square array of spots, smooth maps on it, and counts of known rates."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from sthggep._slides._slide import Slide
from sthggep._table._counts import log10_cp10k

SIDE = 24


def square(side: int = SIDE, pitch: float = 290.0) -> np.ndarray:
    """Coordinates of a full array, row by row."""
    y, x = np.mgrid[:side, :side]
    return np.column_stack([x.ravel(), y.ravel()]) * pitch


def slide(xy: np.ndarray) -> Slide:
    return Slide("S", ad.AnnData(np.zeros((len(xy), 1), np.float32)), np.arange(len(xy)), xy.astype(float))


def smooth(n: int, sigma: float, seed: int = 0) -> np.ndarray:
    """Smooth fields of mean 0 and variance 1, shape (side², n)."""
    noise = np.random.default_rng(seed).standard_normal((n, SIDE, SIDE))
    fields = np.array([gaussian_filter(field, sigma, mode="wrap") for field in noise]).reshape(n, -1).T
    return (fields - fields.mean(axis=0)) / fields.std(axis=0)


def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    return np.column_stack([gaussian_filter(v.reshape(SIDE, SIDE), sigma).ravel() for v in values.T])


def counted(depth: float, seed: int = 0, sigma: float = 1.5) -> ad.AnnData:
    """Counts of known, smooth rates, ``depth`` a spot and gene on average; the prediction is the truth."""
    rng = np.random.default_rng(seed)
    share = np.exp(0.6 * smooth(40, sigma, seed))
    share /= share.sum(axis=1, keepdims=True)
    genes = [f"g{i}" for i in range(40)]
    adata = ad.AnnData(rng.poisson(share * depth * 40).astype(np.float32), var=pd.DataFrame(index=genes))
    adata.obs_names = [f"s{i}" for i in range(adata.n_obs)]
    adata.obsm["spatial"] = square()
    adata.obsm["hggep"] = log10_cp10k((share * 1e4).astype(np.float32))
    adata.uns["hggep"] = {"tool": "sthggep", "genes": np.array(genes, dtype=object), "units": "log"}
    return adata


@pytest.fixture(scope="session")
def lattice() -> SimpleNamespace:
    """Functions that make spots and maps on a square array."""
    return SimpleNamespace(
        SIDE=SIDE, square=square, slide=slide, smooth=smooth, blurred=blurred, counted=counted, n_spots=SIDE**2
    )
