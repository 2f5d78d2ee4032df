"""Weights that turn an encoder's features into a few values, applied to feature maps before these are pooled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class Readout:
    """Linear weights on feature maps. Pooling is linear, too, so either may come first.

    Parameters
    ----------
    weight
        (windows, features of the encoder, values): the values of all windows of a spot add up.
    channels
        Channels of each map, which make up the features in this order.
    strides
        Stride of each map.
    """

    def __init__(self, weight: NDArray[np.float32], channels: Sequence[int], strides: Sequence[int]) -> None:
        self.width = weight.shape[2]
        self.strides = sorted(set(strides))
        edges = np.cumsum([0, *channels])
        together = np.concatenate(list(weight), axis=1)
        self._parts = [together[first:stop] for first, stop in itertools.pairwise(edges)]
        self._order = [self.strides.index(stride) for stride in strides]

    def apply(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Turn maps (n, channels, height, width) into one map for each stride: values of the first window, and so on."""
        import torch

        out: list[torch.Tensor | None] = [None] * len(self.strides)
        for values, weight, at in zip(maps, self._parts, self._order, strict=True):
            kernel = torch.from_numpy(np.ascontiguousarray(weight.T))[..., None, None].to(values)
            part = torch.nn.functional.conv2d(values, kernel)
            before = out[at]
            out[at] = part if before is None else before + part
        return [each for each in out if each is not None]
