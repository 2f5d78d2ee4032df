"""Do the spots lie on tissue? Coordinates that are swapped, or of another image, may fit inside it all the same."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sthggep._slide import Slide

SAMPLES_ACROSS = 512  # pixels that are looked at, a side
MOST_PIXELS = 4e8  # a single resolution larger than that is not decoded for a doubt
FEWEST_SPOTS = 20
# Seven real sections: 77-96 % of the spots on tissue, 15-70 percentage points fewer with x and y swapped
BETTER_SWAPPED = 0.1
ON_GLASS = 0.3


def warn_of_misplaced(slide: Slide) -> None:
    """Warn where fewer spots lie on tissue than would with x and y swapped, or hardly any do."""
    if slide.n_spots < FEWEST_SPOTS or not slide.levels:
        return
    share, swapped = on_tissue(slide)
    if np.isnan(share):
        return
    if swapped > share + BETTER_SWAPPED:
        msg = (
            f"Section {slide.name!r}: {share:.0%} of the spots lie on tissue, but {swapped:.0%} would with x and y swapped. "
            "Coordinates must be (x, y), not (row, column): see `sthggep.pl.patches(data)`."
        )
    elif share < ON_GLASS:
        msg = (
            f"Section {slide.name!r}: only {share:.0%} of the spots lie on what looks like tissue. Are the coordinates pixels "
            "of this very image, at its full resolution? See `sthggep.pl.patches(data)`."
        )
    else:
        return
    warnings.warn(msg, UserWarning, stacklevel=4)


def on_tissue(slide: Slide) -> tuple[float, float]:
    """Share of the spots on tissue: as they are, and with x and y swapped; NaN where the image cannot tell.

    Tissue is what has more colour than the threshold of Otsu between glass and stain.
    """
    from scipy.ndimage import uniform_filter
    from skimage.filters import threshold_otsu

    level = slide.levels[-1]
    if float(level.shape[0]) * level.shape[1] > MOST_PIXELS:
        return np.nan, np.nan
    colour = uniform_filter(_colour(level.sample(SAMPLES_ACROSS)), size=3, mode="nearest")
    if np.ptp(colour) < 1:
        return np.nan, np.nan
    tissue = colour > threshold_otsu(colour)
    shrink = np.array(tissue.shape[::-1]) / slide.size

    def share(xy: NDArray[np.float64]) -> float:
        column, row = np.clip((xy * shrink).astype(int), 0, np.array(tissue.shape[::-1]) - 1).T
        return float(tissue[row, column].mean())

    return share(slide.xy), share(slide.xy[:, ::-1])


def _colour(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far a pixel is from gray; of a gray image, how dark it is."""
    values = pixels.astype(np.float64)
    colour = values.max(axis=-1) - values.min(axis=-1)
    return np.asarray(colour if colour.any() else 255 - values.mean(axis=-1))
