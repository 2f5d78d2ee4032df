"""How good a prediction is, gene by gene, and how good it could be."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._docs import document_places
from sthggep._keys import prediction_keys
from sthggep._log import log
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep._table._scores import noise_ceiling, score
from sthggep.tl._compared import Compared, compared
from sthggep.tl._doubts import warn_of_seen
from sthggep.tl._maps import morans_i, ssim

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# Ceiling of a gene of which a tenth of the measured variance is signal; below it, shares of the signal mean nothing
LEAST_CEILING = 0.1**0.5


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
    moran: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare a prediction with what was measured, per gene and within each section.

    The measurement is put on the prediction's scale, ``log10(1 + counts per 10,000 of the panel)``, without smoothing. Targets
    that are no genes (``tl.fit(targets=...)``) are compared with what stands in the same ``obsm`` or ``obs``, as it is.

    Parameters
    ----------
    data
        Measured slide with a prediction.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    genes
        Score these only; ``None`` scores all that were predicted.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    {places}
    moran
        Add how smooth the maps are, which answers whether predictions are too smooth.
    seed
        Of the count splitting behind the ceiling.

    Returns
    -------
    One row a gene (and section, in column ``section``, where there are several). :func:`sthggep.tl.summary` has one row a
    section. It is also written to ``uns[f"{key}_scores"]`` of the table. A gene that is constant within a section has no
    correlation: NaN, and a warning says how many.

    ``pearson``, ``spearman``, ``rmse``
        Over the spots of the section.
    ``ceiling``
        The Pearson correlation that a perfect prediction would reach against counts this noisy. NaN for targets that are
        no genes: they cannot be split as counts can, so how noisy they are is not known.
    ``of_ceiling``
        ``pearson / ceiling``: how much was predicted of what could be. NaN where less than a tenth of the measured
        variance is signal (a ceiling below 0.32).
    ``ssim``
        Structural similarity of the two maps: 1 for equal ones.
    ``mean_observed``
        Mean of the measurement.
    ``moran_observed``, ``moran_predicted``, ``moran_expected``
        With ``moran``: Moran's I of both maps over neighboring spots (0 for noise, towards 1 for a smooth map), and what
        the measured map would have without the noise of counting. A prediction is too smooth where ``moran_predicted``
        is above ``moran_expected``; to be above ``moran_observed`` it need only be free of noise.

    Raises
    ------
    KeyError
        There is no such prediction, or a gene is absent from the counts.
    ValueError
        The counts are not raw.

    Notes
    -----
    Ceiling: each count is split binomially in two halves, each half is put on the same scale, and the halves are
    correlated across spots (r, the mean over a few splits). Their full-depth reliability is 2r / (1 + r)
    (Spearman-Brown), the ceiling its square root. It takes the spots' counts as independent draws, so batch effects
    within a section are not in it.

    SSIM (Wang et al. 2004) compares level, contrast and structure in a window around each spot, and is averaged over
    spots. The window is a Gaussian with a standard deviation of 1.5 spot pitches, its constants are 0.01 and 0.03 of
    the measured range, and neither map is rescaled. On a full square array that is, away from its border, scikit-image's
    ``structural_similarity(gaussian_weights=True, use_sample_covariance=False)``. Places without a spot have no weight
    in a window, so that holes and borders of the tissue are not made up; a hexagonal array needs no raster. Noise of
    counting lowers it: compare models on one section by it, not sections.

    Moran's I: neighbors are the spots within 1.6 pitches (8 on a square array, 6 on a hexagonal one), weighted alike.
    Noise adds to a gene's variance and not to the covariance between spots, hence ``moran_expected`` is
    ``moran_observed / ceiling**2``, NaN where ``of_ceiling`` is, too.
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    table = table_of(data, table_key)
    sections, n_sections = compared(data, places, key, genes, layer=layer)
    _may_write_scores(table, key)
    warn_of_seen([section.name for section in sections if section.learned_from])
    rng = np.random.default_rng(seed)
    parts = [_scores(section, rng, moran) for section in sections]
    if n_sections > 1:
        parts = [part.assign(section=section.name) for part, section in zip(parts, sections, strict=True)]
    scores = pd.concat(parts)
    _say_scores(scores, len(sections))
    table.uns[prediction_keys(key).scores] = scores.copy()
    return scores


def _scores(section: Compared, rng: np.random.Generator, moran: bool) -> pd.DataFrame:
    """All scores of one section."""
    scores = score(section.predicted, section.measured)
    ceiling = ceiling_of(section, rng)
    scores.insert(3, "ceiling", ceiling)
    usable = np.where(ceiling >= LEAST_CEILING, ceiling, np.nan)
    scores.insert(4, "of_ceiling", scores["pearson"] / usable)
    scores.insert(5, "ssim", ssim(section.slide, section.predicted, section.measured))
    if moran:
        scores["moran_observed"] = morans_i(section.slide, section.measured)
        scores["moran_predicted"] = morans_i(section.slide, section.predicted)
        scores["moran_expected"] = (scores["moran_observed"] / usable**2).clip(-1, 1)
    scores.index = pd.Index(section.genes, name="gene")
    return scores


def ceiling_of(section: Compared, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise ceiling of each gene; NaN for targets that are no counts, whose noise is not known."""
    if section.raw is None:
        return np.full(len(section.genes), np.nan)
    return noise_ceiling(section.raw, rng)[section.at]


def _may_write_scores(table: AnnData, key: str) -> None:
    """Refuse to overwrite something that is no table of scores."""
    name = prediction_keys(key).scores
    found = table.uns.get(name)
    if found is not None and not (isinstance(found, pd.DataFrame) and {"pearson", "ceiling"} <= set(found.columns)):
        msg = f"uns[{name!r}] exists already and sthggep did not write it; it is left alone. Rename or delete it first."
        raise ValueError(msg)


def _say_scores(scores: pd.DataFrame, n_sections: int) -> None:
    undefined = int(scores["pearson"].isna().sum())
    if undefined:
        where = f" over {n_sections} sections" if n_sections > 1 else ""
        msg = f"Constant (measured or predicted): {undefined} of {len(scores)} genes{where}. Their correlation is NaN."
        warnings.warn(msg, UserWarning, stacklevel=3)
    mean, ceiling = scores["pearson"].mean(), scores["ceiling"].mean()
    where = f" in {n_sections} sections" if n_sections > 1 else ""
    if np.isnan(ceiling):
        log.info("Mean Pearson correlation %.3f (of %d%s).", mean, scores.index.nunique(), where)
        return
    text = "Mean Pearson correlation %.3f (%d genes%s); the noise of the counts allows %.3f."
    log.info(text, mean, scores.index.nunique(), where, ceiling)
