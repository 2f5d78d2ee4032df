"""Small panels: expression on the scale of all counts of a spot, since the counts of few genes follow from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._table._counts import Floats, log10_cp10k, read_panel_counts, read_total_counts

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide
    from sthggep._table._mixed_panels import PanelCounts

ALL = "all"
SMALL_PANEL = 100  # genes; a share of the counts of more genes is little changed by any one of them
LEAST_SHARE = 0.5  # of all counts: a panel that holds most of them measures a spot's depth as all genes do


class AllCounts:
    """The scale of a small panel: counts per 10,000 of all genes of the slide."""

    def expression(self, section: PanelCounts) -> Floats:
        """Scale counts to log10(1 + counts per 10,000 of all genes)."""
        assert section.rest is not None
        return log10_cp10k(with_rest(section.counts, section.rest))[:, :-1]


def with_rest(counts: Floats, rest: Floats | None) -> Floats:
    """Join the panel's counts and, as the last column, those of all other genes; without these, the panel's alone."""
    return counts if rest is None else np.column_stack([counts, rest]).astype(np.float32)


def read_rest(
    adata: AnnData,
    genes: Sequence[str],
    counts: Floats,
    *,
    layer: str | None = None,
    rows: NDArray[np.intp] | None = None,
) -> Floats:
    """Read of each spot the counts of all genes but those of the panel, whose ``counts`` were read before, (n,)."""
    totals = read_total_counts(adata, genes, layer=layer, rows=rows)
    rest: Floats = np.maximum(totals - counts.sum(axis=1, dtype=np.float64), 0).astype(np.float32)
    return rest


def read_scaled_counts(
    adata: AnnData,
    genes: Sequence[str],
    *,
    layer: str | None = None,
    rows: NDArray[np.intp] | None = None,
    all_counts: bool,
) -> Floats:
    """Read the raw counts that expression is scaled by: of the panel, and with ``all_counts`` of all others in a last column."""
    counts = read_panel_counts(adata, genes, layer=layer, rows=rows)
    rest = read_rest(adata, genes, counts, layer=layer, rows=rows) if all_counts else None
    return with_rest(counts, rest)


def needs_all_counts(genes: Sequence[str], slides: Sequence[Slide], layer: str | None) -> bool:
    """Whether a panel of a user's choice is so small that its own counts are no scale: few genes with few of the counts."""
    if len(genes) >= SMALL_PANEL:
        return False
    of_panel = of_rest = 0.0
    for slide in slides:
        counts = read_panel_counts(slide.adata, genes, layer=layer, rows=slide.rows)
        of_panel += float(counts.sum(dtype=np.float64))
        of_rest += float(read_rest(slide.adata, genes, counts, layer=layer, rows=slide.rows).sum(dtype=np.float64))
    return of_panel < LEAST_SHARE * (of_panel + of_rest)
