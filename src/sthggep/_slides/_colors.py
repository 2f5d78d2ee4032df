"""Colors of stained tissue: tissue pixels, the colors of a section, and their distance to other sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

SAMPLES_ACROSS = 512  # pixels of a sample, a side
MOST_PIXELS = 4e8  # a larger single resolution takes too long to decode for a check
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

    def to_dict(self) -> dict[str, str | list[float]]:
        """Convert to plain types, for JSON."""
        return {"name": self.name, "mean": list(self.mean), "spread": list(self.spread)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Colors:
        """Read the plain types of :meth:`to_dict`."""
        return cls(str(values["name"]), _lab(values["mean"]), _lab(values["spread"]))


@dataclass(frozen=True)
class ColorRange:
    """Colors that a model was trained on: from the smallest to the largest mean of the training sections."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, sections: Sequence[Colors]) -> ColorRange:
        """Return the range of one or more sections."""
        means = np.array([each.mean for each in sections])
        return cls(means.min(axis=0), means.max(axis=0))

    def distance(self, colors: Colors) -> float:
        """CIELAB units from the nearest color of the range; 0 inside."""
        mean = np.array(colors.mean)
        return float(np.linalg.norm(mean - np.clip(mean, self.low, self.high)))


def stained_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Find pixels with more color than Otsu's threshold between glass and stain; ``None`` if all are alike.

    For colors and outlines, to which pale fat and gaps do not matter. :func:`sthggep._slides._tissue_mask.tissue_mask` includes
    them.
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
    """Sample pixels of the coarsest resolution; ``None`` without an image, or if it is too large to decode."""
    if not slide.levels:
        return None
    level = slide.levels[-1]
    return None if float(level.shape[0]) * level.shape[1] > MOST_PIXELS else level.sample(SAMPLES_ACROSS)


def tissue_pixels(slide: Slide) -> NDArray[np.uint8] | None:
    """Pixels ``(n, 3)`` of the tissue under and between the spots, as scanned; ``None`` if none can be identified.

    Pixels away from the spots may show ink, frames or dust.
    """
    pixels = sample_of(slide)
    tissue = None if pixels is None else stained_pixels(pixels)
    if pixels is None or tissue is None:
        return None
    return np.asarray(pixels[tissue & _near_spots(slide, tissue.shape)])


def tissue_colors(slide: Slide) -> Colors | None:
    """Colors of the tissue under and between the spots, after stain normalization; ``None`` with too few pixels."""
    pixels = tissue_pixels(slide)
    if pixels is None or len(pixels) < FEWEST_PIXELS:
        return None
    from skimage.color import rgb2lab

    lab = rgb2lab(pixels if slide.stain is None else slide.stain(pixels))
    return Colors(slide.name, _lab(lab.mean(axis=0), 2), _lab(lab.std(axis=0), 2))


def _near_spots(slide: Slide, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels of a sample that lie within one spot distance of a spot."""
    from scipy.spatial import cKDTree

    step = np.array(slide.size) / np.array(shape[::-1])
    rows, columns = np.indices(shape[:2])
    centers = np.column_stack([columns.ravel() + 0.5, rows.ravel() + 0.5]) * step
    reach = max(slide.pitch(), float(step.max()))
    return np.asarray(np.isfinite(cKDTree(slide.xy).query(centers, distance_upper_bound=reach)[0])).reshape(shape[:2])


def _lab(values: object, digits: int | None = None) -> tuple[float, float, float]:
    numbers = np.asarray(values, dtype=np.float64).tolist()
    lightness, a, b = numbers if digits is None else [round(number, digits) for number in numbers]
    return lightness, a, b


def record_colors(slides: Sequence[Slide]) -> list[dict[str, str | list[float]]]:
    """Colors of the training sections, for the record of a model."""
    return [colors.to_dict() for colors in map(tissue_colors, slides) if colors is not None]


def read_colors(entries: Sequence[Mapping[str, object]]) -> list[Colors]:
    """Read the colors in the record of a training."""
    return [Colors.from_dict(entry) for entry in entries]


def image_mpp(slide: Slide) -> float | None:
    """Microns per pixel of the finest stored resolution; ``None`` if unknown."""
    return None if slide.mpp is None or not slide.levels else slide.mpp / min(slide.levels[0].scale)
