"""Several views of a spot made into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SequenceFusion(nn.Module):
    """Read the views as a sequence with an LSTM and average its outputs (jumping knowledge, "jknet").

    Parameters
    ----------
    dim
        Features of a view.
    layers
        Layers of the LSTM.
    """

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, layers)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Fuse views of the same shape (spots, features)."""
        steps = torch.stack([view.float() for view in views])
        out: Tensor = self.lstm(steps)[0]
        return out.float().mean(dim=0)


class AttentionFusion(nn.Module):
    """Average the views with weights that each spot sets for itself.

    Parameters
    ----------
    dim
        Features of a view.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Fuse views of the same shape (spots, features)."""
        steps = self.norm(torch.stack([view.float() for view in views]))
        weights = self.score(steps).float().softmax(dim=0)
        fused: Tensor = (weights * steps).sum(dim=0)
        return fused
