"""Summary scores of a prediction, one row for each section, with intervals and noise ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import positive
from sthggep._docs import document_places
from sthggep._log import log
from sthggep._slides._places import Places
from sthggep._table._scores import column_pearson
from sthggep.tl._doubts import warn_of_training_tissue
from sthggep.tl._evaluate import ceiling_of
from sthggep.tl._maps import ssim
from sthggep.tl._scored_sections import ScoredSection, scored_sections

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide

GENES_AT_ONCE = 512
# Fewer blocks give too few different bootstrap samples
LEAST_BLOCKS = 8


@checked
@document_places
def summary(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    key: str = "hggep",
    *,
    genes: Sequence[str] | None = None,
    n_boot: int = 200,
    level: float = 0.95,
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    seed: int = 0,
) -> pd.DataFrame:
    """Summarize the scores of a prediction, one row for each section.

    Parameters
    ----------
    slides
        One measured slide with a prediction, or several.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    genes
        Genes to score. Choose them without the counts of these slides, as :func:`sthggep.tl.top_genes` does; genes
        chosen by their scores on the same slides are biased upwards. Default: all predicted genes.
    n_boot
        Bootstrap samples for the interval; 0 computes no interval.
    level
        Fraction of the samples that the interval covers.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    {places}
    seed
        Seed of the bootstrap and of the count splitting for the noise ceiling.

    Returns
    -------
    A DataFrame with the sections as its index. Means are over the genes that have a correlation in the section.

    ``n_spots``, ``n_genes``, ``n_constant``
        Numbers of spots, of genes, and of genes among them that are constant (measured or predicted).
    ``pearson``, ``pearson_low``, ``pearson_high``
        Mean Pearson correlation and its interval.
    ``pearson_median``
        Median over genes.
    ``ceiling``, ``of_ceiling``
        Mean noise ceiling, see :func:`sthggep.tl.evaluate`, and mean Pearson correlation divided by it.
    ``ssim``
        Mean structural similarity of the maps.
    ``trained_on``
        Whether the model was trained on this tissue; NaN if that is not known. The scores of such a row do not hold for
        new tissue.
    ``pooled_pearson``
        With several sections: mean over genes of the correlation over the spots of all sections together, the same in
        every row. It is inflated: a model that only distinguishes sections scores high. Use it to compare with
        published values that were computed so, and never report it alone.

    Raises
    ------
    KeyError
        There is no such prediction, or a gene is absent.
    ValueError
        The counts are not raw, a number is out of range, or there are no slides.

    Notes
    -----
    Interval: each bootstrap sample draws blocks of spots with replacement and computes the mean over
    genes; the interval lies between quantiles of these means. The samples are of spots, not of genes, since genes vary
    together in the same spots and would give an interval that is much too narrow. They are of blocks, since
    neighboring spots resemble each other. A block is a square of about ``sqrt(n_spots)`` spots. Fewer than eight
    blocks give no interval (NaN). The interval covers the sampling of spots in this section, not the variation between
    patients: compare the rows for that.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> sthggep.tl.summary(slide)[["pearson", "pearson_low", "pearson_high", "of_ceiling"]]
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    objects = list(slides) if isinstance(slides, Sequence) else [slides]
    if not objects or n_boot < 0 or not 0 < positive(level, "`level`") < 1:
        msg = f"Expected slides, `n_boot` of 0 or more and `level` between 0 and 1; found {len(objects)}, {n_boot}, {level}."
        raise ValueError(msg)
    sections: list[ScoredSection] = []
    for data in objects:
        sections += scored_sections(data, places, key, genes, layer=layer)[0]
    warn_of_training_tissue({section.name: section.trained_on for section in sections})
    rng = np.random.default_rng(seed)
    rows = [_row(section, n_boot, level, rng) for section in sections]
    out = pd.DataFrame(rows, index=pd.Index([section.name for section in sections], name="section"))
    if len(sections) > 1:
        out["pooled_pearson"] = pooled_pearson(sections)
    return out


def _row(section: ScoredSection, n_boot: int, level: float, rng: np.random.Generator) -> dict[str, float]:
    """Summary scores of one section."""
    pearson = pd.Series(column_pearson(section.predicted, section.measured))
    ceiling = pd.Series(ceiling_of(section, rng))
    both = pearson.notna() & ceiling.notna()
    scored = pearson.notna() if section.raw is None else both
    low, high = interval(section, n_boot, level, rng)
    return {
        "n_spots": len(section.predicted),
        "n_genes": len(section.genes),
        "n_constant": int(pearson.isna().sum()),
        "pearson": pearson.mean(),
        "pearson_low": low,
        "pearson_high": high,
        "pearson_median": pearson.median(),
        "ceiling": ceiling[both].mean(),
        "of_ceiling": pearson[both].mean() / (ceiling[both].mean() or np.nan),
        "ssim": pd.Series(ssim(section.slide, section.predicted, section.measured))[scored].mean(),
        "trained_on": np.nan if section.trained_on is None else section.trained_on,
    }


def interval(section: ScoredSection, n_boot: int, level: float, rng: np.random.Generator) -> tuple[float, float]:
    """Quantiles of the mean correlation over bootstrap samples of blocks of spots; NaN if there are too few blocks."""
    block = block_numbers(section.slide)
    n_blocks = int(block.max()) + 1
    if n_boot and n_blocks < LEAST_BLOCKS:
        text = "Section %s: no interval, since its %d spots make %d blocks and the bootstrap needs %d."
        log.info(text, section.name, len(section.predicted), n_blocks, LEAST_BLOCKS)
    if n_boot == 0 or n_blocks < LEAST_BLOCKS:
        return float("nan"), float("nan")
    times = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_boot)[:, block]
    total, n_defined = np.zeros(n_boot), np.zeros(n_boot)
    for start in range(0, len(section.genes), GENES_AT_ONCE):
        part = slice(start, start + GENES_AT_ONCE)
        r = weighted_pearson(section.predicted[:, part], section.measured[:, part], times)
        total += np.nansum(r, axis=1)
        n_defined += (~np.isnan(r)).sum(axis=1)
    if not n_defined.all():
        return float("nan"), float("nan")
    low, high = np.quantile(total / n_defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def block_numbers(slide: Slide) -> NDArray[np.intp]:
    """Number of the block of each spot; a block is a square of about as many spots as there are blocks."""
    side = slide.pitch() * slide.n_spots**0.25
    cell = np.floor((slide.xy - slide.xy.min(axis=0)) / side + 1e-6).astype(np.int64)
    return np.unique(cell, axis=0, return_inverse=True)[1].ravel()


def weighted_pearson(
    a: NDArray[np.floating], b: NDArray[np.floating], times: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Pearson correlation of each pair of columns in each sample, shape (n_samples, n_columns).

    ``times`` (n_samples, n_spots) is how often each sample holds each spot. Columns constant in a sample have no
    correlation (NaN).
    """
    share = times / times.sum(axis=1, keepdims=True)
    # Centered, so that the differences below do not lose digits
    a, b = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) for x in (a, b))
    mean_a, mean_b = share @ a, share @ b
    var_a, var_b = share @ a**2 - mean_a**2, share @ b**2 - mean_b**2
    covariance = share @ (a * b) - mean_a * mean_b
    varies = (var_a > 1e-9 * a.var(axis=0)) & (var_b > 1e-9 * b.var(axis=0))
    return np.where(varies, covariance / np.sqrt(np.where(varies, var_a * var_b, 1.0)), np.nan)


def pooled_pearson(sections: Sequence[ScoredSection]) -> float:
    """Correlation over the spots of all sections together, averaged over the genes that every section has."""
    common = [gene for gene in sections[0].genes if all(gene in section.genes for section in sections)]
    if not common:
        return float("nan")
    columns = [pd.Index(section.genes).get_indexer(pd.Index(common)) for section in sections]
    predicted = np.concatenate([s.predicted[:, c] for s, c in zip(sections, columns, strict=True)])
    measured = np.concatenate([s.measured[:, c] for s, c in zip(sections, columns, strict=True)])
    return float(pd.Series(column_pearson(predicted, measured)).mean())
