"""One row a section: how good a prediction is, how sure that is, and how good it could be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import positive
from sthggep._docs import document_places
from sthggep._log import log
from sthggep._slides._places import Places
from sthggep._table._scores import column_pearson
from sthggep.tl._compared import Compared, compared
from sthggep.tl._doubts import warn_of_seen
from sthggep.tl._evaluate import ceiling_of
from sthggep.tl._maps import ssim

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide

GENES_AT_ONCE = 512
# Of fewer blocks, too few different samples can be drawn
LEAST_BLOCKS = 8


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
    """Sum up a prediction, one row a section: mean correlation with an interval, and the share of what could be had.

    Parameters
    ----------
    slides
        One measured slide with a prediction, or several.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    genes
        These only; ``None`` takes all that were predicted. Choose them without a look at these slides, as
        :func:`sthggep.tl.top_genes` does: the best genes of the slides themselves always look good.
    n_boot
        Samples drawn for the interval; 0 draws none.
    level
        Share of the samples that the interval covers.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    {places}
    seed
        Of the samples, and of the count splitting behind the ceiling.

    Returns
    -------
    A DataFrame with the sections as its index. Means are over the genes that have a correlation there.

    ``n_spots``, ``n_genes``, ``n_constant``
        How many; constant genes (measured or predicted) are among ``n_genes``, and have no correlation.
    ``pearson``, ``pearson_low``, ``pearson_high``
        Mean Pearson correlation and its interval.
    ``pearson_median``
        Median over genes.
    ``ceiling``, ``of_ceiling``
        Mean noise ceiling, see :func:`sthggep.tl.evaluate`, and mean Pearson correlation divided by it.
    ``ssim``
        Mean structural similarity of the maps.
    ``trained_on``
        Whether the model has learned from this very tissue: its row then says nothing about new tissue.
    ``pooled_pearson``
        Of several sections: mean over genes of the correlation over the spots of all sections together, the same in
        every row. It inflates: a model that only tells sections apart scores high. It is here to be compared with
        figures that others computed so, never to be reported alone.

    Raises
    ------
    KeyError
        There is no such prediction, or a gene is absent.
    ValueError
        The counts are not raw, a number is out of range, or there are no slides.

    Notes
    -----
    Interval: spots are drawn anew with replacement, in blocks, and the mean over genes is computed in each sample; the
    interval lies between its quantiles. Spots, not genes, since genes rise and fall together in the same spots and
    would make a much too narrow one; blocks, since neighboring spots resemble each other. Blocks are squares of about
    ``sqrt(n_spots)`` spots. Fewer than eight blocks give no interval (NaN). It says how far this section could mislead
    about tissue like it, and nothing about other patients: compare the rows for that.
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    given = list(slides) if isinstance(slides, Sequence) else [slides]
    if not given or n_boot < 0 or not 0 < positive(level, "`level`") < 1:
        msg = f"Expected slides, `n_boot` of 0 or more and `level` between 0 and 1; found {len(given)}, {n_boot}, {level}."
        raise ValueError(msg)
    sections: list[Compared] = []
    for data in given:
        sections += compared(data, places, key, genes, layer=layer)[0]
    warn_of_seen([section.name for section in sections if section.learned_from])
    rng = np.random.default_rng(seed)
    rows = [_row(section, n_boot, level, rng) for section in sections]
    out = pd.DataFrame(rows, index=pd.Index([section.name for section in sections], name="section"))
    if len(sections) > 1:
        out["pooled_pearson"] = pooled_pearson(sections)
    return out


def _row(section: Compared, n_boot: int, level: float, rng: np.random.Generator) -> dict[str, float]:
    """The figures of one section."""
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
        "trained_on": section.learned_from,
    }


def interval(section: Compared, n_boot: int, level: float, rng: np.random.Generator) -> tuple[float, float]:
    """Quantiles of the mean correlation over samples of blocks of spots; NaN where there are too few to draw from."""
    block = block_numbers(section.slide)
    n_blocks = int(block.max()) + 1
    if n_boot and n_blocks < LEAST_BLOCKS:
        text = "Section %s: no interval, since its %d spots make %d blocks to draw from, of %d needed."
        log.info(text, section.name, len(section.predicted), n_blocks, LEAST_BLOCKS)
    if n_boot == 0 or n_blocks < LEAST_BLOCKS:
        return float("nan"), float("nan")
    times = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_boot)[:, block]
    total, known = np.zeros(n_boot), np.zeros(n_boot)
    for start in range(0, len(section.genes), GENES_AT_ONCE):
        part = slice(start, start + GENES_AT_ONCE)
        r = weighted_pearson(section.predicted[:, part], section.measured[:, part], times)
        total += np.nansum(r, axis=1)
        known += (~np.isnan(r)).sum(axis=1)
    if not known.all():
        return float("nan"), float("nan")
    low, high = np.quantile(total / known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def block_numbers(slide: Slide) -> NDArray[np.intp]:
    """Number of the block that each spot lies in: squares of about as many spots as there are blocks."""
    side = slide.pitch() * slide.n_spots**0.25
    cell = np.floor((slide.xy - slide.xy.min(axis=0)) / side + 1e-6).astype(np.int64)
    return np.unique(cell, axis=0, return_inverse=True)[1].ravel()


def weighted_pearson(
    a: NDArray[np.floating], b: NDArray[np.floating], times: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Pearson correlation of each pair of columns in each sample, shape (n_samples, n_columns).

    ``times`` (n_samples, n_spots) says how often each spot was drawn. Columns constant in a sample have none (NaN).
    """
    share = times / times.sum(axis=1, keepdims=True)
    # About the mean over all spots, lest the differences below lose digits
    a, b = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) for x in (a, b))
    mean_a, mean_b = share @ a, share @ b
    var_a, var_b = share @ a**2 - mean_a**2, share @ b**2 - mean_b**2
    together = share @ (a * b) - mean_a * mean_b
    varies = (var_a > 1e-9 * a.var(axis=0)) & (var_b > 1e-9 * b.var(axis=0))
    return np.where(varies, together / np.sqrt(np.where(varies, var_a * var_b, 1.0)), np.nan)


def pooled_pearson(sections: Sequence[Compared]) -> float:
    """Mean correlation over all spots together, over the genes that every section has."""
    common = [gene for gene in sections[0].genes if all(gene in section.genes for section in sections)]
    if not common:
        return float("nan")
    columns = [pd.Index(section.genes).get_indexer(pd.Index(common)) for section in sections]
    predicted = np.concatenate([s.predicted[:, c] for s, c in zip(sections, columns, strict=True)])
    measured = np.concatenate([s.measured[:, c] for s, c in zip(sections, columns, strict=True)])
    return float(pd.Series(column_pearson(predicted, measured)).mean())
