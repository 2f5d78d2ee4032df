"""Scores of a prediction for each gene, with its noise ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import may_write_table, warn_user
from sthggep._docs import document_places
from sthggep._keys import prediction_keys
from sthggep._log import NOTEBOOK, log
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep._table._scores import coverage_and_width, noise_ceiling, score
from sthggep.tl._doubts import warn_of_training_tissue
from sthggep.tl._maps import morans_i, ssim
from sthggep.tl._scored_sections import ScoredSection, scored_sections

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# Ceiling of a gene with a tenth of its measured variance as signal; below it, fractions of the ceiling mean nothing
LEAST_CEILING = 0.1**0.5


@checked
@document_places
def evaluate(
    data: AnnData | SpatialData,
    key: str = "hggep",
    *,
    genes: Sequence[str] | None = None,
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    include_measured: bool = False,
    moran: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a prediction against the measured expression, gene by gene and within each section.

    The function puts the counts on the scale of the prediction, ``log10(1 + counts per 10,000 of the panel)``, without
    smoothing. It compares targets (``tl.fit(targets=...)``) with the values in the same ``obsm`` or ``obs``, as they
    are.

    Parameters
    ----------
    data
        Measured slide with a prediction.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    genes
        Genes to score. Default: all predicted genes.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    {places}
    include_measured
        Score the spots, too, whose counts the model was trained on (``measured`` of :func:`sthggep.tl.fit` or
        :func:`sthggep.tl.predict`). Default: they are left out.
    moran
        Add Moran's I of the measured and predicted maps, which shows whether predictions are too smooth.
    seed
        Seed of the count splitting for the noise ceiling.

    Returns
    -------
    A DataFrame with a row for each gene (and section, in column ``section``, if there are several);
    the function also writes it to ``uns[f"{key}_scores"]`` of the table. A gene that is constant within a section has
    no correlation (NaN), and a warning counts such genes.

    ``pearson``, ``spearman``, ``rmse``
        Over the spots of the section.
    ``ceiling``
        Noise ceiling: the Pearson correlation of a perfect prediction with counts this noisy. NaN for targets, since
        only counts can be split.
    ``of_ceiling``
        ``pearson / ceiling``, the fraction of the ceiling. Both come from the same noisy counts, so single genes can exceed
        1: read means over genes, or the ceiling itself. NaN if less than a tenth of the measured variance is signal
        (a ceiling below 0.32).
    ``ssim``
        Structural similarity of the two maps; 1 for equal maps.
    ``mean_observed``
        Mean of the measured values.
    ``coverage``, ``interval_width``
        If the prediction has intervals of measurements (``tl.predict(interval=)``): the share of the section's measurements
        inside, to compare with the level in ``uns[key]["interval"]``, and the mean width of the intervals.
    ``moran_observed``, ``moran_predicted``, ``moran_expected``
        With ``moran``: Moran's I of both maps over neighboring spots (0 for noise, towards 1 for a smooth map), and of
        the measured map without the noise of the counts. A prediction is too smooth if ``moran_predicted`` exceeds
        ``moran_expected``; any prediction without noise may exceed ``moran_observed``.

    Raises
    ------
    KeyError
        There is no such prediction, or a gene is absent from the counts.
    ValueError
        The counts are not raw.

    See Also
    --------
    sthggep.tl.summary : One row for each section.
    sthggep.pl.scores : Draw the scores.

    Notes
    -----
    Ceiling: each count is split binomially into two halves, both halves are put on the same scale, and the
    halves are correlated over spots (r, the mean over a few splits). The reliability at full depth is 2r / (1 + r)
    (Spearman-Brown), and the ceiling is its square root. Counts of different spots are assumed to be independent, so
    the ceiling does not include batch effects within a section.

    SSIM (Wang et al. 2004) compares level, contrast and structure in a window around each spot, averaged over spots.
    The window is a Gaussian with a standard deviation of 1.5 spot pitches, its constants are 0.01 and 0.03 of the
    measured range, and neither map is rescaled. Away from the border of a full square array it equals scikit-image's
    ``structural_similarity(gaussian_weights=True, use_sample_covariance=False)``. Positions without a spot have no
    weight, so holes and borders of the tissue need no padding and a hexagonal array needs no raster. Noise of the
    counts lowers SSIM: use it to compare models on one section, not to compare sections.

    Moran's I: neighbors are the spots within 1.6 pitches (8 on a square array, 6 on a hexagonal one), with equal
    weights. Noise adds to a gene's variance but not to the covariance between spots, hence ``moran_expected`` is
    ``moran_observed / ceiling**2``, NaN like ``of_ceiling``.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> scores = sthggep.tl.evaluate(slide)
    >>> scores[["pearson", "ceiling", "of_ceiling"]].describe()
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    table = table_of(data, table_key)
    sections, n_sections = scored_sections(data, places, key, genes, layer=layer, include_measured=include_measured)
    may_write_table(table, prediction_keys(key).scores, ("pearson", "ceiling"))
    warn_of_training_tissue({section.name: section.trained_on for section in sections})
    rng = np.random.default_rng(seed)
    parts = [_scores(section, rng, moran) for section in sections]
    if n_sections > 1:
        parts = [part.assign(section=section.name) for part, section in zip(parts, sections, strict=True)]
    scores = pd.concat(parts)
    _report_scores(scores, len(sections))
    table.uns[prediction_keys(key).scores] = scores.copy()
    return scores


def _scores(section: ScoredSection, rng: np.random.Generator, moran: bool) -> pd.DataFrame:
    """All scores of one section."""
    scores = score(section.predicted, section.measured)
    ceiling = ceiling_of(section, rng)
    scores.insert(3, "ceiling", ceiling)
    usable = np.where(ceiling >= LEAST_CEILING, ceiling, np.nan)
    scores.insert(4, "of_ceiling", scores["pearson"] / usable)
    scores.insert(5, "ssim", ssim(section.slide, section.predicted, section.measured))
    if section.ends is not None:
        scores["coverage"], scores["interval_width"] = coverage_and_width(*section.ends, section.measured)
    if moran:
        scores["moran_observed"] = morans_i(section.slide, section.measured)
        scores["moran_predicted"] = morans_i(section.slide, section.predicted)
        scores["moran_expected"] = (scores["moran_observed"] / usable**2).clip(-1, 1)
    scores.index = pd.Index(section.genes, name="gene")
    return scores


def ceiling_of(section: ScoredSection, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise ceiling of each gene; NaN for targets, which cannot be split as counts can."""
    if section.raw is None:
        return np.full(len(section.genes), np.nan)
    return noise_ceiling(section.raw, rng)[section.columns]


def _report_scores(scores: pd.DataFrame, n_sections: int) -> None:
    """Warn of genes without a correlation, and log the means."""
    undefined = int(scores["pearson"].isna().sum())
    if undefined:
        where = f" over {n_sections} sections" if n_sections > 1 else ""
        msg = f"Constant (measured or predicted): {undefined} of {len(scores)} genes{where}. Their correlation is NaN."
        warn_user(msg)
    mean, ceiling = scores["pearson"].mean(), scores["ceiling"].mean()
    where = f" in {n_sections} sections" if n_sections > 1 else ""
    if np.isnan(ceiling):
        log.info("Mean Pearson correlation %.3f (of %d%s).", mean, scores.index.nunique(), where, extra=NOTEBOOK)
        return
    text = "Mean Pearson correlation %.3f (%d genes%s); the noise of the counts allows %.3f."
    log.info(text, mean, scores.index.nunique(), where, ceiling, extra=NOTEBOOK)
