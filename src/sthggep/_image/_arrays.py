"""The common form of pixel arrays, whatever library made them, and the order of their axes."""

from __future__ import annotations

from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.generic]
"""Pixels in the type in which the file stores them."""
AxisNumbers = tuple[int, int, int | None]
"""Numbers of the axes y, x and channel; the channel is ``None`` for an image without channels."""
Index = tuple[int | slice, ...]


class PixelArray(Protocol):
    """An array that can be indexed: numpy, dask, zarr, xarray, or a level of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        ...

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the values."""
        ...

    def __getitem__(self, index: Index, /) -> object: ...


def is_pixel_array(value: object) -> TypeGuard[PixelArray]:
    """Whether a value has a shape and a type and can be indexed."""
    return all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__"))


def channels_last(pixels: object, axes: AxisNumbers) -> Pixels:
    """Return pixels as an array with its axes in the order (y, x, channel)."""
    values = np.asarray(pixels)
    return values[..., None] if axes[2] is None else np.moveaxis(values, axes[2], -1)
