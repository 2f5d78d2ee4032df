"""What the samples of a TIFF page mean; an interpretation that sthggep does not read is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from sthggep._image._channels import are_colors, color_channels

if TYPE_CHECKING:
    import tifffile

    from sthggep._image._arrays import Pixels

MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
_PREMULTIPLIED, _ALPHA = 1, 2
_JPEG = (6, 7, 33007, 34892)  # compressions whose decoder returns RGB
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # whose decoder returns samples as they are
_COEFFICIENTS, _BLACK_WHITE = (0.299, 0.587, 0.114), (0, 255, 128, 255, 128, 255)  # of JPEG, and of Pillow
_CMYK_INKS = 1


@dataclass(frozen=True)
class Conversion:
    """Steps from stored samples (y, x, sample) to gray, RGB or RGBA over the whole range of their type."""

    channels: int
    dtype: np.dtype[np.generic]
    steps: tuple[Callable[[Pixels], Pixels], ...] = field(default=())

    def __call__(self, pixels: Pixels) -> Pixels:
        """Convert a part of the image."""
        for step in self.steps:
            pixels = step(pixels)
        return pixels


@dataclass(frozen=True)
class Samples:
    """The samples of a page: how many, the names of channels that are pages of their own, and their bits."""

    page: tifffile.TiffPage
    n: int
    names: Sequence[object] | None
    bits: int | None
    """Bits that hold values, if the metadata state that they are fewer than the 16 of the type."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type in which a part of the image is read."""
        return np.dtype(self.page.dtype)

    @property
    def extra(self) -> list[int]:
        """Kinds of the samples beyond those of the color."""
        return [int(kind) for kind in self.page.extrasamples]

    def white(self, *, trust_metadata: bool) -> int | None:
        """Largest value that a sample can have; ``None`` if unknown: values of 16 bits may be those of a 12-bit camera."""
        bits = int(self.page.bitspersample)
        if self.dtype.kind not in "ub" or bits > 16:
            return None
        if bits < 16:
            return int(2**bits - 1)
        return int(2**self.bits - 1) if trust_metadata and self.bits else None


def conversion_of(samples: Samples) -> Conversion:
    """Return the conversion for the samples of a page; a ValueError names what sthggep does not read."""
    page = samples.page
    if page.dtype is None or np.ndim(page.bitspersample) or samples.dtype.kind not in "uifb":
        _refuse(f"samples of {page.bitspersample} bits (SampleFormat {page.sampleformat})")
    photometric = int(page.photometric)
    if photometric in (MINISWHITE, MINISBLACK, RGB) or (photometric == YCBCR and int(page.compression) in _JPEG):
        return _gray_or_rgb(samples)
    readers = {PALETTE: _palette, SEPARATED: _cmyk, YCBCR: _ycbcr}
    if photometric not in readers or samples.dtype not in (np.uint8, np.uint16, bool):
        name = getattr(page.photometric, "name", str(photometric))
        _refuse(f"PhotometricInterpretation {name} of {samples.dtype} samples")
    return readers[photometric](samples)


def _refuse(what: str) -> NoReturn:
    msg = f"sthggep does not read TIFF files with {what}. Export the H&E image as RGB, 8 bits a color."
    raise ValueError(msg)


def _largest(dtype: np.dtype[np.generic]) -> int:
    """Largest value of an unsigned type."""
    return int(2 ** (8 * dtype.itemsize) - 1)


# --- gray and RGB -------------------------------------------------------------------------------------------------


def _gray_or_rgb(samples: Samples) -> Conversion:
    order, premultiplied = _order(samples)
    inverted = int(samples.page.photometric) == MINISWHITE
    white = samples.white(trust_metadata=inverted or premultiplied)
    if white is None and (inverted or premultiplied):
        what = "PhotometricInterpretation MINISWHITE" if inverted else "premultiplied alpha"
        _refuse(f"{what} of {samples.dtype} samples whose largest value the file does not state")
    dtype = samples.dtype
    steps: list[Callable[[Pixels], Pixels]] = [partial(_take, order=order)]
    if white is not None:
        dtype = np.dtype(np.uint16 if samples.dtype == np.uint16 else np.uint8)
        if white != _largest(dtype):
            steps.append(partial(_stretch, white=white, dtype=dtype))
    if inverted:
        steps.append(partial(_inverted, n_colors=min(len(order), 3)))
    if premultiplied:
        steps.append(_over_white)
    return Conversion(3 if premultiplied else len(order), dtype, tuple(steps))


def _order(samples: Samples) -> tuple[list[int], bool]:
    """Positions of the colors and of alpha, and whether the colors are multiplied by alpha."""
    if samples.names is not None:
        order = color_channels(samples.names)
        if order is None and any(samples.names):
            _refuse(f"channels called {', '.join(map(repr, samples.names))}: these are stains, not colors")
        if order is None or (len(order) == 4 and not are_colors(samples.names)):
            _refuse(f"unnamed channels of unknown meaning (expected 1 or 3, found {samples.n})")
        return order, False
    extra = samples.extra
    is_rgb = int(samples.page.photometric) in (RGB, YCBCR)
    alphas = [i for i, kind in enumerate(extra) if kind in (_PREMULTIPLIED, _ALPHA)]
    # Files that do not say so hold RGB, too: three samples, of which two are "unspecified"
    colors = [0, 1, 2] if is_rgb or (samples.n == 3 and not alphas) else [0]
    n_unnamed = samples.n - len(colors) - len(extra)
    if samples.n < len(colors) or (not is_rgb and samples.n > 3 and len(alphas) != samples.n - 1):
        _refuse(f"{samples.n} samples of gray (MINISBLACK, MINISWHITE) of unknown meaning")
    if not alphas or n_unnamed > 0:
        return colors, False
    alpha = samples.n - len(extra) + alphas[0]
    # Gray with alpha becomes RGBA
    return (colors if len(colors) == 3 else [0, 0, 0]) + [alpha], extra[alphas[0]] == _PREMULTIPLIED


def _take(pixels: Pixels, order: list[int]) -> Pixels:
    return pixels if order == list(range(pixels.shape[-1])) else pixels[..., order]


def _stretch(pixels: Pixels, white: int, dtype: np.dtype[np.generic]) -> Pixels:
    whole = _largest(dtype)
    scaled = pixels.astype(np.uint32).clip(0, white) * np.uint32(whole)
    return np.asarray((scaled + white // 2) // white, dtype=dtype)


def _inverted(pixels: Pixels, n_colors: int) -> Pixels:
    out = pixels.copy()
    out[..., :n_colors] = _largest(pixels.dtype) - pixels[..., :n_colors]
    return out


def _over_white(pixels: Pixels) -> Pixels:
    """Lay colors that are multiplied by alpha over white."""
    whole = _largest(pixels.dtype)
    values = pixels.astype(np.int64)
    return np.asarray((values[..., :3] + whole - values[..., 3:]).clip(0, whole), dtype=pixels.dtype)


# --- palette, CMYK and YCbCr, all to RGB of 8 bits ----------------------------------------------------------------


def _palette(samples: Samples) -> Conversion:
    colors = samples.page.colormap
    if colors is None:
        _refuse("PhotometricInterpretation PALETTE and no ColorMap")
    # Some writers fill the map of 16 bits with values of 8
    table = np.asarray(colors if colors.max() < 256 else colors >> 8, dtype=np.uint8).T
    return Conversion(3, np.dtype(np.uint8), (partial(_look_up, table=table),))


def _look_up(pixels: Pixels, table: Pixels) -> Pixels:
    return np.asarray(table[pixels[..., 0].astype(np.intp)])


def _cmyk(samples: Samples) -> Conversion:
    inks = samples.page.tags.valueof("InkSet", _CMYK_INKS)
    if int(inks) != _CMYK_INKS or samples.n < 4 or any(samples.extra):
        _refuse(f"PhotometricInterpretation SEPARATED and inks other than CMYK (or alpha; {samples.n} samples)")
    return _by_pillow(samples, "CMYK", 4)


def _ycbcr(samples: Samples) -> Conversion:
    tags = samples.page.tags
    factors = np.asarray(tags.valueof("YCbCrCoefficients", _COEFFICIENTS), dtype=float).ravel()
    if len(factors) == 6:
        factors = factors[::2] / factors[1::2]
    black_white = np.asarray(tags.valueof("ReferenceBlackWhite", _BLACK_WHITE), dtype=float).ravel()
    if len(black_white) == 12:
        black_white = black_white[::2] / black_white[1::2]
    standard = np.allclose(factors, _COEFFICIENTS, atol=1e-3) and np.allclose(black_white, _BLACK_WHITE)
    plain = samples.n == 3 and samples.dtype == np.uint8 and tuple(samples.page.subsampling or (2, 2)) == (1, 1)
    if not (standard and plain) or int(samples.page.compression) not in _LOSSLESS:
        _refuse(
            "PhotometricInterpretation YCBCR that is subsampled, of other coefficients, or compressed other than JPEG"
        )
    return _by_pillow(samples, "YCbCr", 3)


def _by_pillow(samples: Samples, mode: str, n: int) -> Conversion:
    white = samples.white(trust_metadata=True) or 65535
    steps: list[Callable[[Pixels], Pixels]] = [partial(_take, order=list(range(n)))]
    if white != 255:
        steps.append(partial(_stretch, white=white, dtype=np.dtype(np.uint8)))
    return Conversion(3, np.dtype(np.uint8), (*steps, partial(_pillow_rgb, mode=mode)))


def _pillow_rgb(pixels: Pixels, mode: str) -> Pixels:
    from PIL import Image

    height, width = pixels.shape[:2]
    if 0 in (height, width):
        return np.zeros((height, width, 3), np.uint8)
    return np.asarray(Image.frombytes(mode, (width, height), pixels.tobytes()).convert("RGB"))
