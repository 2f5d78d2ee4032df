"""Centering and scaling of features within each section, which makes them comparable between slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

PRIOR_SPOTS = 10.0  # a section smaller than this leans on the training slides' mean and spread
CLIP = 8.0
LEAST_SPREAD = 1e-6
Hop = Literal["hyperedges", "neighbors"]


class Moments(NamedTuple):
    """Mean and spread of each feature over the spots of a section."""

    n: int
    mean: Tensor
    spread: Tensor


class SectionStatistics(NamedTuple):
    """Statistics of a whole section; a network that is fed a window of the section needs them."""

    stages: tuple[Moments, ...]
    """Of each stage of features."""
    contrast: Tensor | None = None
    """Spread of each scaled feature, all stages side by side, over the spread of its means over the hyperedges."""


class SectionScale(nn.Module):
    """Center and scale each feature within its section, and let each latent stage weigh the same.

    Stain, scanner and tissue shift all features of a slide together; what is left after centering differs between spots.
    A stage of 1,024 maps would drown one of 48, so each block is divided by the root of its width.

    Parameters
    ----------
    blocks
        Widths of the blocks (latent stages) that the features are made of.
    clip
        Bring outliers in, to ``CLIP`` spreads from the mean.
    """

    mean: Tensor
    spread: Tensor
    share: Tensor

    def __init__(self, blocks: Sequence[int], *, clip: bool = True) -> None:
        super().__init__()
        self.clip = clip
        width = sum(blocks)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        share = torch.cat([torch.full((block,), (block * len(blocks)) ** -0.5) for block in blocks])
        self.register_buffer("share", share)

    def start(self, sections: Sequence[Tensor | Moments]) -> None:
        """Take the mean and spread of training sections, for slides too small to have their own."""
        means, spreads = self._typical(sections)
        self.mean.copy_(means)
        self.spread.copy_(spreads)

    @staticmethod
    def _typical(sections: Sequence[Tensor | Moments]) -> tuple[Tensor, Tensor]:
        moments = [x if isinstance(x, Moments) else Moments(len(x), *mean_and_spread(x.float())) for x in sections]
        return torch.stack([m.mean for m in moments]).mean(dim=0), torch.stack([m.spread for m in moments]).mean(dim=0)

    def forward(self, x: Tensor, section: Moments | None = None) -> Tensor:
        """Scale the features ``(n, width)`` of one section, or of a part of it where those of the whole are given."""
        x = x.float()
        mean, spread = self.center(section or Moments(len(x), *mean_and_spread(x)))
        return standardized(x, mean, spread, clip=self.clip) * self.share

    def linear(self, x: Tensor, section: Moments | None, layer: nn.Linear, dropout: nn.Module, factor: float) -> Tensor:
        """Apply a linear layer to the first features, scaled times ``factor``, with dropout before the layer.

        Only without clipping: the scale is a part of the weights then, which saves passes over the features.
        """
        first = slice(x.shape[1])
        if section is None:
            section = Moments(len(x), *mean_and_spread(x.float()))
        mean, spread = self.center(Moments(section.n, section.mean[first], section.spread[first]))
        weight = layer.weight * (factor * self.share[first] / spread)
        return nn.functional.linear(dropout(x.float() - mean), weight, layer.bias)

    def center(self, section: Moments) -> tuple[Tensor, Tensor]:
        """Return mean and spread by which its first features are scaled: of a small section, also those of training."""
        weight, first = section.n / (section.n + PRIOR_SPOTS), slice(len(section.mean))
        mean = weight * section.mean + (1 - weight) * self.mean[first]
        spread = weight * section.spread + (1 - weight) * self.spread[first]
        return mean, spread.clamp_min(LEAST_SPREAD)


def standardized(x: Tensor, mean: Tensor, spread: Tensor, *, clip: bool = True) -> Tensor:
    """Each column centered and scaled; with ``clip``, outliers are brought in."""
    scaled = (x - mean) / spread.clamp_min(LEAST_SPREAD)
    return scaled.clamp(-CLIP, CLIP) if clip else scaled


class RunningMoments:
    """Mean and spread of each column of rows that come in parts."""

    def __init__(self) -> None:
        self.n = 0
        self._mean = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Add rows."""
        if len(x):
            # In float64 between the parts only: within one, sums are short
            mean, spread = (value.double() for value in mean_and_spread(x))
            step, n = mean - self._mean, self.n + len(x)
            self._mean = self._mean + step * (len(x) / n)
            self._squares = self._squares + spread.square() * len(x) + step.square() * (self.n * len(x) / n)
            self.n = n

    def moments(self) -> Moments:
        """Mean and spread of all rows so far."""
        return Moments(self.n, self._mean.float(), (self._squares / max(self.n, 1)).sqrt().float())


def mean_and_spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, as matrix products: torch's column-wise reductions are ten times slower."""
    share = x.new_full((len(x),), 1 / len(x))
    mean = share @ x
    return mean, (share @ (x - mean).square()).sqrt()


def check_stages(
    features: Sequence[Tensor],
    neighbors: Tensor,
    widths: Sequence[int],
    incidence: Tensor | None,
    *,
    needs_incidence: bool,
) -> None:
    """Refuse stages of other shapes than a network expects, and hyperedges that are missing."""
    shapes = [tuple(stage.shape) for stage in features]
    expected = [(len(neighbors), width) for width in widths]
    if shapes != expected:
        msg = f"Expected {len(expected)} stages of shapes {expected} (spots, features), found {shapes}."
        raise ValueError(msg)
    if needs_incidence and incidence is None:
        msg = "Expected an incidence, found None: pass spatial_incidence(neighbors), or build with hypergraph=False."
        raise ValueError(msg)
