"""Encoders of other packages, by name: ``transformers:…``, ``timm:…``, ``lazyslide:…``. None of them is a dependency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from sthggep._checks import one_of

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Family(NamedTuple):
    """One package with many encoders."""

    package: str
    pattern: str
    install: str
    describe: Callable[[str], dict[str, Any]]
    """From a model's name to the fields of its entry."""

    @property
    def installed(self) -> bool:
        """Whether the package is here."""
        return find_spec(self.package) is not None


def is_family(name: str) -> bool:
    """Whether the name is one of a family's, such as ``"timm:<name>"``."""
    return name.partition(":")[0] in FAMILIES and ":" in name


def family_encoder(name: str) -> dict[str, Any]:
    """Fields of the entry of a family's encoder; its package must be installed."""
    prefix, _, model = name.partition(":")
    family = FAMILIES[prefix]
    if not model:
        msg = f"{name!r} names no model. Expected {family.pattern!r}."
        raise ValueError(msg)
    return family.describe(model)


def _package(prefix: str, model: str) -> Any:
    family = FAMILIES[prefix]
    try:
        return import_module(family.package)
    except ImportError as reason:
        msg = (
            f"The encoder '{prefix}:{model}' needs the package {family.package!r}, which cannot be imported here "
            f"({reason}). Install it: `{family.install}`."
        )
        raise ImportError(msg) from reason


# ---------------------------------------------------------------- transformers


def _transformers(model: str) -> dict[str, Any]:
    """Size, mean and standard deviation come from the model's own image processor."""
    package, name = _package("transformers", model), f"transformers:{model}"
    try:
        processor = package.AutoImageProcessor.from_pretrained(model)
    except (OSError, ValueError) as reason:
        raise _not_had(name, reason) from reason

    def build(own_weights: bool) -> Any:
        try:
            if own_weights:
                found = package.AutoModel.from_pretrained(model)
            else:
                found = package.AutoModel.from_config(package.AutoConfig.from_pretrained(model))
        except (OSError, ValueError) as reason:
            raise _not_had(name, reason) from reason
        return getattr(found, "vision_model", found)  # of a model of images and text, the images' half

    mean, std = _scale_of(processor)
    return {
        "build": build,
        "encode": _summary_token,
        "size_px": _size_of(processor, name),
        "mean": mean,
        "std": std,
        "license": "see the model's card",
    }


def _scale_of(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for pixels from 0 to 1, whatever range the processor works in."""
    rescale = float(getattr(processor, "rescale_factor", None) or 1 / 255)
    top = 255.0 * (rescale if getattr(processor, "do_rescale", True) else 1.0)
    if not getattr(processor, "do_normalize", True):
        return (0.0,) * 3, (1 / top,) * 3
    mean, std = processor.image_mean, processor.image_std
    return tuple(float(v) / top for v in mean), tuple(float(v) / top for v in std)


def _size_of(processor: Any, name: str) -> int:
    """Width of the square that the model sees."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    size: Any = crop or processor.size
    if isinstance(size, int):
        return size
    given = dict(size) if isinstance(size, Mapping) else {k: v for k, v in vars(size).items() if v is not None}
    sides = {given[key] for key in ("height", "width", "shortest_edge") if given.get(key) is not None}
    if len(sides) != 1:
        msg = f"{name!r} wants images of {given}, but patches are square. Use a model of square images."
        raise ValueError(msg)
    return int(sides.pop())


def _summary_token(module: Any, images: torch.Tensor) -> torch.Tensor:
    """The class token of the last layer, where the model has one; else the mean over tokens or over the map."""
    last = module(pixel_values=images).last_hidden_state
    if last.ndim == 4:
        return last.mean(dim=(2, 3))  # type: ignore[no-any-return]
    names = [name.rsplit(".", 1)[-1] for name, _ in module.named_parameters()]
    return last[:, 0] if {"cls_token", "class_embedding"} & set(names) else last.mean(dim=1)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- timm


def _timm(model: str) -> dict[str, Any]:
    """Size, mean and standard deviation come with timm's weights."""
    package, name = _package("timm", model), f"timm:{model}"

    def build(own_weights: bool) -> Any:
        try:
            return package.create_model(model, pretrained=own_weights, num_classes=0)
        except (OSError, RuntimeError, ValueError) as reason:
            raise _not_had(name, reason) from reason

    def read(module: Any) -> dict[str, Any]:
        plan = package.data.resolve_model_data_config(module)
        card = getattr(module, "pretrained_cfg", None) or {}
        return {
            "size_px": int(plan["input_size"][-1]),
            "mean": tuple(map(float, plan["mean"])),
            "std": tuple(map(float, plan["std"])),
            "license": str(card.get("license") or "see the model's card"),
        }

    return {"build": build, "encode": lambda module, images: module(images), "read": read}


# ---------------------------------------------------------------- LazySlide


def _lazyslide(model: str) -> dict[str, Any]:
    """LazySlide's models bring their own transform, and the size of image they want."""
    registry, name = _package("lazyslide", model).MODEL_REGISTRY, f"lazyslide:{model}"
    card = registry[one_of(model, list(registry), "model of lazyslide-models")]

    def build(own_weights: bool) -> Any:
        if not own_weights:
            msg = f"{name!r} brings its own weights: leave `weights` out."
            raise ValueError(msg)
        try:
            found = card()
        except (OSError, ImportError, RuntimeError) as reason:
            raise _not_had(name, reason) from reason
        if not callable(getattr(found, "encode_image", None)):
            msg = f"{name!r} encodes no images: it has no `encode_image`. Choose a model of the task 'vision'."
            raise ValueError(msg)
        return found

    license = getattr(card, "license", None) or "not stated"
    return {
        "build": build,
        "encode": lambda module, images: module.encode_image(images),
        "dim": getattr(card, "encode_dim", None),
        "size_px": getattr(getattr(card, "input_constraint", None), "default_size", None) or 224,
        "license": license if isinstance(license, str) else ", ".join(license),
    }


def _not_had(name: str, reason: object) -> FileNotFoundError:
    """One error for a model that is unknown, behind a form, or out of reach."""
    why = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    where = ", or pass the folder it was saved to" if name.startswith("transformers:") else ""
    msg = (
        f"The encoder {name!r} cannot be had ({why}). Check the name and the network; where the model is "
        f"behind a form, ask for access and log in first{where}."
    )
    return FileNotFoundError(msg)


FAMILIES = {
    "transformers": Family(
        "transformers", "transformers:<model id or folder>", "pip install 'sthggep[transformers]'", _transformers
    ),
    "timm": Family("timm", "timm:<name>", "pip install timm", _timm),
    "lazyslide": Family("lazyslide_models", "lazyslide:<name>", "pip install lazyslide-models", _lazyslide),
}
