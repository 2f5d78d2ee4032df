"""What the registry knows of an image encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._encoders._families import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch

    StateDict = dict[str, torch.Tensor]

UNVERSIONED = "unversioned"  # an object without a state dict: nothing tells its weights apart


@dataclass(frozen=True)
class Encoder:
    """How to build one encoder, and what it expects."""

    name: str
    build: Callable[[bool], Any]
    """Makes the module; ``True`` asks for its own weights, ``False`` for any, since others are put in."""
    encode: Callable[[Any, torch.Tensor], Any]
    dim: int | None = None
    """Values a patch; ``None``: found by trying."""
    size_px: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    transform: Callable[[NDArray[np.uint8]], torch.Tensor] | None = None
    """Instead of ``mean`` and ``std``: one uint8 patch (height, width, 3) to a tensor (3, height, width)."""
    read: Callable[[Any], dict[str, Any]] | None = None
    """Fields of this entry that only the module knows, such as its size and normalization."""
    blocks: tuple[int, ...] | None = None
    """Widths of the latent stages that the vector is made of; ``None``: it is one."""
    size_um: tuple[float, ...] | None = None
    """Fields of view that it is meant for, in microns; ``None``: those of the preset."""
    files: tuple[str, ...] = ()
    bundled: str = ""
    """File of the weights that comes with the package."""
    url: str = ""
    """Address of the weights; the file name holds the first digits of the content's SHA-256."""
    license: str = "not stated"
    how: str = ""
    """How to get it, where it is not simply downloaded from ``url``."""
    portable: bool = False
    """Whether a saved model takes the weights along; else they are looked up again, and checked."""
    channels_last: bool = False
