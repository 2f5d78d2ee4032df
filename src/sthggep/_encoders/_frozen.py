"""Frozen image encoders, which turn each patch into one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import one_of
from sthggep._encoders._entry import UNVERSIONED, Encoder, FeatureMapping
from sthggep._encoders._families import ModuleFields, describe_family_encoder, is_family
from sthggep._encoders._pixel_memory import PixelMemory
from sthggep._encoders._pooling import to_arrays
from sthggep._encoders._squares import read_squares
from sthggep._encoders._tokens import check_maps, find_maps
from sthggep._encoders._weights import hash_weights, load_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sthggep._encoders._pooling import Boxes, FeatureMap, Flip
    from sthggep._encoders._readout import Readout

    StateDict = dict[str, torch.Tensor]


def _shufflenet(_: bool) -> nn.Module:
    from sthggep.nn import ShuffleNetV2

    return ShuffleNetV2()


class MapModule(Protocol):
    """An encoder whose vector holds the means of feature maps."""

    def maps(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        """Feature maps of images (n, 3, height, width), each (n, channels, height / stride, width / stride)."""


def read_maps(module: MapModule, images: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return the feature maps of images."""
    return module.maps(images)


def pool_maps(module: MapModule, images: torch.Tensor) -> torch.Tensor:
    """Average each feature map of patches: early stages respond to texture, late stages to objects."""
    import torch

    return torch.cat([values.mean(dim=(2, 3)) for values in read_maps(module, images)], dim=1)


ENCODERS = {
    "shufflenet": Encoder(
        name="shufflenet",
        build=_shufflenet,
        encode=pool_maps,
        dim=48 + 96 + 192 + 1024,
        size_px=224,
        blocks=(48, 96, 192, 1024),
        size_um=(80.0, 160.0, 320.0, 640.0),
        files=("shufflenet_v2_x0_5*.pt", "shufflenetv2_x0.5*.pth", "shufflenet*.safetensors"),
        url="https://download.pytorch.org/models/shufflenetv2_x0.5-f707e7126e.pth",
        license="BSD-3-Clause (torchvision)",
        portable=True,
        channels_last=True,
        maps=FeatureMapping(read_maps, strides=(8, 16, 32, 32), context_px=256),
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
    """Return the entry of a registered encoder, or of a family's encoder such as ``"timm:<name>"``."""
    if name in ENCODERS or not is_family(name):
        return ENCODERS[one_of(name, ENCODERS, "encoder")]
    return Encoder(name=name, **describe_family_encoder(name))


class FrozenEncoder:
    """An encoder with its weights, which encodes uint8 patches.

    Parameters
    ----------
    name
        Name in the registry, or of a family.
    weights
        File, folder, state dict, ``"random"`` or ``None``; see :func:`sthggep.pp.features`.
    device
        Device to compute on.
    """

    def __init__(
        self, name: str, weights: str | Path | StateDict | None = None, device: str | torch.device = "cpu"
    ) -> None:
        import torch

        self.entry = find_encoder(name)
        self._memory = PixelMemory()
        self.device = torch.device(device)
        # A saved model must hold weights that the encoder's name does not identify
        self.portable = self.entry.portable or weights is not None
        self.module = _freeze(self._build_module(weights), self.device, self.entry.channels_last)
        state = read_state(self.module)
        self.weights = hash_weights(state) if state else UNVERSIONED
        self.entry = self._complete_entry(self.entry)

    def _complete_entry(self, entry: Encoder) -> Encoder:
        """Add the fields that only the module holds: its transform, and the length of its vectors."""
        read = entry.read or _read_transform
        entry = replace(entry, **({} if entry.transform is not None else read(self.module)))
        if entry.dim is None:
            self.entry = entry
            white = np.full((1, entry.size_px, entry.size_px, 3), 255, dtype=np.uint8)
            entry = replace(entry, dim=self._encode_patches(white, flips=False).shape[1])
        return entry

    def _build_module(self, weights: str | Path | StateDict | None) -> object:
        """Build the module with its weights."""
        import torch

        own = weights is None and not self.entry.files
        with torch.random.fork_rng(devices=[]):
            # A fixed seed makes random weights the same in every run
            torch.default_generator.manual_seed(0)
            module = self.entry.build(own)
        if own or (isinstance(weights, str) and weights == "random"):
            return module
        state = weights if isinstance(weights, dict) else load_weights(self.entry, weights)
        try:
            _load_state(module, state)
        except (ValueError, RuntimeError) as reason:
            source = repr(str(weights)) if isinstance(weights, str | Path) else "the state dict found"
            msg = f"The weights ({source}) do not fit the encoder {self.entry.name!r}: {reason}"
            raise ValueError(msg) from reason
        return module

    @cached_property
    def maps(self) -> FeatureMapping:
        """The feature maps, by which the encoder reads the tissue; an error says why an encoder has none."""
        check_maps(self.entry)
        return self.entry.maps or find_maps(self.entry, self.module, self._normalize_pixels)

    def dim(self, encoding: str) -> int:
        """Return the number of values a spot."""
        return (self.maps.dim if encoding == "tissue" else None) or self.entry.dim or 0

    def __call__(self, patches: NDArray[np.uint8], *, flips: bool = True) -> NDArray[np.float32]:
        """Encode patches (n, size_px, size_px, 3), averaged over four flips; shape (n, dim)."""
        features = self._encode_patches(patches, flips)
        if features.shape[1] != self.entry.dim:
            msg = (
                f"The encoder {self.entry.name!r} must return {self.entry.dim} values a patch (its `dim`), found "
                f"{features.shape[1]}. Register it with `dim={features.shape[1]}`, or with `dim=None`."
            )
            raise ValueError(msg)
        return features

    def encode_maps(
        self,
        pixels: NDArray[np.uint8],
        flip: Flip,
        boxes: Boxes | None = None,
        readout: Readout | None = None,
        *,
        turned: bool = False,
    ) -> Sequence[FeatureMap]:
        """Feature maps (channels, height, width) of an image (height, width, 3) that is read flipped in x, in y.

        With ``turned``, x and y are swapped after the flips.
        An encoder that reads squares reads only those that ``boxes`` touch. Default: all of the image.
        With ``readout``, one map of its values for each of its strides. Maps of a whole image stay on a CUDA device.
        """
        read = partial(self._read_maps, flip=flip, turned=turned, readout=readout)
        if self.maps.input_px is not None:
            return read_squares(pixels, self.maps, lambda each: to_arrays(read(each)), boxes)
        maps = [values[0] for values in read(pixels[None])]
        # Other devices may lack float64 for the sums
        return maps if self.device.type == "cuda" else to_arrays(maps)

    def _read_maps(
        self, images: NDArray[np.uint8], flip: Flip, turned: bool, readout: Readout | None
    ) -> list[torch.Tensor]:
        """Feature maps (n, channels, height, width) of images that are read flipped or turned, laid back on the images."""
        import torch

        axes = [axis for axis, flipped in zip((3, 2), flip, strict=True) if flipped]
        with torch.inference_mode():
            whole = self._normalize_pixels(images)
            x = whole.flip(axes) if axes else whole
            maps = self.maps.read(self.module, x.transpose(2, 3) if turned else x)
            if readout is not None:
                maps = readout.apply(maps)
            back = [values.transpose(2, 3) if turned else values for values in maps]
            return [(values.flip(axes) if axes else values).float() for values in back]

    def _encode_patches(self, patches: NDArray[np.uint8], flips: bool) -> NDArray[np.float32]:
        """Encode patches and average over flips."""
        import torch

        with torch.inference_mode():
            x = self._normalize_pixels(patches)
            views = [x, x.flip(3), x.flip(2), x.flip((2, 3))] if flips else [x]
            mean = torch.stack([self._encode_view(view) for view in views]).mean(0)
        out: NDArray[np.float32] = mean.float().cpu().numpy()
        return out

    def _normalize_pixels(self, patches: NDArray[np.uint8]) -> torch.Tensor:
        """Transform or normalize pixels as the encoder expects them, (n, 3, height, width)."""
        import torch

        if self.entry.transform is not None:
            return torch.stack([torch.as_tensor(self.entry.transform(patch)) for patch in patches]).to(self.device)
        x = self._memory.normalize(torch.from_numpy(patches).to(self.device), self.entry.mean, self.entry.std)
        form = torch.channels_last if self.entry.channels_last else torch.contiguous_format
        return x.permute(0, 3, 1, 2).contiguous(memory_format=form)

    def _encode_view(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images and check that each gets one vector."""
        import torch

        encoded = self.entry.encode(self.module, images)
        try:
            vectors = torch.as_tensor(encoded).float()
        except (TypeError, ValueError, RuntimeError):
            vectors = None
        if vectors is None or vectors.ndim != 2 or len(vectors) != len(images):
            kind = type(encoded).__name__ if vectors is None else f"shape {tuple(vectors.shape)}"
            msg = (
                f"The encoder {self.entry.name!r} must return one row of numbers a patch, shape ({len(images)}, dim), "
                f"found {kind}. Wrap the encoder in a module whose forward pools to one row a patch."
            )
            raise ValueError(msg)
        return vectors


def _read_transform(module: object) -> ModuleFields:
    """Read the transform and size that an object states, as LazySlide's models do."""
    get_transform = getattr(module, "get_transform", None)
    transform = get_transform() if callable(get_transform) else None
    if transform is None:
        return {}
    size = getattr(module, "img_size", None)
    if size is None:
        return {"transform": transform}
    return {"transform": transform, "size_px": int(size if isinstance(size, int) else size[-1])}


def read_state(module: object) -> StateDict:
    """Return the state dict of a module, or of an object's attribute ``model``; empty where neither has one."""
    from torch import nn

    network = module if isinstance(module, nn.Module) else getattr(module, "model", None)
    return network.state_dict() if isinstance(network, nn.Module) else {}


def _load_state(module: object, state: StateDict) -> None:
    """Load a state dict into a module, or into an object's attribute ``model``."""
    from sthggep.nn import ShuffleNetV2, load_backbone

    if isinstance(module, ShuffleNetV2):
        load_backbone(module, state)
        return
    network = module if hasattr(module, "load_state_dict") else getattr(module, "model", None)
    if network is None:
        msg = "it has no `load_state_dict`; leave `weights` out"
        raise ValueError(msg)
    network.load_state_dict(state)


def _freeze(module: object, device: torch.device, channels_last: bool) -> object:
    """Freeze a module in float32 and move it to the device; move another object by its ``to``, where it has one."""
    import torch
    from torch import nn

    if isinstance(module, nn.Module):
        module = module.eval().requires_grad_(False).float().to(device)
        if channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module
    network = getattr(module, "model", None)
    if isinstance(network, nn.Module):
        network.eval()
    move = getattr(module, "to", None)
    return move(device) if callable(move) else module
