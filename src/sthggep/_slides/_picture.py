"""A small gray picture of a section, by which its image is recognized after compression, cropping or recoloring."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._slides._colors import MOST_PIXELS
from sthggep._slides._overlay import Map, best_overlay, correlation

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

# Pixels of the picture are 10 µm wide, or 20, 40 …, so that it has at most so many a side
FINEST_UM, MOST_PX = 10.0, 128
FEWEST_PX = 24
PITCH = 100.0  # microns of a spot distance, where microns per pixel are unknown
# Widths in pixels of the details that are compared: neither noise nor the outline of the tissue
FINE, COARSE = 1.0, 4.0
FAINTEST = 0.5  # gray levels; below, there is nothing to compare
# Copies reach .90 to 1.00 (JPEG, crops, half the tissue, noise, colors). Different sections: toy tissue up to .36, serial
# sections of a breast tumor up to .67
SAME = 0.8
FEWEST_COMMON = 0.5  # fraction of the smaller picture that both must cover


@dataclass(frozen=True)
class Picture:
    """Gray pixels of the tissue around the spots of a section."""

    unit: float
    """Width of a pixel in microns; negative where microns are unknown, in hundredths of a spot distance."""
    pixels: NDArray[np.uint8]

    def to_dict(self) -> dict[str, object]:
        """Convert to plain types, for JSON."""
        text = base64.b64encode(np.ascontiguousarray(self.pixels).tobytes()).decode()
        return {"unit": self.unit, "width": self.pixels.shape[1], "pixels": text}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Picture:
        """Read the plain types of :meth:`to_dict`."""
        pixels = np.frombuffer(base64.b64decode(values["pixels"], validate=True), dtype=np.uint8)
        return cls(float(values["unit"]), pixels.reshape(-1, int(values["width"])))

    def at(self, unit: float) -> Map:
        """Details of the picture at a coarser pixel width, which is a power of two times its own."""
        from scipy.ndimage import gaussian_filter
        from skimage.measure import block_reduce

        by = round(unit / self.unit)
        height, width = (size // by * by for size in self.pixels.shape)
        gray = block_reduce(self.pixels[:height, :width].astype(np.float64), by, np.mean)
        details: Map = gaussian_filter(gray, FINE) - gaussian_filter(gray, COARSE)
        return details


def picture_of(slide: Slide) -> Picture | None:
    """Take the picture of a section; ``None`` without an image, or if the image is too large or has too few pixels."""
    if not slide.levels or float(np.prod(slide.levels[-1].shape)) > MOST_PIXELS:
        return None
    pitch, size = slide.pitch(), np.array(slide.size)
    scale = slide.mpp or PITCH / pitch
    low = np.clip(slide.xy.min(axis=0) - pitch, 0, size)
    extent = np.clip(slide.xy.max(axis=0) + pitch, 0, size) - low
    unit = FINEST_UM * 2.0 ** max(0, np.ceil(np.log2(extent.max() * scale / FINEST_UM / MOST_PX)))
    width, height = (int(n) for n in np.floor(extent * scale / unit))
    if min(width, height) < FEWEST_PX:
        return None
    pixels = _cut(slide, low, unit / scale, width, height)
    return Picture(unit if slide.mpp else -unit, pixels)


def _cut(slide: Slide, low: NDArray[np.float64], step: float, width: int, height: int) -> NDArray[np.uint8]:
    """Average the image from ``low`` over squares of ``step`` full-resolution pixels, as gray values."""
    from PIL import Image

    thumbnail, factors = slide.thumbnail(int(2 * max(slide.size) / step) + 1)
    left, top, right, bottom = np.outer((low, low + step * np.array([width, height])), 1).reshape(
        2, 2
    ).ravel() * np.tile(factors, 2)
    box = (left, top, min(right, thumbnail.shape[1]), min(bottom, thumbnail.shape[0]))
    return np.asarray(Image.fromarray(thumbnail).convert("L").resize((width, height), Image.Resampling.BOX, box))


def same_picture(a: Picture | None, b: Picture | None) -> bool:
    """Whether two pictures show the same tissue, or one shows a part of the other; also turned or mirrored."""
    if a is None or b is None or (a.unit < 0) != (b.unit < 0):
        return False
    unit = max(a.unit, b.unit, key=abs)
    x, y = a.at(unit), b.at(unit)
    if min(*x.shape, *y.shape) < FEWEST_PX or min(x.std(), y.std()) < FAINTEST:
        return False
    overlay = best_overlay(x, y)
    enough = overlay.a.size >= FEWEST_COMMON * min(x.size, y.size)
    return bool(enough and correlation(overlay.a, overlay.b) > SAME)
