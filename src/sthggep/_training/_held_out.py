"""Evidence of the tissue that a training held out: of the genes, of gene sets, and of the model's gene programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._slides._patients import patient_of
from sthggep._table._gene_sets import set_weights
from sthggep._training._evidence import HeldOutMap, combined, measure_evidence
from sthggep.model._calibration import HeldOutEvidence

if TYPE_CHECKING:
    from torch import nn

    from sthggep._inputs._section import Section
    from sthggep._table._evidence import Evidence
    from sthggep._training._calibration import HeldOutSection
    from sthggep._training._ensemble import TrainedEnsemble
    from sthggep._training._task import TrainingTask

Floats = NDArray[np.float32]


def measure_held_out(
    task: TrainingTask, sections: Sequence[Section], ensemble: TrainedEnsemble, std: Floats | float
) -> HeldOutEvidence:
    """Compare predictions and measurements of the held-out tissue.

    Parameters
    ----------
    task
        Slides and gene sets.
    sections
        The slides with their counts.
    ensemble
        The predictions of held-out tissue, and the networks of the model.
    std
        What one unit of the predictions is on the scale of the targets.
    """
    whole = _maps(task, sections, ensemble.held_out, std)
    patients = [_maps(task, sections, part, std) for part in ensemble.of_patients]

    def measure(weights: Floats | None) -> Evidence | None:
        if weights is None:
            return None
        of_patients = [[combined(section, weights) for section in patient] for patient in patients]
        return measure_evidence([combined(section, weights) for section in whole], of_patients)

    of_sets = set_weights(task.gene_sets, task.genes) if task.gene_sets else None
    return HeldOutEvidence(
        measure_evidence(whole, patients), measure(of_sets), measure(_program_weights(ensemble.members, std))
    )


def _maps(
    task: TrainingTask, sections: Sequence[Section], held_out: Mapping[str, HeldOutSection], std: Floats | float
) -> list[HeldOutMap]:
    """Predictions, measurements and places of held-out sections."""
    names = [patient_of(slide) for slide in task.slides]
    several = any(names.count(patient) > 1 for patient in names if patient is not None)
    by_name = {slide.name: (slide, section) for slide, section in zip(task.slides, sections, strict=True)}
    maps = []
    for name, part in held_out.items():
        slide, section = by_name[name]
        pitch = slide.pitch()
        unit = slide.mpp or 1 / pitch
        raw = section.counts[part.rows].numpy() if section.counts.shape[1] else None
        xy = slide.xy[part.rows] * unit
        values = (part.predicted * std, part.measured * std)
        lone = several and names.count(patient_of(slide)) == 1
        rest = None if section.rest is None else section.rest[part.rows].numpy()
        maps.append(HeldOutMap(xy, slide.mpp is not None, pitch * unit, *values, raw, lone, rest=rest))
    return maps


def _program_weights(members: Sequence[nn.Module], std: Floats | float) -> Floats | None:
    """Weights (genes, programs) with which expression gives the scores of gene programs; ``None`` for networks."""
    from sthggep.model._networks import is_closed_form
    from sthggep.nn import ClosedFormNet

    first = members[0]
    if not is_closed_form(members) or not isinstance(first, ClosedFormNet):
        return None
    spread = first.programs.spread.numpy() * std
    return np.asarray(first.programs.inverse().numpy() / spread[:, None], dtype=np.float32)
