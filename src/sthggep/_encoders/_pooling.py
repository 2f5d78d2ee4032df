"""Sums of feature maps over boxes of any position and size, weighted by area."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from scipy.sparse import csr_matrix

CHANNELS_AT_ONCE = 128

FeatureMap = Union[NDArray[np.float32], "torch.Tensor"]
"""Channels, height, width; on the device that computed it, or as an array."""
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


class Weights(NamedTuple):
    """Places of a few values a box (n, 4), and their weights."""

    places: NDArray[np.intp]
    weights: NDArray[np.float64]


def pool_map(
    values: FeatureMap, stride: int, flip: Flip, boxes: Boxes, *, centered: bool = True
) -> NDArray[np.float64]:
    """Integrate a feature map over boxes.

    Parameters
    ----------
    values
        Map (channels, height, width), laid back on the image that is not flipped. A tensor is summed on its device.
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
    height, width = values.shape[1:]
    corners = _outer(_difference(y0, y1, height), _difference(x0, x1, width), width + 1)
    sums = _sum_array(values, corners) if isinstance(values, np.ndarray) else _sum_tensor(values, corners)
    return sums * stride**2


def to_arrays(maps: Sequence[torch.Tensor]) -> list[NDArray[np.float32]]:
    """Copy maps from their device."""
    return [values.cpu().numpy() for values in maps]


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


def _difference(start: NDArray[np.float64], stop: NDArray[np.float64], length: int) -> Weights:
    """Weights that take the sum at ``start`` from that at ``stop``: sums of whole cells grow linearly within a cell."""
    places, weights = [], []
    for place, sign in ((start, -1), (stop, 1)):
        inside = np.clip(place, 0, length)
        cell = np.minimum(inside.astype(np.intp), length - 1)
        places += [cell, cell + 1]
        weights += [sign * (1 - (inside - cell)), sign * (inside - cell)]
    return Weights(np.stack(places, axis=1), np.stack(weights, axis=1))


def _outer(rows: Weights, columns: Weights, width: int) -> Weights:
    """Places (n, 16) and weights of both directions, for sums whose rows have ``width`` places."""
    places = rows.places[:, :, None] * width + columns.places[:, None, :]
    weights = rows.weights[:, :, None] * columns.weights[:, None, :]
    n = len(places)
    return Weights(places.reshape(n, 16), weights.reshape(n, 16))


def _sparse(corners: Weights, size: int) -> csr_matrix:
    """Sparse matrix (n, size) of the weights."""
    from scipy.sparse import csr_matrix

    n, each = corners.places.shape
    return csr_matrix((corners.weights.ravel(), corners.places.ravel(), np.arange(n + 1) * each), shape=(n, size))


def _sum_array(values: NDArray[np.float32], corners: Weights) -> NDArray[np.float64]:
    """Integrate channels (channels, height, width), (n, channels)."""
    matrix = _sparse(corners, (values.shape[1] + 1) * (values.shape[2] + 1))
    out = np.empty((matrix.shape[0], len(values)), dtype=np.float64)
    for first in range(0, len(values), CHANNELS_AT_ONCE):
        sums = summed_area(values[first : first + CHANNELS_AT_ONCE])
        out[:, first : first + CHANNELS_AT_ONCE] = matrix @ sums.reshape(-1, sums.shape[2])
    return out


def _sum_tensor(values: torch.Tensor, corners: Weights) -> NDArray[np.float64]:
    """Integrate channels on the device where they are, (n, channels)."""
    import torch

    places, weights = (torch.from_numpy(part).to(values.device) for part in corners)
    out = np.empty((len(places), len(values)), dtype=np.float64)
    for first in range(0, len(values), CHANNELS_AT_ONCE):
        # The sums of whole cells, channels last as `summed_area` has them
        sums = values[first : first + CHANNELS_AT_ONCE].double().cumsum(1).cumsum(2)
        flat = torch.nn.functional.pad(sums, (1, 0, 1, 0)).flatten(1).T.contiguous()
        bags = torch.nn.functional.embedding_bag(places, flat, per_sample_weights=weights, mode="sum")
        out[:, first : first + CHANNELS_AT_ONCE] = bags.cpu().numpy()
    return out
