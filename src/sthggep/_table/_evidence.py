"""What predictions of held-out tissue say about each gene: correlations, scales, and errors of regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

SCALES_UM = (55.0, 100.0, 200.0, 350.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0)
"""Sides of the squares over whose means predictions and measurements are compared."""
UNLIKE = 0.8
"""Mean novelty of a section above which its tissue counts as unlike that of the training: of like tissue it is .2 to .75."""
REGION_SPOTS = (1, 4, 9, 16, 36, 81)
"""Spots of the compact regions whose mean errors are measured."""
REGION_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
"""Shares of the regions whose mean error is less than so many spreads."""

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """Predictions and measurements of held-out tissue compared, gene by gene; all that verdicts and regions need."""

    pearson: Values
    """(sections, genes): correlation on each held-out section."""
    z: Values
    """(sections, genes): how far it lies above that of unrelated maps of the same smoothness."""
    patient_pearson: Values
    """(patients, genes): the same where all sections of a patient were held out; no rows if there is one patient."""
    patient_z: Values
    ceiling: Values
    """(genes,): noise ceiling; 1 for targets, whose noise is not known."""
    detected: Values
    """(genes,): share of the spots that counted the gene."""
    scale_pearson: Values
    """(scales, genes): correlation of the means over squares of ``SCALES_UM``; 0 where there are too few squares."""
    scale_ceiling: Values
    """(scales, genes)."""
    region_spread: Values
    """(sizes, genes): spread of the mean error of regions of ``REGION_SPOTS`` within a section."""
    region_scores: Values
    """(levels,): mean errors in spreads that shares of ``REGION_LEVELS`` of all regions and genes do not exceed."""
    offset_spread: Values
    """(genes,): spread of the mean error of sections."""
    patient_offset_spread: Values
    """(genes,) or (0,): of sections whose patient was held out."""

    def take(self, columns: NDArray[np.intp] | None) -> Evidence:
        """Return the evidence of some genes."""
        if columns is None:
            return self
        return Evidence(
            **{
                name: part if name == "region_scores" or not part.size else part[..., columns]
                for name, part in vars(self).items()
            }
        )

    def to_arrays(self) -> dict[str, Values]:
        """Return the arrays by name, for the record of a prediction."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], n_genes: int) -> Evidence:
        """Make the evidence from what :meth:`to_arrays` returned; empty arrays may have lost their shape on disk."""
        found = {}
        for each in fields(cls):
            values = np.asarray(arrays[each.name], dtype=np.float32)
            found[each.name] = values if values.size else values.reshape(0, n_genes)
        return cls(**found)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the arrays as tensors, for the file of a model."""
        import torch

        return {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Evidence | None:
        """Make the evidence from what :meth:`to_tensors` returned; ``None`` from nothing."""
        return cls(**{name: values.float().numpy() for name, values in tensors.items()}) if tensors else None

    @staticmethod
    def expected_tensors(found: Mapping[str, Tensor], n_genes: int) -> list[tuple[str, Tensor]]:
        """List the tensors of the evidence on so many genes, without their values; any number of sections and patients."""
        import torch

        def rows(name: str) -> int:
            return len(found[name]) if name in found else 0

        shapes = {
            **{name: (rows("pearson"), n_genes) for name in ("pearson", "z")},
            **{name: (rows("patient_pearson"), n_genes) for name in ("patient_pearson", "patient_z")},
            **{name: (len(SCALES_UM), n_genes) for name in ("scale_pearson", "scale_ceiling")},
            **dict.fromkeys(("ceiling", "detected", "offset_spread"), (n_genes,)),
            "region_spread": (len(REGION_SPOTS), n_genes),
            "region_scores": (len(REGION_LEVELS),),
            "patient_offset_spread": (n_genes if rows("patient_pearson") else 0,),
        }
        return [(name, torch.empty(shape, device="meta")) for name, shape in shapes.items()] if found else []
