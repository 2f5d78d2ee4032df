"""Scores of gene maps: structural similarity (SSIM) and spatial autocorrelation (Moran's I)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

MapValues = NDArray[np.floating]  # (n_spots, n_genes)

# As Wang et al. (2004), who proposed SSIM, and scikit-image: a Gaussian of 1.5 pixels (here: pitches), and its constants
SSIM_SIGMA, SSIM_REACH = 1.5, 5.25
K1, K2 = 0.01, 0.03
# Covers the eight neighbors (1 and 1.41 pitches) of a square array and the six of a hexagonal one
NEIGHBOR_REACH = 1.6
GENES_AT_ONCE = 128


def ssim(slide: Slide, predicted: MapValues, measured: MapValues) -> NDArray[np.float64]:
    """Structural similarity of each pair of gene maps, shape (n_genes,); NaN for a constant measurement."""
    window = ssim_window(slide)
    parts = [slice(start, start + GENES_AT_ONCE) for start in range(0, measured.shape[1], GENES_AT_ONCE)]
    return np.concatenate([local_ssim(window, predicted[:, p], measured[:, p]).mean(axis=0) for p in parts])


def ssim_window(slide: Slide) -> sparse.csr_matrix:
    """Weights (n_spots, n_spots) of the spots around each spot; each row sums to one."""
    pairs, distance = _near(slide, SSIM_REACH)
    weights = _symmetric(pairs, np.exp(-0.5 * (distance / SSIM_SIGMA) ** 2), slide.n_spots)
    weights += sparse.eye(slide.n_spots, format="csr")
    return sparse.csr_matrix(sparse.diags(1 / weights.sum(axis=1).A1) @ weights)


def local_ssim(window: sparse.csr_matrix, predicted: MapValues, measured: MapValues) -> NDArray[np.float64]:
    """Structural similarity of the maps around each spot, shape (n_spots, n_genes)."""
    a, b = predicted.astype(np.float64), measured.astype(np.float64)
    mean_a, mean_b = window @ a, window @ b
    var_a, var_b = window @ a**2 - mean_a**2, window @ b**2 - mean_b**2
    covariance = window @ (a * b) - mean_a * mean_b
    span = np.where(np.ptp(b, axis=0) > 0, np.ptp(b, axis=0), np.nan)
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    level = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    similarity: NDArray[np.float64] = level * (2 * covariance + c2) / (var_a + var_b + c2)
    return similarity


def morans_i(slide: Slide, values: MapValues) -> NDArray[np.float64]:
    """Moran's I of each gene map, shape (n_genes,); NaN for a constant one, or if no spot has a neighbor.

    The functions of scanpy and squidpy start threads of numba, which changes the number of OpenMP's threads, and so
    torch's.
    """
    pairs, _ = _near(slide, NEIGHBOR_REACH)
    if not len(pairs):
        return np.full(values.shape[1], np.nan)
    graph = _symmetric(pairs, np.ones(len(pairs)), slide.n_spots)
    z = values - values.mean(axis=0, dtype=np.float64)
    varies = np.ptp(values, axis=0) > 0  # NaN stays NaN
    products, variance = (z * (graph @ z)).sum(axis=0) / graph.sum(), (z**2).mean(axis=0)
    return np.where(varies, products / np.where(varies, variance, 1.0), np.nan)


def _near(slide: Slide, pitches: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Pairs (n_pairs, 2) of spots within a distance, each pair once, and their distances in pitches."""
    xy = slide.xy / slide.pitch()
    pairs = cKDTree(xy).query_pairs(pitches, output_type="ndarray")
    return pairs, np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)


def _symmetric(pairs: NDArray[np.intp], values: NDArray[np.float64], n: int) -> sparse.csr_matrix:
    """Symmetric (n, n) matrix of one value for each pair."""
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    return sparse.csr_matrix((np.tile(values, 2), (rows, columns)), shape=(n, n))
