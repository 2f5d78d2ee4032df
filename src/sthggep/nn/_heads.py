"""Heads: from the fused features of a spot to its genes and the distribution of their counts."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CountHead = Literal["zinb", "nb"]


class Output(NamedTuple):
    """Outputs of a network for every spot of a section; fields of a head that it does not have are ``None``."""

    expression: Tensor
    """``(n, genes)`` predicted expression."""
    latent: Tensor
    """``(n, dim)`` fused features."""
    mean: Tensor | None = None
    """``(n, genes)`` ZINB mean, before the size factor."""
    dispersion: Tensor | None = None
    """``(n, genes)`` ZINB dispersion."""
    dropout: Tensor | None = None
    """``(n, genes)`` ZINB probability of an extra zero."""
    r: Tensor | None = None
    """``(n, genes)`` NB logarithm of the number of failures."""
    p: Tensor | None = None
    """``(n, genes)`` NB logit of the success probability."""

    def expected_counts(self) -> Tensor | None:
        """``(n, genes)`` mean of the counts' distribution at size factor one; ``None`` without a count head."""
        if self.mean is not None and self.dropout is not None:
            return (1 - self.dropout.float()) * self.mean.float()
        if self.r is not None and self.p is not None:
            return (self.r.float() + self.p.float()).exp()  # r p / (1 - p)
        return None


class ZINBHead(nn.Module):
    """Zero-inflated negative binomial of the raw counts.

    Parameters
    ----------
    dim
        Features a spot.
    n_genes
        Genes of the panel.
    """

    def __init__(self, dim: int, n_genes: int) -> None:
        super().__init__()
        self.mean = nn.Linear(dim, n_genes)
        self.dispersion = nn.Linear(dim, n_genes)
        self.dropout = nn.Linear(dim, n_genes)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        """Mean, dispersion and zero inflation of every gene."""
        return {
            "mean": self.mean(latent).exp().clamp(1e-5, 1e6),
            "dispersion": F.softplus(self.dispersion(latent)).clamp(1e-4, 1e4),
            "dropout": torch.sigmoid(self.dropout(latent)),
        }


class NBHead(nn.Module):
    """Negative binomial of the raw counts, by the logarithm of r and the logit of p.

    Parameters
    ----------
    dim
        Features a spot.
    n_genes
        Genes of the panel.
    """

    def __init__(self, dim: int, n_genes: int) -> None:
        super().__init__()
        self.r = nn.Linear(dim, n_genes)
        self.p = nn.Linear(dim, n_genes)

    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        """Logarithm of r and logit of p of every gene."""
        return {"r": self.r(latent), "p": self.p(latent)}


def count_head_for(count_head: str | None, dim: int, n_genes: int) -> ZINBHead | NBHead | None:
    """The head of that name, ``None`` for no head.

    Parameters
    ----------
    count_head
        ``"zinb"``, ``"nb"`` or ``None``.
    dim
        Features a spot.
    n_genes
        Genes of the panel.

    Raises
    ------
    ValueError
        If there is no head of that name.
    """
    if count_head is None:
        return None
    if count_head == "zinb":
        return ZINBHead(dim, n_genes)
    if count_head == "nb":
        return NBHead(dim, n_genes)
    msg = f"Expected count_head 'zinb', 'nb' or None, found {count_head!r}."
    raise ValueError(msg)


class Heads(nn.Module):
    """Heads for the expression and, if requested, for the distribution of the counts. Always float32, also under mixed precision.

    Parameters
    ----------
    dim
        Features a spot.
    n_genes
        Genes of the panel.
    count_head
        Distribution of the counts, ``None`` for no such head.
    """

    def __init__(self, dim: int, n_genes: int, count_head: CountHead | None) -> None:
        super().__init__()
        self.expression = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_genes))
        self.counts = count_head_for(count_head, dim, n_genes)

    def start_at(self, expression: Tensor) -> None:
        """Set the bias of the expression head, so that training starts from a given profile.

        Parameters
        ----------
        expression
            ``(genes,)`` values, for example the mean over the training spots.
        """
        with torch.no_grad():
            self.get_parameter("expression.1.bias").copy_(expression)

    def forward(self, latent: Tensor) -> Output:
        """Heads on fused features ``(n, dim)``."""
        with torch.autocast(latent.device.type, enabled=False):
            latent = latent.float()
            counts = {} if self.counts is None else self.counts(latent)
            return Output(self.expression(latent), latent, **counts)


class DistillationHead(nn.Sequential):
    """How much an augmented copy counts in the self-distillation target.

    Parameters
    ----------
    dim
        Features a spot.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))
