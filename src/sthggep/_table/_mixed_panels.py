"""Slides that lack genes of the panel: what they hold, and the scale on which they are comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import listing
from sthggep._table._counts import Floats, find_measured_genes, log10_cp10k, read_panel_counts

UNION = "union"
ROUNDS = 100
LEAST_GENES = 2  # of the panel, in a slide


class PanelCounts(NamedTuple):
    """Raw counts of a panel in a section, and which genes the section holds."""

    counts: Floats
    """(n, genes); 0 in the genes that the section lacks."""
    held: NDArray[np.bool_]
    """(genes,)."""
    rest: Floats | None = None
    """Counts of all other genes, (n,), where these are part of the scale."""


@dataclass(frozen=True)
class PanelScale:
    """The scale of slides that hold different genes of a panel: how large a part of its counts each gene has.

    The parts are those of the model in which each slide has a depth and each gene an abundance, the same in all slides, fitted
    to the genes that each slide holds. So slides of two panels are comparable by the genes that both hold, also if no slide
    holds all.
    """

    parts: NDArray[np.float64]
    """(genes,); they add up to 1."""

    @classmethod
    def of(cls, sections: Sequence[PanelCounts]) -> PanelScale:
        """Fit the parts to training sections, each of the same weight; a gene without counts has none."""
        held = np.stack([section.held for section in sections]).astype(np.float64)
        totals = np.stack([section.counts.sum(axis=0, dtype=np.float64) for section in sections])
        totals /= np.maximum(totals.sum(axis=1, keepdims=True), 1e-12)
        parts = np.full(held.shape[1], 1 / held.shape[1])
        for _ in range(ROUNDS):  # maximum likelihood of Poisson counts, by alternation
            depths = totals.sum(axis=1) / np.maximum(held @ parts, 1e-12)
            parts = totals.sum(axis=0) / np.maximum(depths @ held, 1e-12)
            parts /= max(parts.sum(), 1e-12)
        return cls(parts)

    def expression(self, section: PanelCounts) -> Floats:
        """Scale counts to log10(1 + counts per 10,000 of the whole panel), which lacking genes have their part in; NaN for these."""
        if section.held.all():
            return log10_cp10k(section.counts)
        library = section.counts.sum(axis=1, keepdims=True, dtype=np.float64)
        share = float(self.parts[section.held].sum())
        scaled = np.log10(1.0 + section.counts * (1e4 * share / np.where(library > 0, library, 1.0)))
        return np.where(section.held, scaled, np.nan).astype(np.float32)


def read_held_counts(
    adata: AnnData, genes: Sequence[str], *, layer: str | None = None, rows: NDArray[np.intp] | None = None
) -> PanelCounts:
    """Read the counts of the panel genes that a table holds.

    Raises
    ------
    ValueError
        The table holds fewer than two genes of the panel, or its values are no counts.
    """
    present = set(find_measured_genes(adata, genes, layer))
    held = np.array([str(gene) in present for gene in genes], dtype=bool)
    if held.sum() < LEAST_GENES:
        msg = (
            f"Each slide must hold {LEAST_GENES} genes of the panel or more, found {int(held.sum())} of {len(genes)} in a slide with "
            f"{listing(adata.var_names, 3)}. Leave the slide out, or name its genes as in the others."
        )
        raise ValueError(msg)
    columns = read_panel_counts(adata, [gene for gene in genes if str(gene) in present], layer=layer, rows=rows)
    counts = np.zeros((len(columns), len(genes)), dtype=np.float32)
    counts[:, held] = columns
    return PanelCounts(counts, held)
