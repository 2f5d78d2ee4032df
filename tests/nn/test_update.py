"""The update of a closed form: a Gaussian process whose covariance is what training left, weighed by its evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from sthggep.nn import _update
from sthggep.nn._programs import find_programs
from sthggep.nn._update import MeasuredScores, WeightPrior, measure_prior, solve_change

N, WIDTH, PROGRAMS = 30, 12, 2


def spots(*, signal: float = 1.0, factor: float = 1.0, n: int = N, seed: int = 0) -> MeasuredScores:
    """Spots of two sections whose scores follow the features, beside ``factor`` times the earlier prediction."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=generator) / WIDTH**0.5
    earlier = torch.randn(n, PROGRAMS, generator=generator)
    truth = signal * torch.randn(WIDTH, PROGRAMS, generator=generator)
    section = (torch.arange(n) >= n // 3).long()
    noise = 0.3 * torch.randn(n, PROGRAMS, generator=generator)
    scores = factor * earlier + x @ truth + noise + torch.tensor([[2.0], [-1.0]])[section]
    weights = 0.5 + torch.rand(n, generator=generator)
    return MeasuredScores(x, scores, earlier, weights, section)


def prior(seed: int = 1) -> WeightPrior:
    """What some training rows determine."""
    rows = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(seed)) * torch.linspace(1.5, 0.1, WIDTH)
    return measure_prior(rows, penalty=0.7)


def covariance(known: WeightPrior) -> np.ndarray:
    """Dense covariance of the weights, relative to that before training."""
    v, s = known.vectors.double().numpy(), known.values.double().numpy()
    return np.linalg.inv(np.eye(WIDTH) + (v.T * (s / known.penalty)) @ v)


def test_prior_is_the_covariance_that_training_rows_leave():
    rows = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(1)) * torch.linspace(1.5, 0.1, WIDTH)
    known = prior()
    dense = np.linalg.inv(np.eye(WIDTH) + (rows.T @ rows).double().numpy() / 0.7)
    np.testing.assert_allclose(covariance(known), dense, atol=1e-5)
    np.testing.assert_allclose(known.shrink(torch.eye(WIDTH)), dense, atol=1e-5)
    # Of many directions, the leading ones are kept
    few = measure_prior(torch.randn(90, 50, generator=torch.Generator().manual_seed(2)), 0.7)
    assert few.vectors.shape == (_update.PRIOR_RANK, 50)
    assert (few.values.diff() <= 0).all()
    torch.testing.assert_close(few.vectors @ few.vectors.T, torch.eye(_update.PRIOR_RANK), atol=1e-4, rtol=0)


@pytest.mark.parametrize("known", [None, prior()], ids=["no prior", "prior"])
def test_change_is_the_ridge_with_that_covariance(known, monkeypatch):
    monkeypatch.setattr(_update, "PENALTIES", (2.0,))
    monkeypatch.setattr(_update, "FACTORS", (0.5,))
    measured = spots()
    factor, change = solve_change(measured, known)
    assert factor == 0.5
    # Weighted least squares with an intercept a section, and a penalty on the change
    x = np.c_[measured.features, np.eye(2)[measured.section]].astype(np.float64)
    y = (measured.scores - 0.5 * measured.earlier).double().numpy()
    penalty = np.zeros((WIDTH + 2, WIDTH + 2))
    penalty[:WIDTH, :WIDTH] = 2.0 * np.linalg.inv(np.eye(WIDTH) if known is None else covariance(known))
    weight = measured.weights.double().numpy()[:, None]
    solved = np.linalg.solve(x.T @ (weight * x) + penalty, x.T @ (weight * y))
    np.testing.assert_allclose(change, solved[:WIDTH], atol=1e-4)


def test_candidates_are_weighed_by_their_likelihood(monkeypatch):
    monkeypatch.setattr(_update, "TEMPER", 1.0)
    monkeypatch.setattr(_update, "LEAST_PROBABILITY", 0.0)
    known, measured = prior(), spots(signal=0.5)
    found = _update._weigh_candidates(measured, known)
    # Contrasts that are free of the means of the sections, whose noise has one variance
    root = measured.weights.double().sqrt().numpy()
    means = np.eye(2)[measured.section] * root[:, None]
    basis = np.linalg.svd(means, full_matrices=True)[0][:, 2:]
    x = measured.features.double().numpy() * root[:, None]
    expected = {}
    for penalty in _update.PENALTIES:
        cov = basis.T @ (x @ covariance(known) @ x.T / penalty + np.eye(N)) @ basis
        for factor in _update.FACTORS:
            y = basis.T @ ((measured.scores - factor * measured.earlier).double().numpy() * root[:, None])
            scale = [column @ np.linalg.solve(cov, column) / len(column) for column in y.T]
            expected[penalty, factor] = sum(
                multivariate_normal(cov=s * cov).logpdf(column) for s, column in zip(scale, y.T, strict=True)
            )
    shares = np.exp(np.array(list(expected.values())) - max(expected.values()))
    for each, wanted in zip(expected, shares / shares.sum(), strict=True):
        assert found.get(each, 0.0) == pytest.approx(wanted, abs=1e-4), each
    assert len([share for share in found.values() if share > 0.01]) > 2


def test_evidence_decides():
    # The model is right: it stays as it is
    factor, change = solve_change(spots(signal=0.0, n=200), prior())
    assert 0.9 < factor < 1.1
    assert (spots(n=200).features @ change).std() < 0.1
    # It is wrong, or right but too small
    assert solve_change(spots(signal=2.0, factor=0.0, n=200), prior())[0] < 0.55
    assert solve_change(spots(signal=2.0, factor=2.0, n=200), prior())[0] > 1.9
    # The spots call for a change
    measured = spots(signal=2.0, n=200)
    _, change = solve_change(measured, None)
    left = measured.scores - measured.earlier - measured.features @ change
    assert left[measured.section == 0].std(dim=0).max() < 0.4


def test_thinned_spots_choose_and_all_spots_solve(monkeypatch):
    measured = spots(signal=2.0, n=300)
    everything = solve_change(measured, None)[1]
    seen, weigh = [], _update._weigh_candidates
    monkeypatch.setattr(_update, "_weigh_candidates", lambda spots, known: seen.append(spots) or weigh(spots, known))
    monkeypatch.setattr(_update, "MOST_SPOTS_TO_CHOOSE", 100)
    thinned = solve_change(measured, None)[1]
    (few,) = seen
    assert torch.equal(few.features, measured.features[::3])
    torch.testing.assert_close(thinned, everything, atol=0.2, rtol=0.1)


def test_programs_of_standardized_rows():
    rows = torch.outer(torch.linspace(-1, 1, 20), torch.tensor([3.0, 4.0, 0.0, 0.0]))
    loadings, damp = find_programs([rows, torch.tensor([[0.0, 0.0, 0.1, 0.0]])], 3, 0.5)
    torch.testing.assert_close(loadings.abs(), torch.tensor([[0.6, 0.8, 0, 0], [0, 0, 1, 0]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(damp, torch.tensor([1.0, float((0.1 / rows.norm()) ** 0.5)]))
