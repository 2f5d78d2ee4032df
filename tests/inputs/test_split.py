"""Windows of a section, and the spots on which their predictions depend."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sthggep._inputs._neighborhood import HYPEREDGE_REACH, HYPEREDGE_SPOTS
from sthggep._inputs._split import SpotDependencies, find_within, make_window, renumber, split_spots
from sthggep.nn import spatial_neighbors


def uneven_spots(n: int = 300) -> np.ndarray:
    """Spots of uneven density, where neighbors are not mutual."""
    rng = np.random.default_rng(0)
    return np.vstack([rng.normal(0, 1.5, (n // 2, 2)), rng.uniform(-12, 12, (n - n // 2, 2))])


@pytest.mark.parametrize("most", [1, 7, 64, 299, 300, 1000])
def test_parts_are_bounded_even_and_cover_each_spot_once(most):
    xy = uneven_spots()
    parts = split_spots(xy, most)
    assert len(parts) == -(-len(xy) // most)
    assert max(map(len, parts)) <= most
    assert max(map(len, parts)) - min(map(len, parts)) <= 1 + len(parts).bit_length()
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(xy)))


def test_parts_are_compact():
    y, x = np.divmod(np.arange(40 * 40), 40)
    parts = split_spots(np.column_stack([x, y]).astype(float), 100)
    assert all(np.ptp(x[part]) < 14 and np.ptp(y[part]) < 14 for part in parts)


def test_expand_equals_the_dependencies_by_brute_force():
    xy = uneven_spots()
    near, members = (
        spatial_neighbors(xy, 9).rows.numpy(),
        spatial_neighbors(xy, HYPEREDGE_SPOTS, max_distance=HYPEREDGE_REACH).rows.numpy(),
    )
    attention, membership = np.zeros((2, len(xy), len(xy)), dtype=int)
    for table, rows in ((attention, near), (membership, members)):
        for spot, neighbors in enumerate(rows):
            table[spot, neighbors[neighbors >= 0]] = 1
    linked = membership.T @ membership  # two spots that some hyperedge holds
    core = split_spots(xy, 40)[2]
    dependencies = SpotDependencies(near, members)
    mask = np.isin(np.arange(len(xy)), core).astype(int)
    for n, (hop, matrix) in enumerate(
        (("hyperedges", linked), ("hyperedges", linked), ("neighbors", attention)), start=1
    ):
        mask = ((mask + mask @ matrix) > 0).astype(int)
        hops = ["hyperedges", "hyperedges", "neighbors"][:n]
        assert dependencies.expand(core, hops).tolist() == np.flatnonzero(mask).tolist(), hop
    assert dependencies.expand(core, []).tolist() == core.tolist()


def test_halo_is_bounded_on_a_square_array():
    y, x = np.divmod(np.arange(60 * 60), 60)
    xy = np.column_stack([x, y]).astype(float)
    dependencies = SpotDependencies(
        spatial_neighbors(xy, 9).rows.numpy(),
        spatial_neighbors(xy, HYPEREDGE_SPOTS, max_distance=HYPEREDGE_REACH).rows.numpy(),
    )
    core = np.flatnonzero((x >= 20) & (x < 40) & (y >= 20) & (y < 40))
    # Two spots each hyperedge step, one the attention
    rows = dependencies.expand(core, ["hyperedges", "hyperedges", "neighbors"])
    assert len(rows) == 30 * 30
    assert (x[rows].min(), x[rows].max()) == (15, 44)


def test_positions_in_a_window():
    window = make_window(np.array([4, 9]), np.array([2, 9, 12]))
    assert window.rows.tolist() == [2, 4, 9, 12]
    assert window.rows[window.core].tolist() == [4, 9]
    assert renumber(np.array([[9, 4, -1], [3, 12, 99]]), window.rows).tolist() == [[2, 1, -1], [-1, 3, -1]]


def test_within_a_distance():
    xy = np.column_stack([np.arange(10.0), np.zeros(10)])
    assert find_within(cKDTree(xy), np.array([4, 5]), 2.0).tolist() == [2, 3, 4, 5, 6, 7]
