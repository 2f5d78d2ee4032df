"""A training that kills its process: `python slow_fit.py FOLDER NETWORK EPOCH` dies in that epoch of that network."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from lightning.pytorch.callbacks import Callback

import sthggep
from sthggep._training._presets import PRESETS


class Diary(Callback):
    """Record the trained epochs of all networks, and kill the process in the middle of one."""

    def __init__(self, die_in: tuple[int, int] | None = None) -> None:
        self.die_in = die_in
        self.network, self.epochs = -1, []

    def on_fit_start(self, *_) -> None:
        self.network += 1

    def on_train_batch_start(self, trainer, _, __, step: int) -> None:
        if step == 1 and (self.network, trainer.current_epoch) == self.die_in:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_epoch_end(self, trainer, *_) -> None:
        self.epochs.append((self.network, trainer.current_epoch))


def fit(folder: Path | None, diary: Diary | None = None, **options) -> sthggep.HGGEP:
    """Train two networks on toy tissue, on informative features; both have a share in the prediction."""
    default = PRESETS["default"]
    preset = replace(default, recipe=replace(default.recipe, shares=(0.25,)))
    slides = [sthggep.datasets.toy(seed=seed, size_um=(1600.0, 1600.0), mpp=4.0, n_genes=8) for seed in range(3)]
    for slide in slides:
        noise = np.random.default_rng(0).standard_normal((slide.n_obs, 4))
        slide.obsm["signals"] = np.column_stack([np.asarray(slide.obsm["morphology"], dtype=float), noise])
    defaults = {"genes": list(slides[0].var_names), "obsm": "signals", "n_members": 2, "max_epochs": 4, "device": "cpu"}
    defaults |= {
        "preset": preset,
        "trainer_kwargs": {"callbacks": [diary or Diary()]},
        "checkpoint_dir": folder,
        "show_progress_bar": False,
    }
    return sthggep.tl.fit(slides, **(defaults | options))


if __name__ == "__main__":
    network, epoch = map(int, sys.argv[2:])
    fit(Path(sys.argv[1]), Diary((network, epoch)))
