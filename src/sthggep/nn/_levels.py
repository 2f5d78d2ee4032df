"""Three latent levels of single patches: the convolutional part of HGGEP."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sthggep.nn._backbone import CHANNELS, ShuffleNetV2
from sthggep.nn._cbam import LatentLevel
from sthggep.nn._convolution import statistics_kept
from sthggep.nn._gradient import GradientEnhancement

PATCH = 112
MAP_AREA = 16  # stage 4 of a 112-pixel patch is 4 x 4


class LatentLevels(nn.Module):
    """Gradient enhancement, backbone and the three levels taken from it, spots apart from each other.

    Parameters
    ----------
    dim
        Features a spot and level, a multiple of 16.
    transposed
        Turn the patches over their diagonal, as the released code does.
    """

    def __init__(self, dim: int, *, transposed: bool = False) -> None:
        super().__init__()
        if dim % MAP_AREA:
            msg = f"Expected dim to be a multiple of {MAP_AREA} (the maps are 4 x 4), found {dim}."
            raise ValueError(msg)
        self.transposed = transposed
        self.gradient = GradientEnhancement()
        self.backbone = ShuffleNetV2(max_pool=False)
        self.level4 = LatentLevel(CHANNELS["stage4"], dim // MAP_AREA)
        self.level5 = LatentLevel(CHANNELS["conv5"], dim // MAP_AREA)
        self.level6 = LatentLevel(CHANNELS["conv5"], dim)

    def encode(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute three latent levels of each patch, each spot on its own.

        Parameters
        ----------
        patches
            ``(n, 3, 112, 112)`` pixel values 0-255, rows first.

        Returns
        -------
        Levels 4, 5 and 6, each ``(n, dim)``.

        Raises
        ------
        ValueError
            If the patches have another shape.
        """
        if patches.ndim != 4 or tuple(patches.shape[1:]) != (3, PATCH, PATCH):
            msg = f"Expected patches of shape (spots, 3, {PATCH}, {PATCH}), found {tuple(patches.shape)}."
            raise ValueError(msg)
        with torch.autocast(patches.device.type, enabled=False):
            pixels = patches.to(torch.float32, memory_format=torch.channels_last)
            if self.transposed:
                pixels = pixels.transpose(-1, -2)
            maps = self.backbone.maps(self.gradient(pixels))
            peak = maps.conv5.amax(dim=(2, 3), keepdim=True)
            return self.level4(maps.stage4), self.level5(maps.conv5), self.level6(peak)

    def encode_anew(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode as ``encode`` does, and recompute the maps for the gradient instead of storing them.

        Parameters
        ----------
        patches
            As for ``encode``.

        Returns
        -------
        As ``encode``; running statistics are taken once.
        """
        out: tuple[Tensor, Tensor, Tensor] = checkpoint(
            self.encode,
            patches,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), statistics_kept(self)),
        )
        return out
