"""The record of a training, which the model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from sthggep._slides._colors import image_mpp, record_colors
from sthggep._slides._fingerprint import model_fingerprint
from sthggep._table._user_features import feature_names

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._training._task import TrainingTask
    from sthggep._training._validation import HeldOut
    from sthggep.model._record import TrainingRecord


def record_training(
    record: TrainingRecord,
    task: TrainingTask,
    plan: Sequence[HeldOut],
    encoder: FrozenEncoder | None,
    stain: dict[str, Any] | None,
) -> TrainingRecord:
    """Add to a record what was trained on, and how.

    Parameters
    ----------
    record
        What is known of targets and held-out results.
    task
        The task; its slides are those that the networks were fed.
    plan
        What each network held out.
    encoder
        The frozen encoder, where there is one.
    stain
        Stain that the slides were normalized to.
    """
    slides, inputs, parent = task.slides, task.preset.inputs, task.parent
    columns = {key: feature_names(slides[0], key) for key in inputs.obsm}
    record = replace(
        record,
        sections=[slide.name for slide in slides],
        n_spots=[slide.n_spots for slide in slides],
        mpp=[slide.mpp for slide in slides],
        pitch_um=[None if slide.mpp is None else round(slide.pitch() * slide.mpp, 2) for slide in slides],
        image_mpp=[image_mpp(slide) for slide in slides],
        fingerprints=[asdict(model_fingerprint(slide)) for slide in slides],
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
    before = parent.training
    return replace(
        record,
        model=parent.id,
        model_sections=before.all_sections,
        fingerprints=[*before.fingerprints, *record.fingerprints],
        colors=[*before.colors, *record.colors],
        image_mpp=[*before.image_mpp, *record.image_mpp],
    )
