"""Images that are read whole with Pillow: JPEG, PNG and the like, gzipped or not, and Pillow's own images."""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthggep._image._sizes import UNSUSPICIOUS, check_whole
from sthggep._log import ONCE, log

if TYPE_CHECKING:
    from PIL import Image

    from sthggep._image._arrays import Pixels

# No PostScript (Pillow would start Ghostscript) and nothing else that nobody exports slides to. Pillow opens MPO as JPEG
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "JPEG2000")
# What a damaged file raises in Pillow and its decoders
_DAMAGE = (
    *(OSError, EOFError, SyntaxError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError, ValueError),
    *(struct.error, zlib.error),
)
_ORIENTATION = 0x0112  # of EXIF
_GZIP_RATIO = 100  # images are packed already; gzip packs them further by a few percent


def read_plain(path: Path, content: bytes | None = None) -> Pixels:
    """Read an image file, or its unzipped content, as (y, x, c) in the type that the file stores."""
    from PIL import Image, UnidentifiedImageError

    stored = path.stat().st_size if content is None else len(content)
    try:
        source = path if content is None else BytesIO(content)
        with _pillow_without_limits(), Image.open(source, formats=FORMATS) as image:
            _check_single(path, image)
            check_whole(path, *image.size, image.width * image.height * max(3, len(image.getbands())), stored)
            deep = _sixteen_bits(path, image, content)
            image.load()
            _mention_orientation(path, image)
            return as_array(image) if deep is None else deep
    except UnidentifiedImageError as error:
        msg = f"{path} is not an image that sthggep can read; expected TIFF, SVS, JPEG, PNG, BMP, WebP or JPEG 2000."
        raise ValueError(msg) from error
    except _DAMAGE as error:
        if str(path) in str(error):
            raise
        msg = f"{path} is truncated or damaged ({error}). Fetch or export the file again."
        raise ValueError(msg) from error


def unzip(path: Path) -> bytes:
    """Unpack a gzipped image; one that unpacks to far more than images do is refused."""
    most = max(UNSUSPICIOUS, _GZIP_RATIO * path.stat().st_size)
    content = bytearray()
    try:
        with gzip.open(path) as file:
            while len(content) <= most and (part := file.read(1 << 20)):
                content += part
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path} is truncated or damaged ({error}). Fetch or export the file again."
        raise ValueError(msg) from error
    if len(content) > most:
        msg = f"{path} unpacks to more than {most:,} bytes, which no image does. Fetch or export the file again."
        raise ValueError(msg)
    return bytes(content)


def as_array(image: Image.Image) -> Pixels:
    """Pixels of a Pillow image: gray, RGB or RGBA, as (y, x, c)."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return np.asarray(image)[..., None]
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "La":
        image = image.convert("LA").convert("RGBA")
    elif image.mode in ("LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = _as_rgb(image)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode not in ("P", "CMYK", "YCbCr", "HSV", "RGBX"):
        msg = f"sthggep does not read images of Pillow's mode {image.mode!r}. Convert it to RGB first."
        raise ValueError(msg)
    return image.convert("RGB")


def _check_single(path: Path, image: Image.Image) -> None:
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1 and image.format != "MPO":  # the JPEG of a camera, with previews
        msg = f"{path} holds an animation of {n_frames} pictures, expected one. Export the H&E image alone."
        raise ValueError(msg)


def _mention_orientation(path: Path, image: Image.Image) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of EXIF that is damaged
        mention_orientation(path, image.getexif().get(_ORIENTATION, 1))


def mention_orientation(path: Path, orientation: object) -> None:
    """Log that sthggep does not turn an image as its metadata ask for, as coordinates refer to stored pixels."""
    if orientation in (2, 3, 4, 5, 6, 7, 8):
        text = (
            "%s asks viewers to turn or mirror it (orientation %d). sthggep reads pixels as they are stored; coordinates "
            "must refer to those."
        )
        log.warning(text, path, orientation, extra=ONCE)


def _sixteen_bits(path: Path, image: Image.Image, content: bytes | None) -> Pixels | None:
    """Read a PNG of 16 bits a color, of which Pillow keeps the upper 8; ``None`` for other images."""
    modes = {str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in getattr(image, "tile", [])}
    if image.format != "PNG" or not modes & {"RGB;16B", "RGBA;16B", "LA;16B"}:
        return None
    try:
        import imagecodecs
    except ImportError:
        image.load()
        if int(np.asarray(image).max()) < 64:
            msg = f'{path} has less than 16 bits in 16, for which sthggep needs imagecodecs: pip install "sthggep[wsi]"'
            raise ImportError(msg) from None
        return None
    try:
        pixels = np.asarray(imagecodecs.png_decode(path.read_bytes() if content is None else content))
    except (RuntimeError, ValueError) as error:
        raise OSError(str(error)) from error
    return pixels[..., [0, 0, 0, 1]] if pixels.shape[-1] == 2 else pixels


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
