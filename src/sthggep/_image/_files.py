"""Image files as arrays (pyramids lazily, JPEG and PNG whole), and the pixel size that their metadata state."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthggep._image import _openslide
from sthggep._log import log

if TYPE_CHECKING:
    import dask.array as da
    import tifffile
    from PIL import Image

    from sthggep._image._arrays import Index, PixelArray, Pixels

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GZIP_START = b"\x1f\x8b"
# Lazy blocks about this large: one 240 px tile a task would cost more in bookkeeping than in reading.
_CHUNK = 1024
# A stated size outside is a print resolution (72 dpi is 353 um), not a microscope's.
_MPP_RANGE = (0.02, 30.0)
# Microns a unit; the micro sign, the Greek letter and ImageJ's escape all occur.
_UM_PER = {"\u00b5m": 1.0, "\u03bcm": 1.0, "\\u00b5m": 1.0, "um": 1.0, "micron": 1.0}
_UM_PER |= {"nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25400.0}


def open_arrays(path: str | Path) -> tuple[list[da.Array | Pixels], str]:
    """Open the resolutions of an image file, finest first, with their axes (`"yx"`, `"yxc"` or `"cyx"`)."""
    start = _first_bytes(path)
    if start in _TIFF_STARTS:
        return _tiff_arrays(Path(path))
    if _openslide.can_read(Path(path)):
        return [*_openslide.slide_arrays(Path(path))], "yxc"
    return [_read_plain(Path(path), zipped=start[:2] == _GZIP_START)], "yxc"


def read_mpp(path: str | Path) -> float | None:
    """Read microns per pixel: OME `PhysicalSizeX`, Aperio `MPP`, ImageJ unit, resolution tags, or OpenSlide's property.

    Parameters
    ----------
    path
        The image file.

    Returns
    -------
    Microns per full-resolution pixel; `None` if the file states none, or one that no microscope has.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the TIFF file is damaged.
    """
    if _first_bytes(path) in _TIFF_STARTS:
        with _open_tiff(Path(path)) as tif:
            mpp = _stated_mpp(tif)
    else:
        mpp = _openslide.slide_mpp(Path(path)) if _openslide.can_read(Path(path)) else None
    if mpp is not None and not _MPP_RANGE[0] <= mpp <= _MPP_RANGE[1]:
        log.info("%s states %.4g microns per pixel, which no microscope has; sthggep ignores it", path, mpp)
        return None
    return mpp


def _first_bytes(path: str | Path) -> bytes:
    path = Path(path)
    if not path.exists():
        msg = f"There is no image file {path}. Check the path."
        raise FileNotFoundError(msg)
    if path.is_dir():
        msg = f"{path} is a folder; pass one image file (TIFF, SVS, JPEG or PNG)."
        raise ValueError(msg)
    with path.open("rb") as file:
        return file.read(4)


def _read_plain(path: Path, *, zipped: bool) -> Pixels:
    """Read a JPEG, PNG or the like as uint8 (y, x, c)."""
    from PIL import Image, UnidentifiedImageError

    try:
        source = BytesIO(gzip.decompress(path.read_bytes())) if zipped else path
        with _pillow_without_limits(), Image.open(source) as image:
            image.load()
            return _as_array(image)
    except UnidentifiedImageError as error:
        msg = f"{path} is not an image that sthggep can read; expected TIFF, SVS, JPEG or PNG."
        raise ValueError(msg) from error
    except (OSError, EOFError, SyntaxError, zlib.error) as error:
        msg = f"{path} is truncated or damaged ({error}). Fetch or export the file again."
        raise ValueError(msg) from error


def _as_array(image: Image.Image) -> Pixels:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return np.asarray(image)[..., None]
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGB")
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


@contextmanager
def _pillow_without_limits() -> Iterator[None]:
    """Let Pillow read slides of any size, but no truncated ones; restore its settings afterwards."""
    from PIL import Image, ImageFile

    settings = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = settings


@contextmanager
def _open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file; a damaged one raises a ValueError that says what to do."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
    except (tifffile.TiffFileError, OSError, IndexError, KeyError, TypeError) as error:
        msg = f"{path} is a truncated or damaged TIFF file ({error}). Fetch or export the file again."
        raise ValueError(msg) from error


def _tiff_arrays(path: Path) -> tuple[list[da.Array | Pixels], str]:
    with _open_tiff(path) as tif:
        number, series = max(enumerate(tif.series), key=lambda item: _pixel_area(item[1]))
        axes = _series_axes(path, series)
        for level in series.levels:
            _check_whole(path, level)
        sources = [_TiffLevel(path, number, level, axes) for level in range(len(series.levels))]
    # Reading one pixel shows a missing decoder now and not in the middle of a run.
    sources[-1][tuple(slice(0, 1) for _ in sources[-1].shape)]
    return [source.lazy() for source in sources], axes


def _pixel_area(series: tifffile.TiffPageSeries) -> int:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return int(sizes.get("Y", 0)) * int(sizes.get("X", 0))


def _series_axes(path: Path, series: tifffile.TiffPageSeries) -> str:
    """Axes of a series without those of length one."""
    names = "".join(name for name, size in zip(series.axes, series.shape, strict=True) if size > 1 or name in "YX")
    order = names.lower().replace("s", "c")
    if order not in ("yx", "yxc", "cyx"):
        msg = (
            f"{path} holds an image with axes {series.axes} of sizes {series.shape}; expected one plane of gray, RGB "
            "or RGBA. Export a single plane (no z-stack, no time points) first."
        )
        raise ValueError(msg)
    return order


def _check_whole(path: Path, level: tifffile.TiffPageSeries) -> None:
    size = path.stat().st_size
    for page in level.pages:
        if page is None:
            continue
        end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
        if end > size:
            msg = f"{path} is truncated: it should hold {end:,} bytes, found {size:,}. Fetch or export the file again."
            raise ValueError(msg)


class _TiffLevel:
    """One level of a TIFF series as an array. Each process opens its own handle: a forked one shares its position."""

    def __init__(self, path: Path, series: int, level: int, axes: str) -> None:
        self.path, self.series, self.level, self.axes = path, series, level, axes
        self._pid: int | None = None
        array = self._open()
        self._selection = tuple(0 if size == 1 and name not in "YX" else slice(None) for name, size in self._sizes)
        self.dtype = array.dtype
        self.shape = tuple(size for (_, size), part in zip(self._sizes, self._selection, strict=True) if part != 0)
        self.ndim = len(self.shape)
        tile = getattr(array, "chunks", (1,) * len(array.shape))
        self._tile = tuple(n for n, part in zip(tile, self._selection, strict=True) if part != 0)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_array": None, "_pid": None}

    def __getitem__(self, index: Index) -> Pixels:
        array = self._array if self._pid == os.getpid() else self._open()
        parts = iter(index if isinstance(index, tuple) else (index,))
        full = tuple(part if part == 0 else next(parts, slice(None)) for part in self._selection)
        try:
            return np.asarray(array[full])
        except (ValueError, RuntimeError, OSError, zlib.error) as error:  # imagecodecs' own errors are RuntimeErrors
            if "imagecodecs" in str(error):
                msg = f'{self.path} is compressed in a way that needs imagecodecs: pip install "sthggep[wsi]"'
                raise ImportError(msg) from error
            msg = f"{self.path} is damaged: a part of it cannot be decoded ({error}). Fetch or export the file again."
            raise ValueError(msg) from error

    def _open(self) -> PixelArray:
        import tifffile
        import zarr

        series = tifffile.TiffFile(self.path).series[self.series]
        level = series.levels[self.level]
        self._sizes = list(zip(level.axes, level.shape, strict=True))
        self._array: PixelArray
        if level.dataoffset is not None:  # uncompressed in one piece: zarr would read all of it for one pixel
            self._array = tifffile.memmap(self.path, mode="r", series=self.series, level=self.level)
        else:
            self._array = zarr.open_array(series.aszarr(level=self.level), mode="r")
        self._pid = os.getpid()
        return self._array

    def lazy(self) -> da.Array:
        """Return the level as a dask array."""
        import dask.array as da

        whole = [name == "c" for name in self.axes]
        sides = zip(self.shape, self._tile, whole, strict=True)
        chunks = tuple(size if all_ else min(size, -(-_CHUNK // tile) * tile) for size, tile, all_ in sides)
        array: da.Array = da.from_array(self, chunks=chunks, asarray=False)
        return array


def _stated_mpp(tif: tifffile.TiffFile) -> float | None:
    """Microns per pixel in the metadata of the finest page."""
    if tif.ome_metadata:
        pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", tif.ome_metadata)
        fields = dict(re.findall(r'(PhysicalSizeX(?:Unit)?)="([^"]*)"', pixels.group() if pixels else ""))
        per_unit = _UM_PER.get(fields.get("PhysicalSizeXUnit", "um"))
        if "PhysicalSizeX" in fields and per_unit:
            return float(fields["PhysicalSizeX"]) * per_unit
    page = max(tif.series, key=_pixel_area).keyframe
    aperio = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description or "")
    if aperio:
        return float(aperio.group(1))
    resolution = page.tags.get("XResolution")
    if resolution is None or not all(np.atleast_1d(resolution.value)):
        return None
    numbers = np.atleast_1d(resolution.value)
    per_pixel = float(numbers[1] / numbers[0]) if len(numbers) == 2 else 1 / float(numbers[0])
    unit = page.tags.get("ResolutionUnit")
    unit_name = {2: "inch", 3: "cm"}.get(int(unit.value) if unit else 1)
    if unit_name is None:
        unit_name = str((tif.imagej_metadata or {}).get("unit", "")).lower()
    return per_pixel * _UM_PER[unit_name] if unit_name in _UM_PER else None
