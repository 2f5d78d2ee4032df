"""Frozen image encoders: patches in, one vector a patch out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import one_of
from sthggep._encoders._entry import UNVERSIONED, Encoder
from sthggep._encoders._families import family_encoder, is_family
from sthggep._encoders._weights import load_weights, weights_id

if TYPE_CHECKING:
    import torch
    from torch import nn

    StateDict = dict[str, torch.Tensor]


def _shufflenet(_: bool) -> nn.Module:
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
        blocks=(48, 96, 192, 1024),
        size_um=(80.0, 160.0, 320.0, 640.0),
        files=("shufflenet_v2_x0_5*.pt", "shufflenetv2_x0.5*.pth", "shufflenet*.safetensors"),
        url="https://download.pytorch.org/models/shufflenetv2_x0.5-f707e7126e.pth",
        license="BSD-3-Clause (torchvision)",
        portable=True,
        channels_last=True,
    )
}
# The same network, adapted here to unlabeled H&E: see the model card
ENCODERS["shufflenet_he"] = replace(
    ENCODERS["shufflenet"],
    name="shufflenet_he",
    files=("shufflenet_he*.safetensors",),
    bundled="shufflenet_he.safetensors",
    url="",
    license="BSD-3-Clause (this package; start: torchvision's ImageNet weights, BSD-3-Clause and MIT)",
    how="comes with the package",
)


def find_encoder(name: str) -> Encoder:
    """The entry of that name: registered, or of a family such as ``"timm:<name>"``."""
    if name in ENCODERS or not is_family(name):
        return ENCODERS[one_of(name, ENCODERS, "encoder")]
    return Encoder(name=name, **family_encoder(name))


class FrozenEncoder:
    """An encoder with its weights, ready to be fed uint8 patches.

    Parameters
    ----------
    name
        Name in the registry, or of a family.
    weights
        File, folder, state dict, ``"random"`` or ``None``; see :func:`sthggep.pp.features`.
    device
        Where to compute.
    """

    def __init__(
        self, name: str, weights: str | Path | StateDict | None = None, device: str | torch.device = "cpu"
    ) -> None:
        import torch

        self.entry = find_encoder(name)
        self.device = torch.device(device)
        # What a saved model has to hold: weights that could not be found again by the encoder's name
        self.portable = self.entry.portable or weights is not None
        self.module = _placed(self._with_weights(weights), self.device, self.entry.channels_last)
        state = state_of(self.module)
        self.weights = weights_id(state) if state else UNVERSIONED
        self.entry = self._completed(self.entry)

    def _completed(self, entry: Encoder) -> Encoder:
        """The entry, with what only the module itself knows: its own transform, and the values it gives."""
        read = entry.read or _own_transform
        entry = replace(entry, **({} if entry.transform is not None else read(self.module)))
        if entry.dim is None:
            self.entry = entry
            white = np.full((1, entry.size_px, entry.size_px, 3), 255, dtype=np.uint8)
            entry = replace(entry, dim=self._encoded(white, flips=False).shape[1])
        return entry

    def _with_weights(self, weights: str | Path | StateDict | None) -> Any:
        """The module with the weights asked for in it."""
        import torch

        own = weights is None and not self.entry.files
        with torch.random.fork_rng(devices=[]):
            # Fixed, so that random weights are the same ones in every run
            torch.default_generator.manual_seed(0)
            module: Any = self.entry.build(own)
        if own or (isinstance(weights, str) and weights == "random"):
            return module
        state = weights if isinstance(weights, dict) else load_weights(self.entry, weights)
        try:
            _put_in(module, state)
        except (ValueError, RuntimeError) as reason:
            source = repr(str(weights)) if isinstance(weights, str | Path) else "what was found"
            msg = f"The weights ({source}) are not those of the encoder {self.entry.name!r}: {reason}"
            raise ValueError(msg) from reason
        return module

    def __call__(self, patches: NDArray[np.uint8], *, flips: bool = True) -> NDArray[np.float32]:
        """Features of patches (n, size_px, size_px, 3), the mean over four flips; shape (n, dim)."""
        found = self._encoded(patches, flips)
        if found.shape[1] != self.entry.dim:
            msg = (
                f"The encoder {self.entry.name!r} gave {found.shape[1]} values a patch, but {self.entry.dim} are "
                "declared. Register it with its `dim`, or with `dim=None`."
            )
            raise ValueError(msg)
        return found

    def _encoded(self, patches: NDArray[np.uint8], flips: bool) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            x = self._prepared(patches)
            views = [x, x.flip(3), x.flip(2), x.flip((2, 3))] if flips else [x]
            found = torch.stack([self._vectors(view) for view in views]).mean(0)
        out: NDArray[np.float32] = found.float().cpu().numpy()
        return out

    def _prepared(self, patches: NDArray[np.uint8]) -> torch.Tensor:
        """Pixels as the encoder wants them, (n, 3, height, width)."""
        import torch

        if self.entry.transform is not None:
            return torch.stack([torch.as_tensor(self.entry.transform(patch)) for patch in patches]).to(self.device)
        x = torch.from_numpy(patches).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        form = torch.channels_last if self.entry.channels_last else torch.contiguous_format
        x = x.contiguous(memory_format=form)
        shape = (1, 3, 1, 1)
        # In place: a batch is large, and fresh memory costs as much as the sums
        return x.sub_(x.new_tensor(self.entry.mean).view(shape)).div_(x.new_tensor(self.entry.std).view(shape))

    def _vectors(self, images: torch.Tensor) -> torch.Tensor:
        """One finite vector an image, or an error that says what came instead."""
        import torch

        given = self.entry.encode(self.module, images)
        try:
            found = torch.as_tensor(given).float()
        except (TypeError, ValueError, RuntimeError):
            found = None
        if found is None or found.ndim != 2 or len(found) != len(images):
            what = type(given).__name__ if found is None else f"shape {tuple(found.shape)}"
            msg = (
                f"The encoder {self.entry.name!r} must give one row of numbers a patch, shape ({len(images)}, dim), "
                f"but gave {what}. Wrap it in a module whose forward pools to that."
            )
            raise ValueError(msg)
        return found


def _own_transform(module: Any) -> dict[str, Any]:
    """Transform and size that an object brings itself, as LazySlide's models do."""
    own = getattr(module, "get_transform", None)
    transform = own() if callable(own) else None
    if transform is None:
        return {}
    size = getattr(module, "img_size", None)
    width = {} if size is None else {"size_px": int(size if isinstance(size, int) else size[-1])}
    return {"transform": transform, **width}


def state_of(module: Any) -> StateDict:
    """State dict of a module, or of the one that an object keeps under ``model``; empty where there is none."""
    from torch import nn

    held = module if isinstance(module, nn.Module) else getattr(module, "model", None)
    return held.state_dict() if isinstance(held, nn.Module) else {}


def _put_in(module: Any, state: StateDict) -> None:
    from sthggep.nn import ShuffleNetV2, load_backbone

    if isinstance(module, ShuffleNetV2):
        load_backbone(module, state)
        return
    held = module if hasattr(module, "load_state_dict") else getattr(module, "model", None)
    if held is None:
        msg = "it takes no weights from outside; leave `weights` out"
        raise ValueError(msg)
    held.load_state_dict(state)


def _placed(module: Any, device: torch.device, channels_last: bool) -> Any:
    """Frozen, in float32 and on the device; an object that is no module sees to that itself, where it can."""
    import torch
    from torch import nn

    if isinstance(module, nn.Module):
        module = module.eval().requires_grad_(False).float().to(device)
        return module.to(memory_format=torch.channels_last) if channels_last else module
    held = getattr(module, "model", None)
    if isinstance(held, nn.Module):
        held.eval()
    return module.to(device) if callable(getattr(module, "to", None)) else module


def builder_of(model: Any, name: str) -> Callable[[bool], Any]:
    """How to make what was registered: a copy of a module, an object as it is, or what a function returns."""
    from torch import nn

    if isinstance(model, nn.Module):
        return lambda _: deepcopy(model)
    if callable(getattr(model, "encode_image", None)):
        return lambda _: model
    if callable(model):
        return lambda _: model()
    msg = (
        f"The encoder {name!r} must be a torch module, an object with `encode_image(batch)`, or a function without "
        f"arguments that makes one; found {type(model).__name__}."
    )
    raise TypeError(msg)


def encode_by(module: Any, images: torch.Tensor) -> Any:
    """By ``encode_image`` where there is one, else by calling the module."""
    encode = getattr(module, "encode_image", None)
    return encode(images) if callable(encode) else module(images)
