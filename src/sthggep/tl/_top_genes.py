"""Top genes of a prediction, ranked without the counts of its slide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import positive, warn_user
from sthggep._log import log
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep._table._prediction import read_prediction
from sthggep._table._verdicts import TRUSTED, verdicts_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def top_genes(
    data: AnnData | SpatialData,
    n: int = 50,
    *,
    key: str = "hggep",
    by: pd.Series | Mapping[str, float] | None = None,
    library_key: str | None = None,
    table_key: str = "table",
) -> list[str]:
    """Rank the genes of a prediction without the counts of the slide, and return the first ``n``.

    Genes chosen by their scores on a slide score high on that slide by selection. This function therefore ranks by
    what the model records of its training, or by values that you pass.

    Parameters
    ----------
    data
        Slide with a prediction.
    n
        Most genes to return; fewer are returned if fewer have a rank.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    by
        Values to rank by, one for each gene, higher is better: such as ``tl.evaluate(validation_slide)["pearson"]``,
        or the mean expression in the training slides. Several values of a gene (one for each section) are averaged;
        genes with missing values are left out. Default: ``uns[key]["held_out_pearson"]``, the correlation of each gene
        on the tissue held out during training, of the genes that :func:`sthggep.tl.trust` calls *spot* or *region* (of all
        with a warning, if there is none); if nothing was held out, ``uns[key]["training_ceiling"]``, the noise ceiling on
        the training slides.
    library_key
        Column of ``obs`` that names the section of each spot, where there are several.
    table_key
        Table of a SpatialData.

    Returns
    -------
    Gene names, best first, to pass as ``genes`` to :func:`sthggep.tl.evaluate`, :func:`sthggep.tl.summary` and
    :func:`sthggep.pl.gene_map`.

    Raises
    ------
    KeyError
        There is no such prediction.
    ValueError
        ``by`` ranks none of the predicted genes, or you did not pass it and the prediction has no record of the
        training.

    Examples
    --------
    >>> sthggep.tl.summary(slide, genes=sthggep.tl.top_genes(slide, 50))
    """
    table = table_of(data, table_key)
    prediction = read_prediction(table, key)
    n = int(positive(n, "`n`"))
    own = by is not None
    if by is None:
        by = _trusted(
            data,
            Places(table_key=table_key, library_key=library_key),
            key,
            _training_scores(table, key, prediction.genes),
        )
    values = pd.Series(by, dtype=float).dropna()
    ranked = values.groupby(values.index.astype(str), sort=False).mean()
    ranked = ranked[ranked.index.isin(prediction.genes)].sort_values(ascending=False, kind="stable")
    if ranked.empty:
        msg = f"`by` ranks none of the {len(prediction.genes)} genes of the prediction {key!r}. Pass a number for each gene, with gene names as index."
        raise ValueError(msg)
    if len(ranked) < n:
        why = "have a rank" if own else "can be trusted on this slide"
        log.info("Only %d genes %s; %d were requested.", len(ranked), why, n)
    return [str(gene) for gene in ranked.index[:n]]


def _trusted(data: AnnData | SpatialData, places: Places, key: str, scores: pd.Series) -> pd.Series:
    """Leave out genes that cannot be trusted on any section, as far as the model knows."""
    slides = resolve(data, places, need_image=False)
    parts = [verdicts_of(slide, key, list(scores.index)) for slide in slides]
    known = [part["verdict"].isin(TRUSTED).to_numpy() for part in parts if part is not None]
    if not known:
        return scores
    trusted = np.any(known, axis=0)
    if not trusted.any():
        msg = "No gene of this prediction can be trusted on this slide (`sthggep.tl.trust` says why); genes are ranked all the same."
        warn_user(msg)
        return scores
    best: pd.Series = scores[trusted]
    return best


def _training_scores(table: AnnData, key: str, genes: list[str]) -> pd.Series:
    """Score of each gene from the training of the model, as the record of the prediction holds it."""
    for name in ("held_out_pearson", "training_ceiling"):
        scores = table.uns[key].get(name)
        if scores is not None and len(scores) == len(genes):
            return pd.Series(scores, index=genes, dtype=float)
    msg = (
        f"The record of the prediction {key!r} holds no scores of the training to rank genes by (another version of sthggep "
        "trained the model). Pass `by=`, such as `tl.evaluate(validation_slide)['pearson']`."
    )
    raise ValueError(msg)
