"""Means of regions with intervals: by held-out tissue of the training, or by measured spots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import listing
from sthggep._table._evidence import REGION_LEVELS, REGION_SPOTS, Evidence
from sthggep._table._verdicts import FEWEST_PATIENTS, PRIOR_SECTIONS

PRIOR_SPOTS = 2.0
LEAST_MEASURED = 5  # measured spots of a region, with which they give an interval by themselves
FROM_TRAINING, FROM_SPOTS, NONE = "held-out tissue", "measured spots", "none"

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]


class Means(NamedTuple):
    """Mean of each gene in a region, with its interval; all are (genes,)."""

    mean: Numbers
    lower: Numbers
    upper: Numbers
    observed: Numbers
    n_spots: int
    n_measured: int
    method: str


class Spread(NamedTuple):
    """Spread of the errors of regional means, and the quantile by which they make an interval."""

    within: Floats
    """(sizes, genes), by ``REGION_SPOTS``."""
    offset: Floats
    """(genes,): of the section as a whole."""
    of_within: float
    """Spreads of a region's error that make half the width of an interval."""
    of_offset: float
    """The same of a section's error."""
    known: bool
    """Whether held-out tissue says how far means may be off."""
    known_within: bool
    """Whether it does so of differences within a section."""
    relative: bool = False
    """Whether means are relative to that of the section."""

    @classmethod
    def of(cls, evidence: Evidence, level: float, *, of_patients: bool, relative: bool) -> Spread:
        """Take the spread of sections, or of patients where the tissue is unlike that of the training."""
        from scipy.stats import norm, t

        n = len(evidence.patient_pearson) if of_patients else len(evidence.pearson)
        offset = evidence.patient_offset_spread if of_patients and n else evidence.offset_spread
        quantile = float(t.ppf((1 + level) / 2, n - 1 + PRIOR_SECTIONS))
        enough = n >= FEWEST_PATIENTS if of_patients else True
        offset = np.zeros_like(offset) if relative else offset
        known = enough and (relative or of_patients or n > 1)
        # The shape of the errors of regions is known from many of them, their size from few sections
        score = float(np.interp(level, REGION_LEVELS, evidence.region_scores))
        of_within = score * quantile / float(norm.ppf((1 + level) / 2))
        return cls(evidence.region_spread, offset, of_within, quantile, known, enough, relative)

    def within_region(self, n_spots: int) -> Numbers:
        """Interpolate the spread for so many spots, between their logarithms; larger regions have that of the largest."""
        at = float(np.interp(np.log(n_spots), np.log(REGION_SPOTS), np.arange(len(REGION_SPOTS))))
        low, share = int(at), at - int(at)
        high = min(low + 1, len(REGION_SPOTS) - 1)
        return np.asarray((1 - share) * self.within[low] + share * self.within[high], dtype=np.float64)


def means_by_region(
    labels: pd.Series,
    predicted: Floats,
    truth: Floats | None,
    mask: NDArray[np.bool_] | None,
    spread: Spread,
    level: float,
) -> dict[str, Means]:
    """Compute the mean of each region, with its interval: by measured spots where there are enough, else by the training."""
    means, every = {}, np.arange(len(predicted))
    for name in sorted(labels.dropna().unique()):
        rows = np.flatnonzero(labels.to_numpy() == name)
        # Relative to the section, a region is compared with the rest, by the share of the section that the rest is
        rest = np.setdiff1d(every, rows) if spread.relative else every[:0]
        share = len(rest) / len(every) if spread.relative else 1.0
        mean = predicted[rows].mean(axis=0, dtype=np.float64)
        if spread.relative:
            mean = mean - predicted.mean(axis=0, dtype=np.float64)
        half = np.hypot(
            spread.of_within * spread.within_region(len(rows)) * share**0.5, spread.of_offset * spread.offset
        )
        half = half if spread.known else np.full_like(half, np.nan)
        method = FROM_TRAINING if spread.known else NONE
        used = every if mask is None else np.flatnonzero(mask)
        if mask is not None and truth is not None and all(map(_is_measured(mask), [rows, rest][: 1 + spread.relative])):
            mean, half = _by_spots(rows, predicted, truth, mask, spread, level)
            if spread.relative and len(rest):
                mean_of_rest, half_of_rest = _by_spots(rest, predicted, truth, mask, spread, level)
                mean, half = share * (mean - mean_of_rest), share * np.hypot(half, half_of_rest)
            elif spread.relative:
                mean, half = np.zeros_like(mean), np.zeros_like(half)
            method = FROM_SPOTS
        inside = np.intersect1d(rows, used)
        observed = np.full(predicted.shape[1], np.nan)
        if truth is not None and len(inside):
            observed = truth[inside].mean(axis=0, dtype=np.float64)
            observed = observed - truth[used].mean(axis=0, dtype=np.float64) if spread.relative else observed
        n_measured = 0 if mask is None else len(inside)
        means[name] = Means(mean, mean - half, mean + half, observed, len(rows), n_measured, method)
    return means


def _is_measured(mask: NDArray[np.bool_]) -> Callable[[NDArray[np.intp]], bool]:
    """Make the test of whether a region's measured spots give its interval: enough of them, or all."""
    return lambda rows: bool(mask[rows].sum() >= LEAST_MEASURED or mask[rows].all())


def _by_spots(
    rows: NDArray[np.intp], predicted: Floats, truth: Floats, mask: NDArray[np.bool_], spread: Spread, level: float
) -> tuple[Numbers, Numbers]:
    """Mean of a region by its measured spots, and half the width of its interval."""
    used = rows[mask[rows]]
    if len(used) == len(rows):
        mean = truth[rows].mean(axis=0, dtype=np.float64)
        return mean, np.zeros_like(mean)
    prior = spread.within[0].astype(np.float64) ** 2
    return corrected_mean(predicted[rows], predicted[used], truth[used], level, prior)


def corrected_mean(
    predicted: Floats, at_measured: Floats, measured: Floats, level: float, prior: Numbers
) -> tuple[Numbers, Numbers]:
    """Mean of the measurements of all spots of a region from some of them, and half the width of its interval.

    Parameters
    ----------
    predicted
        Predictions (N, genes) of all spots.
    at_measured, measured
        Predictions and measurements (n, genes) of the measured ones.
    level
        Of the interval.
    prior
        Variance (genes,) of the errors of single spots on other tissue, which counts as much as two spots: few spots without
        counts of a gene do not mean that it has none.
    """
    from scipy.stats import t

    n, of_all = len(measured), predicted.mean(axis=0, dtype=np.float64)
    x, y = (values.astype(np.float64) - values.mean(axis=0, dtype=np.float64) for values in (at_measured, measured))
    products, squares = (x * y).sum(axis=0), (x * x).sum(axis=0)
    slope = np.where(squares > 1e-12, products / np.maximum(squares, 1e-12), 0.0)
    remaining = 1 - min(n / len(predicted), 1)
    # Each spot's error by the slope of the others, so that a slope that fits by chance does not pass for one that helps
    leverage = 1 / n + x**2 / np.maximum(squares, 1e-12)
    others = (y - slope * x) / np.maximum(1 - leverage, 0.1) * (n - 1) / n
    halves = {}
    for corrected, errors in ((True, others), (False, y)):
        freedom = n - 1 - corrected
        variance = ((errors**2).sum(axis=0) * freedom / (n - 1) + PRIOR_SPOTS * prior) / (freedom + PRIOR_SPOTS)
        halves[corrected] = t.ppf((1 + level) / 2, freedom) * np.sqrt(variance / n * remaining)
    helps = (halves[True] < halves[False]) & (slope > 0)
    shift = np.where(helps, slope, 0.0) * (of_all - at_measured.mean(axis=0, dtype=np.float64))
    mean = measured.mean(axis=0, dtype=np.float64) + shift
    return np.asarray(mean), np.where(helps, halves[True], halves[False])


def difference_of(means: dict[str, Means], pair: tuple[str, str], section: str, spread: Spread) -> dict[str, Means]:
    """Difference of two regions: what shifts the whole section drops out."""
    if absent := [name for name in pair if name not in means]:
        msg = (
            f"`difference`: {listing(absent)} is no region of section {section!r}. There is: {listing(means)}. Both must be regions of "
            "one section: between sections there is no difference."
        )
        raise ValueError(msg)
    first, second = (means[name] for name in pair)
    halves = [
        (each.upper - each.lower) / 2
        if each.method == FROM_SPOTS
        else spread.of_within * spread.within_region(each.n_spots)
        for each in (first, second)
    ]
    # Within a section, errors of regions were measured on like tissue only
    by_spots = first.method == second.method == FROM_SPOTS
    half = np.hypot(*halves) if spread.known_within or by_spots else np.nan
    mean = first.mean - second.mean
    method = FROM_SPOTS if by_spots else FROM_TRAINING if spread.known_within else NONE
    counts = first.n_spots + second.n_spots, first.n_measured + second.n_measured
    row = Means(mean, mean - half, mean + half, first.observed - second.observed, *counts, method)
    return {f"{pair[0]} - {pair[1]}": row}


def as_table(means: dict[str, Means], genes: Sequence[str], section: str | None) -> pd.DataFrame:
    """Put means into a table, a row for each region and gene; with the name of the section, if there are several."""
    parts = [
        pd.DataFrame(
            {
                **({} if section is None else {"section": section}),
                "region": name,
                "gene": list(genes),
                "mean": each.mean,
                "lower": each.lower,
                "upper": each.upper,
                "n_spots": each.n_spots,
                "n_measured": each.n_measured,
                "observed": each.observed,
                "interval_from": each.method,
            }
        )
        for name, each in means.items()
    ]
    return pd.concat(parts, ignore_index=True)
