"""Checkpoints of a training that may be interrupted: the state at the end of each epoch, and trained networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from sthggep._disk._tensors import explain, read_torch
from sthggep._disk._whole import whole_file

if TYPE_CHECKING:
    import lightning

    from sthggep._training._datamodule import SectionDataModule

STATE, BEST, FINISHED = "epoch.ckpt", "best", "finished.pt"
# The checkpoint to resume from may name the best epoch before the latest best: both stay
BEST_EPOCHS = 2


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
        self.stopped = self.started = False
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def resume_path(self) -> str | None:
        """File to resume from, which is read once to see whether it is whole; ``None`` if there is none."""
        if not self.path.exists():
            return None
        _read(self.path)
        return str(self.path)

    @contextmanager
    def resuming(self) -> Iterator[None]:
        """Name the file in errors before the first new epoch: its parts are not those of this training."""
        try:
            yield
        except Exception as reason:
            if self.started or not self.path.exists():
                raise
            raise _unusable(self.path, explain(reason)) from reason

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the state, after all other callbacks: whole or not at all."""
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.path)  # all processes take part, and the first one writes
            return
        with whole_file(self.path) as part:
            trainer.save_checkpoint(part)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop at once if the interrupted training had stopped early."""
        self.started = True
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
        for callback in checkpoint["callbacks"].values():
            _keep_in(self.path.parent / BEST, callback)
        state: EpochState = checkpoint["sthggep"]
        self.random, self.stopped = state["random"], state["stopped"]
        self.data.generator.set_state(state["order"])
        self.module.augmentation.set_state(state["augmentation"])
        self.module.rows = _curves(state["rows"])


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
    saved = _read(path)
    try:
        net.load_state_dict(saved["net"])
        return _curves(saved["rows"])
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as reason:
        raise _unusable(path, explain(reason)) from reason


def load_best(path: Path, net: nn.Module) -> None:
    """Load the weights of the best epoch, which Lightning wrote, into ``net``."""
    saved = _read(path)
    try:
        net.load_state_dict({name.removeprefix("net."): value for name, value in saved["state_dict"].items()})
    except (KeyError, TypeError, AttributeError, RuntimeError) as reason:
        raise _unusable(path, explain(reason)) from reason


def _read(path: Path) -> dict[str, Any]:
    """Read a file of a checkpoint folder without running code in it."""
    try:
        saved = read_torch(path, checked=True)
    except ValueError as reason:
        raise _unusable(path, str(reason)) from reason
    if not isinstance(saved, dict):
        raise _unusable(path, f"it holds a {type(saved).__name__}")
    return saved


def _curves(rows: object) -> list[dict[str, float]]:
    """Check that training curves are a list of named numbers."""
    if not isinstance(rows, list) or not all(isinstance(v, int | float) for row in rows for v in row.values()):
        msg = "its training curves are not numbers"
        raise ValueError(msg)
    return rows


def _unusable(path: Path, why: str) -> ValueError:
    msg = (
        f"{str(path)!r} is broken, or not of this training ({why}). Delete the file: the training of this network then "
        "starts again. The others stay."
    )
    return ValueError(msg)


def _keep_in(folder: Path, state: dict[str, Any]) -> None:
    """Move the paths in the state of a callback into this folder: Lightning reads and deletes the files that they name."""
    if "best_model_path" not in state:
        return
    state["dirpath"] = str(folder)
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = _moved(state[name], folder)
    best = {_moved(path, folder): score for path, score in state["best_k_models"].items()}
    worst = state["kth_best_model_path"]
    if not all(isinstance(score, Tensor) for score in best.values()) or (
        worst not in best and len(best) >= BEST_EPOCHS
    ):
        msg = "its best epochs are not those of a training"
        raise ValueError(msg)
    state["best_k_models"] = best


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else ""
