"""Features of a section made comparable between slides: each judged against the rest of its own section."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PRIOR_SPOTS = 10.0  # a section smaller than this leans on the training slides' mean and spread
CLIP = 8.0


class SectionScale(nn.Module):
    """Centre and scale each feature within its section, and let each latent stage weigh the same.

    Stain, scanner and tissue shift all features of a slide together; what is left after centring differs between spots.
    A stage of 1,024 maps would drown one of 48, so each block is divided by the root of its width.

    Parameters
    ----------
    blocks
        Widths of the blocks (latent stages) that the features are made of.
    """

    mean: Tensor
    spread: Tensor
    share: Tensor

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__()
        width = sum(blocks)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        share = torch.cat([torch.full((block,), (block * len(blocks)) ** -0.5) for block in blocks])
        self.register_buffer("share", share)

    def start(self, sections: Sequence[Tensor]) -> None:
        """Take the mean and spread of training sections, for slides too small to have their own."""
        self.mean.copy_(torch.stack([x.mean(dim=0) for x in sections]).mean(dim=0))
        self.spread.copy_(torch.stack([x.std(dim=0, correction=0) for x in sections]).mean(dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the features ``(n, width)`` of one section."""
        x = x.float()
        own = len(x) / (len(x) + PRIOR_SPOTS)
        mean = own * x.mean(dim=0) + (1 - own) * self.mean
        spread = own * x.std(dim=0, correction=0) + (1 - own) * self.spread
        scaled = (x - mean) / spread.clamp_min(1e-6)
        return scaled.clamp(-CLIP, CLIP) * self.share
