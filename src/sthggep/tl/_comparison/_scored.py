"""Scores of all methods on one section: the same spots, the same genes, the same measured values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._slides._patients import patient_of
from sthggep._slides._slide import Slide
from sthggep._table._counts import log10_cp10k
from sthggep._table._scores import column_pearson, noise_ceiling, score
from sthggep._table._verdicts import verdicts_of
from sthggep.tl._summary import LEAST_BLOCKS, block_numbers, weighted_pearson

if TYPE_CHECKING:
    from sthggep.tl._comparison._genes import SharedGenes
    from sthggep.tl._comparison._sources import Source

MEAN = "mean"
"""The baseline that predicts the mean of each gene: it has no correlation."""
GENES_AT_ONCE = 512
SAME, FEWEST_SPOTS = 0.99, 10  # correlation and spots from which values are the counts, and not a prediction
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Compared:
    """One section: scores of each method and gene, and bootstrap samples of the mean correlation of each method."""

    scores: pd.DataFrame
    """A row a method and gene."""
    samples: dict[str, NDArray[np.float64]]
    """Mean correlation over genes in each sample of blocks of spots; empty if there are too few blocks."""
    trained_on: dict[str, bool | None]
    """Whether each method was trained on this section; ``None`` if that is not known."""
    copies: tuple[str, ...] = ()
    """Methods whose values are the counts themselves."""


def compare_section(
    slide: Slide, sources: Sequence[Source], shared: SharedGenes, *, layer: str | None, n_boot: int, seed: int
) -> Compared:
    """Score all methods on a section. The seed gives all methods the same samples of spots."""
    rng = np.random.default_rng(seed)
    raw = shared.read_counts(slide, layer)
    measured = log10_cp10k(raw)[:, :-1]
    ceiling = noise_ceiling(raw, rng)[:-1]
    predicted = {
        source.method: source.take(source.rows(slide), columns, slide.name)
        for source, columns in zip(sources, shared.columns, strict=True)
    }
    parts = [
        _scores(predicted[source.method], measured, on_scale=on_scale).assign(
            verdict=_verdicts(source, slide, columns), method=source.method, gene=shared.genes
        )
        for source, columns, on_scale in zip(sources, shared.columns, shared.on_scale, strict=True)
    ]
    parts.append(_score_mean(measured).assign(method=MEAN, gene=shared.genes))
    scores = pd.concat(parts, ignore_index=True)
    scores["ceiling"] = np.tile(ceiling, len(parts))
    scores["section"], scores["group"] = slide.name, patient_of(slide)
    trained_on = {source.method: _trained_on(source, slide) for source in sources}
    samples = _samples(slide, predicted, measured, n_boot=n_boot, rng=rng)
    copies = tuple(method for method, values in predicted.items() if _is_copy(values, raw[:, :-1], measured))
    return Compared(scores, samples, trained_on, copies)


def _is_copy(predicted: Values, *measured: Values) -> bool:
    """Whether most genes equal their counts, on one of these scales."""
    if len(predicted) < FEWEST_SPOTS:
        return False
    agreement = [np.nan_to_num(column_pearson(predicted, values)) for values in measured]
    return bool(np.median(np.max(agreement, axis=0)) > SAME)


def _scores(predicted: Values, measured: Values, *, on_scale: bool) -> pd.DataFrame:
    """Scores of one method; a constant prediction of a gene that varies has a correlation of 0."""
    scores = score(predicted, measured)[["pearson", "spearman", "rmse"]]
    constant = (np.ptp(predicted, axis=0) == 0) & (np.ptp(measured, axis=0) > 0)
    scores.loc[constant, ["pearson", "spearman"]] = 0.0
    if not on_scale:
        scores["rmse"] = np.nan
    return scores


def _own_slide(source: Source, slide: Slide) -> Slide:
    """The section in the table that carries the prediction."""
    assert source.table is not None
    return Slide(slide.name, source.table, source.rows(slide), slide.xy)


def _verdicts(source: Source, slide: Slide, columns: NDArray[np.intp]) -> NDArray[np.object_]:
    """Verdict of each gene (see :func:`sthggep.tl.trust`); ``None`` where the method has none."""
    none = np.full(len(columns), None, dtype=object)
    if source.prediction is None:
        return none
    verdicts = verdicts_of(_own_slide(source, slide), source.prediction.key, source.prediction.genes)
    return none if verdicts is None else verdicts["verdict"].to_numpy(dtype=object)[columns]


def _score_mean(measured: Values) -> pd.DataFrame:
    """Scores of the mean of each gene: 0, and NaN where the measurement is constant."""
    zero = np.where(np.ptp(measured, axis=0) > 0, 0.0, np.nan)
    rmse = measured.std(axis=0, dtype=np.float64)
    return pd.DataFrame({"pearson": zero, "spearman": zero, "rmse": rmse}).assign(verdict=None)


def _trained_on(source: Source, slide: Slide) -> bool | None:
    return None if source.prediction is None else source.prediction.trained_on(_own_slide(source, slide))


def _samples(
    slide: Slide, predicted: Mapping[str, Values], measured: Values, *, n_boot: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Mean correlation over genes of each method, in the same samples of blocks of spots."""
    block = block_numbers(slide)
    n_blocks = int(block.max()) + 1
    if n_boot == 0 or n_blocks < LEAST_BLOCKS:
        return {}
    times = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_boot)[:, block]
    samples = {method: _mean_in_samples(values, measured, times) for method, values in predicted.items()}
    return samples | {MEAN: np.zeros(n_boot)}


def _mean_in_samples(predicted: Values, measured: Values, times: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean correlation over the genes whose measurement varies; a constant prediction counts as 0."""
    varies = np.flatnonzero(np.ptp(measured, axis=0) > 0)
    total, n = np.zeros(len(times)), 0
    for start in range(0, len(varies), GENES_AT_ONCE):
        part = varies[start : start + GENES_AT_ONCE]
        total += np.nan_to_num(weighted_pearson(predicted[:, part], measured[:, part], times)).sum(axis=1)
        n += len(part)
    return total / n if n else np.full(len(times), np.nan)
