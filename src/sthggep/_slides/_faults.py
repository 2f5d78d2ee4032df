"""Faults of a slide image that a thumbnail shows: pen, glass, folds, blur."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._slides._tissue_mask import thumbnail_px

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

FAULTS = ("pen", "glass", "fold", "blur")
"""By rank: a spot has the first that applies."""
WINDOW_UM = 160.0  # around a spot
PITCH_UM = 150.0  # assumed where microns are not known
GRAY = np.array([0.2125, 0.7154, 0.0721], dtype=np.float32)
# Shares and spreads in the windows of five real sections of three laboratories, at 4 µm/px: ink up to .12, glass up to
# .84, dark up to .17, spread of gray values from .04, sharpness from .40 (blurred by 5 µm: .1 to .25 in the median)
INK, GLASS, DARK, FLAT, SHARP = 0.2, 0.9, 0.2, 0.03, 0.2
RELATIVE_SHARP = 0.06  # of the section's median; seven real and toy sections from .07, blurred by 5 µm .02

Floats = NDArray[np.float32]


def find_faults(slide: Slide) -> NDArray[np.object_]:
    """Find what is wrong with the image around each spot of a section; ``None`` where a thumbnail shows nothing.

    Stains absorb green most, inks but red ones do not: pixels with more green than red, or black, are ink. Glass is bright
    and has no color, or is flat. Folds are very dark. Blur lowers the variance of the Laplacian, relative to that of the
    gray values or of the section.
    """
    mpp = slide.mpp or PITCH_UM / slide.pitch()
    image, _ = slide.thumbnail(max_px=thumbnail_px(slide, mpp))
    windows = _Windows(slide, image.shape, WINDOW_UM / mpp)
    low, high = image.min(axis=-1).astype(np.int16), image.max(axis=-1).astype(np.int16)
    color, green = high - low, image[..., 1].astype(np.int16) - image[..., 0]
    ink = ((green > 25) & (color > 40)) | ((green > 15) & (color > 80)) | ((high < 70) & (color < 25))
    gray: Floats = image.astype(np.float32) @ GRAY / np.float32(255)
    mean = windows.mean(gray)
    variance = np.clip(windows.mean(gray**2) - mean**2, 1e-6, None)
    edges = windows.mean(_laplacian(gray) ** 2)
    glass = (windows.mean((color < 20) & (low > 180)) > GLASS) | ((np.sqrt(variance) < FLAT) & (mean > 0.7))
    typical = np.median(edges[~glass]) if not glass.all() else 0.0
    sharp = (edges / variance > SHARP) & (edges >= RELATIVE_SHARP * typical)
    found = {
        "pen": windows.mean(ink) > INK,
        "glass": glass,
        "fold": windows.mean((high < 90) & (color > 25)) > DARK,
        "blur": ~sharp,
    }
    names = np.full(slide.n_spots, None, dtype=object)
    for name in reversed(FAULTS):
        names[found[name]] = name
    return names


def _laplacian(gray: Floats) -> Floats:
    from scipy.ndimage import laplace

    edges: Floats = laplace(gray, mode="nearest")
    return edges


class _Windows:
    """Squares of an image around the spots of a section, of a width in full-resolution pixels."""

    def __init__(self, slide: Slide, shape: tuple[int, ...], width: float) -> None:
        scale = np.array(shape[1::-1]) / np.array(slide.size)
        half = np.maximum(np.rint(width * scale / 2), 1)
        most = np.array(shape[1::-1])
        center = np.clip(slide.xy * scale, 0, most - 1)
        self.low = np.clip(np.floor(center - half), 0, most).astype(np.intp)
        self.high = np.clip(np.ceil(center + half), 0, most).astype(np.intp)

    def mean(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Average the pixels of each square."""
        sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
        np.cumsum(np.cumsum(values, axis=0, dtype=np.float64), axis=1, out=sums[1:, 1:])
        (left, top), (right, bottom) = self.low.T, self.high.T
        total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.asarray(total / ((right - left) * (bottom - top)), dtype=np.float64)
