"""One resolution of a slide image, read as uint8 RGB boxes; image files opened as such levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sthggep._image._arrays import AxisNumbers, PixelArray, Pixels, channels_last
from sthggep._image._blocks import Blocks
from sthggep._image._files import open_arrays, read_mpp
from sthggep._image._values import WHITE, factor_to_8_bits
from sthggep._log import ONCE, log

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["Level", "open_levels", "read_mpp"]


_AXES: dict[str, AxisNumbers] = {"yx": (0, 1, None), "yxc": (0, 1, 2), "cyx": (1, 2, 0)}
# A level judges its range of values on this many windows a side, of this many pixels.
_WINDOWS, _WINDOW = 5, 256
# Side of the tiles that are downsampled one after another: that of most blocks, so that each is read once.
_TILE = 1024


class Level:
    """One resolution of an image, whatever holds it, seen as uint8 RGB.

    Gray is repeated over the three channels, RGBA is laid over white. Values other than uint8 are scaled to 0-255. The
    first read decides the factor from a sample of all resolutions of the image and logs it. NaN and places outside the
    image are white.

    Parameters
    ----------
    array
        The pixels: numpy, dask or zarr, or an xarray DataArray.
    scale
        `(sx, sy)`: level pixel = slide pixel * scale.
    axes
        Order of the axes of `array`: `"yx"`, `"yxc"` or `"cyx"`.
    source
        The file of the pixels, if there is one.

    Attributes
    ----------
    section
        Name of the section, for log lines; empty where nobody has set it.

    Raises
    ------
    ValueError
        If the axes do not fit the array, or the pixels are neither gray, RGB nor RGBA numbers.
    """

    def __init__(
        self,
        array: PixelArray,
        scale: tuple[float, float] = (1.0, 1.0),
        axes: str = "yxc",
        source: str | Path | None = None,
    ) -> None:
        if hasattr(array, "dims") and hasattr(array, "data"):  # xarray.DataArray
            array = array.data
        _check_pixels(array, axes)
        self.array = _numpy_or_dask(array)
        self.axes = axes
        self.scale = (float(scale[0]), float(scale[1]))
        self.source = None if source is None else Path(source)
        self.section = ""
        self.blocks = None if isinstance(self.array, np.ndarray) else Blocks(self.array, _AXES[axes])
        self._factor: float | None = 1.0 if array.dtype == np.uint8 else None
        self._pyramid: Sequence[Level] = (self,)
        self._samples: dict[int, NDArray[np.uint8]] = {}  # several checks of one slide need the same sample

    def __repr__(self) -> str:
        height, width = self.shape
        return f"Level({width} x {height} px, {self.array.dtype}, scale {self.scale[0]:.4g} x {self.scale[1]:.4g})"

    @property
    def shape(self) -> tuple[int, int]:
        """`(height, width)` in level pixels."""
        y, x, _ = _AXES[self.axes]
        return int(self.array.shape[y]), int(self.array.shape[x])

    def read(self, boxes: ArrayLike) -> list[NDArray[np.uint8]]:
        """Cut boxes, all in one go: a lazy array reads each of its blocks once and holds few of them at a time.

        Parameters
        ----------
        boxes
            `(k, 4)` integers `x0, y0, x1, y1` in level pixels, without `x1` and `y1`. Boxes may reach outside the image.

        Returns
        -------
        One uint8 RGB array `(y1 - y0, x1 - x0, 3)` a box, white outside the image.

        Raises
        ------
        ValueError
            If the boxes are not `(k, 4)` integers, or a box is empty.
        """
        corners = _check_boxes(boxes)
        height, width = self.shape
        inside = np.column_stack([np.clip(corners[:, 0::2], 0, width), np.clip(corners[:, 1::2], 0, height)])
        windows = self._fetch([(x0, x1, y0, y1) for x0, x1, y0, y1 in inside.tolist()])
        patches = []
        for (x0, y0, x1, y1), (left, _, top, _), window in zip(corners.tolist(), inside.tolist(), windows, strict=True):
            patch = np.full((y1 - y0, x1 - x0, 3), WHITE, dtype=np.uint8)
            rows, columns = window.shape[:2]
            if rows and columns:
                patch[top - y0 : top - y0 + rows, left - x0 : left - x0 + columns] = self._rgb(window)
            patches.append(patch)
        return patches

    def sample(self, across: int) -> NDArray[np.uint8]:
        """Take pixels spread evenly over the image, at most `across` a side, without averaging: uint8 RGB."""
        if across not in self._samples:
            self._samples[across] = self._take_sample(across)
        return self._samples[across]

    def _take_sample(self, across: int) -> NDArray[np.uint8]:
        y, x, _ = axes = _AXES[self.axes]
        step = max(1, -(-max(self.shape) // across))
        index = [slice(None)] * self.array.ndim
        index[y] = index[x] = slice(None, None, step)
        pixels = self.array[tuple(index)]
        return self._rgb(channels_last(pixels.compute() if hasattr(pixels, "compute") else pixels, axes))

    def downsample(self, by: int) -> NDArray[np.uint8]:
        """Average the level to `1 / by` of its size, a power of two, without holding all its pixels."""
        from PIL import Image

        height, width = self.shape
        side = max(by, _TILE)
        out = np.empty((-(-height // by), -(-width // by), 3), dtype=np.uint8)
        for top in range(0, height, side):
            for left in range(0, width, side):
                box = [[left, top, min(left + side, width), min(top + side, height)]]
                small = np.asarray(Image.fromarray(self.read(box)[0]).reduce(by))
                out[top // by : top // by + small.shape[0], left // by : left // by + small.shape[1]] = small
        return out

    def _fetch(self, windows: Sequence[tuple[int, int, int, int]]) -> list[Pixels]:
        """Cut windows `x0, x1, y0, y1` inside the image, as (y, x, channel) arrays of the stored type."""
        if self.blocks is not None:
            return self.blocks.cut(windows)
        y, x, _ = axes = _AXES[self.axes]
        cuts = []
        for x0, x1, y0, y1 in windows:
            index = [slice(None)] * self.array.ndim
            index[y], index[x] = slice(y0, y1), slice(x0, x1)
            cuts.append(channels_last(self.array[tuple(index)], axes))
        return cuts

    def sweep(self, xy: NDArray[np.float64]) -> NDArray[np.intp]:
        """Order positions `(n, 2)`, in level pixels, so that each block is read about once."""
        return np.arange(len(xy)) if self.blocks is None else self.blocks.sweep(xy)

    def _rgb(self, pixels: Pixels) -> NDArray[np.uint8]:
        channels = pixels.shape[-1]
        if channels == 3 and pixels.dtype == np.uint8:
            return np.asarray(pixels)
        factor = self._decide_factor() if self._factor is None else self._factor
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            where = f" of {self.source}" if self.source else ""
            log.warning("Pixels%s without a value (NaN or infinite) are read as white glass.", where, extra=ONCE)
        values = np.nan_to_num(pixels.astype(np.float32) * factor, nan=WHITE, posinf=WHITE, neginf=0)
        values = values.clip(0, WHITE)
        if channels == 4:
            alpha = values[..., 3:] / WHITE
            values = values[..., :3] * alpha + WHITE * (1 - alpha)
        rgb = np.rint(values).astype(np.uint8)
        return np.repeat(rgb, 3, axis=-1) if channels == 1 else rgb

    def _decide_factor(self) -> float:
        """Decide the factor that scales the stored values to 0-255, the same for all resolutions of the image."""
        windows = (window for level in self._pyramid for window in level._windows())
        factor = factor_to_8_bits(windows, np.dtype(self.array.dtype), self.section)
        for level in self._pyramid:
            level._factor = factor
        return factor

    def fourth_channel(self) -> Pixels | None:
        """Return a sample of the values of the fourth channel; ``None`` if there are fewer."""
        channel = _AXES[self.axes][2]
        if channel is None or self.array.shape[channel] < 4:
            return None
        return np.concatenate([window[..., 3].ravel() for window in self._windows()])

    def _windows(self) -> list[Pixels]:
        """Cut windows spread over the image."""
        height, width = self.shape
        lefts = np.linspace(0, max(width - _WINDOW, 0), _WINDOWS).astype(int).tolist()
        tops = np.linspace(0, max(height - _WINDOW, 0), _WINDOWS).astype(int).tolist()
        windows = {(x, min(x + _WINDOW, width), y, min(y + _WINDOW, height)) for x in lefts for y in tops}
        return self._fetch(sorted(windows))


def as_pyramid(levels: Sequence[Level]) -> list[Level]:
    """Return resolutions of one image, which from now on share the range of their values."""
    for level in levels:
        level._pyramid = [other for other in levels if other.array.dtype == level.array.dtype]
    return list(levels)


def open_levels(path: str | Path, series: int | None = None) -> list[Level]:
    """Open an image file as its resolutions, finest first.

    TIFF, OME-TIFF, SVS and other pyramids are read lazily with tifffile; JPEG, PNG, BMP, WebP and JPEG 2000 (also
    gzipped) are read whole with Pillow. Pixels are read as they are stored: sthggep does not turn an image as EXIF or
    the orientation of a TIFF file ask for, since coordinates refer to stored pixels.

    Parameters
    ----------
    path
        The image file.
    series
        Number of the image in a TIFF file with several; sthggep chooses it by default.

    Returns
    -------
    One :class:`Level` a resolution; a plain image has one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, damaged or not an image, holds several images that may be the slide, or pixels whose
        meaning sthggep does not know.
    ImportError
        If the file's compression needs `imagecodecs`, which is not installed.
    """
    arrays = open_arrays(path, series)
    height, width = arrays[0].shape[:2]
    try:
        levels = [Level(each, (each.shape[1] / width, each.shape[0] / height), "yxc", path) for each in arrays]
        return as_pyramid(levels)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error


def _numpy_or_dask(array: PixelArray) -> da.Array | Pixels:
    """Return the array as it is if it is one of numpy or dask, else wrapped in a dask array."""
    if isinstance(array, np.ndarray):
        return array
    import dask.array as da

    return array if isinstance(array, da.Array) else da.from_array(array, chunks=getattr(array, "chunks", "auto"))


def _check_pixels(array: PixelArray, axes: str) -> None:
    if axes not in _AXES:
        msg = f"Unknown image axes {axes!r}; expected one of {', '.join(map(repr, _AXES))}."
        raise ValueError(msg)
    shape = tuple(array.shape)
    if len(shape) != len(axes):
        msg = f"An image with axes {axes!r} has {len(axes)} dimensions, found shape {shape}."
        raise ValueError(msg)
    if 0 in shape:
        msg = f"The image is empty: shape {shape}."
        raise ValueError(msg)
    channel = _AXES[axes][2]
    channels = 1 if channel is None else shape[channel]
    if channels not in (1, 3, 4):
        last = "; channels go last: `np.moveaxis(image, 0, -1)`" if axes == "yxc" and shape[0] in (1, 3, 4) else ""
        msg = (
            f"Expected an image with 1 (gray), 3 (RGB) or 4 (RGBA) channels, found {channels} (shape {shape}, axes "
            f"{axes!r}). Choose the H&E image, or its three color channels, first{last}."
        )
        raise ValueError(msg)
    if np.dtype(array.dtype).kind not in "uif":
        msg = f"Expected an image of integers or floats, found {array.dtype} values; a mask is not an H&E image."
        raise ValueError(msg)


def _check_boxes(boxes: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(boxes)
    if array.size == 0:
        return np.empty((0, 4), dtype=np.int64)
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "ui":
        msg = f"Expected boxes as (k, 4) integers x0, y0, x1, y1, found {array.dtype} of shape {array.shape}."
        raise ValueError(msg)
    array = array.astype(np.int64)
    if (array[:, 2:] <= array[:, :2]).any():
        bad = array[(array[:, 2:] <= array[:, :2]).any(axis=1)][0].tolist()
        msg = f"A box needs x1 > x0 and y1 > y0, found x0, y0, x1, y1 = {bad}."
        raise ValueError(msg)
    return array
