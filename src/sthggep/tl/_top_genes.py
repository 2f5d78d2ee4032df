"""Genes worth a look, chosen without a look at the slide they are to be judged on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from sthggep._checks import positive
from sthggep._log import log
from sthggep._slides._anndata import table_of
from sthggep._table._prediction import read_prediction

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def top_genes(
    data: AnnData | SpatialData,
    n: int = 50,
    *,
    key: str = "hggep",
    by: pd.Series | Mapping[str, float] | None = None,
    table_key: str = "table",
) -> list[str]:
    """The genes of a prediction that rank highest by what was known before this slide was measured.

    The counts of ``data`` are not looked at: genes that are chosen by their score on a slide score high on that slide
    by choice, not by merit.

    Parameters
    ----------
    data
        Slide with a prediction.
    n
        How many genes at most; fewer where fewer have a rank.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    by
        What to rank by, a number a gene, high is good: such as ``tl.evaluate(validation_slide)["pearson"]``, or the
        mean expression of the training slides. A gene that stands there several times (once a section) gets its
        mean, a missing value ranks nowhere. ``None`` takes what :func:`sthggep.tl.predict` noted of the model: each gene's
        correlation on the tissue held out while training, or where nothing was held out its noise ceiling on the
        training slides (genes that can be measured well).
    table_key
        Table of a SpatialData.

    Returns
    -------
    The genes, best first; ``genes=`` of :func:`sthggep.tl.evaluate`, :func:`sthggep.tl.summary` and
    :func:`sthggep.pl.gene_map` takes them.

    Raises
    ------
    KeyError
        There is no such prediction.
    ValueError
        ``by`` is needed, since the model noted nothing of its training slides, or it ranks none of the predicted genes.

    Examples
    --------
    >>> sthggep.tl.summary(slide, genes=sthggep.tl.top_genes(slide, 50))
    """
    table = table_of(data, table_key)
    prediction = read_prediction(table, key)
    n = int(positive(n, "`n`"))
    if by is None:
        by = _noted(table, key, prediction.genes)
    values = pd.Series(by, dtype=float).dropna()
    ranked = values.groupby(values.index.astype(str), sort=False).mean()
    ranked = ranked[ranked.index.isin(prediction.genes)].sort_values(ascending=False, kind="stable")
    if ranked.empty:
        msg = f"`by` ranks none of the {len(prediction.genes)} genes of the prediction {key!r}. Pass a number a gene, by its name."
        raise ValueError(msg)
    if len(ranked) < n:
        log.info("%d genes have a rank, of %d asked for: all of them are returned.", len(ranked), n)
    return [str(gene) for gene in ranked.index[:n]]


def _noted(table: AnnData, key: str, genes: list[str]) -> pd.Series:
    """What the model knew of its genes before this slide."""
    for name in ("held_out_pearson", "training_ceiling"):
        noted = table.uns[key].get(name)
        if noted is not None and len(noted) == len(genes):
            return pd.Series(noted, index=genes, dtype=float)
    msg = (
        f"The prediction {key!r} holds nothing about its training slides to rank genes by (its model was not trained by "
        "this version of sthggep). Pass `by=`, such as `tl.evaluate(validation_slide)['pearson']`."
    )
    raise ValueError(msg)
