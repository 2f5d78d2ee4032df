"""The panel: which genes to learn, chosen on training slides only."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sthggep._checks import listing
from sthggep._expression import counts
from sthggep._slide import resolve

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slide import Slide

log = logging.getLogger("sthggep")


def gene_panel(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    n_top: int = 1000,
    min_fraction: float = 0.1,
    max_genes: int | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
) -> list[str]:
    """Choose the genes to predict: variable in at least one section, detected in enough spots of all.

    Taken are the most variable genes of every section, of those seen in enough spots of all. The published panels were
    given without their rule and are not reproduced: on five her2st sections the result holds 37 % of the published 785
    genes, twice what chance gives. Pass training slides only: a panel chosen with the test section in it leaks.

    Parameters
    ----------
    slides
        One or many training slides with raw counts. Genes that are not in all of them are left out.
    n_top
        Most variable genes taken from each section (scanpy's dispersion ranking on log-normalised counts).
    min_fraction
        Least fraction of all spots, over the slides, in which a gene has a count.
    max_genes
        Keep at most this many: those variable in most sections, then those detected in most spots.
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
    ValueError
        The slides share no genes, none passes, or the counts are not raw.
    """
    given = list(slides) if isinstance(slides, Sequence) else [slides]
    options = {
        "table_key": table_key,
        "library_key": library_key,
        "shapes_key": shapes_key,
        "spatial_key": spatial_key,
    }
    sections = [s for d in given for s in resolve(d, need_image=False, **options)]  # type: ignore[arg-type]
    return choose_panel(sections, n_top=n_top, min_fraction=min_fraction, max_genes=max_genes, layer=layer)


def choose_panel(
    sections: Sequence[Slide],
    *,
    n_top: int = 1000,
    min_fraction: float = 0.1,
    max_genes: int | None = None,
    layer: str | None = None,
) -> list[str]:
    """As :func:`gene_panel`, of sections that were resolved already."""
    shared = set.intersection(*[set(map(str, s.adata.var_names)) for s in sections]) if sections else set()
    genes = [str(gene) for gene in sections[0].adata.var_names if str(gene) in shared] if sections else []
    if not genes:
        msg = "The slides share no genes: are all named alike (symbols or Ensembl ids)? At least one slide is needed."
        raise ValueError(msg)

    detected, n_spots, votes = np.zeros(len(genes)), 0, Counter[str]()
    for section in sections:
        found = counts(section.adata, genes, layer=layer, rows=section.rows)
        detected += (found > 0).sum(axis=0)
        n_spots += len(found)
        votes.update(_most_variable(section, genes, found, n_top))
    seen = dict(zip(genes, detected / n_spots, strict=True))
    panel = [gene for gene in genes if gene in votes and seen[gene] >= min_fraction]
    if not panel:
        best = sorted(genes, key=lambda gene: -seen[gene])
        msg = (
            f"No gene is among the {n_top} most variable of a section and detected in {min_fraction:.0%} of {n_spots} "
            "spots. "
            f"Lower `min_fraction`; the most detected genes are {listing(best, 3)}."
        )
        raise ValueError(msg)
    if max_genes is not None and len(panel) > max_genes:
        kept = set(sorted(panel, key=lambda gene: (-votes[gene], -seen[gene], gene))[:max_genes])
        panel = [gene for gene in panel if gene in kept]
    log.info("Panel: %d of %d shared genes, from %d sections.", len(panel), len(genes), len(sections))
    return panel


def _most_variable(section: Slide, genes: list[str], found: Any, n_top: int) -> list[str]:
    """Most variable genes of one section, on a copy of its counts."""
    import scanpy as sc
    from anndata import AnnData

    keep = np.flatnonzero(found.any(axis=0))
    filled = found.any(axis=1)
    if len(keep) <= n_top or filled.sum() < 3:
        return [genes[i] for i in keep]
    table = AnnData(found[filled][:, keep])
    table.var_names = [genes[i] for i in keep]
    sc.pp.normalize_total(table, target_sum=1e4)
    sc.pp.log1p(table)
    sc.pp.highly_variable_genes(table, n_top_genes=n_top, flavor="seurat")
    return list(table.var_names[table.var["highly_variable"]])
