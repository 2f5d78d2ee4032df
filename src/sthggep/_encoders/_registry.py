"""Public calls of the registry of image encoders; `_frozen` holds its entries, ``ENCODERS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import positive
from sthggep._encoders._entry import Encoder, FeatureMapping
from sthggep._encoders._families import FAMILIES, IMAGENET_MEAN, IMAGENET_STD, is_family
from sthggep._encoders._frozen import ENCODERS, pool_maps, read_maps
from sthggep._encoders._tokens import check_squares, default_context, read_tokens, require_tokens

if TYPE_CHECKING:
    import pandas as pd
    import torch

CONTEXT_PX = 256  # of convolutions, where the user declares none


@checked
def register_encoder(
    name: str,
    model: object,
    *,
    dim: int | None = None,
    size_px: int = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    transform: Callable[[NDArray[np.uint8]], torch.Tensor] | None = None,
    blocks: Sequence[int] | None = None,
    size_um: float | Sequence[float] | None = None,
    strides: Sequence[int] | None = None,
    patch_px: int | None = None,
    context_px: int | None = None,
    license: str = "not stated",
    keep_weights: bool = False,
    overwrite: bool = False,
) -> None:
    """Add your own image encoder to the registry of this session.

    You can then pass its name to ``pp.features(slide, name, size_um=…)`` and ``tl.fit(slides, encoder=name)``. To predict
    in another session with a model that was fitted with the encoder, register it there under the same name and with the
    same weights.

    Parameters
    ----------
    name
        Name of the encoder. Give each model its own name: keys and records of features hold the name.
    model
        A torch module that returns one row a patch; any object with ``encode_image(batch)``; or a function without
        arguments that returns one of these when it is first needed. The function copies a module. It uses an object as it
        is and moves it to the device by its ``to``, where it has one. The encoder reads float tensors
        (n, 3, ``size_px``, ``size_px``), or the output of its ``get_transform()``, where it has one.
    dim
        Values a patch. Default: the number of values that the encoder returns for a white patch.
    size_px
        Width and height of the patches that the encoder reads.
    mean, std
        Normalization of pixels from 0 to 1, one value a channel. Default: the values of ImageNet.
    transform
        Function in place of ``mean`` and ``std``: turns one uint8 patch (height, width, 3) into a tensor
        (3, height, width). Default: normalization by ``mean`` and ``std``.
    blocks
        Widths of the latent stages in the vector, which add up to ``dim``. The model then gives each stage the same weight.
        Default: the vector is one stage.
    size_um
        Field of view in microns that the encoder is meant for, or several: ``tl.fit(encoder=…)`` then uses them. Default:
        the fields of view of the preset.
    strides
        Strides of the feature maps, for an encoder whose vector holds the means of feature maps: ``model.maps(images)``
        then returns these maps (n, channels, height / stride, width / stride), and the encoder can read the tissue in
        large tiles (``encoding="tissue"``). The first cell of a map is centered on the first pixel, as for convolutions
        with padding. Default: the encoder reads patches only.
    patch_px
        Side of the patches of a vision transformer: ``model.tokens(images)`` then returns the patch tokens
        (n, tokens, width) of its last layer, row by row, without class and register tokens, and the encoder can read the
        tissue in overlapping squares of ``size_px`` (``encoding="tissue"``). A spot's features are then the mean patch
        token over its field of view, so they can have another length than those of patches. Pass this or ``strides``.
    context_px
        With ``strides``: pixels around a cell of a map that its values depend on, at most, which is the radius of the
        receptive field. Default: 256. With ``patch_px``: border of the squares whose tokens the function does not use,
        because they see little on one side; a multiple of ``patch_px``. Default: about a sixth of ``size_px``.
    license
        License of the weights.
    keep_weights
        Save the weights with every model that is fitted on their features. The license must allow that.
    overwrite
        Replace an encoder of the same name.

    Raises
    ------
    ValueError
        The name is taken or empty, or a number is not positive or does not fit the others.
    TypeError
        ``model`` is not a module, an object with ``encode_image``, or a function.

    Examples
    --------
    >>> sthggep.pp.register_encoder("mine", my_module, size_px=224, size_um=112)
    >>> model = sthggep.tl.fit(slides, encoder="mine")

    A vision transformer whose ``tokens(images)`` returns its patch tokens:

    >>> sthggep.pp.register_encoder("vit", my_vit, size_px=224, patch_px=16)
    >>> sthggep.pp.features(slide, "vit", size_um=112, encoding="tissue")
    """
    if name in ENCODERS and not overwrite:
        msg = f"The registry holds an encoder {name!r} already. Choose another name, or pass `overwrite=True` to replace it."
        raise ValueError(msg)
    if not name or is_family(name):
        msg = f"{name!r} cannot be a name: a name must not be empty, and must not start like {[f.pattern for f in FAMILIES.values()]}."
        raise ValueError(msg)
    if len(mean) != 3 or len(std) != 3:
        msg = f"`mean` and `std` must hold one value for each of three channels, found {list(mean)} and {list(std)}."
        raise ValueError(msg)
    if blocks is not None and dim is not None and sum(blocks) != dim:
        msg = f"`blocks` must add up to `dim`, found {list(blocks)} with sum {sum(blocks)}, and dim={dim}."
        raise ValueError(msg)
    if patch_px is not None:
        _check_tokens(model, size_px, patch_px, context_px, {"strides": strides, "blocks": blocks})
    sizes = None if size_um is None else tuple(float(s) for s in np.atleast_1d(np.asarray(size_um, dtype=np.float64)))
    for value, what in [
        (dim or 1, "`dim`"),
        (size_px, "`size_px`"),
        *((s, "`std`") for s in std),
        *((s, "`size_um`") for s in sizes or ()),
        *((s, "`blocks`") for s in blocks or ()),
        *((stride, "`strides`") for stride in strides or ()),
        (patch_px or 1, "`patch_px`"),
        ((context_px or 0) + 1, "`context_px`"),
    ]:
        positive(value, what)
    maps = None
    if strides is not None:
        maps = FeatureMapping(read_maps, tuple(map(int, strides)), CONTEXT_PX if context_px is None else context_px)
    ENCODERS[name] = Encoder(
        name=name,
        build=_make_builder(model, name),
        encode=_encode_images if strides is None else pool_maps,
        dim=None if dim is None else int(dim),
        size_px=int(size_px),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        transform=transform,
        blocks=None if blocks is None else tuple(map(int, blocks)),
        size_um=sizes,
        license=license,
        how="registered in this session",
        portable=keep_weights,
        maps=maps,
        last=None if patch_px is None else read_tokens,
        patch_px=patch_px,
        context_px=context_px,
    )


def _make_builder(model: object, name: str) -> Callable[[bool], object]:
    """Return a function that builds a registered encoder: it copies a module, returns an object, or calls a function."""
    from torch import nn

    if isinstance(model, nn.Module):
        return lambda _: deepcopy(model)
    if callable(getattr(model, "encode_image", None)):
        return lambda _: model
    if callable(model):
        return lambda _: model()
    msg = (
        f"The encoder {name!r} must be a torch module, an object with `encode_image(batch)`, or a function without "
        f"arguments that returns one; found {type(model).__name__}."
    )
    raise TypeError(msg)


def _encode_images(module: Callable[[torch.Tensor], object], images: torch.Tensor) -> object:
    """Encode images by ``encode_image``; where the module has none, by calling the module."""
    encode = getattr(module, "encode_image", None)
    return encode(images) if callable(encode) else module(images)


def _check_tokens(
    model: object, size_px: int, patch_px: int, context_px: int | None, without: Mapping[str, object]
) -> None:
    """Check the options of a vision transformer that is read by its tokens."""
    if clash := [name for name, value in without.items() if value is not None]:
        msg = f"`patch_px` declares tokens, which are one stage of one resolution. Leave out {clash}, or `patch_px`."
        raise ValueError(msg)
    context = default_context(size_px, patch_px) if context_px is None else context_px
    # An object with its own transform may state another size
    fault = None if hasattr(model, "get_transform") else check_squares(size_px, patch_px, context)
    if fault is not None:
        msg = (
            f"`patch_px` declares an encoder that reads squares: {fault}. Change `size_px`, `patch_px` or `context_px`."
        )
        raise ValueError(msg)
    # A function returns the module only when it is first needed
    if hasattr(model, "encode_image") or hasattr(model, "state_dict"):
        require_tokens(model)


def encoders() -> pd.DataFrame:
    """List the image encoders that you can pass by name.

    Returns
    -------
    A table with one row an encoder, indexed by ``name``: ``dim`` (values a patch), ``size_px`` (width of the patches that
    it reads), ``size_um`` (fields of view in microns that it is meant for), ``license``, ``available`` (whether it works
    without a download or an installation) and ``how`` (how to get it). A name with ``<…>`` stands for all models of
    another package.

    Examples
    --------
    >>> sthggep.pp.encoders()[["dim", "license"]]
    """
    import pandas as pd

    rows = [_row(entry) for entry in ENCODERS.values()]
    for family in FAMILIES.values():
        how = "sthggep downloads its models on first use" if family.installed else family.install
        rows.append((family.pattern, None, None, "", "the model's own", family.installed, how))
    columns = ["name", "dim", "size_px", "size_um", "license", "available", "how"]
    table = pd.DataFrame(rows, columns=columns).set_index("name")
    return table.astype({"dim": "Int64", "size_px": "Int64", "available": bool})


def _row(entry: Encoder) -> tuple[object, ...]:
    """Return one row of the table of encoders."""
    sizes = ", ".join(f"{size:g}" for size in entry.size_um or ())
    local = not entry.url or _is_local(entry)
    how = entry.how or ("here" if local else f"downloaded when first used, from {entry.url}")
    return entry.name, entry.dim, entry.size_px, sizes, entry.license, local, how


def _is_local(entry: Encoder) -> bool:
    """Whether the encoder's weights are on this machine."""
    from sthggep._encoders._weights import find_cached_weights, find_local_weights

    try:
        return bool(find_local_weights(entry) or find_cached_weights(entry))
    except FileNotFoundError:  # $STHGGEP_WEIGHTS names a folder without the file
        return False
