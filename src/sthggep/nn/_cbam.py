"""Convolutional block attention: which channels, then which places, matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Weigh channels by a small network shared between their means and their maxima.

    Parameters
    ----------
    channels
        Channels of the maps.
    ratio
        How many times narrower the hidden layer is.
    """

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.shared = nn.Sequential(
            nn.Conv2d(channels, channels // ratio, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // ratio, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weighted maps, same shape as ``x``."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        peak = x.amax(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.shared(mean) + self.shared(peak))


class SpatialAttention(nn.Module):
    """Weigh places by a 7 x 7 convolution over the mean and the maximum across channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Weighted maps, same shape as ``x``."""
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(summary))


class CBAM(nn.Sequential):
    """Channel attention followed by spatial attention (Woo et al. 2018).

    Parameters
    ----------
    channels
        Channels of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()


class SteadyBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that falls back on its running statistics when a batch holds one value a channel.

    A section of one spot, pooled to 1 x 1, has no variance to normalize by; torch raises there while training.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize maps ``(n, channels, h, w)``."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)


class LatentLevel(nn.Sequential):
    """One latent level: attention, normalization and a 1 x 1 convolution, flattened to a vector a spot.

    Parameters
    ----------
    in_channels
        Channels of the maps.
    out_channels
        Channels kept; the vector has ``out_channels`` times the map's area.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.attention = CBAM(in_channels)
        self.norm = SteadyBatchNorm2d(in_channels)
        self.reduce = nn.Conv2d(in_channels, out_channels, 1)
        self.flatten = nn.Flatten()
