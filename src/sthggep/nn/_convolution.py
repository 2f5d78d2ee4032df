"""Fast convolutions: channels last, normalization folded into the kernel outside training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def channels_last(x: Tensor) -> Tensor:
    """The same maps with the channels of a pixel side by side in memory; as they are on MPS, which gains nothing."""
    return x if x.device.type == "mps" else x.contiguous(memory_format=torch.channels_last)


def folded(kernel: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution that does the normalization behind it as well.

    Parameters
    ----------
    kernel
        ``(out, in, h, w)``.
    bias
        ``(out,)``; ``None`` for zero.
    norm
        Normalization of the convolution's output, by its running statistics.

    Returns
    -------
    Kernel and bias.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    return kernel * scale.reshape(-1, 1, 1, 1), shift if bias is None else shift + bias * scale


class ConvSequence(nn.Sequential):
    """Convolutions, normalizations and activations in a row.

    Outside training each normalization is part of the convolution before it: one pass over the maps instead of two.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps ``(n, in, h, w)``."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, nn.Conv2d) and layers and isinstance(layers[0], nn.BatchNorm2d) and not self.training:
                kernel, bias = folded(layer.weight, layer.bias, layers.pop(0))  # type: ignore[arg-type]
                x = layer._conv_forward(x, kernel, bias)
            else:
                x = layer(x)
        return x


@contextmanager
def statistics_kept(net: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch normalization in training mode, for data that pass a second time."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        # Momentum 0 keeps them; the counter is counted on a copy
        layer.momentum = 0.0
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked = layer.num_batches_tracked.clone()
    try:
        yield
    finally:
        for layer, (momentum, counted) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, counted
