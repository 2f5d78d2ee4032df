"""Losses against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, gammaln

from sthggep import nn


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, size=(7, 4)) * np.array([1, 1, 0, 30])


def test_zinb_is_scipy_with_extra_zeros(counts):
    rng = np.random.default_rng(1)
    mean, dispersion = rng.gamma(2, 2, counts.shape), rng.gamma(2, 1, counts.shape) + 0.05
    dropout, size = rng.uniform(0.01, 0.9, counts.shape), rng.uniform(0.3, 3, 7)
    mu = mean * size[:, None]
    probability = (1 - dropout) * stats.nbinom.pmf(counts, dispersion, dispersion / (dispersion + mu))
    expected = -np.log(probability + dropout * (counts == 0)).mean()
    loss = nn.zinb_nll(*map(torch.tensor, (counts, mean, dispersion, dropout, size)))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    unscaled_loss = nn.zinb_nll(*map(torch.tensor, (counts, mu, dispersion, dropout)))
    assert unscaled_loss.item() == pytest.approx(expected, rel=1e-5)


def test_nb_is_scipy_without_its_constant(counts):
    rng = np.random.default_rng(1)
    r, p = rng.normal(size=counts.shape), rng.normal(size=counts.shape)
    full = stats.nbinom.logpmf(counts, np.exp(r), 1 - expit(p)) + gammaln(counts + 1)
    loss = nn.nb_nll(*map(torch.tensor, (counts, r, p)))
    assert loss.item() == pytest.approx(-full.sum(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize(("mean", "dispersion", "dropout"), [(1e-5, 1e4, 0.0), (1e6, 1e-4, 1.0), (1e6, 1e4, 0.5)])
def test_zinb_stays_finite_at_the_limits(mean, dispersion, dropout):
    parts = [torch.full((2, 3), value, requires_grad=True) for value in (mean, dispersion, dropout)]
    loss = nn.zinb_nll(torch.tensor([[0, 1, 5000], [0, 0, 0]]), *parts, torch.tensor([1.0, 0.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(part.grad).all() for part in parts)


def test_correlation_loss_is_pearson():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    expected = np.mean([1 - stats.pearsonr(x[:, g], y[:, g])[0] for g in range(3)])
    assert nn.correlation_loss(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(expected, rel=1e-5)


def test_correlation_loss_leaves_constant_genes_out():
    target = torch.tensor([[0.1, 0.3], [0.5, 0.3], [0.2, 0.3]])
    prediction = torch.tensor([[0.1, 5.0], [0.5, 1.0], [0.2, 2.0]], requires_grad=True)
    loss = nn.correlation_loss(prediction, target)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert (prediction.grad[:, 1] == 0).all()
    flat = torch.zeros(3, 2, requires_grad=True)
    nn.correlation_loss(flat, target).backward()
    assert torch.isfinite(flat.grad).all()
    assert nn.correlation_loss(flat[:1], target[:1]).item() == 0


def test_distillation_target_by_hand():
    copies = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0]])]
    coefficients = [torch.tensor([[0.0]]), torch.tensor([[np.log(3.0)]], dtype=torch.float32)]
    torch.testing.assert_close(nn.bake_targets(copies, coefficients), torch.tensor([[2.5, 5.0]]))
    loss = nn.self_distillation(torch.tensor([[2.5, 3.0]]), copies, coefficients)
    assert loss.item() == pytest.approx(2.0)


def test_distillation_has_gradients_on_both_sides():
    predictions = [torch.randn(3, 2, requires_grad=True) for _ in range(3)]
    coefficients = [torch.randn(3, 1, requires_grad=True) for _ in range(2)]
    nn.self_distillation(predictions[0], predictions[1:], coefficients).backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in predictions + coefficients)


class _Draws:
    """Replaces torch.rand, so that a test can choose the augmentation."""

    def __init__(self, *values):
        self.values = values

    def __call__(self, *_args, **_options):
        return torch.tensor(self.values)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 8, 8) * 255


def test_augmentations_equal_plain_transforms(pixels, monkeypatch):
    monkeypatch.setattr(torch, "rand", _Draws(0.5, 0.5, 0.5))
    torch.testing.assert_close(nn.augment_section(pixels), pixels)
    monkeypatch.setattr(torch, "rand", _Draws(0.5, 0.5, 0.1))
    torch.testing.assert_close(nn.augment_section(pixels), pixels.flip(-1))
    monkeypatch.setattr(torch, "rand", _Draws(0.5, 0.0, 0.5))
    quarter = nn.augment_section(pixels)
    assert any(torch.allclose(quarter, pixels.rot90(quarter_turns, (2, 3)), atol=1e-3) for quarter_turns in (1, 3))
    monkeypatch.setattr(torch, "rand", _Draws(0.05, 0.5, 0.5))
    gray = nn.augment_section(pixels)
    torch.testing.assert_close(gray[:, 0], pixels[:, 0] * 0.2989 + pixels[:, 1] * 0.587 + pixels[:, 2] * 0.114)
    assert torch.equal(gray[:, 0], gray[:, 2])
    monkeypatch.setattr(torch, "rand", _Draws(0.5, 0.75, 0.5))
    corners = nn.augment_section(pixels + 1)[:, :, 0, 0]
    assert (corners == 0).all()


def test_one_draw_for_the_section_and_one_for_a_seed(pixels):
    patches = pixels[:1].expand(4, -1, -1, -1)
    out = nn.augment_section(patches, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(patch, out[0]) for patch in out)
    assert torch.equal(out, nn.augment_section(patches, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(out, nn.augment_section(patches, generator=torch.Generator().manual_seed(4)))
