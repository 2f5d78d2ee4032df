"""Loaders of training and validation windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import lightning
import torch
from torch.utils.data import DataLoader

from sthggep._training._steps import TrainingSteps

if TYPE_CHECKING:
    from sthggep._inputs._section import SectionWindow
    from sthggep.nn._stages import Hop


class SectionDataModule(lightning.LightningDataModule):
    """Load the windows of sections, one a training step.

    Parameters
    ----------
    windows
        Windows with the masks of their training and validation spots.
    seed
        Seed of the order of the training windows.
    min_steps, hops
        As for :class:`TrainingSteps`.
    """

    def __init__(
        self, windows: Sequence[SectionWindow], seed: int = 0, min_steps: int = 1, hops: Sequence[Hop] | None = None
    ) -> None:
        super().__init__()
        self.training = TrainingSteps([window for window in windows if window.train.any()], min_steps, hops)
        self.validation = [window for window in windows if window.validate.any()]
        self.generator = torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> DataLoader[SectionWindow]:
        """Load the training windows, in a new order each epoch."""
        return DataLoader(
            self.training,  # type: ignore[arg-type]
            batch_size=None,
            shuffle=True,
            generator=self.generator,
            collate_fn=_pass_on,
        )

    def val_dataloader(self) -> list[SectionWindow] | DataLoader[SectionWindow]:
        """Load the windows with held-out spots; an empty list if there are none."""
        if not self.validation:
            return []
        return DataLoader(self.validation, batch_size=None, collate_fn=_pass_on)  # type: ignore[arg-type]


def _pass_on(window: object) -> object:
    """Return the window: the default collation would turn positions into tensors."""
    return window
