"""Gene programs of sections that lack genes: a low-rank fit to the entries that there are."""

from __future__ import annotations

import pytest
import torch

from sthggep.nn._incomplete import RIDGE, fit_programs, known_columns, mean_of_known, scores_of_known
from sthggep.nn._programs import GenePrograms, section_moments

N_GENES, RANK = 40, 3
FIRST, SECOND = slice(0, 10), slice(10, 20)  # genes that the first two sections lack, and the last two


def low_rank(noise: float = 0.0, n: int = 60) -> list[torch.Tensor]:
    """Four sections with the same three programs."""
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(RANK, N_GENES, generator=generator)
    strengths = torch.tensor([1.0, 0.7, 0.5])
    return [
        torch.randn(n, RANK, generator=generator) * strengths @ loadings
        + noise * torch.randn(n, N_GENES, generator=generator)
        for _ in range(4)
    ]


def lacking(sections: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same sections without what two of them and the other two do not measure."""
    parts = [section.clone() for section in sections]
    for part, genes in zip(parts, (FIRST, FIRST, SECOND, SECOND), strict=True):
        part[:, genes] = torch.nan
    return parts


def overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Smallest cosine between two spans of rows."""
    return float(torch.linalg.svdvals(torch.linalg.qr(one.T)[0].T @ torch.linalg.qr(other.T)[0]).min())


def test_unknown_entries_of_low_rank_rows_are_recovered():
    full = torch.cat(low_rank()).double()
    values, vectors = fit_programs(lacking(low_rank()), RANK)
    _, true_values, true_vectors = torch.linalg.svd(full, full_matrices=False)
    assert overlap(vectors, true_vectors[:RANK]) > 0.999
    # The ridge shrinks the scores a little, and those of sections with fewer genes the more
    torch.testing.assert_close(values, true_values[:RANK], rtol=0.05, atol=0)
    assert vectors.shape == (RANK, N_GENES)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(RANK).double())


def test_with_noise_the_programs_are_those_of_the_full_panel_and_better_than_with_zeros():
    full, parts = low_rank(0.8), lacking(low_rank(0.8))
    truth = torch.linalg.svd(torch.cat(low_rank()), full_matrices=False)[2][:RANK].double()
    by_zeros = torch.linalg.svd(torch.cat([part.nan_to_num(0.0) for part in parts]), full_matrices=False)[2][:RANK]
    found = fit_programs(parts, RANK)[1]
    assert overlap(found, truth) > 0.97
    assert overlap(found, truth) > overlap(by_zeros.double(), truth) + 0.01
    assert overlap(found, truth) > overlap(fit_programs(full, RANK)[1], truth) - 0.02


def test_complete_rows_give_singular_vectors():
    rows = low_rank(0.3)
    values, vectors = fit_programs(rows, RANK)
    _, true_values, true_vectors = torch.linalg.svd(torch.cat(rows).double(), full_matrices=False)
    torch.testing.assert_close(values, true_values[:RANK], rtol=1e-6, atol=0)
    torch.testing.assert_close((vectors * true_vectors[:RANK]).sum(dim=1).abs(), torch.ones(RANK).double())


def test_scores_follow_from_the_genes_that_the_section_holds():
    loadings = torch.linalg.qr(torch.randn(N_GENES, RANK, generator=torch.Generator().manual_seed(1)))[0].T
    scaled = lacking(low_rank(0.3))[0]
    held = loadings[:, 10:]
    expected = scaled[:, 10:] @ held.T @ torch.linalg.inv(held @ held.T + RIDGE * torch.eye(RANK))
    torch.testing.assert_close(scores_of_known(scaled, loadings), expected, rtol=1e-4, atol=1e-5)
    assert known_columns(scaled).tolist() == [False] * 10 + [True] * 30


def test_means_are_those_of_the_sections_that_hold_a_gene():
    parts = [torch.tensor([1.0, 2.0, torch.nan]), torch.tensor([3.0, torch.nan, torch.nan])]
    assert mean_of_known(parts, torch.tensor([7.0, 7.0, 7.0])).tolist() == [2.0, 2.0, 7.0]


@pytest.mark.parametrize("lacked", [True, False])
def test_programs_of_sections(lacked: bool):
    """Moments and programs with and without unknown genes; a gene of no section is predicted as constant."""
    sections = [2 + section for section in (lacking(low_rank(0.1)) if lacked else low_rank(0.1))]
    for section in sections if lacked else ():
        section[:, 39] = torch.nan
    weights = [torch.full((len(section),), 0.5) for section in sections]
    programs = GenePrograms(N_GENES, RANK)
    scores = programs.start(sections, weights)
    means = [section_moments(*pair)[0] for pair in zip(sections, weights, strict=True)]
    holding = means[2:] if lacked else means
    torch.testing.assert_close(programs.mean[FIRST], torch.stack(holding)[:, FIRST].mean(dim=0))
    decoded = programs(scores[0] / programs.damp)
    assert decoded.isfinite().all()
    expected = 2 + low_rank(0.1)[0]
    for gene in (3, 15, 30):  # measured by others alone, by this section, by all
        assert torch.corrcoef(torch.stack([decoded[:, gene], expected[:, gene]]))[0, 1] > 0.95
    # Scores are as large as by all genes: what is unknown is not taken for the mean
    complete = low_rank(0.1)[0]
    standardized = (complete - complete.mean(dim=0)) / complete.std(dim=0)
    assert 0.9 < scores[0].norm() / (standardized @ programs.loadings.T).norm() < 1.1
    if lacked:
        assert programs.mean[39] == 0
        assert programs.spread[39] == 1
        assert not programs.loadings[:, 39].any()
    # What is measured later does not move the means of other genes
    before = programs.mean.clone()
    moved = programs.adapt([section + 1 for section in sections[:2]], weights[:2], 0.5)
    assert all(part.isfinite().all() for part in moved)
    torch.testing.assert_close(programs.mean[FIRST] == before[FIRST], torch.full((10,), lacked))
    assert (programs.mean[SECOND] > before[SECOND] + 0.3).all()
