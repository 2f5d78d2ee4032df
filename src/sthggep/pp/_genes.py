"""The panel: which genes to learn, chosen on training slides only."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import counted, gene_list, genes_present, listing
from sthggep._slides._slide import resolve
from sthggep._table._counts import Floats, counts

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide

log = logging.getLogger("sthggep")
MANY_SPOTS = 20_000  # as many of a section tell its variable genes as well as all of them


def gene_panel(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    n_top: int = 1000,
    min_fraction: float = 0.1,
    max_genes: int | None = None,
    include: Sequence[str] = (),
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
) -> list[str]:
    """Choose the genes to predict: variable in at least one section, detected in enough spots of all.

    Taken are the most variable genes of every section, of those seen in enough spots of all. Variable are counts that differ
    more than their noise explains (Pearson residuals, Lause et al. 2021, doi:10.1186/s13059-021-02451-7), so that abundant
    markers stand beside rare ones. The published panels were given without their rule and are not reproduced. Pass
    training slides only: a panel chosen with the test section in it leaks.

    Parameters
    ----------
    slides
        One or many training slides with raw counts. Genes that are not in all of them are left out.
    n_top
        Most variable genes taken from each section.
    min_fraction
        Least fraction of all spots, over the slides, in which a gene has a count.
    max_genes
        Keep at most this many: those variable in most sections, then those detected in most spots.
    include
        Genes that must be in the panel, such as the markers that you want to see: taken whatever their rank and detection.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    library_key
        Column of ``obs`` that tells the sections of one AnnData apart.
    table_key
        Table of a SpatialData.
    shapes_key
        Region of a SpatialData's table; needed only where others of its regions are to be left out.
    spatial_key
        Key in ``obsm`` of an AnnData: (x, y) of the spots.

    Returns
    -------
    Gene names, in the order of the first slide's ``var_names``.

    Raises
    ------
    KeyError
        A gene of ``include`` is not in all slides.
    ValueError
        The slides share no genes, none passes, or the counts are not raw.

    Examples
    --------
    >>> panel = sthggep.pp.gene_panel(slides, include=["ERBB2", "ESR1"])
    >>> model = sthggep.tl.fit(slides, genes=panel)
    """
    given = list(slides) if isinstance(slides, Sequence) else [slides]
    options = {
        "table_key": table_key,
        "library_key": library_key,
        "shapes_key": shapes_key,
        "spatial_key": spatial_key,
    }
    sections = [s for d in given for s in resolve(d, need_image=False, **options)]  # type: ignore[arg-type]
    return choose_panel(
        sections, n_top=n_top, min_fraction=min_fraction, max_genes=max_genes, include=include, layer=layer
    )


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
