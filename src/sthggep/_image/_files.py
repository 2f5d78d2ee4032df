"""Image files as arrays (pyramids lazily, JPEG and PNG whole), and the pixel size that their metadata state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._image import _openslide
from sthggep._image._plain import read_plain, unzip
from sthggep._image._tiff import needs_openslide, read_zipped_tiff, tiff_arrays, tiff_mpp
from sthggep._image._tiff_metadata import usable_mpp

if TYPE_CHECKING:
    import dask.array as da

    from sthggep._image._arrays import Pixels

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GZIP_START = b"\x1f\x8b"


def open_arrays(path: str | Path, series: int | None = None) -> list[da.Array | Pixels]:
    """Open the resolutions of an image file, finest first, as (y, x, channel) of gray, RGB or RGBA.

    ``series`` chooses among the images of a TIFF file.
    """
    path = Path(path)
    start = _first_bytes(path)
    if start in _TIFF_STARTS:
        return [*_by_openslide(path)] if needs_openslide(path) else [*tiff_arrays(path, series)]
    if series is not None:
        msg = f"{path} is no TIFF file: it holds one image. Leave out `series=`."
        raise ValueError(msg)
    if _openslide.can_read(path):
        return [*_openslide.slide_arrays(path)]
    if start[:2] != _GZIP_START:
        return [read_plain(path)]
    content = unzip(path)
    return [read_zipped_tiff(path, content) if content[:4] in _TIFF_STARTS else read_plain(path, content)]


def read_mpp(path: str | Path, series: int | None = None) -> float | None:
    """Read microns per pixel: OME `PhysicalSizeX`, Aperio `MPP`, ImageJ unit, resolution tags, or OpenSlide's property.

    Parameters
    ----------
    path
        The image file.
    series
        Number of the image in a TIFF file with several; sthggep chooses it by default.

    Returns
    -------
    Microns per full-resolution pixel; `None` if the file states none, one that no slide has (outside 0.05 to 20 µm), or
    pixels that are not square.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the TIFF file is damaged.
    """
    path = Path(path)
    if _first_bytes(path) in _TIFF_STARTS:
        return tiff_mpp(path, series)
    stated = _openslide.slide_mpp(path) if _openslide.can_read(path) else None
    return None if stated is None else usable_mpp(path, *stated, "openslide.mpp-x")


def _by_openslide(path: Path) -> list[da.Array]:
    if _openslide.is_installed() and _openslide.can_read(path):
        return _openslide.slide_arrays(path)
    msg = (
        f"{path} is compressed as JPEG 2000 in YCbCr (33003 of Aperio), whose colors OpenSlide reads: "
        'pip install "sthggep[openslide]"'
    )
    raise ImportError(msg)


def _first_bytes(path: Path) -> bytes:
    if not path.exists():
        msg = f"There is no image file {path}. Check the path."
        raise FileNotFoundError(msg)
    if path.is_dir():
        msg = f"{path} is a folder; pass one image file (TIFF, SVS, JPEG or PNG)."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"{path} is no regular file (a pipe or a device); pass an image file (TIFF, SVS, JPEG or PNG)."
        raise ValueError(msg)
    with path.open("rb") as file:
        return file.read(4)
