"""Training that was stopped goes on where it was: the state at each epoch's end, and networks that are finished."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from sthggep._disk._whole import whole_file

if TYPE_CHECKING:
    import lightning

    from sthggep._training._datamodule import SectionDataModule

STATE, BEST, FINISHED = "epoch.ckpt", "best", "finished.pt"


class KeptEpochs(Checkpoint):
    """Writes all that the rest of the training depends on at the end of every epoch.

    Weights, optimizer, schedule, epoch and callbacks are Lightning's; random states and curves are added. Half an epoch is
    not worth keeping.

    Parameters
    ----------
    folder
        Where to; it is made.
    data
        The sections, whose order is drawn.
    """

    def __init__(self, folder: Path, data: SectionDataModule) -> None:
        self.path, self.data = folder / STATE, data
        self.random: dict[str, Any] | None = None
        self.stopped = False
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def resumed_from(self) -> str | None:
        """The file to go on from; ``None`` at the beginning."""
        return str(self.path) if self.path.exists() else None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the state, after all other callbacks: whole or not at all."""
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.path)  # all processes take part, and the first one writes
            return
        with whole_file(self.path) as part:
            trainer.save_checkpoint(part)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """An interrupted training that had stopped early stays stopped."""
        trainer.should_stop |= self.stopped

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw from where the interrupted training would have drawn."""
        if self.random is not None:
            set_random_states(self.random)
            self.random = None

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add random states and curves."""
        module: Any = pl_module
        checkpoint["sthggep"] = {
            "random": random_states(),
            "order": self.data.generator.get_state(),
            "augmentation": module.augmentation.get_state(),
            "rows": module.rows,
            "stopped": trainer.should_stop,
        }

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take them up; the order of the sections is drawn before the epoch starts."""
        kept = checkpoint["sthggep"]
        self.random, self.stopped = kept["random"], kept["stopped"]
        self.data.generator.set_state(kept["order"])
        module: Any = pl_module
        module.augmentation.set_state(kept["augmentation"])
        module.rows = kept["rows"]


def random_states() -> dict[str, Any]:
    """States of torch's generators, from which dropout is drawn."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_states(states: dict[str, Any]) -> None:
    """Set them; those of other devices than are here are left."""
    torch.set_rng_state(states["cpu"])
    if torch.cuda.device_count() == len(states["cuda"]) > 0:
        torch.cuda.set_rng_state_all(states["cuda"])


def finish(folder: Path, net: nn.Module, rows: list[dict[str, float]]) -> None:
    """Keep a trained network and its curves, in place of the state in between."""
    with whole_file(folder / FINISHED) as part:
        torch.save({"net": net.state_dict(), "rows": rows}, part)
    for path in (folder / STATE, *(folder / BEST).glob("*.ckpt")):
        path.unlink(missing_ok=True)


def finished(folder: Path, net: nn.Module) -> list[dict[str, float]] | None:
    """Load a trained network, in place, and return its curves; ``None`` where it is still to be trained."""
    path = folder / FINISHED
    if not path.exists():
        return None
    found = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(found["net"])
    rows: list[dict[str, float]] = found["rows"]
    return rows
