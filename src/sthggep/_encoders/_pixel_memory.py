"""Memory for the pixels of a tile, kept for the next one."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGE = 12 << 20  # values of an image whose memory is worth keeping: the system clears new memory first


class PixelMemory(local):
    """Memory of one thread."""

    buffer: torch.Tensor | None = None

    def as_floats(self, pixels: torch.Tensor) -> torch.Tensor:
        """Convert pixels to float32, those of a tile in the memory of the tile before."""
        import torch

        if pixels.numel() < LARGE or pixels.device.type != "cpu":
            return pixels.float()
        if self.buffer is None or self.buffer.numel() < pixels.numel():
            self.buffer = torch.empty(pixels.numel())
        return self.buffer[: pixels.numel()].view(pixels.shape).copy_(pixels)
