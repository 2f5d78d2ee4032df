"""One entry of the registry of image encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._encoders._families import IMAGENET_MEAN, IMAGENET_STD, ModuleFields

if TYPE_CHECKING:
    import torch

    StateDict = dict[str, torch.Tensor]

ENCODINGS = ("patches", "tissue")  # how an encoder reads a slide
AROUND_UM = (200.0, 600.0)
"""By how much the further windows of a spot are wider than its field of view: their features stand for the tissue around."""
UNVERSIONED = "unversioned"  # an object without a state dict: its weights have no id


@dataclass(frozen=True)
class FeatureMapping:
    """The feature maps of an encoder whose vectors are means of these maps."""

    read: Callable[[Any, torch.Tensor], Sequence[torch.Tensor]]
    """Turns images (n, 3, height, width) into maps (n, channels, height / stride, width / stride), in the vector's order."""
    strides: tuple[int, ...]
    """Pixels from one cell of a map to the next."""
    context_px: int
    """Pixels around a cell that its values depend on, at most; of squares, the border whose cells are not used."""
    centered: bool = True
    """Whether the first cell is centered on the first pixel, as by padded convolutions. Else it begins there."""
    input_px: int | None = None
    """Side of the squares that the encoder reads at once, where a cell depends on the whole square. Default: any size."""
    dim: int | None = None
    """Values a spot, where the vector of a patch holds others. Default: the length of that vector."""

    @property
    def core_px(self) -> int:
        """Side of the part of a square whose cells are used; of images of any size, the largest stride."""
        return max(self.strides) if self.input_px is None else self.input_px - 2 * self.context_px

    def window(
        self, start: NDArray[np.float64], stop: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return corner and size, (x, y) in pixels, of what the encoder must read for fields of view in these borders."""
        # A cell at the edge of a field of view reaches half a stride beyond it
        reach = max(self.strides) / 2
        # Images of any size begin on the lattice of cells, squares by their context before the lattice of cores
        near, far = (self.context_px, 0) if self.input_px is None else (0, self.context_px)
        corner = np.floor((start - reach - near) / self.core_px).astype(np.int64) * self.core_px - far
        end = np.ceil((stop + reach + near) / self.core_px).astype(np.int64) * self.core_px + far
        return corner, end - corner


@dataclass(frozen=True)
class Encoder:
    """How to build one encoder, and the patches that it expects."""

    name: str
    build: Callable[[bool], object]
    """Builds the module: ``True`` with its own weights, ``False`` with any, which other weights then replace."""
    encode: Callable[[Any, torch.Tensor], object]
    dim: int | None = None
    """Values a patch. Default: the length of the vector of a white patch."""
    size_px: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    transform: Callable[[NDArray[np.uint8]], torch.Tensor] | None = None
    """In place of ``mean`` and ``std``: one uint8 patch (height, width, 3) to a tensor (3, height, width)."""
    read: Callable[[Any], ModuleFields] | None = None
    """Reads the fields of this entry that only the module holds, such as its size and normalization."""
    blocks: tuple[int, ...] | None = None
    """Widths of the latent stages in the vector. Default: the vector is one stage."""
    size_um: tuple[float, ...] | None = None
    """Fields of view that the encoder is meant for, in microns. Default: the fields of view of the preset."""
    files: tuple[str, ...] = ()
    bundled: str = ""
    """File of the weights in the package."""
    url: str = ""
    """Address of the weights. The file name holds the first digits of the content's SHA-256."""
    license: str = "not stated"
    how: str = ""
    """How to get the encoder, where ``url`` does not hold its weights."""
    portable: bool = False
    """Whether a saved model includes the weights. Else loading finds the weights again and checks them."""
    channels_last: bool = False
    maps: FeatureMapping | None = None
    """Feature maps, by which the encoder can read the tissue in tiles. Default: those found in ``last``, if any."""
    last: Callable[[Any, torch.Tensor], object] | None = None
    """Reads the last layer, in which the built module's maps are found: tokens (n, tokens, width), or a map
    (n, channels, height, width). Default: the encoder reads patches only, unless it has ``maps``."""
    patch_px: int | None = None
    """Side of the patch of a token, where ``last`` returns patch tokens only. Default: the side that the module states."""
    context_px: int | None = None
    """Border of the squares whose tokens are not used. Default: see :func:`sthggep._encoders._tokens.default_context`."""
