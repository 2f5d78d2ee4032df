"""One network, its losses and its optimizer, trained by Lightning; nothing about AnnData."""

from __future__ import annotations

import itertools
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from sthggep._training._checkpoints import BEST, KeptEpochs, finish, finished
from sthggep._training._datamodule import SectionDataModule
from sthggep.nn import Output, augment_section, correlation_loss, nb_nll, self_distillation, zinb_nll
from sthggep.nn._precision import faster_in_bf16
from sthggep.nn._section import PatchInputs

if TYPE_CHECKING:
    from sthggep._inputs._section import SectionWindow
    from sthggep._progress import Progress
    from sthggep._training._presets import Recipe

WATCHED = "val_pearson"


class Training(lightning.LightningModule):
    """Losses and optimizer around a network that is called as ``net(*window.inputs)``.

    Parameters
    ----------
    net
        The network.
    recipe
        Weights of the losses, learning rate, schedule.
    seed
        Of the augmented copies.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, seed: int = 0) -> None:
        super().__init__()
        self.net, self.recipe = net, recipe
        self.augmentation = torch.Generator().manual_seed(seed)
        self.rows: list[dict[str, float]] = []

    def training_step(self, window: SectionWindow, _: int) -> Tensor:
        """Loss of one section, over its training spots."""
        if not self.recipe.distillation:
            parts = self.losses(window, self.net(*window.inputs), window.train)
        else:
            first, copies = self._with_copies(window)
            parts = self.losses(window, first, window.train)
            parts["distillation"] = self.recipe.distillation * self._distil(window, first, copies)
        total: Tensor = torch.stack(list(parts.values())).sum()
        figures = {f"train_{name}": part for name, part in parts.items()} | {"train_loss": total}
        self.log_dict(figures, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return total

    def losses(self, window: SectionWindow, out: Output, at: Tensor) -> dict[str, Tensor]:
        """Weighted parts of the loss over the spots ``at``, self-distillation aside."""
        recipe = self.recipe
        predicted, target = out.expression[at], window.target[at]
        parts = {"mse": recipe.mse * nn.functional.mse_loss(predicted, target)}
        if recipe.correlation:
            parts["correlation"] = recipe.correlation * correlation_loss(predicted, target)
        if recipe.count_nll and out.mean is not None and out.dispersion is not None and out.dropout is not None:
            nll = zinb_nll(
                window.counts[at], out.mean[at], out.dispersion[at], out.dropout[at], window.size_factors[at]
            )
            parts["counts"] = recipe.count_nll * nll
        elif recipe.count_nll and out.r is not None and out.p is not None:
            parts["counts"] = recipe.count_nll * nb_nll(window.counts[at], out.r[at], out.p[at])
        return parts

    def _with_copies(self, window: SectionWindow) -> tuple[Output, Output]:
        """Prediction of the section, and of its augmented copies."""
        assert isinstance(window.inputs, PatchInputs)
        patches, *rest = window.inputs
        copies = (augment_section(patches, generator=self.augmentation) for _ in range(self.recipe.n_copies))
        out: Output = self.net.versions(itertools.chain([patches], copies), *rest)  # type: ignore[operator]
        first, others = zip(*((None, None) if one is None else (one[0], one[1:]) for one in out), strict=True)
        return Output(*first), Output(*others)

    def _distil(self, window: SectionWindow, first: Output, copies: Output) -> Tensor:
        """Squared distance to what augmented copies of the section agree on."""
        coefficients: Tensor = self.net.coefficient(copies.latent)  # type: ignore[operator]
        at = window.train
        return self_distillation(first.expression[at], copies.expression[:, at], coefficients[:, at])

    def validation_step(self, window: SectionWindow, _: int) -> None:
        """The same loss, and the mean gene-wise correlation, on spots held out."""
        out, at = self.net(*window.inputs), window.validate
        loss = torch.stack(list(self.losses(window, out, at).values())).sum()
        pearson = 1 - correlation_loss(out.expression[at], window.target[at])
        self.log_dict({"val_loss": loss, WATCHED: pearson}, batch_size=1, sync_dist=True)

    def on_train_epoch_end(self) -> None:
        """Keep the epoch's figures for ``history``."""
        found = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        self.rows.append({"epoch": self.current_epoch, **found})

    def configure_optimizers(self) -> Any:
        """AdamW (Adam where nothing decays), with the step schedule of the recipe."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(self.net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        if recipe.step_epochs is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe.step_epochs, recipe.step_factor)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Epochs(Callback):
    """Tells the progress over all epochs of all members of each epoch."""

    def __init__(self, done: Progress) -> None:
        self.done = done

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count the epochs of an interrupted training that is gone on with."""
        if trainer.current_epoch:
            self.done.update(trainer.current_epoch, {})

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Move on by one epoch."""
        found = trainer.callback_metrics
        shown = {"loss": "train_loss", "validation PCC": WATCHED}
        self.done.update(1, {name: float(found[key]) for name, key in shown.items() if key in found})


def train_network(
    net: nn.Module,
    windows: list[SectionWindow],
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    done: Progress | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Train a network in place; with held-out spots, stop early and keep the best epoch.

    With a ``folder`` the training goes on from what an interrupted one left there.

    Returns
    -------
    One row an epoch: ``epoch``, ``train_loss``, its parts, ``val_loss``, ``val_pearson``.
    """
    rows = None if folder is None else finished(folder, net)
    if rows is None:
        rows = _train(net, windows, recipe, seed, device, done, dict(trainer_kwargs or {}), folder)
    net.eval().cpu()
    found = pd.DataFrame(rows)
    first = [name for name in ("epoch", "train_loss", "val_loss", WATCHED) if name in found]
    return found[[*first, *(name for name in found if name not in first)]]


def _train(
    net: nn.Module,
    windows: list[SectionWindow],
    recipe: Recipe,
    seed: int,
    device: torch.device,
    done: Progress | None,
    given: dict[str, Any],
    folder: Path | None,
) -> list[dict[str, float]]:
    """Curves of a training by Lightning; the network has the weights of its best epoch."""
    data = SectionDataModule(windows, seed, recipe.min_steps)
    module = Training(net, recipe, seed)
    with quiet(), isolate_rng(), tempfile.TemporaryDirectory() as passing:
        torch.manual_seed(seed)
        kept = None if folder is None else KeptEpochs(folder, data)
        callbacks: list[Callback] = [Epochs(done)] if done is not None else []
        # The state that is gone on from may name the best epoch before this one: both stay
        best = ModelCheckpoint(
            passing if folder is None else folder / BEST,
            monitor=WATCHED,
            mode="max",
            save_weights_only=True,
            save_top_k=1 if folder is None else 2,
        )
        if data.validation:
            callbacks += [best, EarlyStopping(WATCHED, mode="max", patience=recipe.patience)]
        callbacks += [kept] if kept is not None else []
        # The user's callbacks stand beside ours
        more = given.pop("callbacks", None) or []
        callbacks += more if isinstance(more, list) else [more]
        options: dict[str, Any] = {
            "accelerator": device.type if device.type != "cuda" else "gpu",
            "devices": 1 if device.index is None else [device.index],
            "max_epochs": recipe.max_epochs,
            "precision": _precision(recipe.precision, device),
            "gradient_clip_val": recipe.clip,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": bool(data.validation) or kept is not None,
            "logger": False,
            "num_sanity_val_steps": 0,
            "callbacks": callbacks,
            **given,
        }
        module.train()  # Lightning trains in the mode it finds
        trainer = lightning.Trainer(**options)
        with repeatable():
            trainer.fit(module, datamodule=data, ckpt_path=None if kept is None else kept.resumed_from)
        if best.best_model_path:
            state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
            net.load_state_dict({name.removeprefix("net."): value for name, value in state.items()})
        if folder is not None and trainer.is_global_zero:
            finish(folder, net, module.rows)
        trainer.strategy.barrier()  # of several processes, one owns the folders that all read
    return module.rows


@contextmanager
def repeatable() -> Iterator[None]:
    """The same seed gives the same weights: else several threads add up the gradients of gathered rows in any order."""
    asked, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warned)


def _precision(asked: str, device: torch.device) -> str:
    """``"auto"`` is bfloat16 where that is clearly faster."""
    if asked != "auto":
        return asked
    return "bf16-mixed" if faster_in_bf16(device) else "32-true"


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning's advice on loaders and loggers is for its own users, not for ours."""
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
