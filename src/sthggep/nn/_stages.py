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
        means, spreads = zip(*(mean_and_spread(x.float()) for x in sections), strict=True)
        self.mean.copy_(torch.stack(means).mean(dim=0))
        self.spread.copy_(torch.stack(spreads).mean(dim=0))

    def adapt(self, sections: Sequence[Tensor], share: float) -> None:
        """Move towards the mean and spread of further sections: not at all for a share of 0, all the way for 1."""
        means, spreads = zip(*(mean_and_spread(x.float()) for x in sections), strict=True)
        self.mean.lerp_(torch.stack(means).mean(dim=0), share)
        self.spread.lerp_(torch.stack(spreads).mean(dim=0), share)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the features ``(n, width)`` of one section."""
        x = x.float()
        own = len(x) / (len(x) + PRIOR_SPOTS)
        mean, spread = mean_and_spread(x)
        mean = own * mean + (1 - own) * self.mean
        spread = own * spread + (1 - own) * self.spread
        scaled = (x - mean) / spread.clamp_min(1e-6)
        return scaled.clamp(-CLIP, CLIP) * self.share


def mean_and_spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, as matrix products: torch's column-wise reductions are ten times slower."""
    share = x.new_full((len(x),), 1 / len(x))
    mean = share @ x
    return mean, (share @ (x - mean).square()).sqrt()
