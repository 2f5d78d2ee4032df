"""Normalization of pixels, in memory that is kept for the next tile."""

from __future__ import annotations

from collections.abc import Sequence
from threading import local
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGE = 12 << 20  # values of an image whose memory is worth keeping: the system clears new memory first
STRIP = 1 << 18  # values that are normalized at once: they stay in the processor's cache from step to step


class PixelMemory(local):
    """Memory of one thread."""

    buffer: torch.Tensor | None = None

    def normalize(self, pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
        """Convert uint8 pixels (n, height, width, channels) to float32, centered and scaled by channel."""
        import torch

        rows = pixels.reshape(-1, pixels.shape[2] * pixels.shape[3])
        # Whole rows: along three channels alone, the arithmetic takes twice as long
        means, stds = (torch.tensor(values, device=pixels.device).repeat(pixels.shape[2]) for values in (mean, std))
        out = self._take(pixels).view(rows.shape)
        step = max(1, STRIP // rows.shape[1]) if pixels.device.type == "cpu" else len(rows)
        for first in range(0, len(rows), step):
            part = out[first : first + step].copy_(rows[first : first + step])
            part.div_(255).sub_(means).div_(stds)
        return out.view(pixels.shape)

    def _take(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return memory for as many values: those of a tile take that of the tile before."""
        import torch

        if pixels.numel() < LARGE or pixels.device.type != "cpu":
            return torch.empty(pixels.numel(), device=pixels.device)
        if self.buffer is None or self.buffer.numel() < pixels.numel():
            self.buffer = torch.empty(pixels.numel())
        return self.buffer[: pixels.numel()]
