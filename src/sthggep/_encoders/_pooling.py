"""Sums of feature maps over boxes of any position and size, weighted by area."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHANNELS_AT_ONCE = 128

Flip = tuple[bool, bool]
"""Whether an image is read flipped in x, in y."""
FLIPS: tuple[Flip, ...] = ((False, False), (True, False), (False, True), (True, True))


class Boxes(NamedTuple):
    """Boxes in pixels of the image that the encoder reads: corners (n, 2) as (x, y), with fractions."""

    start: NDArray[np.float64]
    stop: NDArray[np.float64]

    @property
    def area(self) -> NDArray[np.float64]:
        """Area of each box in pixels."""
        area: NDArray[np.float64] = np.prod(self.stop - self.start, axis=1)
        return area

    def clip(self, start: NDArray[np.float64], stop: NDArray[np.float64]) -> Boxes:
        """Return the parts of the boxes inside a region; a box outside of it has no area."""
        return Boxes(np.clip(self.start, start, stop), np.clip(self.stop, start, stop))


def pool_map(
    values: NDArray[np.float32], stride: int, flip: Flip, boxes: Boxes, *, centered: bool = True
) -> NDArray[np.float64]:
    """Integrate a feature map over boxes.

    Parameters
    ----------
    values
        Map (channels, height, width), laid back on the image that is not flipped.
    stride
        Pixels from one cell to the next.
    flip
        Whether the encoder read the image flipped in x, in y.
    boxes
        The boxes, all inside the map.
    centered
        Whether the first cell's center lies on the first pixel that the encoder read; a flip then shifts the cells by
        one pixel less than a stride. Else the cells begin at the first pixel, flipped or not.

    Returns
    -------
    Sums (n, channels) of each cell's value times its area in pixels inside the box.
    """
    edge = np.array([_first_edge(stride, flipped) if centered else 0.0 for flipped in flip])
    (x0, y0), (x1, y1) = ((corner - edge).T / stride for corner in boxes)
    out = np.empty((len(x0), len(values)), dtype=np.float64)
    for first in range(0, len(values), CHANNELS_AT_ONCE):
        part = slice(first, first + CHANNELS_AT_ONCE)
        sums = summed_area(values[part])
        across = _read(sums, y1, x1) - _read(sums, y1, x0) - _read(sums, y0, x1) + _read(sums, y0, x0)
        out[:, part] = across * stride**2
    return out


def _first_edge(stride: int, flipped: bool) -> float:
    """Place of the first cell's edge, in pixels: the cell is centered on the first pixel, or ends on the last one."""
    return (stride - 1) / 2 if flipped else (1 - stride) / 2


def summed_area(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum a map (channels, height, width) over all cells above and to the left, (height + 1, width + 1, channels)."""
    channels, height, width = values.shape
    sums = np.zeros((height + 1, width + 1, channels))
    # Row by row and column by column: numpy's own cumulative sum takes five times as long along these axes
    for row, cells in enumerate(values.transpose(1, 2, 0)):
        np.add(sums[row, 1:], cells, out=sums[row + 1, 1:])
    for column in range(1, width):
        sums[:, column + 1] += sums[:, column]
    return sums


def _read(sums: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read the sums at places between cells: sums of whole cells grow linearly within a cell."""
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    y, x = np.clip(y, 0, height), np.clip(x, 0, width)
    top, left = np.minimum(y.astype(np.intp), height - 1), np.minimum(x.astype(np.intp), width - 1)
    down, right = (y - top)[:, None], (x - left)[:, None]
    upper = sums[top, left] * (1 - right) + sums[top, left + 1] * right
    lower = sums[top + 1, left] * (1 - right) + sums[top + 1, left + 1] * right
    result: NDArray[np.float64] = upper * (1 - down) + lower * down
    return result
