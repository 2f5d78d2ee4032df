"""Parts of the feature network that are solved in closed form: scales, gene programs, the linear shortcut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from sthggep import nn
from sthggep.nn import _shortcut
from sthggep.nn._programs import GenePrograms, spot_weights
from sthggep.nn._section import FeatureInputs, TrainingSample
from sthggep.nn._shortcut import LinearShortcut
from sthggep.nn._stages import SectionScale


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_scale_removes_stain_and_gives_blocks_the_same_weight(generator):
    scale, x = SectionScale([2, 50]), torch.randn(4000, 52, generator=generator)
    plain = scale(x)
    torch.testing.assert_close(scale(x * 3 + 7), plain, rtol=0.02, atol=0.02)
    shares = plain.square().mean(dim=0)
    assert shares[:2].sum().item() == pytest.approx(0.5, rel=0.02)
    assert shares[2:].sum().item() == pytest.approx(0.5, rel=0.02)


def test_statistics_of_a_small_section_shrink_to_the_training_slides(generator):
    scale = SectionScale([3])
    scale.start([torch.randn(500, 3, generator=generator) * 2 + 5])
    scaled = scale(torch.tensor([[9.0, 5.0, 5.0]]))
    assert torch.isfinite(scaled).all()
    # One spot against ten pseudo-spots: ten elevenths of the distance to the training mean, in training spreads
    assert scaled[0, 0].item() * 3**0.5 == pytest.approx(2.0, rel=0.15)


def test_constant_features_and_outliers_stay_finite():
    x = torch.zeros(30, 2)
    x[0, 1] = 1e6
    scaled = SectionScale([2])(x)
    assert torch.isfinite(scaled).all()
    assert scaled.abs().max().item() <= 8


def test_programs_find_the_factors_behind_the_genes(generator):
    factors = torch.randn(300, 2, generator=generator)
    loadings = torch.randn(2, 20, generator=generator)
    target = 3 + factors @ loadings
    programs, weights = GenePrograms(20, rank=2, damping=0.0), torch.ones(300)
    (scores,) = programs.start([target], [weights])
    torch.testing.assert_close(programs(scores), target, rtol=1e-3, atol=1e-3)


def test_programs_center_each_section_by_itself(generator):
    target = torch.randn(200, 6, generator=generator)
    programs = GenePrograms(6, rank=6, damping=0.0)
    first, second = programs.start([target, target * 2 + 10], [torch.ones(200)] * 2)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(programs.mean, target.mean(0) * 1.5 + 5, rtol=1e-3, atol=1e-3)


def test_number_of_programs_is_bounded_by_the_data(generator):
    target = torch.randn(3, 10, generator=generator)
    programs = GenePrograms(10, rank=8)
    programs.start([target], [torch.ones(3)])
    assert torch.isfinite(programs(torch.ones(2, 8))).all()
    assert int((programs.damp > 0).sum()) <= 3


def test_spots_with_few_counts_have_small_weights():
    few, many = spot_weights(torch.tensor([0.0, 100000.0]))
    assert 0 < few < 0.02
    assert many == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("n", "width"), [(30, 8), (12, 40)])
def test_shortcut_is_ridge(n, width, generator):
    x, y = torch.randn(n, 2 * width, generator=generator), torch.randn(n, 3, generator=generator)
    weight = torch.rand(n, generator=generator)
    shortcut = LinearShortcut(width, 3, penalty=0.7)
    shortcut.start([x[:5], x[5:]], [y[:5], y[5:]], [weight[:5], weight[5:]])
    sklearn = Ridge(alpha=0.7, fit_intercept=False).fit(x.numpy(), y.numpy(), sample_weight=weight.numpy())
    np.testing.assert_allclose(shortcut.weight.T.numpy(), sklearn.coef_, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.03, 3.0])
def test_many_spots_are_solved_by_conjugate_gradients_as_exactly(penalty, generator, monkeypatch):
    x, y = torch.randn(60, 400, generator=generator), torch.randn(60, 3, generator=generator)
    x = x * torch.logspace(0, -3, 400)  # few directions vary much, as in features of tissue
    weight = torch.rand(60, generator=generator)

    def solve():
        shortcut = LinearShortcut(200, 3, penalty=penalty)
        shortcut.start([x], [y], [weight])
        return shortcut.weight

    direct, calls = solve(), []
    gradients = _shortcut._conjugate_gradients
    monkeypatch.setattr(_shortcut, "MOST_DIRECT", 50)
    monkeypatch.setattr(_shortcut, "_conjugate_gradients", lambda *args: calls.append(gradients(*args)) or calls[-1])
    torch.testing.assert_close(solve(), direct, rtol=1e-5, atol=1e-6)
    assert len(calls) == 1
    assert calls[0] is not None
    # Where they do not converge, or single precision is too little, the direct solution stands in
    monkeypatch.setattr(_shortcut, "MOST_STEPS", 0)
    torch.testing.assert_close(solve(), direct)
    assert calls[1] is None
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda kernel, **_: (kernel, torch.tensor(3)))
    torch.testing.assert_close(solve(), direct)
    assert len(calls) == 2


def test_kernels_of_many_spots_are_solved_as_exactly(generator, monkeypatch):
    x = torch.randn(60, 40, generator=generator).double() * torch.logspace(0, -3, 40)
    kernel, y = x @ x.T, torch.randn(60, 3, generator=generator).double()
    direct = _shortcut.solve_shifted(kernel.clone(), y, 0.3)
    np.testing.assert_allclose(kernel @ direct + 0.3 * direct, y, atol=1e-12)
    monkeypatch.setattr(_shortcut, "MOST_DIRECT", 50)
    before = kernel.clone()
    np.testing.assert_allclose(_shortcut.solve_shifted(kernel, y, 0.3), direct, rtol=1e-6, atol=1e-8)
    assert torch.equal(kernel, before)
    monkeypatch.setattr(_shortcut, "MOST_STEPS", 0)
    assert torch.equal(_shortcut.solve_shifted(kernel, y, 0.3), direct)


def test_shortcut_reads_the_mean_of_the_hyperedges(generator):
    x = torch.randn(4, 3, generator=generator)
    # One hyperedge holds spots 0 and 1; spot 3 is in none
    incidence = torch.tensor([[0, 1, 2], [0, 0, 1]])
    features = LinearShortcut(3, 1).spread(x, incidence, 2)
    torch.testing.assert_close(features[:, :3], x)
    torch.testing.assert_close(features[0, 3:], features[1, 3:])
    assert (features[3, 3:] == 0).all()


def test_held_out_spots_do_not_change_the_closed_forms(grid, generator):
    features = [torch.randn(len(grid), 6, generator=generator)]
    neighbors = nn.spatial_neighbors(grid, 4)
    incidence = nn.spatial_incidence(neighbors.rows)
    target, library = torch.rand(len(grid), 5, generator=generator), torch.full((len(grid),), 500.0)
    mask = torch.arange(len(grid)) < 15
    nets = []
    for held_out in (0.0, 100.0):
        torch.manual_seed(0)
        net = nn.FeatureHGGEPNet([6], 5, dim=8, heads=2)
        inputs = FeatureInputs(features, neighbors.rows, neighbors.offsets, incidence, len(grid))
        net.start([TrainingSample(inputs, torch.where(mask[:, None], target, held_out), library, mask)])
        nets.append(net)
    for (name, first), second in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(first, second), name
