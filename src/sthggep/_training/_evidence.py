"""Evidence of held-out tissue: correlations by section and patient, by scale, and errors of regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sthggep._table._all_counts import with_rest
from sthggep._table._counts import log10_cp10k
from sthggep._table._evidence import REGION_LEVELS, REGION_SPOTS, SCALES_UM, Evidence
from sthggep._table._scores import ceiling_of_halves, correlate, mean_of_known
from sthggep._table._spatial_null import MapTest, compare_maps

PHASES = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))
LEAST_SQUARES = 6
LEAST_SIDE = 0.75  # pitches
LEAST_SPOTS = 20
MOST_SPOTS = 5000  # of a section, which tell as much
LEAST_FULL = 0.5  # of the spots that a square can hold, without which it is left out
PRIOR_SECTIONS = 4.0  # that say as much of a gene's offset as the other genes

Floats = NDArray[np.float32]


class HeldOutMap(NamedTuple):
    """Predictions, measurements and places of the spots of a section that was held out."""

    xy: NDArray[np.float64]
    """(n, 2) in microns; in spot pitches where microns are not known."""
    in_microns: bool
    pitch: float
    """Of the spots, in the same unit."""
    predicted: Floats
    measured: Floats
    """NaN in genes of which the section says nothing."""
    raw: Floats | None
    """Counts of the whole panel; ``None`` for targets."""
    lone: bool = False
    """Whether the training has no other section of its patient, but several of another one."""
    weights: Floats | None = None
    """(panel, columns): how the columns follow from the expression of the panel; ``None`` if they are its genes."""
    rest: Floats | None = None
    """(n,): counts of all other genes, if they are part of the scale."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Genes (or columns) that the section says something of."""
        return np.asarray(~np.isnan(self.measured).any(axis=0))


def measure_evidence(sections: Sequence[HeldOutMap], patients: Sequence[Sequence[HeldOutMap]]) -> Evidence | None:
    """Compare predictions with measurements of held-out tissue, gene by gene.

    Parameters
    ----------
    sections
        Held-out sections.
    patients
        Sections of each patient, predicted without all sections of the patient; empty if there is one patient.
    """
    sections = [section for section in sections if len(section.xy) >= LEAST_SPOTS]
    if not sections:
        return None
    of_known = [section for section in sections if not section.lone] or sections
    region_spread, region_scores = _region_spread([contiguous_part(section) for section in of_known])
    sections = [thinned(section) for section in sections]
    patients = [[thinned(section) for section in patient] for patient in patients]
    tests = [_compare(section) for section in sections]
    by_patient = [[_compare(each) for each in patient if len(each.xy) >= LEAST_SPOTS] for patient in patients]
    by_patient = [tests_of for tests_of in by_patient if tests_of]
    n_genes = sections[0].predicted.shape[1]
    scale_pearson, scale_ceiling, ceiling = _by_scale(sections)
    offsets = [_offsets([each for patient in patients for each in patient])] if by_patient else []
    arrays = {
        "pearson": [test.pearson for test in tests],
        "z": [test.z for test in tests],
        "patient_pearson": _rows([mean_of_known([t.pearson for t in each]) for each in by_patient], n_genes),
        "patient_z": _rows([mean_of_known([t.z for t in each]) for each in by_patient], n_genes),
        "ceiling": ceiling,
        "detected": _mean([_detected(section) for section in sections]),
        "scale_pearson": scale_pearson,
        "scale_ceiling": scale_ceiling,
        "region_spread": region_spread,
        "region_scores": region_scores,
        "offset_spread": _offsets([thinned(section) for section in of_known]),
        "patient_offset_spread": offsets[0] if offsets else np.empty(0),
    }
    return Evidence(**{name: np.asarray(values, dtype=np.float32) for name, values in arrays.items()})


def combined(section: HeldOutMap, weights: Floats) -> HeldOutMap:
    """Combine the genes of a section with weights (genes, columns), such as to the means of gene sets.

    Where the section lacks genes, those that it holds have their weights; a column of none is NaN.
    """
    if section.known.all():
        predicted, measured = (values.astype(np.float32) @ weights for values in (section.predicted, section.measured))
        return section._replace(predicted=predicted, measured=measured, weights=weights)
    held = np.where(section.known[:, None], weights, 0).astype(np.float32)
    share = np.abs(held).sum(axis=0) / np.maximum(np.abs(weights).sum(axis=0), 1e-12)
    held /= np.maximum(share, 1e-6)
    section = section._replace(measured=np.nan_to_num(section.measured))
    section = combined(section, held)
    return section._replace(measured=np.where(share > 0, section.measured, np.nan).astype(np.float32))


def _compare(section: HeldOutMap) -> MapTest:
    """Compare the maps of the genes that the section says something of; NaN for the others."""
    known = section.known
    if known.all():
        return compare_maps(section.xy, section.predicted, section.measured)
    test = compare_maps(section.xy, section.predicted[:, known], section.measured[:, known])
    columns = np.full((2, len(known)), np.nan)
    columns[:, known] = test.pearson, test.z
    return MapTest(*columns)


def thinned(section: HeldOutMap) -> HeldOutMap:
    """Keep one spot in each square of a lattice over a section of very many spots."""
    side = section.pitch * np.ceil((len(section.xy) / MOST_SPOTS) ** 0.5)
    if len(section.xy) <= MOST_SPOTS:
        return section
    cells = np.floor((section.xy - section.xy.min(axis=0)) / side + 1e-6).astype(np.int64)
    rows = np.unique(cells, axis=0, return_index=True)[1]
    return _take(section, rows)._replace(pitch=float(side))


def contiguous_part(section: HeldOutMap) -> HeldOutMap:
    """Keep the spots nearest to a spot in the middle, of a section of very many spots: regions need their neighbors."""
    if len(section.xy) <= MOST_SPOTS:
        return section
    middle = section.xy[np.argmin(np.square(section.xy - section.xy.mean(axis=0)).sum(axis=1))]
    distance = np.square(section.xy - middle).sum(axis=1)
    return _take(section, np.sort(np.argsort(distance, kind="stable")[:MOST_SPOTS]))


def _take(section: HeldOutMap, rows: NDArray[np.intp]) -> HeldOutMap:
    raw, rest = (None if part is None else part[rows] for part in (section.raw, section.rest))
    return section._replace(
        xy=section.xy[rows], predicted=section.predicted[rows], measured=section.measured[rows], raw=raw, rest=rest
    )


def _rows(values: Sequence[NDArray[np.float64]], n_genes: int) -> NDArray[np.float64]:
    return np.asarray(values) if len(values) else np.empty((0, n_genes))


def _mean(values: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    return np.asarray(mean_of_known(values), dtype=np.float64)


def _detected(section: HeldOutMap) -> NDArray[np.float64]:
    """Share of the spots that counted each gene, or any gene of a combination; 1 for targets, NaN where nothing is known."""
    if section.raw is None:
        return np.ones(section.measured.shape[1])
    counted = section.raw > 0
    if section.weights is not None:  # of any gene that has a weight
        counted = counted.astype(np.float32) @ (section.weights != 0).astype(np.float32) > 0
    return np.where(section.known, counted.mean(axis=0), np.nan)


class Squares:
    """Means over the squares of a lattice that hold enough spots."""

    def __init__(self, xy: NDArray[np.float64], side: float, phase: tuple[float, float], n_spots: float | None) -> None:
        cells = np.floor((xy - xy.min(axis=0)) / side + np.array(phase)).astype(np.int64)
        _, square, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        square = square.ravel()
        full = float(np.quantile(count, 0.9)) if n_spots is None else n_spots
        self.kept = np.flatnonzero(count >= LEAST_FULL * full)
        weights = (1 / count[square]).astype(np.float32)
        self._matrix = csr_matrix((weights, (square, np.arange(len(square)))), (len(count), len(square)))

    def mean(self, values: Floats) -> Floats:
        """Average the rows of each kept square."""
        averages: Floats = (self._matrix @ values)[self.kept]
        return averages


def _by_scale(sections: Sequence[HeldOutMap]) -> tuple[Floats, Floats, Floats]:
    """Correlation and ceiling of means over squares of each side, and the ceiling of single spots; means of sections."""
    n_genes = sections[0].predicted.shape[1]
    pearson, ceiling = (np.zeros((len(SCALES_UM), n_genes)) for _ in range(2))
    used, spots, n_known = np.zeros((len(SCALES_UM), n_genes)), np.zeros(n_genes), np.zeros(n_genes)
    rng = np.random.default_rng(0)
    for section in sections:
        halves, known = _halves(section, rng), section.known
        spots += np.where(known, _ceiling(halves, lambda values: values), 0)
        n_known += known
        if not section.in_microns:
            continue
        for i, side in enumerate(SCALES_UM):
            if side < LEAST_SIDE * section.pitch:  # squares of one spot or none
                continue
            lattices = [Squares(section.xy, side, phase, None) for phase in PHASES]
            lattices = [each for each in lattices if len(each.kept) >= LEAST_SQUARES]
            if lattices:
                pearson[i] += _mean([correlate(x.mean(section.predicted), x.mean(section.measured)) for x in lattices])
                ceiling[i] += np.where(known, _mean([_ceiling(halves, x.mean) for x in lattices]), 0)
                used[i] += known
    pearson, ceiling = pearson / np.maximum(used, 1), ceiling / np.maximum(used, 1)
    spots = np.where(n_known > 0, spots / np.maximum(n_known, 1), np.nan)
    return pearson.astype(np.float32), ceiling.astype(np.float32), spots.astype(np.float32)


def _halves(section: HeldOutMap, rng: np.random.Generator) -> tuple[Floats, Floats] | None:
    """Measurements by each of two halves of the counts; ``None`` for targets."""
    if section.raw is None:
        return None
    raw, n_genes = with_rest(section.raw, section.rest), section.raw.shape[1]
    half = rng.binomial(raw.astype(np.int64), 0.5).astype(np.float32)
    halves = log10_cp10k(half)[:, :n_genes], log10_cp10k(raw - half)[:, :n_genes]
    weights = section.weights
    return halves if weights is None else (halves[0] @ weights, halves[1] @ weights)


def _ceiling(halves: tuple[Floats, Floats] | None, mean: Callable[[Floats], Floats]) -> NDArray[np.float64]:
    """Highest correlation that the noise of the counts allows; 1 for targets."""
    if halves is None:
        return np.ones(1)
    return ceiling_of_halves(correlate(*(mean(half) for half in halves)))


def _errors(section: HeldOutMap) -> Floats:
    """Measurement minus prediction."""
    errors: Floats = section.measured - section.predicted
    return errors


def _region_spread(sections: Sequence[HeldOutMap]) -> tuple[Floats, Floats]:
    """Spread of the mean error of compact regions around that of the section, and quantiles of errors in such spreads.

    Sizes for which there are too few regions have the spread of the size before.
    """
    from scipy.stats import norm

    n_genes = sections[0].predicted.shape[1]
    spread = np.zeros((len(REGION_SPOTS), n_genes), dtype=np.float32)
    scores = []
    for i, n_spots in enumerate(REGION_SPOTS):
        errors = list(_errors_of_regions(sections, n_spots))
        if not errors:
            spread[i] = spread[i - 1]
            continue
        spread[i] = np.sqrt(_mean([np.square(part).mean(axis=0) for part in errors]))
        if n_spots > 1:  # the noise of a single count has another shape
            scores += [np.abs(part / np.maximum(spread[i], 1e-12)).ravel() for part in errors]
    if not scores:
        return spread, np.asarray(norm.ppf((1 + np.array(REGION_LEVELS)) / 2), dtype=np.float32)
    # A map that is constant in prediction and measurement has no error, and says nothing of the others
    joined = np.concatenate(scores)
    joined = joined[~np.isnan(joined)]
    return spread, np.quantile(joined[joined > 0] if (joined > 0).any() else joined, REGION_LEVELS).astype(np.float32)


def _errors_of_regions(sections: Sequence[HeldOutMap], n_spots: int) -> Iterator[Floats]:
    """Mean errors of the compact regions of so many spots, relative to their section: of each section and phase."""
    for section in sections:
        errors = _errors(section)
        errors = errors - errors.mean(axis=0)
        for phase in PHASES[: 1 if n_spots == 1 else None]:
            squares = Squares(section.xy, section.pitch * n_spots**0.5, phase, n_spots)
            if len(squares.kept) >= LEAST_SQUARES:
                yield squares.mean(errors)


def _offsets(sections: Sequence[HeldOutMap]) -> Floats:
    """Spread of the sections' mean errors: of a gene in few sections, largely that of the genes relative to their noise."""
    parts = [_errors(section) for section in sections]
    means = np.square([part.mean(axis=0, dtype=np.float64) for part in parts])
    variance = _mean([part.var(axis=0, dtype=np.float64) for part in parts])
    known = ~np.isnan(means)
    typical = means[known].mean() / max(float(variance[~np.isnan(variance)].mean()), 1e-12)
    sums = np.where(known, means, 0).sum(axis=0)
    pooled = (PRIOR_SECTIONS * typical * variance + sums) / (PRIOR_SECTIONS + known.sum(axis=0))
    return np.asarray(np.sqrt(pooled), dtype=np.float32)
