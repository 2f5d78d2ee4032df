"""Genes that are worth predicting: variable in a section, and detected in enough spots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import counted, gene_list, genes_present, listing
from sthggep._table._counts import Floats, counts

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide
from sthggep._log import log

MANY_SPOTS = 20_000  # as many of a section tell its variable genes as well as all of them


def choose_panel(
    sections: Sequence[Slide],
    *,
    n_top: int = 1000,
    min_fraction: float = 0.1,
    max_genes: int | None = None,
    include: Sequence[str] = (),
    layer: str | None = None,
) -> list[str]:
    """As :func:`gene_panel`, of sections that were resolved already."""
    shared = set.intersection(*[set(map(str, s.adata.var_names)) for s in sections]) if sections else set()
    genes = [str(gene) for gene in sections[0].adata.var_names if str(gene) in shared] if sections else []
    if not sections:
        msg = "There are no slides to choose genes from: at least one is needed."
        raise ValueError(msg)
    if not genes:
        named = "; ".join(f"{s.name!r}: {listing(s.adata.var_names, 2)}" for s in sections[:5])
        msg = f"The slides share no genes: are all named alike (symbols or Ensembl ids)? Their genes are {named}."
        raise ValueError(msg)

    wanted = _wanted(include, genes)
    detected, n_spots, votes = np.zeros(len(genes)), 0, Counter[str]()
    for section in sections:
        rows = section.rows[:: -(-section.n_spots // MANY_SPOTS)]
        found = counts(section.adata, genes, layer=layer, rows=rows)
        detected += (found > 0).mean(axis=0) * section.n_spots
        n_spots += section.n_spots
        votes.update(_most_variable(genes, found, n_top))
    seen = dict(zip(genes, detected / n_spots, strict=True))
    panel = [gene for gene in genes if gene in wanted or (gene in votes and seen[gene] >= min_fraction - 1e-9)]
    if not panel:
        best = sorted(genes, key=lambda gene: -seen[gene])
        msg = (
            f"No gene is among the {n_top} most variable of a section and detected in {min_fraction:.0%} of {n_spots} "
            f"spots. Lower `min_fraction`; the most detected genes are {listing(best, 3)}."
        )
        raise ValueError(msg)
    if max_genes is not None and len(panel) > max_genes:
        kept = set(sorted(panel, key=lambda gene: (gene not in wanted, -votes[gene], -seen[gene], gene))[:max_genes])
        panel = [gene for gene in panel if gene in kept]
    log.info("Panel: %d of %d shared genes, from %s.", len(panel), len(genes), counted(sections, "section"))
    return panel


def _wanted(include: Sequence[str], shared: Sequence[str]) -> set[str]:
    """Genes that must be in the panel; all of them are shared by the slides."""
    include = gene_list(include, "include")
    if len(include):
        genes_present(include, shared, "the genes that all slides share")
    return set(include)


def _most_variable(genes: list[str], found: Floats, n_top: int) -> list[str]:
    """Most variable genes of one section."""
    import scanpy as sc
    from anndata import AnnData

    keep = np.flatnonzero(found.any(axis=0))
    filled = found.any(axis=1)
    if len(keep) <= n_top or filled.sum() < 3:
        return [genes[i] for i in keep]
    table = AnnData(found[filled][:, keep])
    table.var_names = [genes[i] for i in keep]
    sc.experimental.pp.highly_variable_genes(table, flavor="pearson_residuals", n_top_genes=n_top, check_values=False)
    return list(table.var_names[table.var["highly_variable"]])
