"""Neighbors, hyperedges and their convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.nn import HypergraphConv, MessagePassing

from sthggep import nn
from sthggep.nn import _hypergraph, _published

INCIDENCE = torch.tensor([[0, 1, 2, 1, 3, 3, 0], [0, 0, 0, 1, 1, 2, 2]])  # spot 4 in none, hyperedge 3 empty
WEIGHT = torch.tensor([0.5, 2.0, 3.0, 7.0])


def _dense() -> torch.Tensor:
    membership = torch.zeros(5, 4)
    membership[INCIDENCE[0], INCIDENCE[1]] = 1
    return membership


def _inverse(x: torch.Tensor) -> torch.Tensor:
    return torch.diag(torch.where(x > 0, 1 / x, torch.zeros_like(x)))


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("degree_only", [False, True])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [6, 3, 0, 5, 1, 4, 2]])
def test_convolution_is_the_dense_formula(weight, degree_only, order):
    """Result and gradients, whatever the order of the incidence."""
    torch.manual_seed(0)
    conv, x = nn.HypergraphConv(6, 3, weights_in_degree_only=degree_only), torch.randn(5, 6, requires_grad=True)
    torch.nn.init.normal_(conv.bias)
    h, w = _dense(), torch.ones(4) if weight is None else weight
    inside = torch.eye(4) if degree_only else torch.diag(w)
    expected = _inverse(h @ w) @ h @ inside @ _inverse(h.sum(0)) @ h.T @ x @ conv.weight.T + conv.bias
    actual = conv(x, INCIDENCE[:, order], 4, weight)
    torch.testing.assert_close(actual, expected)
    leaves = [x, conv.weight, conv.bias]
    for gradient, exact in zip(
        *(torch.autograd.grad(y.square().sum(), leaves) for y in (actual, expected)), strict=True
    ):
        torch.testing.assert_close(gradient, exact)


def test_sums_are_messages_of_torch_geometric():
    conv, steps = nn.HypergraphConv(6, 3), []
    assert isinstance(conv.mean, MessagePassing)
    conv.mean.register_propagate_forward_hook(lambda _, arguments, __: steps.append(tuple(arguments[1])))
    conv(torch.randn(5, 6), INCIDENCE, 4)
    assert steps == [(5, 4), (4, 5)]
    assert list(conv.state_dict()) == ["weight", "bias"]  # names in saved models
    assert type(conv.mean).propagate.__module__ == "sthggep.nn._hyperconv"  # no template in the temporary folder


def test_gradients_repeat_on_several_threads():
    """Many spots in few hyperedges, which threads would add up in any order."""
    generator = torch.Generator().manual_seed(0)
    n = 4000
    incidence = torch.stack([torch.arange(n).repeat(3), torch.randint(7, (3 * n,), generator=generator)])
    x = torch.randn(n, 32, generator=generator)
    torch.manual_seed(0)
    conv, gradients = nn.HypergraphConv(32, 32), []
    for threads in (1, 4, 4, 4):
        torch.set_num_threads(threads)
        leaf = x.clone().requires_grad_()
        conv.mean(leaf, incidence, 7).square().sum().backward()
        gradients.append(leaf.grad)
    torch.set_num_threads(1)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


@torch.no_grad()
def test_sums_are_float32_under_autocast():
    torch.manual_seed(0)
    conv, x = nn.HypergraphConv(6, 3), 100 + torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        sums = conv.mean(x, INCIDENCE, 4)
        assert conv(x, INCIDENCE, 4).dtype == torch.float32
    assert torch.equal(sums, conv.mean(x, INCIDENCE, 4))


def test_weights_in_degree_only_is_what_torch_geometric_does():
    reference = HypergraphConv(6, 3)
    conv, x = nn.HypergraphConv(6, 3, weights_in_degree_only=True), torch.randn(5, 6)
    conv.load_state_dict({"weight": reference.lin.weight, "bias": reference.bias})
    expected = reference(x, INCIDENCE, hyperedge_weight=WEIGHT)
    torch.testing.assert_close(conv(x, INCIDENCE, 4, WEIGHT), expected)


def test_spot_in_no_hyperedge_keeps_its_features():
    torch.manual_seed(0)
    block, x = nn.HypergraphBlock(6, 4, 0.0), torch.randn(5, 6)
    torch.nn.init.normal_(block.conv2.bias)
    out = block(x, INCIDENCE, 4)
    assert torch.equal(out[4], x[4])
    assert not torch.isclose(out[:4], x[:4]).all(dim=1).any()
    no_incidence = torch.zeros(2, 0, dtype=torch.long)
    assert torch.equal(block(x, no_incidence, 5), x)


def test_neighbors_by_hand():
    xy = [(0, 0), (1, 0), (0, 1), (5, 5)]
    rows, offsets = nn.spatial_neighbors(xy, 3, max_distance=2)
    assert rows.tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, -1, -1]]
    assert offsets[1].tolist() == [[0, 0], [-1, 0], [-1, 1]]
    assert offsets[3].tolist() == [[0, 0]] * 3
    assert nn.spatial_neighbors(xy, 9).rows.tolist()[3] == [3, 1, 2, 0, -1, -1, -1, -1, -1]


@pytest.mark.parametrize("k", [1, 4, 9, 12])
def test_neighbors_are_the_nearest(k):
    xy = np.random.default_rng(0).normal(size=(60, 2))
    distance = np.linalg.norm(xy[:, None] - xy, axis=-1)
    np.testing.assert_array_equal(nn.spatial_neighbors(xy, k).rows, np.argsort(distance, axis=1)[:, :k])


def test_ties_are_settled_by_row_or_by_place(grid):
    order = np.random.default_rng(0).permutation(len(grid))
    plain = nn.spatial_neighbors(grid, 7).rows.numpy()
    rows_of_shuffled = nn.spatial_neighbors(grid[order] + 0.25, 7).rows.numpy()
    np.testing.assert_array_equal(order[rows_of_shuffled], plain[order])
    by_row = nn.spatial_neighbors(grid[order], 7, ties="row").rows.numpy()
    assert (order[by_row] != plain[order]).any()
    distance = np.round(np.linalg.norm(grid[order][by_row] - grid[order][:, None], axis=-1), 6)
    ties = np.diff(distance[:, 1:], axis=1) == 0
    assert ties.any()
    assert (np.diff(by_row[:, 1:], axis=1)[ties] > 0).all()


def test_bad_positions_are_explained():
    with pytest.raises(ValueError, match=r"found \(3,\)"):
        nn.spatial_neighbors([1, 2, 3], 2)
    with pytest.raises(ValueError, match="found 1 spots without one"):
        nn.spatial_neighbors([[0, 0], [np.nan, 1]], 2)
    with pytest.raises(ValueError, match="found 0"):
        nn.spatial_neighbors([[0, 0]], 0)


def test_incidence_of_nearby_spots():
    neighbors = torch.tensor([[0, 1], [1, 0], [2, -1]])
    assert nn.spatial_incidence(neighbors).tolist() == [[0, 1, 1, 0, 2], [0, 0, 1, 1, 2]]


@pytest.mark.parametrize("chunk", [1 << 24, 40])
def test_similar_spots_share_a_hyperedge(chunk, monkeypatch):
    monkeypatch.setattr(_hypergraph, "CHUNK_VALUES", chunk)
    features = torch.tensor([[0.0], [1.0], [1.1], [0.2], [9.0]])
    neighbors = torch.tensor([[0, 1, 2, -1], [1, 0, 2, 3], [2, 1, -1, -1], [3, 0, 1, 2], [4, -1, -1, -1]])
    hyperedges = _sets(nn.similar_incidence(features, neighbors, n_selected=2), 5)
    assert hyperedges == [{0, 1, 2}, {1, 2, 3}, {2, 1}, {3, 0, 1}, {4}]
    hyperedges = _sets(nn.similar_incidence(features, n_selected=1), 5)
    assert hyperedges == [{0, 3}, {1, 2}, {2, 1}, {3, 0}, {4, 2}]


def _sets(incidence: torch.Tensor, n: int) -> list[set[int]]:
    return [set(incidence[0, incidence[1] == edge].tolist()) for edge in range(n)]


def test_stacked_incidences_keep_their_hyperedges():
    first, second = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[1, 0], [0, 1]])
    assert nn.stack_incidences(first, second, n_hyperedges=2).tolist() == [[0, 1, 1, 0], [0, 1, 2, 3]]


@pytest.mark.parametrize("chunk", [1 << 24, 30])
def test_published_rule_is_its_formula(chunk, grid, monkeypatch):
    """Compare with the dense formula; the last spot has no neighbors."""
    monkeypatch.setattr(_published, "CHUNK_VALUES", chunk)
    xy = np.concatenate([grid, [[40, 40]]])
    features = torch.randn(len(xy), 6, generator=torch.Generator().manual_seed(0))
    neighbors = nn.published_neighbors(xy)
    graph = nn.published_hypergraph(features, neighbors)
    n = len(xy)
    distance = np.linalg.norm(features.numpy()[:, None] - features.numpy(), axis=-1).astype(np.float64)
    pairs, weights = [], []
    for i in range(n - 1):
        row = [j for j in neighbors[i].tolist() if j >= 0]
        score = distance[i] / distance[i].sum()
        score[row] += 1 / len(row)
        for j in np.argsort(-score)[:4]:
            pairs.append((i, j))
            weights.append(score[j])
    assert graph.incidence.T.tolist() == [list(map(int, pair)) for pair in pairs]
    np.testing.assert_allclose(graph.pair_weight.numpy(), weights, rtol=1e-5)
    np.testing.assert_allclose(graph.hyperedge_weight.numpy(), weights[:n], rtol=1e-5)


def test_published_rule_on_tiny_sections():
    for n in (1, 2, 3):
        xy = np.arange(2 * n).reshape(n, 2) % 3
        graph = nn.published_hypergraph(torch.randn(n, 4), nn.published_neighbors(xy))
        assert len(graph.hyperedge_weight) == n
        assert torch.isfinite(graph.hyperedge_weight).all()
