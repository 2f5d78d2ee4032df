"""Calibration of a model's intervals by predictions of held-out tissue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sthggep.model._calibration import NOTHING, PROBABILITIES, Calibration, HeldOutEvidence

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sthggep._inputs._section import SectionWindow
    from sthggep.model._novelty import Novelty

Values = NDArray[np.float32]
LEAST_SPOTS = 10  # held-out spots in all, without which there are no intervals
GENES_AT_ONCE = 64  # whose held-out errors are sorted together
LEAST_EXPRESSION = 0.05  # share of the error's variance that is never taken for counting noise


class HeldOutSection(NamedTuple):
    """The spots of a section that a model predicted without having seen them."""

    rows: NDArray[np.int64]
    """(n,) spots of the section."""

    predicted: Values
    """(n, genes)."""
    measured: Values
    """(n, genes); NaN in genes that the section lacks, or that no section taught the model."""


def predict_held_out(
    members: Sequence[nn.Module], splits: Sequence[Sequence[SectionWindow]]
) -> dict[str, HeldOutSection]:
    """Predict the tissue that each member held out, by section; spots that two members held out count once."""
    import torch

    from sthggep._inputs._section import hide_untaught

    parts: dict[str, list[tuple[Tensor, ...]]] = defaultdict(list)
    seen: dict[int, Tensor] = {}
    with torch.inference_mode():
        for member, split in zip(members, splits, strict=False):
            for number, window in enumerate(hide_untaught(split)):
                earlier = seen.get(number, torch.zeros_like(window.validate))
                mask = window.validate & ~earlier
                if mask.any():
                    seen[number] = earlier | mask
                    predicted = member(*window.inputs).expression[mask].float()
                    parts[window.name].append((window.rows[mask], predicted, window.target[mask]))
    return {
        name: HeldOutSection(*(torch.cat(each).numpy() for each in zip(*pairs, strict=True)))
        for name, pairs in parts.items()
    }


def calibrate(
    held_out: Sequence[HeldOutSection],
    ceiling: Sequence[float] | None,
    std: Sequence[float] | None,
    evidence: HeldOutEvidence = NOTHING,
    novelty: Novelty | None = None,
    of_patients: Sequence[Mapping[str, HeldOutSection]] = (),
) -> Calibration | None:
    """Compute the quantiles of measurement minus prediction over the held-out spots; ``None`` where there are too few.

    Intervals by these quantiles are those of split conformal prediction with two one-sided scores, pooled over sections
    of equal weight (Dunn, Wasserman & Ramdas 2023): on a new section they hold in the mean, if it is exchangeable with
    the held-out ones. Each gene is calibrated by the sections that hold it; its quantiles are NaN where these have too few spots.

    Parameters
    ----------
    held_out
        Predictions and measurements of each held-out section.
    ceiling
        Noise ceiling of each gene. Default: the noise is unknown, and none is taken out.
    std
        What one unit of the predictions is on the scale of the targets. Default: 1.
    evidence, novelty
        What else the model holds of its held-out tissue.
    of_patients
        Predictions of the sections of each patient, by a model that had seen none of them. Spots unlike the training
        tissue have the quantiles of these errors, patients of equal weight. Default: there is one patient.
    """
    held_out = [section for section in held_out if len(section.measured)]
    if sum(len(section.measured) for section in held_out) < LEAST_SPOTS:
        return None
    scale = 1.0 if std is None else np.asarray(std)
    ceilings = None if ceiling is None else np.asarray(ceiling, dtype=np.float64)
    quantiles, noise_free = _quantiles(held_out, ceilings)
    patients = None
    if len(of_patients) > 1:
        # Where the patients say nothing of a gene, the sections do
        found, _ = _quantiles(_as_one_each(of_patients), None)
        patients = (np.where(np.isnan(found), quantiles, found) * scale).astype(np.float32)
    return Calibration(
        (quantiles * scale).astype(np.float32), noise_free.astype(np.float32), evidence, novelty, patients
    )


def _quantiles(
    held_out: Sequence[HeldOutSection], ceilings: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quantiles of each gene by the parts that hold it, and by how much intervals shrink without counting noise."""
    n_genes = held_out[0].measured.shape[1]
    quantiles, noise_free = np.full((len(PROBABILITIES), n_genes), np.nan), np.full(n_genes, np.nan)
    known = np.stack([~np.isnan(section.measured).any(axis=0) for section in held_out])
    # Genes that the same sections hold have their errors in the same spots
    patterns, of_gene = np.unique(known, axis=1, return_inverse=True)
    for i, pattern in enumerate(patterns.T):
        genes = np.flatnonzero(of_gene.ravel() == i)
        sections = [
            section._replace(predicted=section.predicted[:, genes], measured=section.measured[:, genes])
            for section, holds in zip(held_out, pattern, strict=True)
            if holds
        ]
        if sum(len(section.measured) for section in sections) >= LEAST_SPOTS:
            quantiles[:, genes], noise_free[genes] = _of_genes(sections, None if ceilings is None else ceilings[genes])
    return quantiles, noise_free


def _as_one_each(patients: Sequence[Mapping[str, HeldOutSection]]) -> list[HeldOutSection]:
    """Join the sections of each patient: patients of many sections tell no more of patients than those of one."""
    return [HeldOutSection(*map(np.concatenate, zip(*sections.values(), strict=True))) for sections in patients]


def _of_genes(
    held_out: Sequence[HeldOutSection], ceiling: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quantiles of genes that all these sections hold, and by how much intervals shrink without counting noise."""
    n_spots = sum(len(section.measured) for section in held_out)
    errors = np.concatenate([section.measured - section.predicted for section in held_out])
    weights = np.concatenate([np.full(len(section.measured), 1 / len(section.measured)) for section in held_out])
    quantiles = _weighted_quantiles(errors, weights, _widened(PROBABILITIES, n_spots))
    squares = np.average(errors.astype(np.float64) ** 2, axis=0, weights=weights)
    noise_free = np.ones(errors.shape[1])
    if ceiling is not None:
        variance = np.mean([section.measured.var(axis=0) for section in held_out], axis=0)
        noise = variance * (1 - np.square(ceiling))
        noise_free = np.sqrt(np.clip(1 - noise / np.maximum(squares, 1e-12), LEAST_EXPRESSION, 1))
    return quantiles, noise_free


def _widened(probabilities: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Correct probabilities for the finite number of held-out spots, outwards from the median."""
    return np.clip(0.5 + (probabilities - 0.5) * (n + 1) / n, 0, 1)


def _weighted_quantiles(
    values: Values, weights: NDArray[np.float64], probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Quantiles (probabilities, columns) of weighted rows: below the median the largest value whose mass below is no more."""
    out = np.empty((len(probabilities), values.shape[1]))
    for first in range(0, values.shape[1], GENES_AT_ONCE):
        part = values[:, first : first + GENES_AT_ONCE]
        order = np.argsort(part, axis=0)
        ordered = np.take_along_axis(part, order, axis=0)
        mass = np.cumsum(weights[order], axis=0)
        mass /= mass[-1]
        for i, probability in enumerate(probabilities):
            # Towards the outside: mass below a lower end is at most `probability`, mass up to an upper end at least
            inner = mass <= probability + 1e-12 if probability < 0.5 else mass < probability - 1e-12
            place = np.minimum(inner.sum(axis=0), len(part) - 1)
            out[i, first : first + GENES_AT_ONCE] = np.take_along_axis(ordered, place[None], axis=0)[0]
    return out
