"""Weights that turn an encoder's features into a few values, applied to feature maps before these are pooled."""

from __future__ import annotations

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
    strides
        Stride of each map. The channels of the maps, one after the other, are the features.
    """

    def __init__(self, weight: NDArray[np.float32], strides: Sequence[int]) -> None:
        self.width = weight.shape[2]
        self.strides = sorted(set(strides))
        self._weight = np.concatenate(list(weight), axis=1)
        self._order = [self.strides.index(stride) for stride in strides]

    def apply(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Turn maps (n, channels, height, width) into one map for each stride: values of the first window, and so on."""
        import torch

        out: list[torch.Tensor | None] = [None] * len(self.strides)
        first = 0
        for values, at in zip(maps, self._order, strict=True):
            weight = torch.from_numpy(self._weight[first : first + values.shape[1]]).to(values)
            part = torch.nn.functional.conv2d(values, weight.T.contiguous()[..., None, None])
            before = out[at]
            out[at] = part if before is None else before + part
            first += values.shape[1]
        return [each for each in out if each is not None]
