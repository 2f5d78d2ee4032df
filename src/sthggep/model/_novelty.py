"""Novelty: how unlike the training tissue the image around a spot is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

COMPONENTS = 50
STEPS = 101

Values = NDArray[np.float32]


@dataclass(frozen=True)
class StageBasis:
    """Leading components of the training features at one field of view."""

    stage: int
    """Number of the field of view among those of the model."""
    mean: Values
    """(features,)."""
    spread: Values
    """(features,)."""
    components: Values
    """(components, features)."""

    def distance(self, features: NDArray[np.floating] | Tensor) -> NDArray[np.float64]:
        """Compute the mean square of what the components leave of each row; further columns are other windows."""
        x = (np.asarray(features, dtype=np.float32)[:, : len(self.mean)] - self.mean) / self.spread
        left = np.einsum("ij,ij->i", x, x) - np.square(x @ self.components.T).sum(axis=1)
        return np.asarray(left / len(self.mean), dtype=np.float64)


@dataclass(frozen=True)
class Novelty:
    """Distance from what the training sections have in common, relative to that of training tissue that was held out."""

    stages: tuple[StageBasis, ...]
    quantiles: Values
    """(steps,): of the distances of held-out training tissue, from the least to the largest."""

    def share_below(self, distances: NDArray[np.float64]) -> Values:
        """Return the share of held-out training tissue that is less unusual, from 0 to 1."""
        return np.interp(distances, self.quantiles, np.linspace(0, 1, len(self.quantiles))).astype(np.float32)

    def of_spots(self, stages: Sequence[NDArray[np.floating] | Tensor]) -> Values:
        """Compute the novelty of spots from their features at all fields of view, (n,)."""
        return self.share_below(np.sum([basis.distance(stages[basis.stage]) for basis in self.stages], axis=0))

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the arrays as tensors, for the file of a model; components in half precision."""
        import torch

        tensors = {"quantiles": torch.from_numpy(self.quantiles)}
        for basis in self.stages:
            tensors |= {
                f"{basis.stage}.mean": torch.from_numpy(basis.mean),
                f"{basis.stage}.spread": torch.from_numpy(basis.spread),
                f"{basis.stage}.components": torch.from_numpy(basis.components).half(),
            }
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Novelty | None:
        """Make it from what :meth:`to_tensors` returned; ``None`` from nothing."""
        if not tensors:
            return None
        stages = tuple(
            StageBasis(
                number,
                *(tensors[f"{number}.{name}"].float().numpy() for name in ("mean", "spread", "components")),
            )
            for number in _numbers(tensors)
        )
        return cls(stages, tensors["quantiles"].float().numpy())

    @staticmethod
    def expected_tensors(found: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """List the tensors of a novelty whose features have these widths, without their values."""
        import torch

        shapes: list[tuple[str, tuple[int, ...], torch.dtype]] = []
        shapes += [("quantiles", (STEPS,), torch.float32)] if found else []
        for number in _numbers(found):
            width = found[f"{number}.mean"].numel()
            components = found.get(f"{number}.components", torch.empty(0, 0))
            shapes += [(f"{number}.{name}", (width,), torch.float32) for name in ("mean", "spread")]
            shapes += [(f"{number}.components", (min(len(components), COMPONENTS), width), torch.float16)]
        return [(name, torch.empty(shape, dtype=dtype, device="meta")) for name, shape, dtype in shapes]


def _numbers(tensors: Mapping[str, Tensor]) -> list[int]:
    """Numbers of the stages, ascending."""
    return sorted(
        int(name.split(".")[0]) for name in tensors if name.endswith(".mean") and name.split(".")[0].isdigit()
    )
