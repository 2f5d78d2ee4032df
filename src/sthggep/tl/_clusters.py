"""Clusters of spots, their number chosen by the silhouette."""

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

# Numbers of clusters, resolutions. Two clusters are left out: they nearly always have the highest silhouette
CANDIDATES: dict[str, tuple[float, ...]] = {
    "kmeans": (3, 4, 5, 6, 7, 8, 9, 10),
    "leiden": (0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0),
}
N_NEIGHBORS = 15


@dataclass(frozen=True)
class Clusters:
    """``labels`` count from 0, the largest cluster first; ``chosen`` is the candidate (resolution or number)."""

    labels: Labels
    chosen: float
    silhouette: float

    @property
    def n(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1


def cluster(points: Points, method: str, candidates: Sequence[float] | None, seed: int) -> Clusters:
    """Cluster points at every candidate, and return the clusters with the highest mean silhouette."""
    values = CANDIDATES[method] if candidates is None else tuple(candidates)
    if not values or min(values) <= 0:
        msg = f"`candidates` must be positive numbers, at least one; found {values!r}."
        raise ValueError(msg)
    label = _leiden(points, seed) if method == "leiden" else _kmeans(points, seed)
    partitions = [_clusters_of(points, label(candidate), candidate) for candidate in values]
    # One cluster has no silhouette and ranks last
    return max(partitions, key=lambda clusters: -2 if np.isnan(clusters.silhouette) else clusters.silhouette)


def check_method(method: str) -> None:
    """Refuse an unknown method, and one whose library is not installed."""
    if one_of(method, CANDIDATES, "method") == "leiden" and find_spec("igraph") is None:
        msg = "`method='leiden'` needs igraph. Call `pip install 'sthggep[leiden]'`, or use `method='kmeans'`."
        raise ImportError(msg)


def principal_components(values: Points, n_comps: int, seed: int) -> Points:
    """Scores of the first components (centered, not scaled); fewer if the data have fewer."""
    from scanpy.pp import pca

    n = min(n_comps, min(values.shape) - 1)
    if n < 1:
        return values
    return np.asarray(pca(values, n_comps=n, random_state=seed))


def _leiden(points: Points, seed: int) -> Callable[[float], Labels]:
    """A function that clusters the points by Leiden at a resolution."""
    from scanpy.pp import neighbors
    from scanpy.tl import leiden

    spots = AnnData(obsm={"X": points})
    # The method of umap starts threads of numba, which changes the number of OpenMP's threads, and so torch's
    neighbors(spots, min(N_NEIGHBORS, len(points) - 1), use_rep="X", method="gauss", random_state=seed)

    def label(resolution: float) -> Labels:
        leiden(spots, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
        return np.asarray(spots.obs["leiden"], dtype=np.intp)

    return label


def _kmeans(points: Points, seed: int) -> Callable[[float], Labels]:
    """A function that clusters the points by k-means into a number of clusters."""
    from sklearn.cluster import KMeans

    def label(n_clusters: float) -> Labels:
        labels = KMeans(min(int(n_clusters), len(points)), n_init=10, random_state=seed).fit_predict(points)
        return np.asarray(labels, dtype=np.intp)

    return label


def _clusters_of(points: Points, labels: Labels, candidate: float) -> Clusters:
    """Clusters numbered by size, with their mean silhouette."""
    from sklearn.metrics import silhouette_score

    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), dtype=np.intp)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    is_defined = 1 < len(sizes) < len(points)
    silhouette = float(silhouette_score(points, labels)) if is_defined else float("nan")
    return Clusters(rank[numbers], float(candidate), silhouette)
