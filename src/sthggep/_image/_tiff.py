"""TIFF files: each resolution of the slide as a lazy array (y, x, channel) of gray, RGB or RGBA."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthggep._image._arrays import AxisNumbers, channels_last
from sthggep._image._handles import Changed, Handles, check_unchanged, stamp_of
from sthggep._image._ome import MOST_PLANES, ome_images
from sthggep._image._plain import mention_orientation
from sthggep._image._sizes import check_block, check_in_parts, check_whole
from sthggep._image._tiff_colors import Conversion, Samples, conversion_of
from sthggep._image._tiff_metadata import channel_names, series_mpp, stated_bits
from sthggep._image._tiff_series import area, choose_series
from sthggep._log import ONCE, log

if TYPE_CHECKING:
    import dask.array as da
    import tifffile

    from sthggep._image._arrays import Index, PixelArray, Pixels

# Lazy blocks about this large: one 240 px tile a task would cost more in bookkeeping than in reading.
_CHUNK = 1024
_AXES: dict[str, AxisNumbers] = {"yx": (0, 1, None), "yxc": (0, 1, 2), "cyx": (1, 2, 0)}
_APERIO_YCBCR = 33003
# What a damaged file raises in tifffile and its decoders
_DAMAGE = (
    *(OSError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, AssertionError, RuntimeError),
    *(MemoryError, ValueError, struct.error, zlib.error),
)


class _Refusal(ValueError):
    """A file that is whole, and that sthggep does not read."""


@contextmanager
def _open(path: Path, content: bytes | None = None) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file; a damaged one raises a ValueError that says what to do."""
    import tifffile

    try:
        with tifffile.TiffFile(path if content is None else BytesIO(content)) as tif:
            if any(image.n_planes() > MOST_PLANES for image in ome_images(tif)):
                msg = "its OME-XML announces more planes than a file can hold"
                raise tifffile.TiffFileError(msg)
            if not tif.series:
                msg = "it holds no image"
                raise tifffile.TiffFileError(msg)
            yield tif
    except _Refusal as error:
        raise ValueError(str(error)) from error.__cause__
    except ImportError as error:
        raise _needs_imagecodecs(path) from error
    except _DAMAGE as error:
        if "imagecodecs" in str(error):
            raise _needs_imagecodecs(path) from error
        msg = f"{path} is a truncated or damaged TIFF file ({error}). Fetch or export the file again."
        raise ValueError(msg) from error


def _needs_imagecodecs(path: Path) -> ImportError:
    return ImportError(f'{path} is compressed in a way that needs imagecodecs: pip install "sthggep[wsi]"')


@contextmanager
def _refusing(path: Path, *, by_name: bool = False) -> Iterator[None]:
    """Mark errors that name the file as those of a file that is whole; ``by_name`` puts the name before all of them."""
    try:
        yield
    except ValueError as error:
        if not by_name and str(path) not in str(error):  # of tifffile or numpy, at damage
            raise
        raise _Refusal(f"{path}: {error}" if by_name else str(error)) from error


def tiff_mpp(path: Path, wanted: int | None) -> float | None:
    """Read the microns per pixel of the slide in a TIFF file."""
    with _open(path) as tif:
        with _refusing(path):
            number, _, _ = choose_series(path, tif, wanted)
        return series_mpp(path, tif, number)


def needs_openslide(path: Path) -> bool:
    """Whether a TIFF file holds JPEG 2000 in YCbCr, which tifffile decodes without a conversion to RGB."""
    with _open(path) as tif:
        return int(tif.pages.first.compression) == _APERIO_YCBCR


def tiff_arrays(path: Path, wanted: int | None) -> list[da.Array]:
    """Open the resolutions of the slide in a TIFF file, finest first."""
    _FILES.forget(path)
    with _open(path) as tif:
        with _refusing(path):
            number, series, axes = choose_series(path, tif, wanted)
        conversion = _conversion(path, tif, number, axes)
        levels = _levels(path, series)
        for level in levels:
            with _refusing(path):
                _check(path, series.levels[level])
        sources = [_TiffLevel(path, (number, level), series.levels[level], axes, conversion) for level in levels]
    # Reading one pixel shows a missing decoder now and not in the middle of a run.
    sources[-1][0:1, 0:1]
    return [source.lazy() for source in sources]


def read_zipped_tiff(path: Path, content: bytes) -> Pixels:
    """Read the finest resolution of an unzipped TIFF file, whole."""
    with _open(path, content) as tif:
        with _refusing(path):
            number, series, axes = choose_series(path, tif, None)
            height, width = (series.shape[series.axes.index(name)] for name in "YX")
            check_whole(path, width, height, series.nbytes, len(content))
        conversion = _conversion(path, tif, number, axes)
        return conversion(channels_last(np.squeeze(series.asarray()).reshape(_squeezed(series)), _AXES[axes]))


def _squeezed(series: tifffile.TiffPageSeries) -> tuple[int, ...]:
    return tuple(size for size, name in zip(series.shape, series.axes, strict=True) if size > 1 or name in "YX")


def _conversion(path: Path, tif: tifffile.TiffFile, number: int, axes: str) -> Conversion:
    series = tif.series[number]
    page = series.keyframe
    n_channels = 1 if "c" not in axes else _squeezed(series)[axes.index("c")]
    # Channels that are pages of their own have names; samples of one page have the meaning that the page states
    apart = "C" in series.axes and series.shape[series.axes.index("C")] == n_channels and page.samplesperpixel == 1
    names = channel_names(tif, number, n_channels) if apart or page.samplesperpixel == 1 else None
    mention_orientation(path, page.tags.valueof("Orientation"))
    with _refusing(path, by_name=True):
        return conversion_of(Samples(page, n_channels, names, stated_bits(tif, number)))


def _levels(path: Path, series: tifffile.TiffPageSeries) -> list[int]:
    """Numbers of the resolutions, without pictures of other proportions that stand among them."""
    shapes = [_sides(level) for level in series.levels]
    height, width = shapes[0]
    numbers = []
    for number, (rows, columns) in enumerate(shapes):
        # Each side of a small resolution is rounded to whole pixels
        slack = 0.05 + 1.5 / max(1, min(rows, columns))
        if rows and columns and abs((rows / height) / (columns / width) - 1) <= slack:
            numbers.append(number)
        else:
            text = "%s: resolution %d (%d x %d px) has other proportions than the slide; sthggep leaves it out."
            log.warning(text, path, number, columns, rows, extra=ONCE)
    return numbers


def _sides(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return int(sizes["Y"]), int(sizes["X"])


def _block(level: tifffile.TiffPageSeries) -> tuple[int, int]:
    """Rows and columns of a tile or strip."""
    page, (height, width) = level.keyframe, _sides(level)
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip or height), height), width


def _check(path: Path, level: tifffile.TiffPageSeries) -> None:
    """Check that all of a resolution is in the file, and that its size is one that a slide can have."""
    stored = 0
    for page in level.pages:
        if page is None:
            continue
        if len(page.dataoffsets) != len(page.databytecounts):
            msg = f"{path} is a damaged TIFF file (places and sizes of its tiles disagree). Fetch or export the file again."
            raise ValueError(msg)
        end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
        size = page.parent.filehandle.size
        if end > size:
            msg = f"{path} is truncated: it should hold {end:,} bytes, found {size:,}. Fetch or export the file again."
            raise ValueError(msg)
        stored += sum(page.databytecounts)
    height, width = _sides(level)
    check_in_parts(path, width, height, level.nbytes, stored)
    if level.dataoffset is None:
        page = level.keyframe
        rows, columns = _block(level)
        if not rows or not columns:
            msg = f"{path} is a damaged TIFF file (its tiles have no pixels). Fetch or export the file again."
            raise ValueError(msg)
        samples = page.samplesperpixel if int(page.planarconfig or 1) == 1 else 1
        check_block(
            path, rows * columns * samples * np.dtype(level.dtype).itemsize, max(page.databytecounts, default=0)
        )
    if area(level) and not stored:
        msg = f"{path} holds no pixels. Fetch or export the file again."
        raise ValueError(msg)


def _span(part: int | slice) -> slice:
    return part if isinstance(part, slice) else slice(int(part), int(part) + 1)


class _OpenTiff:
    """An open TIFF file with the arrays of its levels that have been read."""

    def __init__(self, path: Path) -> None:
        import tifffile

        self.tif = tifffile.TiffFile(path)
        self._arrays: dict[tuple[int, int], PixelArray] = {}

    def array(self, place: tuple[int, int]) -> PixelArray:
        """Array of a level, by the numbers of series and level."""
        import zarr

        if place not in self._arrays:
            number, level = place
            store = self.tif.series[number].aszarr(level=level)
            self._arrays[place] = zarr.open_array(store, mode="r")
        return self._arrays[place]

    def close(self) -> None:
        """Close the file."""
        self._arrays.clear()
        self.tif.close()


_FILES = Handles(_OpenTiff)


class _TiffLevel:
    """One level of a TIFF series as an array (y, x, channel)."""

    ndim = 3

    def __init__(
        self, path: Path, place: tuple[int, int], level: tifffile.TiffPageSeries, axes: str, conversion: Conversion
    ) -> None:
        self.path, self.place, self.axes, self.conversion = path, place, axes, conversion
        self.stamp = stamp_of(path)
        self.stored_shape = tuple(level.shape)
        self._selection = tuple(
            0 if size == 1 and name not in "YX" else slice(None)
            for name, size in zip(level.axes, level.shape, strict=True)
        )
        # Uncompressed in one piece: tifffile would read all of it for one pixel
        self.offset = level.dataoffset
        self.stored_dtype = np.dtype(level.keyframe.parent.byteorder + np.dtype(level.dtype).char)
        self.shape = (*_sides(level), conversion.channels)
        self.dtype = conversion.dtype
        self._tile = (1, 1) if self.offset is not None else _block(level)

    def __getitem__(self, index: Index) -> Pixels:
        rows, columns, channels = (*index, *(slice(None),) * 3)[:3]
        y, x, _ = axes = _AXES[self.axes]
        stored = [slice(None)] * len(self.axes)
        stored[y], stored[x] = _span(rows), _span(columns)
        rest = iter(stored)
        full = tuple(part if part == 0 else next(rest) for part in self._selection)
        with self._naming_damage():
            pixels = self.conversion(channels_last(self._read(full), axes))
        # A single row or column was read as a span of one
        return pixels[(*(slice(None) if isinstance(part, slice) else 0 for part in (rows, columns)), channels)]

    def _read(self, full: Index) -> Pixels:
        if self.offset is None:
            with _FILES.use(self.path, self.stamp) as file:
                return np.asarray(file.array(self.place)[full])
        check_unchanged(self.path, self.stamp)
        stored = np.memmap(self.path, self.stored_dtype, "r", self.offset, self.stored_shape)
        return np.array(stored[full], dtype=self.stored_dtype.newbyteorder("="))

    @contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, Changed):
            raise
        except _DAMAGE as error:  # imagecodecs' own errors are RuntimeErrors
            if "imagecodecs" in str(error):
                raise _needs_imagecodecs(self.path) from error
            msg = f"{self.path} is damaged: a part of it cannot be decoded ({error}). Fetch or export the file again."
            raise ValueError(msg) from error

    def lazy(self) -> da.Array:
        """Return the level as a dask array."""
        import dask.array as da

        sides = zip(self.shape[:2], self._tile, strict=True)
        chunks = (*(min(size, -(-_CHUNK // tile) * tile) for size, tile in sides), self.shape[2])
        array: da.Array = da.from_array(self, chunks=chunks, asarray=False)
        return array
