"""Update of closed forms by measured spots of new sections: a Gaussian process that starts from what the model knows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sthggep.nn._shortcut import solve_shifted

# Candidates: penalties of the change of the weights (infinite: no change), and factors of the earlier prediction
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, float("inf"))
FACTORS = (0.5, 1.0, 2.0)
# Neighboring spots resemble each other and programs are not independent: their evidence counts less
TEMPER = 0.1
LEAST_PROBABILITY = 0.01
MOST_SPOTS_TO_CHOOSE = 1200
PRIOR_RANK = 32


class WeightPrior(NamedTuple):
    """Directions of the features in which earlier training spots determine the weights."""

    vectors: Tensor
    """``(k, width)``, orthonormal."""
    values: Tensor
    """``(k,)``: sum of squares of the weighted training rows along each."""
    penalty: float
    """Of the ridge by which the weights were solved."""

    def shrink(self, x: Tensor) -> Tensor:
        """Multiply rows by the covariance of the weights that training left, relative to that before training."""
        share = self.values / (self.values + self.penalty)
        return x - ((x @ self.vectors.T) * share) @ self.vectors


class MeasuredScores(NamedTuple):
    """Measured spots of new sections: what the weights read, and the program scores that they are to give."""

    features: Tensor
    """``(n, width)``."""
    scores: Tensor
    """``(n, programs)``, measured."""
    earlier: Tensor
    """``(n, programs)``, predicted by the model as it is."""
    weights: Tensor
    """``(n,)``."""
    section: Tensor
    """``(n,)`` number of the section of each spot."""

    @property
    def n_sections(self) -> int:
        """Number of sections."""
        return int(self.section.max()) + 1

    def thinned(self, most: int) -> MeasuredScores:
        """Keep every k-th spot, at most ``most``."""
        step = -(-len(self.features) // most)
        return self if step == 1 else MeasuredScores(*(part[::step] for part in self))


def measure_prior(rows: Tensor, penalty: float) -> WeightPrior:
    """Compute the leading directions of weighted training rows ``(n, width)``."""
    rows = rows.float()
    values, turn = torch.linalg.eigh((rows @ rows.T).double())
    values, turn = values.flip(0)[:PRIOR_RANK], turn.flip(1)[:, :PRIOR_RANK]
    some = values > values[0].clamp_min(1e-12) * 1e-6
    values, turn = values[some], turn[:, some]
    vectors = (turn / values.sqrt()).T.float() @ rows
    return WeightPrior(vectors, values.float(), penalty)


def solve_change(measured: MeasuredScores, prior: WeightPrior | None) -> tuple[float, Tensor]:
    """Weigh the model against the measured spots by the evidence of both.

    Scores are modeled as ``factor * earlier + features @ change``, plus the mean of each section and noise. The change is
    normal with the covariance that training left of the weights, over ``penalty``. Penalty and factor are averaged by
    their marginal likelihood, so the change is small where the spots do not call for one.

    Returns
    -------
    The mean factor, and the mean change ``(width, programs)``.
    """
    probabilities = _weigh_candidates(measured.thinned(MOST_SPOTS_TO_CHOOSE), prior)
    factor = sum(share * each for (_, each), share in probabilities.items())
    x, root = measured.features.float(), measured.weights.float().sqrt().unsqueeze(1)
    spread = x if prior is None else prior.shrink(x)
    kernel = _contrasts(_contrasts(((x @ spread.T) * root * root.T).double(), measured).T, measured)
    kernel = (kernel + kernel.T) / 2  # rounding aside it is symmetric
    dual = torch.zeros(len(x), measured.scores.shape[1], dtype=torch.float64)
    for penalty in dict.fromkeys(penalty for penalty, _ in probabilities if penalty < float("inf")):
        shares = {each: share for (other, each), share in probabilities.items() if other == penalty}
        left = sum(share * (measured.scores - each * measured.earlier).double() for each, share in shares.items())
        left = _contrasts(left * root.double(), measured)
        dual += solve_shifted(kernel, left, penalty)
    change = spread.T @ (dual.float() * root)
    return float(factor), change


def _weigh_candidates(measured: MeasuredScores, prior: WeightPrior | None) -> dict[tuple[float, float], float]:
    """Compute the probability of each penalty and factor; improbable ones are left out."""
    x, root = measured.features.float(), measured.weights.float().sqrt().unsqueeze(1)
    kernel = ((x @ (x if prior is None else prior.shrink(x)).T) * root * root.T).double()
    sizes, turn = torch.linalg.eigh(_contrasts(_contrasts(kernel, measured).T, measured))
    sizes = sizes.clamp_min(0)
    scores, earlier = (
        turn.T @ _contrasts(part.double() * root.double(), measured) for part in (measured.scores, measured.earlier)
    )
    n = max(len(x) - measured.n_sections, 1)
    candidates, evidence = [], []
    for penalty in PENALTIES:
        scale = sizes / penalty + 1
        for factor in FACTORS:
            squares = ((scores - factor * earlier).square() / scale.unsqueeze(1)).sum(dim=0).clamp_min(1e-12)
            likelihood = -0.5 * (scale.log().sum() + n * (squares / n).log())
            candidates.append((penalty, factor))
            evidence.append(TEMPER * likelihood.sum())
    shares = torch.softmax(torch.stack(evidence), dim=0)
    shares = torch.where(shares < LEAST_PROBABILITY, 0, shares)
    shares = shares / shares.sum()
    return {each: float(share) for each, share in zip(candidates, shares, strict=True) if share > 0}


def _contrasts(values: Tensor, measured: MeasuredScores) -> Tensor:
    """Take the mean of each section out of weighted rows."""
    root = measured.weights.to(values.dtype).sqrt()
    out = values.clone()
    for number in range(measured.n_sections):
        rows = measured.section == number
        if not rows.any():
            continue
        unit = root[rows] / root[rows].norm()
        out[rows] -= torch.outer(unit, unit @ values[rows])
    return out
