"""Dropout of many values, without one random number for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 256  # of the rate: one byte decides on a value
LEAST = -(2**63)


class FastDropout(nn.Module):
    """Set values to zero at random while training, and scale the others up: one random number decides on eight values.

    ``torch.nn.Dropout`` draws a number for each value, on one core: half of the time of a training step on features.

    Parameters
    ----------
    rate
        Share of the values that are dropped, rounded to 1/256.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped = round(rate * STEPS)

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of ``x``, of any shape."""
        if not self.training or not self.dropped:
            return x
        if self.dropped == STEPS:
            return torch.zeros_like(x)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(LEAST, None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * kept.to(x.dtype).mul_(STEPS / (STEPS - self.dropped))
