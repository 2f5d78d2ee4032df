"""Sections of a training, one a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from sthggep._inputs._section import Section

    pass


class Sections(lightning.LightningDataModule):
    """Feeds whole sections, one a step.

    Parameters
    ----------
    sections
        Each says by its masks which of its spots are trained and validated on.
    seed
        Order of the training sections.
    min_steps
        Steps an epoch at least: few sections are gone through several times.
    """

    def __init__(self, sections: Sequence[Section], seed: int = 0, min_steps: int = 1) -> None:
        super().__init__()
        training = [section for section in sections if section.train.any()]
        self.training = training * -(-min_steps // max(1, len(training)))
        self.validation = [section for section in sections if section.validate.any()]
        self.generator = torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> DataLoader[Section]:
        """Training sections, in a new order each epoch."""
        return DataLoader(
            self.training,  # type: ignore[arg-type]
            batch_size=None,
            shuffle=True,
            generator=self.generator,
            collate_fn=_as_it_is,
        )

    def val_dataloader(self) -> list[Any] | DataLoader[Section]:
        """Validation sections; none where nothing is held out."""
        if not self.validation:
            return []
        return DataLoader(self.validation, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]


def _as_it_is(section: Any) -> Any:
    """Positions stay numpy arrays: the default would make tensors of them."""
    return section
