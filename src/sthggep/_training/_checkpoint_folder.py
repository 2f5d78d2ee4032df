"""The record of a checkpoint folder, by which a folder of another training is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._disk._digest import digest
from sthggep._disk._run_folder import RunFolder, plain
from sthggep._encoders._cache import image_fingerprint
from sthggep._slides._fingerprint import section_fingerprint
from sthggep._table._user_features import hash_user_features
from sthggep._version import __version__

if TYPE_CHECKING:
    from sthggep._training._task import TrainingTask
    from sthggep._training._validation import HeldOut

RUN = RunFolder("training", "checkpoint_dir", "training.json")


@contextmanager
def open_training(task: TrainingTask, plan: Sequence[HeldOut]) -> Iterator[Path | None]:
    """Open the checkpoint folder of a training: a new folder, or one of a training with the same data and options.

    Device, number of processes and precision may differ. ``None`` if the training has none.
    """
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    if task.options.checkpoint_dir is None:
        yield None
        return
    folder = Path(task.options.checkpoint_dir)
    record = _record(task, plan)
    # The first of several processes that train together keeps others out
    if getattr(rank_zero_only, "rank", 0):
        RUN.open(folder, record)
        yield folder
        return
    with RUN.at_work(folder, record):
        yield folder


def _record(task: TrainingTask, plan: Sequence[HeldOut]) -> dict[str, object]:
    """What the checkpoints depend on, in plain types."""
    options, preset, targets = task.options, task.preset, task.targets
    seed, layer, weights, window = options.compute.seed, options.layer, plain(options.weights), options.window
    return {
        "version": __version__,
        "options": {"seed": seed, "layer": layer, "weights": weights, "window": window}
        | {name: plain(value) for name, value in asdict(preset).items()},
        "genes": list(task.genes),
        **({"absent": "mask"} if task.mixed else {}),
        "validation": [str(held_out) for held_out in plan],
        "model": None if task.parent is None else task.parent.id,
        "sections": {
            slide.name: {
                "content": section_fingerprint(slide, slide.name, layer).content,
                "image": image_fingerprint(slide.levels),
                "mpp": slide.mpp,
                "features": hash_user_features(slide, preset.inputs.obsm),
                "targets": None if targets is None else digest(targets.read(slide)),
            }
            for slide in task.slides
        },
        "expression": {s.name: section_fingerprint(s, s.name, layer).content for s in task.extra_sections},
    }
