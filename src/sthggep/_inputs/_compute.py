"""How a call computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Compute:
    """Device, batch size, progress and seed of one call: none of them changes what the result means."""

    device: torch.device
    batch_size: int = 64
    """Patches encoded at a time."""
    show_progress: bool = False
    seed: int = 0
