"""Encoders of other packages, by name: ``transformers:…``, ``timm:…``, ``lazyslide:…``. sthggep depends on none of these packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, Protocol, TypedDict

from sthggep._checks import one_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ModuleFields(TypedDict, total=False):
    """Fields of an encoder's entry that its module holds."""

    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str
    transform: Callable[[NDArray[np.uint8]], torch.Tensor]


class FamilyFields(ModuleFields):
    """Fields of the entry of a family's encoder."""

    build: Callable[[bool], object]
    encode: Callable[[Any, torch.Tensor], object]
    last: Callable[[Any, torch.Tensor], object]
    dim: NotRequired[int | None]
    read: NotRequired[Callable[[nn.Module], ModuleFields]]


class ImageProcessor(Protocol):
    """What transformers' image processors have in common; further attributes depend on the model."""

    image_mean: list[float]
    image_std: list[float]
    size: object


class Family(NamedTuple):
    """One package with many encoders."""

    package: str
    pattern: str
    install: str
    describe: Callable[[str], FamilyFields]
    """Turns a model's name into the fields of its entry."""

    @property
    def installed(self) -> bool:
        """Whether the package is installed."""
        return find_spec(self.package) is not None


def is_family(name: str) -> bool:
    """Whether a name belongs to a family, such as ``"timm:<name>"``."""
    return name.partition(":")[0] in FAMILIES and ":" in name


def describe_family_encoder(name: str) -> FamilyFields:
    """Return the fields of the entry of a family's encoder; its package must be installed."""
    prefix, _, model = name.partition(":")
    family = FAMILIES[prefix]
    if not model:
        msg = f"{name!r} names no model. Expected {family.pattern!r}."
        raise ValueError(msg)
    return family.describe(model)


def _import_package(prefix: str, model: str) -> ModuleType:
    """Import a family's package, or raise an error that says how to install it."""
    family = FAMILIES[prefix]
    try:
        return import_module(family.package)
    except ImportError as reason:
        msg = (
            f"The encoder '{prefix}:{model}' needs the package {family.package!r}, but importing it fails: "
            f"{reason}. Install it: `{family.install}`."
        )
        raise ImportError(msg) from reason


# ---------------------------------------------------------------- transformers


def _describe_transformers(model: str) -> FamilyFields:
    """Read size, mean and standard deviation from the model's image processor."""
    package, name = _import_package("transformers", model), f"transformers:{model}"
    try:
        processor = package.AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as reason:
        raise _unavailable_error(name, reason) from reason

    def build(own_weights: bool) -> nn.Module:
        try:
            network: nn.Module
            if own_weights:
                network = package.AutoModel.from_pretrained(model, trust_remote_code=False)
            else:
                network = package.AutoModel.from_config(
                    package.AutoConfig.from_pretrained(model, trust_remote_code=False)
                )
        except (OSError, ValueError) as reason:
            raise _unavailable_error(name, reason) from reason
        # A model of images and text holds its image encoder as `vision_model`
        vision_model: nn.Module = getattr(network, "vision_model", network)
        return vision_model

    mean, std = _read_scale(processor)
    return {
        "build": build,
        "encode": _summary_token,
        "last": _last_hidden_state,
        "size_px": _read_size(processor, name),
        "mean": mean,
        "std": std,
        "license": "see the model's card",
    }


def _read_scale(processor: ImageProcessor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation for pixels from 0 to 1, whatever range the processor works in."""
    rescale = float(getattr(processor, "rescale_factor", None) or 1 / 255)
    top = 255.0 * (rescale if getattr(processor, "do_rescale", True) else 1.0)
    if not getattr(processor, "do_normalize", True):
        return (0.0,) * 3, (1 / top,) * 3
    mean, std = processor.image_mean, processor.image_std
    return tuple(float(v) / top for v in mean), tuple(float(v) / top for v in std)


def _read_size(processor: ImageProcessor, name: str) -> int:
    """Return the width of the square image that the model reads."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    size = crop or processor.size
    if isinstance(size, int):
        return size
    lengths = dict(size) if isinstance(size, Mapping) else {k: v for k, v in vars(size).items() if v is not None}
    sides = {lengths[key] for key in ("height", "width", "shortest_edge") if lengths.get(key) is not None}
    if len(sides) != 1:
        msg = f"{name!r} reads images of {lengths}, but patches are square. Choose a model that reads square images."
        raise ValueError(msg)
    return int(sides.pop())


def _summary_token(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the last layer's class token; where the model has none, the mean over tokens or over the map."""
    last = _last_hidden_state(module, images)
    if last.ndim == 4:
        return last.mean(dim=(2, 3))
    names = [name.rsplit(".", 1)[-1] for name, _ in module.named_parameters()]
    return last[:, 0] if {"cls_token", "class_embedding"} & set(names) else last.mean(dim=1)


def _last_hidden_state(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the tokens or the map of the last layer."""
    try:
        last: torch.Tensor = module(pixel_values=images).last_hidden_state
    except ValueError as reason:  # position embeddings of another size
        msg = (
            f"The model cannot read images of {images.shape[-1]} px, the size of its image processor: {reason} sthggep does "
            "not interpolate position embeddings. Pass a folder that holds the model with an image processor of its size."
        )
        raise ValueError(msg) from reason
    return last


# ---------------------------------------------------------------- timm


def _describe_timm(model: str) -> FamilyFields:
    """Describe a model of timm, whose weights state size, mean and standard deviation."""
    package, name = _import_package("timm", model), f"timm:{model}"

    def build(own_weights: bool) -> nn.Module:
        try:
            network: nn.Module = package.create_model(model, pretrained=own_weights, num_classes=0)
        except (OSError, RuntimeError, ValueError) as reason:
            raise _unavailable_error(name, reason) from reason
        return network

    def read(module: nn.Module) -> ModuleFields:
        config = package.data.resolve_model_data_config(module)
        card = getattr(module, "pretrained_cfg", None) or {}
        return {
            "size_px": int(config["input_size"][-1]),
            "mean": tuple(map(float, config["mean"])),
            "std": tuple(map(float, config["std"])),
            "license": str(card.get("license") or "see the model's card"),
        }

    return {
        "build": build,
        "encode": lambda module, images: module(images),
        "last": _forward_features,
        "read": read,
    }


def _forward_features(module: Any, images: torch.Tensor) -> object:
    """Return the tokens or the map of the last layer."""
    if not callable(getattr(module, "forward_features", None)):
        msg = f"expected a model with `forward_features`, as timm's have it, found {type(module).__name__} without it"
        raise TypeError(msg)
    return module.forward_features(images)


# ---------------------------------------------------------------- LazySlide


def _describe_lazyslide(model: str) -> FamilyFields:
    """Describe a model of LazySlide, which has its own transform and image size."""
    registry, name = _import_package("lazyslide", model).MODEL_REGISTRY, f"lazyslide:{model}"
    card = registry[one_of(model, list(registry), "model of lazyslide-models")]

    def build(own_weights: bool) -> object:
        if not own_weights:
            msg = f"{name!r} has only its own weights: leave `weights` out."
            raise ValueError(msg)
        try:
            encoder = card()
        except (OSError, ImportError, RuntimeError) as reason:
            raise _unavailable_error(name, reason) from reason
        if not callable(getattr(encoder, "encode_image", None)):
            msg = f"{name!r} must have `encode_image`, but encodes no images. Choose a model of the task 'vision'."
            raise ValueError(msg)
        return encoder

    license = getattr(card, "license", None) or "not stated"
    return {
        "build": build,
        "encode": lambda module, images: module.encode_image(images),
        "last": _last_layer_inside,
        "dim": getattr(card, "encode_dim", None),
        "size_px": getattr(getattr(card, "input_constraint", None), "default_size", None) or 224,
        "license": license if isinstance(license, str) else ", ".join(license),
    }


def _last_layer_inside(encoder: Any, images: torch.Tensor) -> object:
    """Return the last layer of the model of timm or transformers inside an encoder."""
    network: Any = getattr(encoder, "model", None)
    if callable(getattr(network, "forward_features", None)):
        return network.forward_features(images)
    if network is None or not hasattr(network, "config"):
        msg = f"expected a model of timm or transformers as its `model`, found {type(network).__name__}"
        raise TypeError(msg)
    return _last_hidden_state(network, images)


def _unavailable_error(name: str, reason: object) -> FileNotFoundError:
    """Return the error for a model that is unknown, gated, or out of reach."""
    cause = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    where = ", or pass the folder that holds the saved model" if name.startswith("transformers:") else ""
    msg = (
        f"The encoder {name!r} cannot be loaded ({cause}). Check the name and the network. For a gated "
        f"model, request access and log in first{where}."
    )
    return FileNotFoundError(msg)


FAMILIES = {
    "transformers": Family(
        "transformers",
        "transformers:<model id or folder>",
        "pip install 'sthggep[transformers]'",
        _describe_transformers,
    ),
    "timm": Family("timm", "timm:<name>", "pip install timm", _describe_timm),
    "lazyslide": Family("lazyslide_models", "lazyslide:<name>", "pip install lazyslide-models", _describe_lazyslide),
}
