"""The encoders there are, and how to add one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import positive
from sthggep._encoders._entry import Encoder
from sthggep._encoders._families import FAMILIES, IMAGENET_MEAN, IMAGENET_STD, is_family
from sthggep._encoders._frozen import ENCODERS, builder_of, encode_by

if TYPE_CHECKING:
    import pandas as pd
    import torch


def register_encoder(
    name: str,
    model: Any,
    *,
    dim: int | None = None,
    size_px: int = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    transform: Callable[[NDArray[np.uint8]], torch.Tensor] | None = None,
    blocks: Sequence[int] | None = None,
    size_um: float | Sequence[float] | None = None,
    license: str = "not stated",
    keep_weights: bool = False,
    overwrite: bool = False,
) -> None:
    """Add an image encoder of your own, for this session.

    From then on its name stands wherever an encoder is asked for: ``pp.features(slide, name, size_um=…)`` and
    ``tl.fit(slides, encoder=name)``. A model that was fitted with it asks for the same name, and the same weights, when it
    predicts in another session.

    Parameters
    ----------
    name
        Its name. Give another model another name: features are known by it.
    model
        A torch module that gives one row a patch; any object with ``encode_image(batch)``; or a function without
        arguments that makes one of these when it is first needed. A module is copied, an object is used as it is (and
        moved to the device by its ``to``, where it has one). It is fed float tensors (n, 3, ``size_px``, ``size_px``), or
        what its own ``get_transform()`` makes of the patches, where it has one.
    dim
        Values a patch; ``None`` finds out by encoding a white one.
    size_px
        Width and height of the patches it is fed.
    mean, std
        Normalization of pixels from 0 to 1, one value a channel.
    transform
        Instead of ``mean`` and ``std``: from one uint8 patch (height, width, 3) to a tensor (3, height, width).
    blocks
        Widths of the latent stages that the vector is made of, where it is several side by side: each then weighs the
        same. They add up to ``dim``.
    size_um
        Field of view it is meant for, in microns, or several: the default of ``tl.fit(encoder=…)``. ``None`` takes the
        preset's.
    license
        License of its weights.
    keep_weights
        Save the weights with every model that is fitted on them. Mind their license.
    overwrite
        Replace an encoder of that name.

    Raises
    ------
    ValueError
        The name is taken, or a number makes no sense.
    TypeError
        ``model`` is nothing that encodes.

    Examples
    --------
    >>> sthggep.pp.register_encoder("mine", my_module, size_px=224, size_um=112)
    >>> model = sthggep.tl.fit(slides, encoder="mine")
    """
    if name in ENCODERS and not overwrite:
        msg = f"There is an encoder {name!r} already. Choose another name, or pass `overwrite=True` to replace it."
        raise ValueError(msg)
    if not name or is_family(name):
        msg = (
            f"{name!r} cannot be a name: it must not be empty, nor start like {[f.pattern for f in FAMILIES.values()]}."
        )
        raise ValueError(msg)
    if len(mean) != 3 or len(std) != 3:
        msg = f"`mean` and `std` must hold one value for each of three channels, found {list(mean)} and {list(std)}."
        raise ValueError(msg)
    if blocks is not None and dim is not None and sum(blocks) != dim:
        msg = f"`blocks` must add up to `dim`, found {list(blocks)}, which make {sum(blocks)}, and dim={dim}."
        raise ValueError(msg)
    sizes = None if size_um is None else tuple(float(s) for s in np.atleast_1d(np.asarray(size_um, dtype=np.float64)))
    for value, what in [
        (dim or 1, "`dim`"),
        (size_px, "`size_px`"),
        *((s, "`size_um`") for s in (*std, *(sizes or ()))),
    ]:
        positive(value, what)
    ENCODERS[name] = Encoder(
        name=name,
        build=builder_of(model, name),
        encode=encode_by,
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
    )


def encoders() -> pd.DataFrame:
    """The image encoders there are.

    Returns
    -------
    A row an encoder, by its name: ``dim`` (values a patch), ``size_px`` (width of the patches it is fed), ``size_um``
    (fields of view it is meant for), ``license``, ``available`` (whether it can be used at once, without a download or an
    installation) and ``how`` (to get it). Names with ``<…>`` stand for all models of another package.
    """
    import pandas as pd

    rows = [_row(entry) for entry in ENCODERS.values()]
    for family in FAMILIES.values():
        how = "its models are downloaded when first used" if family.installed else family.install
        rows.append((family.pattern, None, None, "", "the model's own", family.installed, how))
    columns = ["name", "dim", "size_px", "size_um", "license", "available", "how"]
    table = pd.DataFrame(rows, columns=columns).set_index("name")
    return table.astype({"dim": "Int64", "size_px": "Int64", "available": bool})


def _row(entry: Encoder) -> tuple[Any, ...]:
    sizes = ", ".join(f"{size:g}" for size in entry.size_um or ())
    here = not entry.url or _is_here(entry)
    how = entry.how or ("here" if here else f"downloaded when first used, from {entry.url}")
    return entry.name, entry.dim, entry.size_px, sizes, entry.license, here, how


def _is_here(entry: Encoder) -> bool:
    from sthggep._encoders._weights import cached_weights, local_weights

    try:
        return bool(local_weights(entry) or cached_weights(entry))
    except FileNotFoundError:  # the folder that was named does not hold it
        return False
