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

NOVELTY = "novelty."

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

    @property
    def evidence(self) -> Evidence | None:
        """What held-out tissue says of each gene."""
        return self.held_out.evidence

    def interval(
        self, predicted: Values, level: float, of: IntervalOf, columns: NDArray[np.intp] | None, *, least: float | None
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
        """
        ends = []
        for probability in ((1 - level) / 2, (1 + level) / 2):
            offset = self.quantile(probability)
            offset = offset * self.noise_free if of == "expression" else offset
            end = predicted + (offset if columns is None else offset[columns])
            ends.append((end if least is None else np.maximum(end, least)).astype(np.float32))
        return ends[0], ends[1]

    def quantile(self, probability: float) -> Values:
        """Interpolate the quantile of each gene."""
        at = float(np.interp(probability, PROBABILITIES, np.arange(len(PROBABILITIES))))
        low, share = int(at), at - int(at)
        high = min(low + 1, len(PROBABILITIES) - 1)
        return np.asarray((1 - share) * self.quantiles[low] + share * self.quantiles[high], dtype=np.float32)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the arrays as tensors, for the file of a model."""
        import torch

        tensors = {"quantiles": torch.from_numpy(self.quantiles), "noise_free": torch.from_numpy(self.noise_free)}
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
        )

    @staticmethod
    def expected_tensors(
        found: Mapping[str, Tensor], n_genes: int, n_sets: int, n_programs: int
    ) -> list[tuple[str, Tensor]]:
        """List the tensors of a model of so many genes, without their values: of those found, all that belong together."""
        import torch

        shapes = {"quantiles": (len(PROBABILITIES), n_genes), "noise_free": (n_genes,)}
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
        Predictions of some spots.
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
    lower, upper = calibration.interval(part.expression, interval.level, interval.of, columns, least=least)
    return part._replace(lower=lower, upper=upper)
