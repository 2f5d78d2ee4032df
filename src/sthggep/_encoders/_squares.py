"""Tissue in overlapping squares of one size, for encoders whose maps depend on the whole image that they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sthggep._encoders._entry import FeatureMapping
    from sthggep._encoders._pooling import Boxes

AT_ONCE = 16  # squares a batch


def read_squares(
    pixels: NDArray[np.uint8],
    mapping: FeatureMapping,
    read: Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]],
    boxes: Boxes | None = None,
) -> list[NDArray[np.float32]]:
    """Encode an image square by square, and lay the cores of their maps together.

    Parameters
    ----------
    pixels
        The image (height, width, 3): whole cores and, around all of them, the context of one square.
    mapping
        Side of the squares, their context and the strides.
    read
        Encodes squares (n, side, side, 3) into maps (n, channels, side / stride, side / stride).
    boxes
        Fields of view in the image: squares whose cores they do not touch are left out. Default: all squares are read.

    Returns
    -------
    Maps (channels, height / stride, width / stride), each 0 in the context around the image and in squares left out.
    """
    side, core, context = mapping.input_px or 0, mapping.core_px, mapping.context_px
    height, width = pixels.shape[:2]
    rows, columns = (height - side) // core + 1, (width - side) // core + 1
    needed = np.ones((rows, columns), dtype=bool) if boxes is None else _touched(boxes, mapping, (rows, columns))
    corners = [(int(row) * core, int(column) * core) for row, column in np.argwhere(needed)]
    wholes: list[NDArray[np.float32]] = []
    for first in range(0, len(corners), AT_ONCE):
        batch = corners[first : first + AT_ONCE]
        parts = read(np.stack([pixels[y : y + side, x : x + side] for y, x in batch]))
        if not wholes:
            shapes = [(part.shape[1], height // s, width // s) for part, s in zip(parts, mapping.strides, strict=True)]
            wholes = [np.zeros(shape, dtype=np.float32) for shape in shapes]
        for whole, part, stride in zip(wholes, parts, mapping.strides, strict=True):
            used = slice(context // stride, (context + core) // stride)
            for (y, x), values in zip(batch, part, strict=True):
                top, left = (y + context) // stride, (x + context) // stride
                whole[:, top : top + core // stride, left : left + core // stride] = values[:, used, used]
    return wholes


def _touched(boxes: Boxes, mapping: FeatureMapping, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which squares (rows, columns) have a core with cells in a field of view."""
    touched = np.zeros(shape, dtype=bool)
    # A cell that is centered on a pixel begins half a stride before it
    reach = max(mapping.strides) / 2 if mapping.centered else 0.0
    first = np.floor((boxes.start - reach - mapping.context_px) / mapping.core_px).astype(np.intp)
    last = np.floor((boxes.stop + reach - mapping.context_px) / mapping.core_px).astype(np.intp)
    for (left, top), (right, bottom) in zip(np.maximum(first, 0), last, strict=True):
        touched[top : bottom + 1, left : right + 1] = True
    return touched
