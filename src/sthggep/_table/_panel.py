"""Gene panels: genes that vary in a section and that enough spots detect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import counted, gene_list, genes_present, listing
from sthggep._imports import import_whole
from sthggep._log import log
from sthggep._table._counts import Floats, read_panel_counts
from sthggep._table._gene_names import as_named, find_genes, shared_genes, union_genes

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

MANY_SPOTS = 20_000  # this many spots of a section rank its variable genes as well as all spots do


def choose_panel(
    sections: Sequence[Slide],
    *,
    n_top: int = 1000,
    min_fraction: float = 0.1,
    max_genes: int | None = None,
    include: Sequence[str] = (),
    layer: str | None = None,
    union: bool = False,
) -> list[str]:
    """Choose a panel as :func:`sthggep.pp.gene_panel` does, from resolved sections.

    With ``union``, also genes that some sections lack: each is judged by the sections that hold it.
    """
    if not sections:
        msg = "A gene panel needs at least one slide, found none. Pass the slides to choose genes from."
        raise ValueError(msg)
    tables = [section.adata.var for section in sections]
    genes = union_genes(tables) if union else shared_genes(tables)
    if not genes:
        named = "; ".join(f"{s.name!r}: {listing(s.adata.var_names, 2)}" for s in sections[:5])
        msg = f"The slides share no genes. Name the genes of all slides alike, by symbols or by Ensembl ids. Found {named}."
        raise ValueError(msg)

    included = _check_included(include, genes)
    sections = [section for section in sections if section.n_spots]
    detected, n_spots, votes = dict.fromkeys(genes, 0.0), dict.fromkeys(genes, 0), Counter[str]()
    for section in sections:
        rows = section.rows[:: -(-section.n_spots // MANY_SPOTS)]
        held = find_genes(section.adata.var, genes) if union else genes
        counts = read_panel_counts(section.adata, held, layer=layer, rows=rows)
        for gene, share in zip(held, (counts > 0).mean(axis=0), strict=True):
            detected[gene] += share * section.n_spots
            n_spots[gene] += section.n_spots
        votes.update(_most_variable(held, counts, n_top))
    fractions = {gene: detected[gene] / n_spots[gene] for gene in genes}
    panel = [gene for gene in genes if gene in included or (gene in votes and fractions[gene] >= min_fraction - 1e-9)]
    if not panel:
        most_detected = sorted(genes, key=lambda gene: -fractions[gene])
        msg = (
            f"No gene is among the {n_top} most variable of a section and detected in {min_fraction:.0%} of {max(n_spots.values())} "
            f"spots. Lower `min_fraction`; the most detected genes are {listing(most_detected, 3)}."
        )
        raise ValueError(msg)
    passed = len(panel)
    if max_genes is not None and passed > max_genes:
        ranked = sorted(panel, key=lambda gene: (gene not in included, -votes[gene], -fractions[gene], gene))
        first = set(ranked[:max_genes])
        panel = [gene for gene in panel if gene in first]
    which = "genes of any section" if union else "shared genes"
    fewer = (
        f" Fewer than the {max_genes} asked for, since no more are both among the {n_top} most variable of a section and detected "
        f"in {min_fraction:.0%} of the spots: raise `n_top`, or lower `min_fraction`."
        if max_genes is not None and passed < max_genes
        else ""
    )
    shown = ", ".join(f"{gene} (counts in {fractions[gene]:.1%} of the spots)" for gene in panel if gene in included)
    if shown:
        fewer += f" Included: {shown}."
    log.info("Panel: %d of %d %s, from %s.%s", len(panel), len(genes), which, counted(sections, "section"), fewer)
    return panel


def _check_included(include: Sequence[str], shared: Sequence[str]) -> set[str]:
    """Return the genes that must be in the panel, after a check that all slides hold them."""
    include = as_named(gene_list(include, "include"), shared)
    if len(include):
        genes_present(include, shared, "the genes that all slides share", "include")
    return set(include)


def _most_variable(genes: list[str], counts: Floats, n_top: int) -> list[str]:
    """Return the most variable genes of one section."""
    import_whole("scanpy")
    import scanpy as sc
    from anndata import AnnData

    keep = np.flatnonzero(counts.any(axis=0))
    filled = counts.any(axis=1)
    if len(keep) <= n_top or filled.sum() < 3:
        return [genes[i] for i in keep]
    table = AnnData(counts[filled][:, keep])
    table.var_names = [genes[i] for i in keep]
    sc.experimental.pp.highly_variable_genes(table, flavor="pearson_residuals", n_top_genes=n_top, check_values=False)
    return list(table.var_names[table.var["highly_variable"]])
