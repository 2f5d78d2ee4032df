"""Labels of a SpatialData: masks, and cells as Xenium's reader has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import listing

# The finest resolution of at most this many pixels is enough for a center, and is read in a second
ENOUGH_PX = 10_000_000


def label_centers(element: Any, labels: NDArray[Any], region: str) -> NDArray[np.float64]:
    """Centers (x, y) of labels, the mean of their pixels, in the raster's own coordinates.

    Parameters
    ----------
    element
        Labels of a SpatialData, with one resolution or several.
    labels
        The labels wanted, in this order.
    region
        Name of the element, for errors.

    Returns
    -------
    Array of shape (n_labels, 2).

    Raises
    ------
    ValueError
        A label is nowhere in the raster.
    """
    for array in _resolutions(element):
        # A small label may be lost in a coarse raster: then the next finer one tells
        centers = _centers(array)
        places = centers.index.get_indexer(pd.Index(labels))
        if (places >= 0).all():
            return centers.to_numpy()[places]
    absent = labels[places < 0]
    msg = (
        f"The table's rows of region {region!r} name the labels {region!r} by their number, but {len(absent)} of them "
        f"have no pixel there: {listing(absent, 5)}."
    )
    raise ValueError(msg)


def label_raster(element: Any) -> NDArray[Any]:
    """Labels (height, width) at the finest resolution of moderate size."""
    return np.asarray(_resolutions(element)[0].transpose("y", "x").data)


def _resolutions(element: Any) -> list[Any]:
    """Arrays of the labels, from the finest of moderate size to the finest of all."""
    arrays = [element]
    if hasattr(element, "children"):
        arrays = [next(iter(scale.ds.data_vars.values())) for scale in element.children.values()]
    arrays.sort(key=lambda array: -array.size)
    start = next((i for i, array in enumerate(arrays) if array.size <= ENOUGH_PX), len(arrays) - 1)
    return arrays[start::-1]


def _centers(array: Any) -> pd.DataFrame:
    """Mean x and y of every label's pixels, by label."""
    pixels = np.asarray(array.transpose("y", "x").data)
    labels, inverse, n = np.unique(pixels, return_inverse=True, return_counts=True)
    x, y = (array.coords[a].values if a in array.coords else np.arange(array.sizes[a]) + 0.5 for a in ("x", "y"))
    columns = {
        name: np.bincount(inverse.ravel(), np.broadcast_to(at, pixels.shape).ravel()) / n
        for name, at in (("x", x), ("y", y[:, None]))
    }
    return pd.DataFrame(columns, index=labels)
