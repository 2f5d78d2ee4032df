"""Frozen image encoders: patches in, one vector a patch out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import one_of
from sthggep.pp._weights import load_weights, weights_id

if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Encoder:
    """How to build one encoder, and what it expects."""

    name: str
    build: Callable[[], nn.Module]
    encode: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    dim: int
    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    files: tuple[str, ...]
    url: str
    licence: str


def _shufflenet() -> nn.Module:
    from sthggep.nn import ShuffleNetV2

    return ShuffleNetV2()


def _pooled_maps(module: Any, images: torch.Tensor) -> torch.Tensor:
    """Mean of each feature map, stages 2 to 5 side by side: early stages see texture, late ones objects."""
    import torch

    return torch.cat([found.mean(dim=(2, 3)) for found in module.maps(images)], dim=1)


ENCODERS = {
    "shufflenet": Encoder(
        name="shufflenet",
        build=_shufflenet,
        encode=_pooled_maps,
        dim=48 + 96 + 192 + 1024,
        size_px=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        files=("shufflenet_v2_x0_5*.pt", "shufflenetv2_x0.5*.pth", "shufflenet*.safetensors"),
        url="https://download.pytorch.org/models/shufflenetv2_x0.5-f707e7126e.pth",
        licence="BSD-3-Clause (torchvision)",
    )
}


class FrozenEncoder:
    """An encoder with its weights, ready to be fed uint8 patches.

    Parameters
    ----------
    name
        Name in the registry.
    weights
        File, folder, state dict, ``"random"`` or ``None``; see :func:`sthggep.pp.features`.
    device
        Where to compute.
    """

    def __init__(
        self, name: str, weights: str | Path | dict[str, torch.Tensor] | None = None, device: str | torch.device = "cpu"
    ) -> None:
        import torch

        from sthggep.nn import load_backbone

        self.entry = ENCODERS[one_of(name, ENCODERS, "encoder")]
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            # Fixed, so that random weights are the same ones in every run
            torch.default_generator.manual_seed(0)
            module: Any = self.entry.build()
        if not (isinstance(weights, str) and weights == "random"):
            state = weights if isinstance(weights, dict) else load_weights(self.entry, weights)
            try:
                load_backbone(module, state)
            except ValueError as reason:
                source = repr(str(weights)) if isinstance(weights, str | Path) else "what was found"
                msg = f"The weights ({source}) are not those of the encoder {name!r}: {reason}"
                raise ValueError(msg) from reason
        self.module = module.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)
        self.weights = weights_id(self.module.state_dict())

    def __call__(self, patches: NDArray[np.uint8], *, flips: bool = True) -> NDArray[np.float32]:
        """Features of patches (n, size_px, size_px, 3), the mean over four flips; shape (n, dim)."""
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(patches).to(self.device).permute(0, 3, 1, 2).float().div_(255)
            x = x.contiguous(memory_format=torch.channels_last)
            shape = (1, 3, 1, 1)
            x = (x - x.new_tensor(self.entry.mean).view(shape)) / x.new_tensor(self.entry.std).view(shape)
            views = [x, x.flip(3), x.flip(2), x.flip((2, 3))] if flips else [x]
            found = torch.stack([self.entry.encode(self.module, view) for view in views]).mean(0)
        out: NDArray[np.float32] = found.float().cpu().numpy()
        return out
