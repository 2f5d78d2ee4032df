"""Losses that training minimizes, computed in float32, also under mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-10


def zinb_nll(
    counts: Tensor, mean: Tensor, dispersion: Tensor, dropout: Tensor, size_factors: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of counts under a zero-inflated negative binomial, mean over all entries.

    Parameters
    ----------
    counts
        ``(n, genes)`` raw counts.
    mean
        ``(n, genes)`` mean of a spot of average depth.
    dispersion
        ``(n, genes)`` dispersion: the variance is mean + mean² / dispersion.
    dropout
        ``(n, genes)`` probability of an extra zero.
    size_factors
        ``(n,)`` depth of each spot relative to the median spot; ``None`` for one.

    Returns
    -------
    A scalar.
    """
    with torch.autocast(counts.device.type, enabled=False):
        x, mu, theta, pi = counts.float(), mean.float(), dispersion.float(), dropout.float()
        if size_factors is not None:
            mu = mu * size_factors.float().reshape(-1, 1)
        # log of theta / (theta + mu), by log1p so that a small mean keeps its digits
        log_failure = -torch.log1p(mu / (theta + TINY))
        log_success = torch.log(mu + TINY) - torch.log(theta + TINY) + log_failure
        log_choose = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        log_some = log_choose + theta * log_failure + x * log_success + torch.log(1 - pi + TINY)
        log_zero = torch.log(pi + (1 - pi) * torch.exp(theta * log_failure) + TINY)
        return -torch.where(x > 0, log_some, log_zero).mean()


def nb_nll(counts: Tensor, r: Tensor, p: Tensor) -> Tensor:
    """Negative log-likelihood of counts under a negative binomial, as published.

    Summed over genes, averaged over spots, without the term log x! that no parameter enters.

    Parameters
    ----------
    counts
        ``(n, genes)`` raw counts.
    r
        ``(n, genes)`` logarithm of the number of failures.
    p
        ``(n, genes)`` logit of the success probability.

    Returns
    -------
    A scalar.
    """
    with torch.autocast(counts.device.type, enabled=False):
        x, failures, logit = counts.float(), r.float().exp(), p.float()
        log_choose = torch.lgamma(failures + x) - torch.lgamma(failures)
        return -(log_choose + logit * x - (x + failures) * F.softplus(logit)).sum(dim=1).mean()


def correlation_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the Pearson correlation across the spots of a section, mean over genes.

    A gene whose target is the same in all spots, or NaN, has no correlation and is left out; a gene predicted the same in
    all spots counts as uncorrelated.

    Parameters
    ----------
    prediction
        ``(n, genes)`` predicted expression.
    target
        ``(n, genes)`` observed expression.

    Returns
    -------
    A scalar between 0 and 2; zero when no gene varies.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        x, y = prediction.float(), target.float()
        varies = y.amax(dim=0) > y.amin(dim=0)
        x, y = x[:, varies], y[:, varies]
        if x.shape[1] == 0:
            return prediction.float().sum() * 0.0
        x, y = x - x.mean(dim=0), y - y.mean(dim=0)
        # the small term keeps the gradient finite where a prediction is constant
        spread = torch.sqrt(x.square().mean(dim=0) + TINY) * torch.sqrt(y.square().mean(dim=0))
        return (1 - (x * y).mean(dim=0) / spread.clamp_min(TINY)).mean()
