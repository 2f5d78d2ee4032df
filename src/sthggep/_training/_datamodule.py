"""Loaders of training and validation windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import lightning
import torch
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from sthggep._inputs._section import SectionWindow


class SectionDataModule(lightning.LightningDataModule):
    """Load the windows of sections, one a training step.

    Parameters
    ----------
    windows
        Windows with the masks of their training and validation spots.
    seed
        Seed of the order of the training windows.
    min_steps
        Fewest steps of an epoch; fewer windows are repeated within it.
    """

    def __init__(self, windows: Sequence[SectionWindow], seed: int = 0, min_steps: int = 1) -> None:
        super().__init__()
        training = [window for window in windows if window.train.any()]
        self.training = training * -(-min_steps // max(1, len(training)))
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
