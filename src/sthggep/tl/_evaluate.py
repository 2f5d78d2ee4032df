"""How good a prediction is, gene by gene, and how good it could be."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import genes_present, listing
from sthggep._expression import counts, log10_cp10k
from sthggep._keys import prediction_keys
from sthggep._prediction import Prediction, read_prediction
from sthggep._slide import Slide, resolve, table_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

log = logging.getLogger("sthggep")
N_SPLITS = 5


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
    seed: int = 0,
) -> pd.DataFrame:
    """Compare a prediction with what was measured, per gene and within each section.

    The measurement is put on the prediction's scale, ``log10(1 + counts per 10,000 of the panel)``, without smoothing.

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
    library_key
        Column of ``obs`` that tells sections apart; each is scored by itself, since pooled correlations inflate.
    table_key
        Table of a SpatialData.
    shapes_key
        Region of a SpatialData's table.
    spatial_key
        Key in ``obsm`` of an AnnData: (x, y) of the spots.
    seed
        Of the count splitting behind the ceiling.

    Returns
    -------
    One row a gene (and section, in column ``section``, where there are several): ``pearson``, ``spearman``, ``rmse``,
    ``ceiling`` (the correlation that a perfect prediction would reach against counts this noisy), ``mean_observed``.
    A gene that is constant within a section has no correlation: NaN, and a warning says how many.
    It is also written to ``uns[f"{key}_scores"]`` of the table.

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
    """
    table = table_of(data, table_key)
    sections = resolve(
        data,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        library_key=library_key,
        need_image=False,
    )
    prediction = read_prediction(table, key)
    _may_write_scores(table, key)
    several = len(sections) > 1
    sections = _predicted(sections, prediction)
    columns = prediction.columns(genes)
    names = [prediction.genes[i] for i in columns]
    at = genes_present(names, prediction.panel, "the panel")
    rng = np.random.default_rng(seed)
    parts = []
    for section in sections:
        raw = counts(table, prediction.panel, layer=layer, rows=section.rows)
        scores = score(prediction.values[section.rows][:, columns], log10_cp10k(raw)[:, at])
        scores.insert(3, "ceiling", noise_ceiling(raw, rng)[at])
        scores.index = pd.Index(names, name="gene")
        if several:
            scores["section"] = section.name
        parts.append(scores)
    scores = pd.concat(parts)
    _say_constant(scores, len(sections))
    table.uns[prediction_keys(key).scores] = scores.copy()
    return scores


def score(predicted: NDArray[np.float32], measured: NDArray[np.float32]) -> pd.DataFrame:
    """Pearson, Spearman and RMSE of each column; a constant column has no correlation (NaN)."""
    from scipy.stats import rankdata

    return pd.DataFrame(
        {
            "pearson": column_pearson(predicted, measured),
            "spearman": column_pearson(rankdata(predicted, axis=0), rankdata(measured, axis=0)),
            "rmse": np.sqrt(np.mean((predicted.astype(np.float64) - measured) ** 2, axis=0)),
            "mean_observed": measured.mean(axis=0, dtype=np.float64),
        }
    )


def column_pearson(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pearson correlation of each pair of columns, shape (n_columns,); NaN for a constant one."""
    from scipy.stats import pearsonr

    if len(a) < 2:
        return np.full(a.shape[1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant columns are counted and said once, by the caller
        return np.asarray(pearsonr(a.astype(np.float64), b.astype(np.float64), axis=0).statistic)


def noise_ceiling(raw: NDArray[np.float32], rng: np.random.Generator, n_splits: int = N_SPLITS) -> NDArray[np.float64]:
    """Highest Pearson correlation that noise in the counts leaves room for, one a gene of the panel."""
    whole = raw.astype(np.int64)
    halves = []
    for _ in range(n_splits):
        half = rng.binomial(whole, 0.5).astype(np.float32)
        halves.append(column_pearson(log10_cp10k(half), log10_cp10k(raw - half)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a gene without counts has no ceiling: NaN
        r = np.clip(np.nanmean(halves, axis=0), 0, None)
    return np.asarray(np.sqrt(2 * r / (1 + r)), dtype=np.float64)


def _may_write_scores(table: AnnData, key: str) -> None:
    """Refuse to overwrite something that is no table of scores."""
    name = prediction_keys(key).scores
    found = table.uns.get(name)
    if found is not None and not (isinstance(found, pd.DataFrame) and {"pearson", "ceiling"} <= set(found.columns)):
        msg = f"uns[{name!r}] exists already and sthggep did not write it; it is left alone. Rename or delete it first."
        raise ValueError(msg)


def _predicted(sections: list[Slide], prediction: Prediction) -> list[Slide]:
    """Sections that the prediction covers; one that was not asked for holds NaN."""
    there = [section for section in sections if not np.isnan(prediction.values[section.rows]).all()]
    left_out = [section.name for section in sections if np.isnan(prediction.values[section.rows]).all()]
    if not there:
        msg = (
            f"The prediction {prediction.key!r} is NaN throughout {listing(left_out)}. Call `sthggep.tl.predict` first."
        )
        raise ValueError(msg)
    if left_out:
        msg = f"Not scored, since they hold no prediction {prediction.key!r}: {listing(left_out)}."
        warnings.warn(msg, UserWarning, stacklevel=3)
    return there


def _say_constant(scores: pd.DataFrame, n_sections: int) -> None:
    undefined = int(scores["pearson"].isna().sum())
    if undefined:
        where = f" over {n_sections} sections" if n_sections > 1 else ""
        msg = (
            f"{undefined} of {len(scores)} genes{where} are constant (measured or predicted): their correlation is NaN."
        )
        warnings.warn(msg, UserWarning, stacklevel=3)
    log.info("Mean Pearson correlation %.3f over %d genes.", scores["pearson"].mean(), len(scores))
