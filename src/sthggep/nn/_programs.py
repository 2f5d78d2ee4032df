"""Gene programs: genes that vary together, computed from the training counts; few scores decode into many genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sthggep.nn._incomplete import fit_programs, known_columns, mean_of_known, scores_of_known

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sthggep.nn._section import CountsOnly

HALF_WEIGHT = 300.0  # counts at which a spot's expression is as much signal as noise
FLOOR = 0.02  # a gene that hardly varies is not blown up
EXTRA_SHARE = 0.25  # weight of a spot of an extra section relative to a training spot


def spot_weights(library_sizes: Tensor) -> Tensor:
    """Weight each spot by its counts: near one with many counts, near zero with few."""
    return library_sizes / (library_sizes + HALF_WEIGHT) + 0.01


class GenePrograms(nn.Module):
    """Decoder from a few program scores to the expression of all genes.

    The programs are the leading right singular vectors of the training sections' expression, with each gene centered and
    scaled within its section. The decoder damps a program that explains little. Single genes are mostly noise; what they
    share is not, so few programs predict better than one score a gene. If sections lack genes, the programs are a low-rank
    fit to the entries that there are, and a section's scores follow from the genes that it holds.

    Parameters
    ----------
    n_genes
        Genes of the panel.
    rank
        Programs.
    damping
        Power of a program's singular value, relative to the first, by which it is damped.
    """

    mean: Tensor
    spread: Tensor
    loadings: Tensor
    damp: Tensor

    def __init__(self, n_genes: int, rank: int, damping: float = 0.5) -> None:
        super().__init__()
        self.damping = damping
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("spread", torch.ones(n_genes))
        self.register_buffer("loadings", nn.init.orthogonal_(torch.empty(rank, n_genes)))
        self.register_buffer("damp", torch.ones(rank))

    def start(
        self, targets: Sequence[Tensor], weights: Sequence[Tensor], extra_sections: Sequence[CountsOnly] = ()
    ) -> list[Tensor]:
        """Read the programs off training sections, and off extra sections of which only the counts are known.

        Parameters
        ----------
        targets
            Expression ``(n, genes)`` of each section; NaN in the genes that it lacks.
        weights
            Weight of each spot, ``(n,)``; see :func:`spot_weights`.
        extra_sections
            Sections of which only the counts are known: they define which genes vary together.

        Returns
        -------
        Scores ``(n, rank)`` of each training section: what is to be predicted.
        """
        means, spreads = zip(*map(section_moments, targets, weights), strict=True)
        scaled = [(t - m) / s for t, m, s in zip(targets, means, spreads, strict=True)]
        rows = [z * w.sqrt().unsqueeze(1) for z, w in zip(scaled, weights, strict=True)]
        rows += [_extra_rows(section) for section in extra_sections]
        loadings, damp = find_programs(rows, len(self.loadings), self.damping)
        self.loadings.zero_()
        self.loadings[: len(damp)] = loadings
        self.damp.zero_()
        self.damp[: len(damp)] = damp
        # A gene that no training section holds has the mean and spread of the extra sections
        extra = [section_moments(section.target, _extra_weights(section)) for section in extra_sections]
        mean, spread = torch.zeros_like(self.mean), torch.ones_like(self.spread)
        if extra:
            mean, spread = (mean_of_known(*each) for each in zip(zip(*extra, strict=True), (mean, spread), strict=True))
        self.mean.copy_(mean_of_known(means, mean))
        self.spread.copy_(mean_of_known(spreads, spread))
        return [self._scores(z, self.loadings.T) for z in scaled]

    def adapt(self, targets: Sequence[Tensor], weights: Sequence[Tensor], share: float) -> list[Tensor]:
        """Keep the programs; move each gene's mean and spread towards those of further sections.

        Parameters
        ----------
        targets
            Expression ``(n, genes)`` of each section.
        weights
            Weight of each spot, ``(n,)``.
        share
            How far: not at all for 0, all the way for 1.

        Returns
        -------
        Scores ``(n, rank)`` of each section in the programs that are there.
        """
        means, spreads = zip(*map(section_moments, targets, weights), strict=True)
        self.mean.lerp_(mean_of_known(means, self.mean), share)
        self.spread.lerp_(mean_of_known(spreads, self.spread), share)
        inverse = self.inverse()
        return [self._scores((t - m) / s, inverse) for t, m, s in zip(targets, means, spreads, strict=True)]

    def _scores(self, scaled: Tensor, inverse: Tensor) -> Tensor:
        """Scores of standardized expression, by ``inverse`` where the section holds all genes."""
        return scaled @ inverse if known_columns(scaled).all() else scores_of_known(scaled, self.loadings)

    def inverse(self) -> Tensor:
        """Return the weights ``(genes, rank)`` with which standardized expression gives program scores."""
        # The transpose for a whole panel; of some of its genes, the programs are no longer at right angles
        inverse: Tensor = torch.linalg.pinv(self.loadings.double(), rtol=0.1)
        return inverse.float()

    def forward(self, scores: Tensor, columns: NDArray[np.intp] | None = None) -> Tensor:
        """Expression ``(n, genes)`` of program scores ``(n, rank)``; of all genes, or of those in ``columns``."""
        genes = slice(None) if columns is None else torch.from_numpy(columns).to(scores.device)
        return self.mean[genes] + self.spread[genes] * ((scores * self.damp) @ self.loadings[:, genes])


def find_programs(rows: Sequence[Tensor], rank: int, damping: float) -> tuple[Tensor, Tensor]:
    """Find the leading programs of weighted rows of standardized expression: loadings ``(r, genes)`` and their damping."""
    if all(known_columns(part).all() for part in rows):
        _, sizes, vectors = torch.linalg.svd(torch.cat(list(rows)).double(), full_matrices=False)
    else:
        sizes, vectors = fit_programs(rows, rank)
    rank = min(rank, int((sizes > sizes[0] * 1e-6).sum()))
    return vectors[:rank].float(), (sizes[:rank] / sizes[0]).pow(damping).float()


def of_fewer_genes(loadings: Tensor, damp: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reduce the programs to the number of genes, without a change of the decoded values.

    Parameters
    ----------
    loadings
        ``(rank, genes)`` with fewer genes than programs.
    damp
        ``(rank,)``.

    Returns
    -------
    Loadings ``(genes, genes)`` and damping ``(genes,)`` of the new programs, and what old scores are multiplied by to
    be theirs, ``(rank, genes)``.
    """
    old, size, new = torch.linalg.svd(loadings.double(), full_matrices=False)
    damped = damp.double().unsqueeze(1) * old
    # Each keeps its share of the damping, so that measured scores and predicted ones stay of one size
    norms = damped.norm(dim=0).clamp_min(1e-12)
    return (size.unsqueeze(1) * new).float(), norms.float(), (damped / norms).float()


def section_moments(target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation of each gene in a section; NaN of a gene that it lacks."""
    share = (weight / weight.sum()).unsqueeze(1)
    mean = (share * target).sum(dim=0)
    return mean, (share * (target - mean).square()).sum(dim=0).sqrt().clamp_min(FLOOR)


def _extra_rows(section: CountsOnly) -> Tensor:
    """Weighted rows of a section of which only the counts are known."""
    weight = _extra_weights(section)
    mean, spread = section_moments(section.target, weight)
    return (section.target - mean) / spread * (EXTRA_SHARE * weight).sqrt().unsqueeze(1)


def _extra_weights(section: CountsOnly) -> Tensor:
    """Weights of the spots of such a section; an empty spot has none."""
    return spot_weights(section.library_sizes) * (section.library_sizes > 0)
