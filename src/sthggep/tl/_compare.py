"""`tl.compare`: predictions of several methods, scored on the same spots and genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import counted, listing, positive
from sthggep._docs import document_places
from sthggep._log import NOTEBOOK, log
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep.tl._comparison._genes import share_genes
from sthggep.tl._comparison._means import summarize, worst_leaks
from sthggep.tl._comparison._paired import paired_differences
from sthggep.tl._comparison._parts import Part, objects_with_counts, read_parts
from sthggep.tl._comparison._scored import MEAN, Compared, compare_section
from sthggep.tl._comparison._sources import load
from sthggep.tl._comparison._training_tissue import find_leaks, leak_of, read_training, warn_of_leaks

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep.tl._comparison._genes import SharedGenes

SCORES = ("section", "group", "method", "gene", "pearson", "spearman", "rmse", "ceiling", "verdict", "leak")


@dataclass(frozen=True)
class Comparison:
    """Predictions of several methods on the same spots and genes, by :func:`sthggep.tl.compare`."""

    scores: pd.DataFrame
    """The scores of each section, method and gene. The columns are ``section``, ``group`` (the patient), ``method``,
    ``gene``, ``pearson``, ``spearman``, ``rmse`` (NaN unless the values are on the scale of the counts), ``ceiling``,
    ``verdict`` (of :func:`sthggep.tl.trust`, ``None`` where a method has none) and ``leak`` (``"training tissue"``,
    ``"same patient"``, ``"not known"`` or empty). The method ``"mean"`` predicts the mean of each gene."""
    summary: pd.DataFrame
    """Means of each method; the first one is the reference. The columns are ``pearson`` and ``spearman`` (mean over genes,
    then over sections), ``ceiling``, ``of_ceiling``, ``n_sections``, ``n_genes``, ``n_constant`` (genes of a constant
    prediction, mean over sections), ``n_trusted`` (genes with the verdict *spot* or *region*, likewise), ``leak`` (the
    worst), ``difference`` to the reference, its interval ``low`` to ``high``, the ``unit`` of the interval, and ``better``
    (share of the genes in which the method is better, or of the sections where these or patients are the unit)."""
    differences: pd.DataFrame
    """Every interval of a difference to the reference, by method, section (or ``"all sections"``) and unit, with the number
    ``n`` of genes, sections or patients."""
    left_out: pd.DataFrame
    """Genes that some method predicts and that are not scored, with ``section`` and ``reason``."""
    parameters: dict[str, object] = field(default_factory=dict)
    """Options of the call, the name of the ``reference``, and ``n_panel``, the number of genes whose counts define the
    scale."""

    def __repr__(self) -> str:
        """Show the means, a line a method."""
        shown = self.summary[["pearson", "of_ceiling", "difference", "low", "high", "unit"]]
        sections = counted(self.scores["section"].nunique(), "section")
        return f"Comparison over {sections} and {counted(self.scores['gene'].nunique(), 'gene')}\n{shown.round(3).to_string()}"


@checked
@document_places
def compare(
    predictions: Mapping[str, object],
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    *,
    genes: Sequence[str] | None = None,
    panel: Sequence[str] | None = None,
    training: Mapping[str, AnnData | SpatialData | Sequence[AnnData | SpatialData]] | None = None,
    n_boot: int = 200,
    level: float = 0.95,
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    seed: int = 0,
) -> Comparison:
    """Compare predictions of several methods, of sthggep or not, on the same spots and the same genes.

    All methods are scored against the counts of the slide within each section, on the genes that all of them predict.
    The first method is the reference; the others are compared with it gene by gene.

    Parameters
    ----------
    predictions
        Name of each method and its prediction:

        - the key of a prediction in ``data``;
        - an AnnData or SpatialData that carries one prediction by sthggep;
        - an AnnData of predicted expression (``X`` holds the predictions, ``obs_names`` the spots, ``var_names`` the genes),
          such as :func:`sthggep.tl.to_adata` and other tools write it;
        - the path of an h5ad or zarr with one of these;
        - a DataFrame, spots × genes;
        - a tuple ``(values, genes)`` with the rows in the order of ``data``.

        One value serves all slides whose spots it names; a list has one value for each slide of ``data``. Any scale will do,
        since correlations do not depend on it; do not smooth or rank across sections.
    data
        The measured slide, or a list of them. Default: the first prediction that carries counts.
    genes
        Genes to score. Choose them without the counts of these slides. Default: all that every method predicts.
    panel
        Genes whose counts define the scale ``log10(1 + counts per 10,000 of the panel)``. Default: the panel of the first
        prediction by sthggep, which gives its scores of :func:`sthggep.tl.evaluate`; without one, all genes of the slide.
    training
        Sections with counts on which methods were trained, by the name of the method: to find scores of training tissue,
        and of patients that were trained on. Predictions by sthggep know their training sections themselves, not the
        patients.
    n_boot
        Bootstrap samples of blocks of spots; 0 computes no such intervals.
    level
        Probability of the intervals.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers.
    {places}
    seed
        Seed of the bootstrap and of the count splitting for the noise ceiling.

    Returns
    -------
    A :class:`Comparison`: ``scores`` of each section, method and gene, ``summary`` of each method, ``differences`` with
    all intervals, and the genes that were ``left_out``.

    Raises
    ------
    KeyError
        There is no such prediction, or a gene of ``genes`` or ``panel`` is absent.
    FileNotFoundError
        The file of a prediction does not exist.
    TypeError
        A prediction is of no known kind.
    ValueError
        A spot of the slide is absent from a prediction or lies elsewhere in it, a gene or spot occurs twice, values are not
        finite, no gene is shared, or the counts are not raw.

    See Also
    --------
    sthggep.pl.compare : Draw the comparison.
    sthggep.tl.folds : Folds by patient, to train another method on.

    Notes
    -----
    A constant prediction has no correlation: it counts as 0 where the measurement varies. A gene whose measurement is
    constant in a section is left out of the means there (NaN).

    Intervals of the difference, by what they sample. *genes*: Student's interval of the paired differences; it says how far
    other genes like these would differ in these spots, and is narrow because genes vary together. *spots*: bootstrap of
    blocks of spots, the same samples for all methods (see :func:`sthggep.tl.summary`); it says how far other spots of this
    tissue would. *sections*, *patients*: Student's interval, from three of them on; only patients speak of new patients
    (the errors of sections of one patient are added up). ``summary`` shows the widest claim that can be made: patients, else
    sections, spots, genes.

    The baseline ``"mean"`` needs no training and reads no image: 0 is what a method must exceed. Baselines that are trained,
    such as ridge on the same features, are in :func:`sthggep.tl.cross_validate`.

    Examples
    --------
    >>> result = sthggep.tl.compare({"ours": "hggep", "theirs": "theirs.h5ad"}, slide)
    >>> result.summary[["pearson", "of_ceiling", "difference", "low", "high", "unit"]]
    >>> sthggep.pl.compare(result)
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    _check_request(predictions, level, n_boot)
    given = [] if data is None else list(data) if isinstance(data, list | tuple) else [data]
    tables = [table_of(each, table_key) for each in given]
    loaded = {name: load(value, tables) for name, value in predictions.items()}
    parts = read_parts(loaded, given or objects_with_counts(loaded, table_key), places)
    trained = read_training(training or {}, list(predictions), places)
    shared = [share_genes(part.sources, part.table, genes=genes, panel=panel, layer=layer) for part in parts]
    compared, absent = _compare_parts(parts, shared, layer=layer, n_boot=n_boot, seed=seed)
    slides = [slide for part in parts for slide in part.slides]
    leaks = {method: find_leaks(slides, sections, layer) for method, sections in trained.items()}
    scores = _scores(compared, leaks)
    warn_of_leaks(scores, {name: part.copies for name, part in compared.items()})
    differences = paired_differences(compared, scores, level)
    parameters: dict[str, object] = {
        "reference": next(iter(predictions)),
        "level": level,
        "n_boot": n_boot,
        "seed": seed,
    }
    parameters["n_panel"] = [len(common.panel) for common in shared]
    result = Comparison(scores, summarize(scores, differences), differences, absent, parameters)
    _report(result)
    return result


def _compare_parts(
    parts: Sequence[Part], shared: Sequence[SharedGenes], *, layer: str | None, n_boot: int, seed: int
) -> tuple[dict[str, Compared], pd.DataFrame]:
    """Score every section; return also the genes that were left out."""
    compared: dict[str, Compared] = {}
    left_out = []
    for part, common in zip(parts, shared, strict=True):
        for slide in part.slides:
            compared[slide.name] = compare_section(
                slide, part.sources, common, layer=layer, n_boot=n_boot, seed=seed + len(compared)
            )
            left_out.append(common.left_out.assign(section=slide.name))
    return compared, pd.concat(left_out, ignore_index=True)[["section", "gene", "reason"]]


def _scores(compared: Mapping[str, Compared], leaks: dict[str, dict[str, str]]) -> pd.DataFrame:
    """The scores of all sections, with what is known of leaks."""
    scores = pd.concat([part.scores for part in compared.values()], ignore_index=True)
    stated = [
        leak_of(compared[section].trained_on.get(method))
        for section, method in zip(scores["section"], scores["method"], strict=True)
    ]
    scores["leak"] = worst_leaks(scores, leaks, pd.Series(stated))
    return scores[list(SCORES)]


def _report(result: Comparison) -> None:
    """Log the means, and the number of genes that were left out."""
    means = ", ".join(f"{method} {value:.3f}" for method, value in result.summary["pearson"].items())
    text = "Mean Pearson correlation: %s (%s; the noise of the counts allows %.3f)."
    n_genes = counted(result.scores["gene"].nunique(), "gene")
    log.info(text, means, n_genes, result.summary["ceiling"].iloc[0], extra=NOTEBOOK)
    reasons = result.left_out.drop_duplicates(["gene", "reason"])["reason"].value_counts()
    if len(reasons):
        log.info(
            "Left out: %s.",
            "; ".join(f"{counted(n, 'gene')} {reason}" for reason, n in reasons.items()),
            extra=NOTEBOOK,
        )


def _check_request(predictions: Mapping[str, object], level: float, n_boot: int) -> None:
    if not predictions or not all(isinstance(name, str) for name in predictions) or MEAN in predictions:
        msg = (
            f"`predictions` must map names to predictions, and {MEAN!r} is the name of the baseline; found the names "
            f"{listing(predictions)}. Pass for example `{{'ours': 'hggep', 'theirs': 'theirs.h5ad'}}`."
        )
        raise ValueError(msg)
    if n_boot < 0 or not 0 < positive(level, "`level`") < 1:
        msg = f"Expected `n_boot` of 0 or more and `level` between 0 and 1; found {n_boot}, {level}."
        raise ValueError(msg)
