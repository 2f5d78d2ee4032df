"""How far measurements lie from predictions of held-out tissue: intervals that hold on average over exchangeable sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sthggep._table._evidence import Evidence
from sthggep.model._novelty import Novelty
from sthggep.model._store import select_prefix

if TYPE_CHECKING:
    from torch import Tensor

    from sthggep.model._forward import Predictions

IntervalOf = Literal["measurement", "expression"]
INTERVALS: tuple[IntervalOf, ...] = get_args(IntervalOf)
_TAIL = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25)
PROBABILITIES = np.array([*_TAIL, *(1 - each for each in reversed(_TAIL))])

NOVELTY, OF_PATIENTS = "novelty.", "patient_quantiles"
UNLIKE_SPOT = 0.95  # novelty above which a spot is taken for one of another patient

Values = NDArray[np.float32]


class Interval(NamedTuple):
    """The interval to write beside a prediction."""

    level: float
    """Share of what it is an interval of that lies inside."""
    of: IntervalOf


class HeldOutEvidence(NamedTuple):
    """What predictions of held-out tissue say; ``None`` for what was not compared."""

    evidence: Evidence | None = None
    """Of each gene."""
    set_evidence: Evidence | None = None
    """Of each gene set."""
    program_evidence: Evidence | None = None
    """Of each gene program."""


NOTHING = HeldOutEvidence()


@dataclass(frozen=True)
class Calibration:
    """Quantiles of measurement minus prediction on tissue that the predicting model had not seen.

    Each gene has its own quantiles. Each held-out section has the same weight, whatever its number of spots.
    """

    quantiles: Values
    """(probabilities, genes), at ``PROBABILITIES``, on the scale of the predictions."""
    noise_free: Values
    """(genes,): by how much intervals shrink where counting noise is taken out, from 0 to 1."""
    held_out: HeldOutEvidence = NOTHING
    """Of which genes, scales and regions the held-out predictions were right."""
    novelty: Novelty | None = None
    """What the image of the training tissue is like."""
    patient_quantiles: Values | None = None
    """As ``quantiles``, of each patient predicted without the patient; ``None`` if the training has one patient."""

    @property
    def evidence(self) -> Evidence | None:
        """What held-out tissue says of each gene."""
        return self.held_out.evidence

    def interval(
        self,
        predicted: Values,
        level: float,
        of: IntervalOf,
        columns: NDArray[np.intp] | None,
        *,
        least: float | None,
        novelty: Values | None = None,
    ) -> tuple[Values, Values]:
        """Compute the lower and the upper end of the interval around each prediction.

        Parameters
        ----------
        predicted
            Predictions (n, genes).
        level
            Share of the measurements inside.
        of
            ``"measurement"``: of the measurement of a spot; ``"expression"``: of its mean over repeated measurements.
        columns
            The genes of ``predicted`` among those of the calibration. Default: all.
        least
            The least value that there can be. Default: none.
        novelty
            Novelty of each spot, (n,) or (n, 1). Spots that are unlike the training tissue have the errors on patients that were held
            out, where there are several patients. Default: no spot is unlike it.
        """
        genes = slice(None) if columns is None else columns
        unlike = np.zeros(len(predicted), dtype=bool)
        if novelty is not None and self.patient_quantiles is not None:
            unlike = np.ravel(novelty) > UNLIKE_SPOT
        factor = self.noise_free if of == "expression" else np.float32(1)
        ends = []
        for probability in ((1 - level) / 2, (1 + level) / 2):
            end = predicted + (self.quantile(probability) * factor)[genes]
            if unlike.any():
                end[unlike] = predicted[unlike] + (self.quantile(probability, of_patients=True) * factor)[genes]
            ends.append((end if least is None else np.maximum(end, least)).astype(np.float32))
        return ends[0], ends[1]

    def quantile(self, probability: float, *, of_patients: bool = False) -> Values:
        """Interpolate the quantile of each gene; ``of_patients``: of errors on held-out patients, where there are several."""
        quantiles = self.quantiles if self.patient_quantiles is None or not of_patients else self.patient_quantiles
        at = float(np.interp(probability, PROBABILITIES, np.arange(len(PROBABILITIES))))
        low, share = int(at), at - int(at)
        high = min(low + 1, len(PROBABILITIES) - 1)
        return np.asarray((1 - share) * quantiles[low] + share * quantiles[high], dtype=np.float32)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the arrays as tensors, for the file of a model."""
        import torch

        tensors = {"quantiles": torch.from_numpy(self.quantiles), "noise_free": torch.from_numpy(self.noise_free)}
        if self.patient_quantiles is not None:
            tensors[OF_PATIENTS] = torch.from_numpy(self.patient_quantiles)
        parts = {**{f"{name}.": part for name, part in self.held_out._asdict().items()}, NOVELTY: self.novelty}
        for prefix, part in parts.items():
            if part is not None:
                tensors |= {prefix + name: values for name, values in part.to_tensors().items()}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Calibration | None:
        """Make the calibration from what :meth:`to_tensors` returned; ``None`` from nothing."""
        if not tensors:
            return None
        return cls(
            tensors["quantiles"].float().numpy(),
            tensors["noise_free"].float().numpy(),
            HeldOutEvidence(
                *(Evidence.from_tensors(select_prefix(f"{name}.", tensors)) for name in HeldOutEvidence._fields)
            ),
            Novelty.from_tensors(select_prefix(NOVELTY, tensors)),
            tensors[OF_PATIENTS].float().numpy() if OF_PATIENTS in tensors else None,
        )

    @staticmethod
    def expected_tensors(
        found: Mapping[str, Tensor], n_genes: int, n_sets: int, n_programs: int
    ) -> list[tuple[str, Tensor]]:
        """List the tensors of a model of so many genes, without their values: of those found, all that belong together."""
        import torch

        shapes = {"quantiles": (len(PROBABILITIES), n_genes), "noise_free": (n_genes,)}
        if OF_PATIENTS in found:
            shapes[OF_PATIENTS] = shapes["quantiles"]
        expected = [(name, torch.empty(shape, device="meta")) for name, shape in shapes.items()]
        parts = {
            f"{name}.": Evidence.expected_tensors(select_prefix(f"{name}.", found), n)
            for name, n in zip(HeldOutEvidence._fields, (n_genes, n_sets, n_programs), strict=True)
        }
        parts[NOVELTY] = Novelty.expected_tensors(select_prefix(NOVELTY, found))
        return expected + [(prefix + name, value) for prefix, part in parts.items() for name, value in part]


def add_interval(
    part: Predictions,
    calibration: Calibration | None,
    interval: Interval | None,
    columns: NDArray[np.intp] | None = None,
    *,
    of_counts: bool,
) -> Predictions:
    """Add the ends of intervals to predictions, where asked for.

    Parameters
    ----------
    part
        Predictions of some spots, with their novelty where the model measures it.
    calibration
        That of the model.
    interval
        Level, and what the interval is of. Default: none is added.
    columns
        The genes that were predicted. Default: all.
    of_counts
        Whether the model predicts genes, whose measurements are 0 or more.
    """
    if interval is None or calibration is None:
        return part
    least = 0.0 if of_counts else None
    lower, upper = calibration.interval(
        part.expression, interval.level, interval.of, columns, least=least, novelty=part.novelty
    )
    return part._replace(lower=lower, upper=upper)
