"""Test of a predicted map against a measured one, where neighboring spots resemble each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sthggep._table._scores import correlate

MOST_MAPS, LEAST_MAPS = 64, 24
MOST_VALUES = 2e8  # of all maps together; larger sections get fewer maps
TRIES = 30  # a map
SHIFT = 0.25  # of the section's width and height, at most
LEAST_TURN = np.pi / 3
NEAR = 0.75  # pitches, within which a spot takes the value of a turned and shifted spot
LEAST_OVERLAP = 0.5  # share of the spots under the turned and shifted section
LEAST_SPOTS = 10
GENES_AT_ONCE = 128

Floats = NDArray[np.float32]


class MapTest(NamedTuple):
    """Correlation of each gene's predicted and measured map, and how far it lies above those of unrelated maps."""

    pearson: NDArray[np.float64]
    """(genes,); 0 for a constant map."""
    z: NDArray[np.float64]
    """(genes,): standard normal for maps without a relation, up to what sections have in common at all turns."""


def compare_maps(xy: NDArray[np.float64], predicted: Floats, measured: Floats, seed: int = 0) -> MapTest:
    """Correlate maps, and compare with the correlations of turned, flipped and shifted predictions.

    Such maps keep the smoothness of both, which a permutation of the spots destroys: smooth maps correlate by chance much
    more than as many independent spots. A gradient from border to center outlasts turns, and counts as chance, too.

    Parameters
    ----------
    xy
        Positions (n, 2), in any unit.
    predicted, measured
        Values (n, genes).
    seed
        Of the turns and shifts.
    """
    n, n_genes = predicted.shape
    pearson = correlate(predicted, measured)
    if n < LEAST_SPOTS:
        return MapTest(pearson, np.zeros(n_genes))
    moved = _moved(xy, n_genes, seed)
    if len(moved) < LEAST_MAPS / 2:
        return MapTest(pearson, np.zeros(n_genes))
    chance = np.empty((len(moved), n_genes))
    for first in range(0, n_genes, GENES_AT_ONCE):  # copies of all genes of a large section would take gigabytes
        part = slice(first, first + GENES_AT_ONCE)
        for i, (spots, places) in enumerate(moved):
            chance[i, part] = correlate(predicted[spots, part], measured[places, part])
    chance = _fisher(chance)
    mean, spread = np.clip(chance.mean(axis=0), 0, None), chance.std(axis=0, ddof=1)
    z = np.where(spread > 1e-6, (_fisher(pearson) - mean) / np.maximum(spread, 1e-6), 0.0)
    return MapTest(pearson, np.where(pearson == 0, 0.0, z))


def _moved(xy: NDArray[np.float64], n_genes: int, seed: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """For each map, the spots whose predictions come to lie on spots, and those spots."""
    from scipy.spatial import cKDTree

    tree, center, extent = cKDTree(xy), xy.mean(axis=0), np.ptp(xy, axis=0)
    distances = tree.query(xy, k=2)[0][:, 1]
    near = NEAR * float(np.median(distances[distances > 0])) if (distances > 0).any() else 0.0
    wanted = int(np.clip(MOST_VALUES / max(len(xy) * n_genes, 1), LEAST_MAPS, MOST_MAPS))
    rng, moved = np.random.default_rng(seed), list[tuple[NDArray[np.intp], NDArray[np.intp]]]()
    for _ in range(TRIES * wanted):
        flip = rng.random() < 0.5
        angle = rng.uniform(0, 2 * np.pi) if flip else rng.uniform(LEAST_TURN, 2 * np.pi - LEAST_TURN)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(
            [-1 if flip else 1, 1]
        )
        places = (xy - center) @ turn.T + center + rng.uniform(-SHIFT, SHIFT, 2) * extent
        distance, spots = tree.query(places)
        on = np.flatnonzero(distance <= near)
        if len(on) >= max(LEAST_OVERLAP * len(xy), LEAST_SPOTS):
            moved.append((spots[on], on))
            if len(moved) == wanted:
                break
    return moved


def _fisher(r: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.arctanh(np.clip(r, -0.999, 0.999)))


def false_discovery_rates(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p values of several tests (Benjamini & Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p)) if len(p) else p
