"""Windows of the training sections, one a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from sthggep._inputs._section import SectionWindow


class SectionDataModule(lightning.LightningDataModule):
    """Feeds the windows of sections, one a step.

    Parameters
    ----------
    windows
        Their masks say which spots are trained and validated on.
    seed
        Order of the training windows.
    min_steps
        Fewest steps of an epoch: few windows are repeated within it.
    """

    def __init__(self, windows: Sequence[SectionWindow], seed: int = 0, min_steps: int = 1) -> None:
        super().__init__()
        training = [window for window in windows if window.train.any()]
        self.training = training * -(-min_steps // max(1, len(training)))
        self.validation = [window for window in windows if window.validate.any()]
        self.generator = torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> DataLoader[SectionWindow]:
        """Training windows, in a new order each epoch."""
        return DataLoader(
            self.training,  # type: ignore[arg-type]
            batch_size=None,
            shuffle=True,
            generator=self.generator,
            collate_fn=_as_it_is,
        )

    def val_dataloader(self) -> list[Any] | DataLoader[SectionWindow]:
        """Windows with held-out spots; none where nothing is held out."""
        if not self.validation:
            return []
        return DataLoader(self.validation, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]


def _as_it_is(window: Any) -> Any:
    """Positions stay numpy arrays: the default would make tensors of them."""
    return window
