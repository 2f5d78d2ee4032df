"""Gradient enhancement: a learned edge filter beside a plain convolution, ahead of the backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sthggep.nn._convolution import ConvSequence, channels_last, folded

TAPS = (1, 3, 4, 5, 7)  # top, left, center, right, bottom of a 3 x 3 kernel read row by row
CENTER = 4


class CrossDifferenceConv(nn.Module):
    """Convolution with a plus-shaped kernel that also responds to the difference from its center pixel.

    The response is the plus-shaped convolution minus ``theta`` times the center pixel weighted by the sum of the
    taps. Both parts read the same centers, so one 3 x 3 kernel does the work of two convolutions.

    Parameters
    ----------
    in_channels
        Channels of the input.
    out_channels
        Channels of the output.
    stride
        Step between two outputs.
    theta
        Share of the center that is taken away; 0 leaves a plain plus-shaped convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 2, theta: float = 0.7) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, len(TAPS)))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        spread = torch.zeros(len(TAPS), 9)
        spread[range(len(TAPS)), list(TAPS)] = 1.0
        spread[:, CENTER] -= theta
        self.register_buffer("spread", spread, persistent=False)

    def kernel(self) -> Tensor:
        """The equivalent ``(out, in, 3, 3)`` kernel.

        Returns
        -------
        The kernel, corners zero.
        """
        spread: Tensor = self.get_buffer("spread")
        # a sum of broadcast products, not a matrix product: mixed precision leaves the kernel exact
        flat = (self.weight.squeeze(2).unsqueeze(-1) * spread).sum(-2)
        return flat.reshape(*flat.shape[:-1], 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Filter a batch of images ``(n, in, h, w)``."""
        return F.conv2d(x, self.kernel(), stride=self.stride, padding=1)


class GradientEnhancement(nn.Module):
    """Halve an RGB patch while keeping a plain and an edge view of it (the paper's GEM).

    Two branches, each convolution, batch normalization and ReLU6, are concatenated and merged by a 1 x 1
    convolution. That convolution pads by one as published, so 112 pixels become 58.

    Parameters
    ----------
    channels
        Channels of the input and of the output.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.plain = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.ReLU6()
        )
        self.cross = nn.Sequential(CrossDifferenceConv(channels, channels), nn.BatchNorm2d(channels), nn.ReLU6())
        self.merge = ConvSequence(nn.Conv2d(2 * channels, channels, 1, padding=1), nn.BatchNorm2d(channels), nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        """Enhance a batch of patches ``(n, 3, h, w)``."""
        plain, cross = self.plain[0], self.cross[0]
        assert isinstance(plain, nn.Conv2d)
        assert isinstance(cross, CrossDifferenceConv)
        assert plain.bias is not None
        kernels = [(plain.weight, plain.bias), (cross.kernel(), torch.zeros_like(plain.bias))]
        norms = [norm for norm in (self.plain[1], self.cross[1]) if isinstance(norm, nn.BatchNorm2d)]
        if not self.training:
            kernels = [folded(*pair, norm) for pair, norm in zip(kernels, norms, strict=True)]
        # both branches read the same pixels: one convolution goes over them
        kernel, bias = (torch.cat(part) for part in zip(*kernels, strict=True))
        maps = F.conv2d(channels_last(x), kernel, bias, stride=2, padding=1)
        if self.training:
            # torch adds channels-last maps up one by one: over a section's pixels, three digits of the statistics go
            parts = [part.contiguous() for part in maps.chunk(2, dim=1)]
            maps = torch.cat([norm(part) for norm, part in zip(norms, parts, strict=True)], dim=1)
        out: Tensor = self.merge(F.relu6(maps))
        return out
