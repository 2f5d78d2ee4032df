"""A training that takes its time, to be killed: `python slow_fit.py FOLDER SECONDS`, the seconds being those of a step."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from lightning.pytorch.callbacks import Callback

import sthggep


class Slow(Callback):
    """Waits before every step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_start(self, *_) -> None:
        time.sleep(self.seconds)


def fit(folder: Path | None, seconds: float = 0.0, **options) -> sthggep.HGGEP:
    """Two networks on toy tissue, from features that say something of it."""
    slides = [sthggep.datasets.toy(seed=seed, size_um=(1600.0, 1600.0), mpp=4.0, n_genes=8) for seed in range(3)]
    for slide in slides:
        noise = np.random.default_rng(0).standard_normal((slide.n_obs, 4))
        slide.obsm["told"] = np.column_stack([np.asarray(slide.obsm["morphology"], dtype=float), noise])
    given = {"genes": list(slides[0].var_names), "obsm": "told", "n_members": 2, "max_epochs": 4, "device": "cpu"}
    given |= {"trainer_kwargs": {"callbacks": [Slow(seconds)]}, "checkpoint_dir": folder, "show_progress_bar": False}
    return sthggep.tl.fit(slides, **(given | options))


if __name__ == "__main__":
    fit(Path(sys.argv[1]), float(sys.argv[2]))
