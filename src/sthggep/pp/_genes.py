"""Choice of the gene panel on training slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._slides._measured import measured_alone, read_masks
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep._table._panel import choose_panel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
@document_places
def gene_panel(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    n_top: int = 1000,
    min_fraction: float = 0.1,
    max_genes: int | None = None,
    include: Sequence[str] = (),
    measured: str | Sequence[bool] | Sequence[Sequence[bool]] | pd.Series | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
) -> list[str]:
    """Choose the genes to predict: variable in at least one section, and detected in enough spots of all sections.

    The panel holds the most variable genes of each section that enough spots of all sections detect. A gene is variable
    where its counts differ more than noise explains (Pearson residuals, Lause et al. 2021,
    doi:10.1186/s13059-021-02451-7), so that the panel holds abundant and rare markers. The authors of HGGEP published their
    panels without a rule, so that the function cannot reproduce them. Pass only training slides: a panel that sees the
    test section leaks.

    Parameters
    ----------
    slides
        One or many training slides with raw counts. The panel holds only genes of all slides.
    n_top
        Number of most variable genes of each section.
    min_fraction
        Least fraction of all spots, over the slides, in which a gene has a count.
    max_genes
        Largest number of genes: first those that vary in most sections, then those that most spots detect. Default: no
        limit.
    include
        Genes that must be in the panel, such as markers that you want to see, whatever their rank and detection.
    measured
        Spots whose counts may be read, of a partly measured slide: a column of ``obs``, or a mask; for several slides, a list
        of masks. Default: all spots. Pass here what you pass to :func:`sthggep.tl.fit`, or the panel sees the spots that you
        score.
    layer
        Layer of the raw counts; the function reads no other. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers.
    {places}

    Returns
    -------
    Gene names, in the order of the first slide's ``var_names``.

    Raises
    ------
    KeyError
        A gene of ``include`` is not in all slides.
    ValueError
        The slides share no genes, no gene passes, the counts are not raw, or ``measured`` is no mask.

    Examples
    --------
    >>> panel = sthggep.pp.gene_panel(slides, include=["ERBB2", "ESR1"])
    >>> model = sthggep.tl.fit(slides, genes=panel)

    Of a slide of which some spots are to be predicted:

    >>> panel = sthggep.pp.gene_panel(slide, measured="in_capture_area")
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    objects = list(slides) if isinstance(slides, Sequence) else [slides]
    by_object = [resolve(data, places, need_image=False) for data in objects]
    sections = [slide for each in by_object for slide in each]
    if measured is not None:
        several = isinstance(slides, Sequence)
        sections = measured_alone(sections, read_masks(objects, by_object, measured, table_key, several=several))
    return choose_panel(
        sections, n_top=n_top, min_fraction=min_fraction, max_genes=max_genes, include=include, layer=layer
    )
