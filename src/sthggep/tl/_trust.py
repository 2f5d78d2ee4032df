"""`tl.trust`: which genes of a prediction can be trusted, and at which scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import may_write_table
from sthggep._docs import document_places
from sthggep._keys import prediction_keys
from sthggep._log import NOTEBOOK, ONCE, log
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep._slides._results import write_results
from sthggep._table._evidence import UNLIKE, Evidence
from sthggep._table._prediction import read_prediction
from sthggep._table._verdicts import (
    Thresholds,
    describe_verdicts,
    judge,
    mean_novelty,
    name_unmeasured,
    read_evidence,
    read_program_evidence,
    read_set_evidence,
)
from sthggep.tl._scored_sections import slides_with_prediction

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
@document_places
def trust(
    data: AnnData | SpatialData,
    key: str = "hggep",
    *,
    gene_sets: bool | Sequence[str] = False,
    programs: bool = False,
    confidence: float = Thresholds.confidence,
    fdr: float = Thresholds.fdr,
    share: float = Thresholds.share,
    region_share: float = Thresholds.region_share,
    ceiling: float = Thresholds.ceiling,
    detected: float = Thresholds.detected,
    unlike: float = UNLIKE,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
) -> pd.DataFrame:
    """Say of each gene whether its predicted map can be trusted, and at which scale.

    The counts of the slide are not read. What is known of a gene is how well the model predicted it on tissue that was
    held out of the training, and how much the image of this slide resembles that tissue.

    Parameters
    ----------
    data
        Slide with a prediction.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    gene_sets
        Judge the gene sets of ``tl.fit(gene_sets=)``, too: all (``True``), or those of these names. The score of a set is the
        mean predicted expression of its genes among the panel, ``model.training.gene_sets[name]``. Default: genes only.
    programs
        Judge the gene programs of a model without networks, too, whose scores ``tl.predict(latent=True)`` writes.
    confidence
        Probability that a further section like those of the training shows the correlation, too; for *spot* and *region*.
    fdr
        Rate of false discoveries among the genes that count as correlated on held-out tissue.
    share
        Least share of the noise ceiling that the correlation of a *spot* gene reaches.
    region_share
        Least share of their noise ceiling that the means over squares of some size reach; for ``reliable_at_um``.
    ceiling
        A gene with a lower noise ceiling *cannot be judged*.
    detected
        A gene that fewer of the spots counted *cannot be judged*.
    unlike
        Mean novelty of a section (``obs["<key>_novelty"]``) above which it counts as unlike the training tissue. Then only
        held-out patients count, three of them or more; with fewer, no gene can be judged.
    {places}

    Returns
    -------
    A DataFrame with a row for each predicted gene (and section, in column ``section``, if there are several); the function
    also writes it to ``uns[f"{key}_trust"]`` of the table. With ``gene_sets`` or ``programs`` their rows follow, and a column
    ``kind`` says ``"gene"``, ``"gene set"`` or ``"program"``. Each kind is a family of tests of its own.

    ``held_out_pearson``
        Mean correlation on the sections (or patients) that were held out in training.
    ``pearson_low``, ``pearson_high``
        Where the correlation on a further section lies with the probability ``confidence``.
    ``q_value``
        Of the test against unrelated maps of the same smoothness, adjusted for the number of genes.
    ``ceiling``, ``detected``
        Noise ceiling and share of spots with counts of the gene, on held-out tissue.
    ``reliable_at_um``
        Side of the smallest squares, from 55 to 2,000 µm, over whose means predictions and measurements agree; NaN for none.
    ``verdict``
        ``"spot"``: the map can be read spot by spot. ``"region"``: only means over regions of about ``reliable_at_um``.
        ``"not predicted"``: held-out tissue gives too little reason to believe the map. ``"cannot be judged"``: too few counts,
        or tissue unlike that of the training.
    ``reason``
        Of the verdict.
    ``n_sections``, ``n_spots``
        Training sections, and spots of them, that measured the gene. Only if these hold different genes
        (``tl.fit(genes="union")``).

    Raises
    ------
    KeyError
        There is no such prediction, or the model knows no such gene set.
    ValueError
        The model knows nothing of gene sets or programs, or it holds no predictions of held-out tissue: it was fitted with ``validation=None``, on very few spots, or by
        an earlier version.

    See Also
    --------
    sthggep.tl.regions : Means over regions, with intervals.
    sthggep.tl.top_genes : The genes that can be trusted, best first.

    Notes
    -----
    Test: the predicted map is turned, flipped and shifted some 60 times, and each time correlated with the measured one
    where they overlap. These maps are as smooth as the prediction, which permuted spots are not. The statistic of a
    section is Fisher's z of the correlation in units of the spread over such maps; that of a gene is the mean over
    sections. Rates of false discoveries are those of Benjamini and Hochberg (1995).

    Confidence: the statistic varies between held-out sections. Its lower bound on a further section must exceed 1.64,
    so that the section would show the correlation by itself.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> trust = sthggep.tl.trust(slide)
    >>> trust["verdict"].value_counts()
    >>> # Gene sets, which the training has to know
    >>> model = sthggep.tl.fit(slides, gene_sets={"collagens": ["COL1A1", "COL1A2", "COL3A1"]})
    >>> sthggep.tl.predict(slide, model)
    >>> sthggep.tl.trust(slide, gene_sets=True).query("kind == 'gene set'")
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    table = table_of(data, table_key)
    may_write_table(table, prediction_keys(key).trust, ("verdict", "reason"))
    sections = resolve(data, places, need_image=False)
    thresholds = Thresholds(confidence, fdr, share, region_share, ceiling, detected)
    prediction = read_prediction(table, key)
    known = {"gene": (prediction.genes, read_evidence(table, key, len(prediction.genes)))}
    if not isinstance(gene_sets, bool) or gene_sets:
        known["gene set"] = read_set_evidence(table, key, None if isinstance(gene_sets, bool) else gene_sets)
    if programs:
        known["program"] = read_program_evidence(table, key)
    if table.uns[prediction_keys(key).uns].get("n_training_sections") == 1:
        log.info(
            "The model was trained on one section, whose parts were held out of each other. They resemble each other more than "
            "another section does: verdicts may not hold there.",
            extra=ONCE,
        )
    numbers = _measured_on(table.uns[prediction_keys(key).uns])
    parts = {
        slide.name: _judge_kinds(
            known, thresholds, slide.name, numbers, unlike=mean_novelty(table, slide, key) > unlike
        )
        for slide in slides_with_prediction(sections, prediction)
    }
    if len(sections) == 1:
        trusted = next(iter(parts.values()))
    else:
        trusted = pd.concat([part.assign(section=name) for name, part in parts.items()])
    write_results(table, uns={prediction_keys(key).trust: trusted.copy()})
    return trusted


def _measured_on(record: Mapping[str, Any]) -> dict[str, Any]:
    """On how many training sections and spots each gene was measured; nothing if that is all of them."""
    return {name: record[name] for name in ("n_sections", "n_spots") if name in record}


def _judge_kinds(
    known: Mapping[str, tuple[list[str], Evidence]],
    thresholds: Thresholds,
    section: str,
    numbers: Mapping[str, Any],
    *,
    unlike: bool,
) -> pd.DataFrame:
    """Judge a section's genes, gene sets and programs, and log how many have which verdict."""
    parts = {kind: judge(evidence, names, thresholds, unlike=unlike) for kind, (names, evidence) in known.items()}
    parts["gene"] = name_unmeasured(parts["gene"].assign(**numbers), numbers)
    for kind, part in parts.items():
        log.info("Section %s: %s.", section, describe_verdicts(part, kind), extra=NOTEBOOK)
    if len(parts) == 1:
        return parts["gene"]
    joined = pd.concat([part.assign(kind=kind) for kind, part in parts.items()])
    joined["kind"] = pd.Categorical(joined["kind"], categories=list(parts))
    return joined.rename_axis("name")
