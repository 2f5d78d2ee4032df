"""Device, batch size, progress bar and seed of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Compute:
    """Device, batch size, progress and seed of one call; none of them changes the meaning of the result."""

    device: torch.device
    batch_size: int = 64
    """Number of patches in a batch of the encoder."""
    show_progress: bool = False
    seed: int = 0
