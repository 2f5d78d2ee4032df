"""Sections that lack genes: their NaN columns, the scores of what they hold, and programs fitted to all sections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RIDGE = 0.05  # of the scores, against squared loadings that add up to 1 a program over all genes
NOISE_RIDGE = 3.0  # of the loadings, in mean squares of a spot's noise, all genes together
SWEEPS = 50  # at most
TOLERANCE = 1e-5


def known_columns(values: Tensor) -> Tensor:
    """Mark the genes ``(genes,)`` that a section holds: those without NaN."""
    return ~values.isnan().any(dim=0)


def mean_of_known(parts: Sequence[Tensor], otherwise: Tensor) -> Tensor:
    """Average each gene over the sections that hold it; a gene of none keeps its value in ``otherwise``."""
    stacked = torch.stack(list(parts))
    known = ~stacked.isnan()
    if known.all():
        return stacked.mean(dim=0)
    n = known.sum(dim=0)
    return torch.where(n > 0, stacked.nan_to_num(0.0).sum(dim=0) / n.clamp_min(1), otherwise)


def scores_of_known(scaled: Tensor, loadings: Tensor) -> Tensor:
    """Compute program scores from the genes that a section holds, by least squares with a small ridge.

    Parameters
    ----------
    scaled
        Standardized expression ``(n, genes)``, NaN in the genes that the section lacks.
    loadings
        ``(rank, genes)``.

    Returns
    -------
    Scores ``(n, rank)``.
    """
    known = known_columns(scaled)
    held = loadings[:, known].double()
    gram = held @ held.T
    gram += RIDGE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    scores: Tensor = scaled[:, known].double() @ torch.linalg.solve(gram, held).T
    return scores.to(scaled.dtype)


def fit_programs(rows: Sequence[Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """Fit programs to sections of which some lack genes: a low-rank fit to the entries that there are.

    Scores of the spots and loadings of the genes are solved in turn, each by ridge regression on the entries that are known.
    The start is the decomposition with zeros in place of unknown entries, where each gene has the norm that it would have
    if all sections held it. Without unknown entries the result would be the leading singular values and vectors.

    Parameters
    ----------
    rows
        Weighted rows ``(n, genes)`` of each section, NaN in the genes that it lacks.
    rank
        Programs.

    Returns
    -------
    Singular values ``(rank,)``, descending, and vectors ``(rank, genes)`` of the fit; fewer for few spots or genes.
    """
    parts = [part.double() for part in rows]
    known = torch.stack([known_columns(part) for part in parts])
    filled = [part.nan_to_num(0.0) for part in parts]
    sizes = torch.stack([part.square().sum() / columns.sum() for part, columns in zip(filled, known, strict=True)])
    held = (sizes.unsqueeze(1) * known).sum(dim=0)
    raised = (sizes.sum() / held.clamp_min(1e-12)).sqrt() * (held > 0)
    _, values, vectors = torch.linalg.svd(torch.cat(filled) * raised, full_matrices=False)
    rank = min(rank, int((values > values[0] * 1e-6).sum()))
    values, vectors = values[:rank], vectors[:rank]
    for _ in range(SWEEPS):
        scores = [scores_of_known(part, vectors) for part in parts]
        earlier, (values, vectors) = values, _decompose(scores, _loadings(scores, filled, known))
        left = int((values > values[0] * 1e-6).sum())  # programs that known entries do not bear out vanish
        values, vectors = values[:left], vectors[:left]
        if left == len(earlier) and float((values - earlier).norm() / values.norm()) < TOLERANCE:
            break
    return values, vectors


def _loadings(scores: Sequence[Tensor], filled: Sequence[Tensor], known: Tensor) -> Tensor:
    """Solve the loadings ``(rank, genes)`` from the scores of the sections that hold each gene; 0 for a gene of none.

    A ridge of the size of the noise draws towards 0 what a gene of few spots has on weak programs. It is taken out again for
    a gene that all sections hold, whose loadings are those of least squares.
    """
    grams = torch.stack([part.T @ part for part in scores])
    products = sum(part.T @ rows for part, rows in zip(scores, filled, strict=True))
    assert isinstance(products, Tensor)
    of_all = grams.sum(dim=0)
    squares = sum(float(rows.square().sum() / columns.sum()) for rows, columns in zip(filled, known, strict=True))
    n_spots = sum(map(len, scores))
    noise = max(squares * known.shape[1] - float(torch.trace(of_all)), 0.0) / n_spots
    ridge = NOISE_RIDGE * noise * torch.eye(len(of_all), dtype=of_all.dtype, device=of_all.device)
    loadings = torch.zeros_like(products)
    patterns, of_gene = torch.unique(known.T, dim=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        if pattern.any():
            genes = of_gene == i
            loadings[:, genes] = torch.linalg.solve(grams[pattern].sum(dim=0) + ridge, products[:, genes])
    solved: Tensor = torch.linalg.solve(of_all, (of_all + ridge) @ loadings)
    return solved


def _decompose(scores: Sequence[Tensor], loadings: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values and right singular vectors of scores times loadings."""
    _, upper = torch.linalg.qr(torch.cat(list(scores)))
    _, values, vectors = torch.linalg.svd(upper @ loadings, full_matrices=False)
    return values, vectors
