"""Checkpoints of a training that may be interrupted: the state at the end of each epoch, and trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from sthggep._disk._whole import whole_file

if TYPE_CHECKING:
    import lightning

    from sthggep._training._datamodule import SectionDataModule

STATE, BEST, FINISHED = "epoch.ckpt", "best", "finished.pt"


class RandomStates(TypedDict):
    """States of torch's generators, from which dropout is drawn."""

    cpu: Tensor
    cuda: list[Tensor]


class EpochState(TypedDict):
    """What a checkpoint adds to Lightning's state."""

    random: RandomStates
    order: Tensor
    augmentation: Tensor
    rows: list[dict[str, float]]
    stopped: bool


class ResumableModule(Protocol):
    """A Lightning module with the generator of its augmentation and its training curves."""

    augmentation: torch.Generator
    rows: list[dict[str, float]]


class EpochCheckpoint(Checkpoint):
    """Write the state that the rest of the training depends on at the end of every epoch.

    Lightning saves weights, optimizer, schedule, epoch and callbacks; this callback adds random states and curves.

    Parameters
    ----------
    folder
        Folder of the checkpoint; it is made.
    data
        The windows, whose order is random.
    module
        The module that is trained.
    """

    def __init__(self, folder: Path, data: SectionDataModule, module: ResumableModule) -> None:
        self.path, self.data, self.module = folder / STATE, data, module
        self.random: RandomStates | None = None
        self.stopped = False
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def resume_path(self) -> str | None:
        """File to resume from; ``None`` if there is none."""
        return str(self.path) if self.path.exists() else None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the state, after all other callbacks: whole or not at all."""
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.path)  # all processes take part, and the first one writes
            return
        with whole_file(self.path) as part:
            trainer.save_checkpoint(part)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop at once if the interrupted training had stopped early."""
        trainer.should_stop |= self.stopped

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Set the random states of the interrupted training before its first new epoch."""
        if self.random is not None:
            set_random_states(self.random)
            self.random = None

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add random states and curves to the checkpoint."""
        state: EpochState = {
            "random": random_states(),
            "order": self.data.generator.get_state(),
            "augmentation": self.module.augmentation.get_state(),
            "rows": self.module.rows,
            "stopped": trainer.should_stop,
        }
        checkpoint["sthggep"] = state

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore them; torch's generators follow in `on_train_epoch_start`, after Lightning has drawn from them."""
        state: EpochState = checkpoint["sthggep"]
        self.random, self.stopped = state["random"], state["stopped"]
        self.data.generator.set_state(state["order"])
        self.module.augmentation.set_state(state["augmentation"])
        self.module.rows = state["rows"]


def random_states() -> RandomStates:
    """Read the states of torch's generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_states(states: RandomStates) -> None:
    """Set the states of torch's generators; those of GPUs only if there are as many as before."""
    torch.set_rng_state(states["cpu"])
    if torch.cuda.device_count() == len(states["cuda"]) > 0:
        torch.cuda.set_rng_state_all(states["cuda"])


def store_finished(folder: Path, net: nn.Module, rows: list[dict[str, float]]) -> None:
    """Write a trained network and its curves, and delete the checkpoints of its epochs."""
    with whole_file(folder / FINISHED) as part:
        torch.save({"net": net.state_dict(), "rows": rows}, part)
    for path in (folder / STATE, *(folder / BEST).glob("*.ckpt")):
        path.unlink(missing_ok=True)


def load_finished(folder: Path, net: nn.Module) -> list[dict[str, float]] | None:
    """Load the weights of a trained network into ``net`` and return its curves; ``None`` if it is not trained yet."""
    path = folder / FINISHED
    if not path.exists():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(saved["net"])
    rows: list[dict[str, float]] = saved["rows"]
    return rows
