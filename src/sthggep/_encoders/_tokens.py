"""Feature maps in the last layer of an encoder: patch tokens of a vision transformer, or the map of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._encoders._entry import Encoder, FeatureMapping

if TYPE_CHECKING:
    import torch
    from torch import nn

Normalize = Callable[[NDArray[np.uint8]], "torch.Tensor"]
CONTEXT_SHARE = 1 / 6
FAILURES = (AttributeError, TypeError, ValueError, RuntimeError, AssertionError, KeyError)  # of other packages' modules


def check_maps(entry: Encoder) -> None:
    """Check that an encoder has feature maps, or a last layer in which to find them once it is built."""
    if entry.maps is None and entry.last is None:
        msg = (
            f"The encoder {entry.name!r} declares no feature maps, so it can read patches only. Pass "
            "`encoding='patches'`, or an encoder with feature maps, such as 'shufflenet_he'. Declare those of your own encoder "
            "by `sthggep.pp.register_encoder(strides=...)`, its patch tokens by `patch_px=...`."
        )
        raise ValueError(msg)


def default_context(size_px: int, stride: int) -> int:
    """Border of a square whose cells are not used: whole cells, about a sixth of the square."""
    return max(1, round(size_px * CONTEXT_SHARE / stride)) * stride


def check_squares(size_px: int, stride: int, context_px: int) -> str | None:
    """Return what is wrong with squares of this size, whose cells and context must be whole; ``None`` if nothing is."""
    if size_px % stride:
        return f"its input must be a whole number of patches wide, found {size_px} px and patches of {stride} px"
    if context_px % stride:
        return f"`context_px` must be a multiple of the stride, {stride} px, found {context_px}"
    if size_px - 2 * context_px < stride:
        return (
            f"its input must be wider than twice the context by {stride} px, found {size_px} px and "
            f"`context_px={context_px}`"
        )
    return None


def find_maps(entry: Encoder, module: object, normalize: Normalize) -> FeatureMapping:
    """Find the feature maps in the last layer of a built encoder, or raise an error that says what it has instead.

    Parameters
    ----------
    entry
        The encoder, which has ``last``.
    module
        The built module.
    normalize
        Turns uint8 patches (n, height, width, 3) into what the module reads.
    """
    try:
        return _find(entry, module, normalize)
    except FAILURES as reason:
        msg = (
            f"The encoder {entry.name!r} cannot read the tissue: {reason}. Pass `encoding='patches'`, or an encoder with "
            "feature maps, such as 'shufflenet_he'."
        )
        raise ValueError(msg) from reason


def _find(entry: Encoder, module: object, normalize: Normalize) -> FeatureMapping:
    """Find the feature maps; any error says why there are none."""
    import torch

    assert entry.last is not None
    size = entry.size_px
    noise = np.random.default_rng(0).integers(0, 2, (1, size, size, 1), dtype=np.uint8) * np.full(3, 255, np.uint8)
    if entry.transform is not None:
        _check_transform(noise, normalize)
    images = normalize(noise)
    with torch.inference_mode():
        last = entry.last(module, images)
        shape = tuple(getattr(last, "shape", ()))
        if len(shape) == 4:
            return _map_of_convolutions(entry, module, images, shape)
        if len(shape) != 3:
            found = f"shape {shape}" if shape else type(last).__name__
            msg = f"its last layer must give patch tokens (n, tokens, width) or a map (n, channels, height, width), found {found}"
            raise ValueError(msg)
        mapping = _patch_tokens(entry, module, shape)
        first, second = (mapping.read(module, images)[0].float() for _ in range(2))
        if not torch.allclose(first, second, atol=1e-3 * float(first.abs().max())):
            msg = "its tokens of one image must always be the same and in the same order, found others on a second call"
            raise ValueError(msg)
        return mapping


def _check_transform(noise: NDArray[np.uint8], normalize: Normalize) -> None:
    """Check that a transform changes the colors of pixels, not their places: tokens must lie where their pixels lie."""
    import torch

    size = noise.shape[1]
    changed, black, white = normalize(np.concatenate([noise, np.zeros_like(noise), np.full_like(noise, 255)]))
    words = f"its transform must keep each pixel of a square of {size} px in its place"
    if changed.shape[1:] != (size, size):
        msg = f"{words}, found images of {tuple(changed.shape[1:])} px"
        raise ValueError(msg)
    expected = torch.where(torch.as_tensor(noise[0, :, :, 0] > 0, device=changed.device), white, black)
    if not torch.allclose(changed, expected, atol=1e-3):
        msg = f"{words}, found that it resamples or moves them"
        raise ValueError(msg)


# ---------------------------------------------------------------- tokens


def require_tokens(module: object) -> None:
    """Check that a user's encoder has the method that returns its patch tokens."""
    if not callable(getattr(module, "tokens", None)):
        msg = (
            "`patch_px` needs an encoder with `tokens(images)`, which returns the patch tokens (n, tokens, width), found "
            f"{type(module).__name__} without it. Add this method, or leave out `patch_px`."
        )
        raise TypeError(msg)


def read_tokens(module: Any, images: torch.Tensor) -> object:
    """Return the patch tokens of a user's encoder."""
    require_tokens(module)
    return module.tokens(images)


def _patch_tokens(entry: Encoder, module: object, shape: tuple[int, ...]) -> FeatureMapping:
    """Return the map of patch tokens: the last ones, row by row, behind class and register tokens."""
    size, patch = entry.size_px, entry.patch_px or _stated_patch(module)
    context = default_context(size, patch) if entry.context_px is None else entry.context_px
    if fault := check_squares(size, patch, context):
        raise ValueError(fault)
    side = size // patch
    others = shape[1] - side**2
    if others < 0 or (others and entry.patch_px is not None):
        alone = (
            "without class and register tokens" if entry.patch_px is not None else "behind class and register tokens"
        )
        msg = f"expected {side} × {side} = {side**2} patch tokens of {patch} px {alone}, found {shape[1]} tokens"
        raise ValueError(msg)
    assert entry.last is not None
    read = partial(_lay_tokens, entry.last, side)
    return FeatureMapping(read, (patch,), context, centered=False, input_px=size, dim=shape[2])


def _lay_tokens(
    last: Callable[[Any, torch.Tensor], Any], side: int, module: object, images: torch.Tensor
) -> Sequence[torch.Tensor]:
    """Lay the patch tokens (n, tokens, width) of images out as a map (n, width, side, side)."""
    import torch

    tokens = torch.as_tensor(last(module, images))
    return [tokens[:, -(side**2) :].transpose(1, 2).reshape(len(tokens), -1, side, side)]


def _stated_patch(module: object) -> int:
    """Return the side of a patch that a module states, as models of transformers and timm do."""
    network = getattr(module, "model", module)
    for holder in (getattr(network, "config", None), getattr(network, "patch_embed", None)):
        patch = getattr(holder, "patch_size", None)
        if patch is None:
            continue
        sides = {patch} if isinstance(patch, int) else set(patch)
        if len(sides) != 1:
            msg = f"its patches must be square, found patches of {' × '.join(map(str, patch))} px"
            raise ValueError(msg)
        return int(sides.pop())
    msg = "expected the side of a patch in `config.patch_size` or `patch_embed.patch_size`, found neither"
    raise ValueError(msg)


# ---------------------------------------------------------------- maps of convolutions


def _map_of_convolutions(
    entry: Encoder, module: object, images: torch.Tensor, shape: tuple[int, ...]
) -> FeatureMapping:
    """Return the last map of convolutions, read in squares, too: its receptive field may be larger than the image."""
    assert entry.last is not None
    size, (height, width) = entry.size_px, shape[2:]
    if height != width or size % height:
        msg = (
            f"the map of {size} × {size} px must be square, with cells of whole pixels, found {height} × {width} cells"
        )
        raise ValueError(msg)
    stride = size // height
    context = default_context(size, stride) if entry.context_px is None else entry.context_px
    if fault := check_squares(size, stride, context):
        raise ValueError(fault)
    center = _first_center(entry, module, images, stride)
    if center not in (0, (stride - 1) / 2):
        msg = (
            "the first cell of its map must be centered on the first pixel or begin there, found its center "
            f"{center:g} px from the first pixel's, at a stride of {stride} px"
        )
        raise ValueError(msg)

    def read(module: object, images: torch.Tensor) -> Sequence[torch.Tensor]:
        assert entry.last is not None
        last: Any = entry.last(module, images)
        return [last]

    return FeatureMapping(read, (stride,), context, centered=center == 0, input_px=size, dim=shape[1])


def _first_center(entry: Encoder, module: object, images: torch.Tensor, stride: int) -> float:
    """Return the distance of the first cell's center from the first pixel's, from the layers that the image runs through."""
    from torch import nn

    assert entry.last is not None
    network = getattr(module, "model", module)
    if not isinstance(network, nn.Module):
        msg = f"expected a torch module whose layers say where the cells of its map lie, found {type(network).__name__}"
        raise TypeError(msg)
    size = entry.size_px
    steps: dict[int, set[tuple[int, float]]] = {}
    handles = [
        layer.register_forward_hook(
            lambda layer, inputs, _: steps.setdefault(inputs[0].shape[2], set()).add(_step(layer))
        )
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
    ]
    try:
        entry.last(module, images)
    finally:
        for handle in handles:
            handle.remove()
    # Layers that keep each cell's place say nothing; those of one resolution must agree
    moves = {side: step - {(1, 0.0)} for side, step in steps.items() if step - {(1, 0.0)}}
    if any(len(step) > 1 or size % side for side, step in moves.items()):
        msg = "its layers disagree on where the cells of its map lie"
        raise ValueError(msg)
    strides = {side: (size // side, *step.pop()) for side, step in moves.items()}
    if prod(each for _, each, _ in strides.values()) != stride:
        msg = f"the strides of its layers must give the stride of its map, {stride} px, found {[each for _, each, _ in strides.values()]}"
        raise ValueError(msg)
    return sum(jump * shift for jump, _, shift in strides.values())


def _step(layer: nn.Module) -> tuple[int, float]:
    """Return a layer's stride, and how far its first cell's center lies from that of the cell before it."""
    kernel, stride, padding, dilation = (
        _side(getattr(layer, name, 1)) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    reach = dilation * (kernel - 1) / 2
    return int(stride), reach - (int(reach) if padding == "same" else padding)


def _side(value: Any) -> Any:
    """Return the one number of a layer's option for both axes."""
    if isinstance(value, int | str):
        return value
    if len(set(value)) != 1:
        msg = f"its layers must treat rows and columns alike, found {tuple(value)}"
        raise ValueError(msg)
    return value[0]
