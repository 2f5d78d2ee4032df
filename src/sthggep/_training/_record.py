"""The record of a training, which the model holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sthggep._slides._colors import image_mpp, record_colors
from sthggep._slides._fingerprint import model_fingerprint
from sthggep._table._user_features import read_feature_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._section import Section
    from sthggep._training._task import TrainingTask
    from sthggep._training._validation import HeldOut
    from sthggep.model._record import TrainingRecord


def record_training(
    record: TrainingRecord,
    task: TrainingTask,
    plan: Sequence[HeldOut],
    encoder: FrozenEncoder | None,
    stain: dict[str, object] | None,
    sections: Sequence[Section],
) -> TrainingRecord:
    """Add sections, options and fingerprints to the record of a training.

    Parameters
    ----------
    record
        The record with targets and held-out results.
    task
        The task, with the slides as the networks read them.
    plan
        Held-out tissue of each network.
    encoder
        The frozen encoder; ``None`` if the networks read patches or ``obsm``.
    stain
        Stain to which the slides were normalized; ``None`` without normalization.
    sections
        The slides with their counts.
    """
    slides, inputs, parent = task.slides, task.preset.inputs, task.parent
    columns = {key: read_feature_names(slides[0], key) for key in inputs.obsm}
    used = [_used_spots(task, i, section) for i, section in enumerate(sections)]
    record = replace(
        record,
        sections=[slide.name for slide in slides],
        n_spots=[slide.n_spots if mask is None else int(mask.sum()) for slide, mask in zip(slides, used, strict=True)],
        mpp=[slide.mpp for slide in slides],
        pitch_um=[None if slide.mpp is None else round(slide.pitch() * slide.mpp, 2) for slide in slides],
        image_mpp=[image_mpp(slide) for slide in slides],
        fingerprints=[model_fingerprint(slide, mask).to_dict() for slide, mask in zip(slides, used, strict=True)],
        colors=record_colors(slides) if inputs.needs_image else [],
        validation=[", ".join(held_out) if isinstance(held_out, tuple) else str(held_out) for held_out in plan],
        seed=task.options.compute.seed,
        encoder_weights=encoder.weights if encoder else None,
        stain=stain,
        expression=[slide.name for slide in task.extra_sections],
        obsm_columns=columns if any(columns.values()) else {},
    )
    if parent is None:
        return record
    earlier = parent.training
    return replace(
        record,
        model=parent.id,
        model_sections=earlier.all_sections,
        fingerprints=[*earlier.fingerprints, *record.fingerprints],
        colors=[*earlier.colors, *record.colors],
        image_mpp=[*earlier.image_mpp, *record.image_mpp],
    )


def _used_spots(task: TrainingTask, number: int, section: Section) -> NDArray[np.bool_] | None:
    """Spots of a slide that the model was trained on; ``None`` if the user named none, and all with counts were."""
    if task.measured_of(number) is None and task.min_counts <= 1:
        return None
    mask: NDArray[np.bool_] = section.train.numpy()
    return mask
