"""Clusters of spots, as many as their own separation asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import one_of

Points = NDArray[np.floating]  # (n_spots, n_dimensions)
Labels = NDArray[np.intp]

# Numbers of clusters, resolutions. Not from two clusters on: the silhouette nearly always likes two best
CANDIDATES: dict[str, tuple[float, ...]] = {
    "kmeans": (3, 4, 5, 6, 7, 8, 9, 10),
    "leiden": (0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0),
}
N_NEIGHBORS = 15


@dataclass(frozen=True)
class Clusters:
    """``labels`` count from 0, the largest cluster first; ``chosen`` is the resolution, or the number asked for."""

    labels: Labels
    chosen: float
    silhouette: float

    @property
    def n(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1


def cluster(points: Points, method: str, candidates: Sequence[float] | None, seed: int) -> Clusters:
    """Cluster points at every candidate, and keep the one whose clusters stand apart best (highest mean silhouette)."""
    tried = CANDIDATES[method] if candidates is None else tuple(candidates)
    if not tried or min(tried) <= 0:
        msg = f"`candidates` must be positive numbers, at least one; found {tried!r}."
        raise ValueError(msg)
    label = _leiden(points, seed) if method == "leiden" else _kmeans(points, seed)
    found = [_described(points, label(candidate), candidate) for candidate in tried]
    # One cluster has no silhouette: it is kept where nothing else was found
    return max(found, key=lambda clusters: -2 if np.isnan(clusters.silhouette) else clusters.silhouette)


def check_method(method: str) -> None:
    """Refuse an unknown method, and one whose library is not there."""
    if one_of(method, CANDIDATES, "method") == "leiden" and find_spec("igraph") is None:
        msg = "`method='leiden'` needs igraph. Call `pip install 'sthggep[leiden]'`, or use `method='kmeans'`."
        raise ImportError(msg)


def principal_components(values: Points, n_comps: int, seed: int) -> Points:
    """Scores of the first components (centered, not scaled); fewer where there are not as many."""
    from scanpy.pp import pca

    n = min(n_comps, min(values.shape) - 1)
    if n < 1:
        return values
    return np.asarray(pca(values, n_comps=n, random_state=seed))


def _leiden(points: Points, seed: int) -> Callable[[float], Labels]:
    from scanpy.pp import neighbors
    from scanpy.tl import leiden

    spots = AnnData(obsm={"X": points})
    # umap's way starts numba's threads, which leaves OpenMP, and so torch, with another number of them
    neighbors(spots, min(N_NEIGHBORS, len(points) - 1), use_rep="X", method="gauss", random_state=seed)

    def label(resolution: float) -> Labels:
        leiden(spots, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
        return np.asarray(spots.obs["leiden"], dtype=np.intp)

    return label


def _kmeans(points: Points, seed: int) -> Callable[[float], Labels]:
    from sklearn.cluster import KMeans

    def label(n_clusters: float) -> Labels:
        found = KMeans(min(int(n_clusters), len(points)), n_init=10, random_state=seed).fit_predict(points)
        return np.asarray(found, dtype=np.intp)

    return label


def _described(points: Points, labels: Labels, candidate: float) -> Clusters:
    from sklearn.metrics import silhouette_score

    _, named, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), dtype=np.intp)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    apart = 1 < len(sizes) < len(points)
    silhouette = float(silhouette_score(points, labels)) if apart else float("nan")
    return Clusters(rank[named], float(candidate), silhouette)
