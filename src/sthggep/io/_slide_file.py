"""A bare slide file as a SpatialData with one multiscale image, read lazily."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthggep._arguments import checked
from sthggep._image._level import Level, open_levels, read_mpp
from sthggep._image._microns import check_mpp, check_possible
from sthggep._log import log

if TYPE_CHECKING:
    import dask.array as da
    from spatialdata import SpatialData
    from xarray import DataTree


_IMAGE = "image"
_CHANNELS = {1: ["gray"], 3: ["r", "g", "b"], 4: ["r", "g", "b", "a"]}
# A pyramid is built down to about this size.
_SMALLEST = 1024
_CHUNK = 1024


@checked
def read_slide(path: str | Path, *, mpp: float | None = None, series: int | None = None) -> SpatialData:
    """Open a whole slide (TIFF, OME-TIFF, SVS, JPEG, PNG) as a SpatialData with one multiscale image.

    Of a TIFF or SVS the function reads the header only; the resolutions of the file become the scales, whatever their ratio.
    A file with one resolution gets a pyramid of halves, which is computed lazily.

    Parameters
    ----------
    path
        The slide file.
    mpp
        Microns per full-resolution pixel, which overrides the file. Default: what the file states.
    series
        Number of the image in a TIFF file with several. By default, sthggep leaves out labels, macros, masks and stains;
        if two images may be the slide, it asks for a choice.

    Returns
    -------
    A SpatialData with image `"image"` in coordinate system `"global"` (full-resolution pixels), and
    `attrs["sthggep"] = {"mpp": ..., "source_image_path": ...}`; `mpp` is `None` if neither the file nor you state it, or
    if the file states a size that no slide has (outside 0.05 to 20 µm) or pixels that are not square.

    Notes
    -----
    sthggep reads pixels as they are stored. It does not turn or mirror an image as EXIF or the orientation of a TIFF file
    ask viewers to, since coordinates usually refer to stored pixels; it logs that the file asks for it. Palettes, CMYK,
    YCbCr and white-is-zero become RGB or gray; other meanings of samples are refused by name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, damaged or no image, holds several images that may be the slide, or colors whose meaning
        sthggep does not know, or if `mpp` is not a size of a pixel in microns.
    TypeError
        If `mpp` is not one number.
    ImportError
        If the file's compression needs `imagecodecs`, which is not installed.

    Examples
    --------
    >>> sdata = sthggep.io.read_slide("slide.svs")
    >>> sthggep.pp.tissue_grid(sdata, spacing_um=100)
    >>> sthggep.tl.predict(sdata)
    """
    from spatialdata import SpatialData

    passed = None if mpp is None else check_possible(check_mpp(mpp))
    levels = open_levels(path, series)
    stated = read_mpp(path, series) if passed is None else passed
    if stated is None:
        log.warning("%s does not state its microns per pixel; pass `mpp=` to work in microns", path)
    sdata = SpatialData(images={_IMAGE: _multiscale(_channels_first(levels))})
    sdata.attrs["sthggep"] = {
        "mpp": None if stated is None else float(stated),
        "source_image_path": str(Path(path).resolve()),
    }
    if series is not None:
        sdata.attrs["sthggep"]["series"] = int(series)
    return sdata


def _channels_first(levels: list[Level]) -> list[da.Array]:
    """Every level as a lazy (c, y, x) array; a single one is halved into a pyramid."""
    import dask.array as da

    arrays = []
    for level in levels:
        array = level.array
        if isinstance(array, np.ndarray):
            array = da.from_array(array, chunks=tuple(min(side, _CHUNK) for side in array.shape))
        if level.axes == "yx":
            array = array[None]
        elif level.axes == "yxc":
            array = da.moveaxis(array, -1, 0)
        arrays.append(array)
    while len(levels) == 1 and max(arrays[-1].shape[1:]) > _SMALLEST and min(arrays[-1].shape[1:]) > 1:
        arrays.append(_halved(arrays[-1]))
    return arrays


def _halved(array: da.Array) -> da.Array:
    """Half the resolution: means of 2 x 2 pixels, in chunks as large as before."""
    import dask.array as da

    # Chunks of even sides, or a pixel would be lost at each seam.
    even = array.rechunk((array.shape[0], 2 * _CHUNK, 2 * _CHUNK))
    means = da.coarsen(np.mean, even, {1: 2, 2: 2}, trim_excess=True)
    halved: da.Array = (means if array.dtype.kind == "f" else da.rint(means)).astype(array.dtype)
    return halved


def _multiscale(arrays: list[da.Array]) -> DataTree:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, set_transformation
    from xarray import DataArray, Dataset, DataTree

    channels, height, width = arrays[0].shape
    scales = {}
    for number, array in enumerate(arrays):
        # Pixel centers in full-resolution pixels: they hold a pyramid's exact ratio.
        y, x = ((np.arange(n) + 0.5) * (whole / n) for n, whole in zip(array.shape[1:], (height, width), strict=True))
        coords = {"c": _CHANNELS[channels], "y": y, "x": x}
        scales[f"scale{number}"] = Dataset({_IMAGE: DataArray(array, dims=("c", "y", "x"), coords=coords)})
    tree = DataTree.from_dict(scales)
    set_transformation(tree, {"global": Identity()}, set_all=True)
    Image2DModel().validate(tree)
    return tree
