"""Labels of a SpatialData: masks, and cells from the reader of Xenium."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import listing
from sthggep._slides._instances import match_instances, type_of

if TYPE_CHECKING:
    from xarray import DataArray, DataTree

ImageElement: TypeAlias = "DataArray | DataTree"
"""Image or labels of a SpatialData, with one resolution or several."""

# The finest resolution with at most this many pixels is enough for a center and loads in a second
ENOUGH_PX = 10_000_000


def label_centers(element: ImageElement, labels: NDArray[np.generic], region: str) -> NDArray[np.float64]:
    """Compute the centers (x, y) of labels, the mean of their pixels, in coordinates of the raster.

    Parameters
    ----------
    element
        Labels of a SpatialData, with one resolution or several.
    labels
        The labels, in the order of the result.
    region
        Name of the element, for errors.

    Returns
    -------
    Array of shape (n_labels, 2).

    Raises
    ------
    ValueError
        A label has no pixel in the raster.
    """
    for array in _resolutions_for_centers(element):
        # A coarse raster may lose a small label: then the next finer one is read
        centers = _centers(array)
        places = match_instances(pd.Series(labels), centers.index)
        if (places >= 0).all():
            return centers.to_numpy()[places]
    absent = labels[places < 0]
    msg = (
        f"The table's rows of region {region!r} name the labels {region!r} by their number, but {len(absent)} of them "
        f"have no pixel there: {listing(absent, 5)} ({type_of(pd.Index(labels))}). Its labels are such as "
        f"{listing(centers.index, 3)}."
    )
    raise ValueError(msg)


def label_raster(element: ImageElement) -> NDArray[np.generic]:
    """Read labels (height, width) at the finest resolution of moderate size."""
    return np.asarray(_resolutions_for_centers(element)[0].transpose("y", "x").data)


def resolutions(element: ImageElement) -> list[DataArray]:
    """Return the array of each resolution of an image or of labels."""
    from xarray import DataTree

    if isinstance(element, DataTree):
        return [next(iter(scale.ds.data_vars.values())) for scale in element.children.values()]
    return [element]


def _resolutions_for_centers(element: ImageElement) -> list[DataArray]:
    """Return the arrays of the labels, from the finest of moderate size to the finest of all."""
    arrays = resolutions(element)
    arrays.sort(key=lambda array: -array.size)
    start = next((i for i, array in enumerate(arrays) if array.size <= ENOUGH_PX), len(arrays) - 1)
    return arrays[start::-1]


def _centers(array: DataArray) -> pd.DataFrame:
    """Compute the mean x and y of the pixels of each label, indexed by label."""
    pixels = np.asarray(array.transpose("y", "x").data)
    labels, inverse, n = np.unique(pixels, return_inverse=True, return_counts=True)
    x, y = (array.coords[a].values if a in array.coords else np.arange(array.sizes[a]) + 0.5 for a in ("x", "y"))
    columns = {
        name: np.bincount(inverse.ravel(), np.broadcast_to(at, pixels.shape).ravel()) / n
        for name, at in (("x", x), ("y", y[:, None]))
    }
    return pd.DataFrame(columns, index=labels)
