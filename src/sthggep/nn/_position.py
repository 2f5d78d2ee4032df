"""Position of a spot relative to its section, for sections of any size."""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sthggep.nn._hypergraph import as_positions

WAVELENGTHS = (4.0, 256.0)  # in units of the spot pitch: below 4 nothing but aliasing, 256 spans any array


class RelativePosition(nn.Module):
    """Sines and cosines of the position relative to the section's center, projected to ``dim`` features.

    Shifting the section changes nothing, and no table can overflow.

    Parameters
    ----------
    dim
        Features a spot.
    n_waves
        Wavelengths an axis, evenly spaced in the logarithm.
    """

    def __init__(self, dim: int, n_waves: int = 16) -> None:
        super().__init__()
        shortest, longest = WAVELENGTHS
        lengths = torch.logspace(math.log10(shortest), math.log10(longest), n_waves)
        self.register_buffer("frequency", 2 * math.pi / lengths, persistent=False)
        self.project = nn.Linear(4 * n_waves, dim)

    def forward(self, positions: ArrayLike | Tensor) -> Tensor:
        """Position features of positions ``(n, 2)`` in units of the spot pitch."""
        xy = as_positions(positions)
        frequency: Tensor = self.get_buffer("frequency")
        # centered in float64 on the CPU: large coordinates keep their digits, and MPS has no float64
        centered = torch.from_numpy(xy - xy.mean(axis=0)).float().to(frequency.device)
        phase = (centered.unsqueeze(-1) * frequency).flatten(1)
        out: Tensor = self.project(torch.cat([phase.sin(), phase.cos()], dim=1))
        return out
