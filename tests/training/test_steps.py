"""Parts of large windows as training steps."""

import numpy as np
import pytest
import torch

from sthggep._inputs._section import SectionWindow
from sthggep._training import _steps
from sthggep._training._steps import TrainingSteps
from sthggep.nn import FeatureHGGEPNet, spatial_incidence, spatial_neighbors
from sthggep.nn._section import FeatureInputs

SIDE, GENES = 12, 5


def window(*, trained: int = SIDE * SIDE, seed: int = 0) -> SectionWindow:
    """A square array of spots in random order, with noise for features."""
    rng = np.random.default_rng(seed)
    n = SIDE * SIDE
    order = rng.permutation(n)
    xy = np.column_stack(np.divmod(order, SIDE)).astype(float)
    neighbors = spatial_neighbors(xy, 9, max_distance=1.6)
    attended = spatial_neighbors(xy, 5)
    features = [torch.from_numpy(rng.normal(size=(n, 8)).astype(np.float32)) for _ in range(2)]
    inputs = FeatureInputs(features, attended.rows, attended.offsets, spatial_incidence(neighbors.rows), n)
    train = torch.arange(n) < trained
    counts = torch.from_numpy(rng.poisson(3, (n, GENES)).astype(np.float32))
    whole = SectionWindow.of_whole("A", inputs, counts + 0.5, counts, counts.sum(dim=1), train, ~train)
    return whole._replace(xy=torch.from_numpy(xy))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(_steps, "LEAST_SPOTS", 30)


@pytest.mark.parametrize("depth", [0, 1])
def test_parts_are_predicted_as_within_the_whole(depth):
    net = FeatureHGGEPNet([8, 8], GENES, dim=8, heads=2, depth=depth, n_neighbors=5, rank=2).eval()
    net.blend.fill_(1.0)
    whole = window(trained=130)
    expected = net(*whole.inputs).expression
    parts = list(TrainingSteps([whole], 4, net.hops))
    assert len(parts) == 4
    seen = torch.zeros(len(expected), dtype=torch.int64)
    for part in parts:
        assert len(part.rows) < len(expected)  # a part, not the whole again
        got = net(*part.inputs).expression
        rows = part.rows[part.train]
        torch.testing.assert_close(got[part.train], expected[rows], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part.target[part.train], whole.target[rows])
        torch.testing.assert_close(part.counts[part.train], whole.counts[rows])
        assert torch.equal(part.size_factors[part.train], whole.size_factors[rows])
        seen[rows] += 1
    assert torch.equal(seen, whole.train.long())  # each training spot once, and no other


def test_parts_are_compact():
    parts = TrainingSteps([window()], 4, ("hyperedges", "hyperedges"))
    for part in parts:
        extent = np.ptp(part.xy[part.train].numpy(), axis=0)
        assert extent.max() <= SIDE / 2


@pytest.mark.parametrize(
    ("trained", "n_windows", "min_steps", "sizes"),
    [
        (144, 1, 4, [36] * 4),
        (70, 1, 4, [35, 35, 35, 35]),  # two parts, twice
        (59, 1, 4, [59] * 4),  # too few for two parts
        (144, 2, 4, [72] * 4),
        (144, 3, 1, [144] * 3),
        (144, 5, 4, [144] * 5),
    ],
)
def test_windows_are_split_or_repeated_to_the_fewest_steps(trained, n_windows, min_steps, sizes):
    windows = [window(trained=trained, seed=seed) for seed in range(n_windows)]
    steps = TrainingSteps(windows, min_steps, ("hyperedges", "hyperedges"))
    assert [int(step.train.sum()) for step in steps] == sizes


def test_windows_that_cannot_be_split_stay_whole():
    for whole, hops in ((window(), None), (window()._replace(xy=None), ("hyperedges",))):
        assert [step is whole for step in TrainingSteps([whole], 4, hops)] == [True] * 4


def test_parts_without_hyperedges():
    whole = window()
    net = FeatureHGGEPNet([8, 8], GENES, dim=8, heads=2, depth=0, rank=2, hypergraph=False).eval()
    net.blend.fill_(1.0)
    expected = net(*whole.inputs).expression
    whole = whole._replace(inputs=whole.inputs._replace(incidence=None))
    for part in TrainingSteps([whole], 2, net.hops):
        torch.testing.assert_close(net(*part.inputs).expression, expected[part.rows], rtol=1e-4, atol=1e-5)
