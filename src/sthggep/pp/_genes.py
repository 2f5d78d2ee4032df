"""The panel: which genes to learn, chosen on training slides only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep._table._panel import choose_panel

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document_places
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
    {places}

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
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    given = list(slides) if isinstance(slides, Sequence) else [slides]
    sections = [slide for data in given for slide in resolve(data, places, need_image=False)]
    return choose_panel(
        sections, n_top=n_top, min_fraction=min_fraction, max_genes=max_genes, include=include, layer=layer
    )
