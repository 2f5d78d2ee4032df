"""Training of one network by Lightning: losses, optimizer, early stopping."""

from __future__ import annotations

import itertools
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from sthggep._training._checkpoints import BEST, BEST_EPOCHS, EpochCheckpoint, load_best, load_finished, store_finished
from sthggep._training._datamodule import SectionDataModule
from sthggep._training._interrupt import interruptible
from sthggep.nn import Output, augment_section, correlation_loss, nb_nll, self_distillation, zinb_nll
from sthggep.nn._incomplete import known_columns
from sthggep.nn._precision import faster_in_bf16
from sthggep.nn._section import PatchInputs

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from sthggep._inputs._section import SectionWindow
    from sthggep._progress import Progress
    from sthggep._training._presets import Recipe

WATCHED = "val_pearson"
COUNT_PARTS = ("mean", "dispersion", "dropout", "r", "p")  # of an output, by gene


class Training(lightning.LightningModule):
    """Losses and optimizer of a network that is called as ``net(*window.inputs)``.

    Parameters
    ----------
    net
        The network.
    recipe
        Weights of the losses, learning rate, schedule.
    seed
        Seed of the augmented copies.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, seed: int = 0) -> None:
        super().__init__()
        self.net, self.recipe = net, recipe
        self.augmentation = torch.Generator().manual_seed(seed)
        self.rows: list[dict[str, float]] = []

    def training_step(self, window: SectionWindow, _: int) -> Tensor:
        """Compute the loss over the training spots of one window."""
        if not self.recipe.distillation:
            parts = self.losses(window, self.net(*window.inputs), window.train)
        else:
            first, copies = self._predict_copies(window)
            parts = self.losses(window, first, window.train)
            parts["distillation"] = self.recipe.distillation * self._distill(window, first, copies)
        total: Tensor = torch.stack(list(parts.values())).sum()
        metrics = {f"train_{name}": part for name, part in parts.items()} | {"train_loss": total}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return total

    def losses(self, window: SectionWindow, out: Output, mask: Tensor) -> dict[str, Tensor]:
        """Compute the weighted parts of the loss over the masked spots and the genes that the section holds, except self-distillation."""
        recipe = self.recipe
        predicted, target, counts = out.expression[mask], window.target[mask], window.counts[mask]
        if not (known := known_columns(target)).all():
            predicted, target, counts = predicted[:, known], target[:, known], counts[:, known]
            out = out._replace(
                **{name: part[:, known] for name in COUNT_PARTS if (part := getattr(out, name)) is not None}
            )
        parts = {"mse": recipe.mse * nn.functional.mse_loss(predicted, target)}
        if recipe.correlation:
            parts["correlation"] = recipe.correlation * correlation_loss(predicted, target)
        if recipe.count_nll and out.mean is not None and out.dispersion is not None and out.dropout is not None:
            nll = zinb_nll(counts, out.mean[mask], out.dispersion[mask], out.dropout[mask], window.size_factors[mask])
            parts["counts"] = recipe.count_nll * nll
        elif recipe.count_nll and out.r is not None and out.p is not None:
            parts["counts"] = recipe.count_nll * nb_nll(counts, out.r[mask], out.p[mask])
        return parts

    def _predict_copies(self, window: SectionWindow) -> tuple[Output, Output]:
        """Predict the window, and augmented copies of it."""
        assert isinstance(window.inputs, PatchInputs)
        patches, *rest = window.inputs
        copies = (augment_section(patches, generator=self.augmentation) for _ in range(self.recipe.n_copies))
        out: Output = self.net.versions(itertools.chain([patches], copies), *rest)  # type: ignore[operator]
        pairs = ((None, None) if versions is None else (versions[0], versions[1:]) for versions in out)
        first, others = zip(*pairs, strict=True)
        return Output(*first), Output(*others)

    def _distill(self, window: SectionWindow, first: Output, copies: Output) -> Tensor:
        """Compute the squared distance to the weighted mean prediction of the augmented copies."""
        coefficients: Tensor = self.net.coefficient(copies.latent)  # type: ignore[operator]
        mask = window.train
        return self_distillation(first.expression[mask], copies.expression[:, mask], coefficients[:, mask])

    def validation_step(self, window: SectionWindow, _: int) -> None:
        """Log the loss and the mean correlation of the genes on held-out spots."""
        out, mask = self.net(*window.inputs), window.validate
        loss = torch.stack(list(self.losses(window, out, mask).values())).sum()
        pearson = 1 - correlation_loss(out.expression[mask], window.target[mask])
        self.log_dict({"val_loss": loss, WATCHED: pearson}, batch_size=1, sync_dist=True)

    def on_train_epoch_end(self) -> None:
        """Add the metrics of the epoch to the curves."""
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.rows.append({"epoch": self.current_epoch, **metrics})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make AdamW (which is Adam without weight decay) with the step schedule of the recipe."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(self.net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        if recipe.step_epochs is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe.step_epochs, recipe.step_factor)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class EpochProgress(Callback):
    """Update the progress bar, which counts the epochs of one network, after each epoch."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count the epochs before an interruption."""
        if trainer.current_epoch:
            self.bar.update(trainer.current_epoch, {})

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Advance by one epoch and show its loss and validation correlation."""
        metrics = trainer.callback_metrics
        shown = {"loss": "train_loss", "validation PCC": WATCHED}
        self.bar.update(1, {name: float(metrics[key]) for name, key in shown.items() if key in metrics})


def train_network(
    net: nn.Module,
    windows: list[SectionWindow],
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    bar: Progress | None = None,
    trainer_kwargs: Mapping[str, object] | None = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Train a network in place; if spots are held out, stop early and restore the best epoch.

    With a ``folder``, the call resumes the interrupted training that left its state there.

    Returns
    -------
    One row an epoch: ``epoch``, which counts from 1, ``train_loss``, its parts, ``val_loss``, ``val_pearson``.
    """
    rows = None if folder is None else load_finished(folder, net)
    if rows is None:
        rows = _train(net, windows, recipe, seed, device, bar, dict(trainer_kwargs or {}), folder)
    net.eval().cpu()
    history = pd.DataFrame(rows)
    if "epoch" in history:
        history["epoch"] += 1  # Lightning, and the checkpoints with it, count from 0
    first = [name for name in ("epoch", "train_loss", "val_loss", WATCHED) if name in history]
    return history[[*first, *(name for name in history if name not in first)]]


def _train(
    net: nn.Module,
    windows: list[SectionWindow],
    recipe: Recipe,
    seed: int,
    device: torch.device,
    bar: Progress | None,
    trainer_kwargs: dict[str, object],
    folder: Path | None,
) -> list[dict[str, float]]:
    """Train by Lightning and return the curves; the network gets the weights of its best epoch."""
    data = SectionDataModule(windows, seed, recipe.min_steps, getattr(net, "hops", None))
    module = Training(net, recipe, seed)
    with silenced_lightning(), isolate_rng(), tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(seed)
        checkpoint = None if folder is None else EpochCheckpoint(folder, data, module)
        best = ModelCheckpoint(
            scratch if folder is None else folder / BEST,
            monitor=WATCHED,
            mode="max",
            save_weights_only=True,
            save_top_k=1 if folder is None else BEST_EPOCHS,
        )
        callbacks: list[Callback] = [EpochProgress(bar)] if bar is not None else []
        if data.validation:
            callbacks += [best, EarlyStopping(WATCHED, mode="max", patience=recipe.patience)]
        callbacks += [checkpoint] if checkpoint is not None else []
        module.train()  # Lightning does not set the mode
        trainer = make_trainer(
            recipe,
            device,
            callbacks,
            trainer_kwargs,
            enable_checkpointing=bool(data.validation) or checkpoint is not None,
        )
        resume_path = None if checkpoint is None else checkpoint.resume_path
        resuming = nullcontext() if checkpoint is None else checkpoint.resuming()
        with deterministic_algorithms(), interruptible(), resuming:
            trainer.fit(module, datamodule=data, ckpt_path=resume_path, weights_only=True)
        if best.best_model_path:
            load_best(Path(best.best_model_path), net)
        if folder is not None and trainer.is_global_zero:
            store_finished(folder, net, module.rows)
        trainer.strategy.barrier()  # the first of several processes owns the folders that all read
    return module.rows


def make_trainer(
    recipe: Recipe,
    device: torch.device,
    callbacks: list[Callback],
    trainer_kwargs: dict[str, Any],
    *,
    enable_checkpointing: bool,
) -> lightning.Trainer:
    """Make the trainer; the user's options win, except that the user's callbacks are added to ours."""
    more = trainer_kwargs.pop("callbacks", None) or []
    options = {
        "accelerator": device.type if device.type != "cuda" else "gpu",
        "devices": 1 if device.index is None else [device.index],
        "max_epochs": recipe.max_epochs,
        "precision": _precision(recipe.precision, device),
        "gradient_clip_val": recipe.clip,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": enable_checkpointing,
        "logger": False,
        "num_sanity_val_steps": 0,
        "callbacks": callbacks + (more if isinstance(more, list) else [more]),
        **trainer_kwargs,
    }
    return lightning.Trainer(**options)


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Make torch deterministic: otherwise several threads add up the gradients of gathered rows in any order."""
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def _precision(precision: str, device: torch.device) -> str:
    """Resolve ``"auto"``: bfloat16 on devices where it is clearly faster."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if faster_in_bf16(device) else "32-true"


@contextmanager
def silenced_lightning() -> Iterator[None]:
    """Silence Lightning's advice on loaders and loggers, which users of sthggep cannot follow."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
