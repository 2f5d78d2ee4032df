"""What a training depends on, so that a folder with another one's state is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthggep._disk._run_folder import RunFolder, plain
from sthggep._slides._fingerprint import signature
from sthggep._table._user_features import features_id

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide
    from sthggep._table._targets import Targets
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP

RUN = RunFolder("training", "checkpoint_dir", "training.json")


def open_training(
    folder: str | Path,
    slides: Sequence[Slide],
    genes: Sequence[str],
    preset: Preset,
    *,
    plan: Sequence[Any],
    seed: int,
    layer: str | None,
    weights: str | Path | None,
    window: int | str | None,
    parent: HGGEP | None,
    further: Sequence[Slide],
    targets: Targets | None,
) -> Path:
    """The folder, new or of the very same training. How it is computed (device, processes, precision) may differ."""
    from sthggep._version import __version__

    options = {"seed": seed, "layer": layer, "weights": plain(weights), "window": window}
    record = {
        "version": __version__,
        "options": options | {name: plain(value) for name, value in asdict(preset).items()},
        "genes": list(genes),
        "validation": [str(held_out) for held_out in plan],
        "model": None if parent is None else parent.id,
        "sections": {
            slide.name: {
                "content": signature(slide, slide.name, layer).content,
                "mpp": slide.mpp,
                "features": features_id(slide, preset.inputs.obsm),
                "targets": None if targets is None else _digest(targets.read(slide)),
            }
            for slide in slides
        },
        "expression": {slide.name: signature(slide, slide.name, layer).content for slide in further},
    }
    RUN.open(Path(folder), record)
    return Path(folder)


def _digest(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
