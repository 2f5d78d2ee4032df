"""Colors of stained tissue: which pixels are tissue, what colors a section has, how far another's are from those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

SAMPLES_ACROSS = 512  # pixels that are looked at, a side
MOST_PIXELS = 4e8  # a single resolution larger than that is not decoded for a doubt
FEWEST_PIXELS = 50
# CIELAB units beyond the means of the training sections. Seven real sections: two of the breast sections differ by up to
# 7.9, one of them from the range of the other four by up to 4.3; the olfactory bulbs lie 10.8 and 16.9 outside that range
FAR = 9.0


@dataclass(frozen=True)
class Colors:
    """Tissue colors of one section, in CIELAB: L* (dark to light), a* (green to red), b* (blue to yellow)."""

    name: str
    mean: tuple[float, float, float]
    spread: tuple[float, float, float]
    """Standard deviation of the pixels."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Colors:
        """Back from JSON."""
        return cls(values["name"], tuple(values["mean"]), tuple(values["spread"]))


@dataclass(frozen=True)
class ColorRange:
    """What colors a model has seen: from the smallest to the largest mean of the training sections."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, seen: Sequence[Colors]) -> ColorRange:
        """The range of these sections, one at least."""
        means = np.array([each.mean for each in seen])
        return cls(means.min(axis=0), means.max(axis=0))

    def distance(self, colors: Colors) -> float:
        """CIELAB units from the nearest color of the range; 0 inside."""
        mean = np.array(colors.mean)
        return float(np.linalg.norm(mean - np.clip(mean, self.low, self.high)))


def stained_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Pixels with more color than the threshold of Otsu between glass and stain; ``None`` if all are alike.

    For colors and outlines, where pale fat and gaps say nothing. Which area is tissue, those included, is
    :func:`sthggep.pp._tissue.tissue_mask`.
    """
    from scipy.ndimage import uniform_filter
    from skimage.filters import threshold_otsu

    color = uniform_filter(_colorfulness(pixels), size=3, mode="nearest")
    if np.ptp(color) < 1:
        return None
    return np.asarray(color > threshold_otsu(color))


def _colorfulness(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far a pixel is from gray; of a gray image, how dark it is."""
    values = pixels.astype(np.float64)
    color = values.max(axis=-1) - values.min(axis=-1)
    return np.asarray(color if color.any() else 255 - values.mean(axis=-1))


def sample_of(slide: Slide) -> NDArray[np.uint8] | None:
    """Pixels spread over the coarsest resolution; ``None`` without an image, or of one too large to be decoded whole."""
    if not slide.levels:
        return None
    level = slide.levels[-1]
    return None if float(level.shape[0]) * level.shape[1] > MOST_PIXELS else level.sample(SAMPLES_ACROSS)


def tissue_pixels(slide: Slide) -> NDArray[np.uint8] | None:
    """Pixels ``(n, 3)`` of the tissue under and between the spots, as scanned; ``None`` where the image cannot tell.

    Off the spots are ink, frames and what lies on the glass.
    """
    pixels = sample_of(slide)
    tissue = None if pixels is None else stained_pixels(pixels)
    if pixels is None or tissue is None:
        return None
    return np.asarray(pixels[tissue & _near_spots(slide, tissue.shape)])


def tissue_colors(slide: Slide) -> Colors | None:
    """Colors of the tissue under and between the spots, as they are looked at; ``None`` where the image cannot tell."""
    pixels = tissue_pixels(slide)
    if pixels is None or len(pixels) < FEWEST_PIXELS:
        return None
    from skimage.color import rgb2lab

    found = rgb2lab(pixels if slide.stain is None else slide.stain(pixels))
    return Colors(slide.name, _rounded(found.mean(axis=0)), _rounded(found.std(axis=0)))


def _near_spots(slide: Slide, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels of a sample that are not farther from a spot than the spots from each other."""
    from scipy.spatial import cKDTree

    step = np.array(slide.size) / np.array(shape[::-1])
    rows, columns = np.indices(shape[:2])
    centers = np.column_stack([columns.ravel() + 0.5, rows.ravel() + 0.5]) * step
    reach = max(slide.pitch(), float(step.max()))
    return np.asarray(np.isfinite(cKDTree(slide.xy).query(centers, distance_upper_bound=reach)[0])).reshape(shape[:2])


def _rounded(values: NDArray[np.float64]) -> tuple[float, float, float]:
    lightness, a, b = (round(float(value), 2) for value in values)
    return lightness, a, b


def noted_colors(slides: Sequence[Slide]) -> list[dict[str, Any]]:
    """Colors of the sections that a model is trained on, for its record."""
    return [found.to_dict() for found in map(tissue_colors, slides) if found is not None]


def seen_colors(entries: Sequence[Mapping[str, Any]]) -> list[Colors]:
    """Colors that the record of a training holds."""
    return [Colors.from_dict(entry) for entry in entries]


def image_mpp(slide: Slide) -> float | None:
    """Microns per pixel of the finest resolution that is there; ``None`` where it is not known."""
    return None if slide.mpp is None or not slide.levels else slide.mpp / min(slide.levels[0].scale)
