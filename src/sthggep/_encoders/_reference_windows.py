"""Reference windows on a lattice over the tissue of an image: mean and spread of features that no choice of spots changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from sthggep._disk._rows import RowFile
from sthggep._slides._tissue_mask import Mask, tissue_fraction, tissue_mask

if TYPE_CHECKING:
    from sthggep._encoders._sweep import FeatureArray
    from sthggep._image._level import Level
    from sthggep._slides._slide import Slide

MOST_WINDOWS = 400  # mean and spread are then known to some hundredths of the spread, of 24 windows to a fifth
# On more tissue than this, windows no longer overlap: as many as the encoder reads in some ten seconds of a core
LARGE_MM2, LARGE_PX, LEAST_ON_LARGE = 60.0, 100e6, 24
MOST_ON_GLASS = 100
LEAST_STEP_UM = 100.0
FEW_WINDOWS = 20  # tissue with fewer is not told from glass: the windows then cover the whole image

_FOUND: WeakKeyDictionary[Level, dict[tuple[float, int], NDArray[np.float64]]] = WeakKeyDictionary()
_MASKS: WeakKeyDictionary[Level, dict[float, Mask]] = WeakKeyDictionary()


class TissueMoments(NamedTuple):
    """Mean and spread of each feature over the reference windows of a section."""

    n: int
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]


class StageFeatures(NamedTuple):
    """Features of a section at one field of view."""

    values: FeatureArray
    """A row for each spot, in their order."""
    moments: TissueMoments | None = None
    """Of the tissue; ``None`` for features of patches."""


def reference_windows(slide: Slide, window_px: float) -> NDArray[np.float64]:
    """Lay the centers (n, 2) of the reference windows over the tissue, in full-resolution pixels.

    They depend on the image, its microns per pixel and the field of view alone.

    Parameters
    ----------
    slide
        The section.
    window_px
        Pixels that the encoder reads for one window, context included: large tissue has fewer of large windows.
    """
    mpp = slide.require_mpp()
    masks, found = _MASKS.setdefault(slide.levels[0], {}), _FOUND.setdefault(slide.levels[0], {})
    if mpp not in masks:
        # Models were trained with windows of this mask
        masks[mpp] = tissue_mask(slide, fill_at_border=True)
    area = float(masks[mpp].mean()) * float(np.prod(slide.size))
    most = MOST_WINDOWS
    if area * (mpp / 1000) ** 2 > LARGE_MM2:
        most = int(np.clip(LARGE_PX / window_px, LEAST_ON_LARGE, MOST_WINDOWS))
    if (mpp, most) not in found:
        found[mpp, most] = _lay_windows(slide, masks[mpp], area, mpp, most)
    return found[mpp, most]


def _lay_windows(slide: Slide, mask: Mask, area: float, mpp: float, most: int) -> NDArray[np.float64]:
    size = np.array(slide.size)
    step = max(LEAST_STEP_UM / mpp, (area / most) ** 0.5)
    xy = _lattice(size, step)
    tissue = tissue_fraction(mask, slide.size, xy, step) >= 0.5
    if tissue.sum() >= FEW_WINDOWS:
        return np.asarray(xy[tissue])
    return _lattice(size, max(LEAST_STEP_UM / mpp, (float(np.prod(size)) / MOST_ON_GLASS) ** 0.5))


def _lattice(size: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Lay a square lattice over the image: one place at least along each side."""
    x, y = ((np.arange(max(1, round(side / step))) + 0.5) * side / max(1, round(side / step)) for side in size)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def measure_moments(values: NDArray[np.float32]) -> TissueMoments:
    """Measure mean and spread of the features of reference windows."""
    return TissueMoments(
        len(values),
        values.mean(axis=0, dtype=np.float64).astype(np.float32),
        values.std(axis=0, dtype=np.float64).astype(np.float32),
    )


def split_windows(values: FeatureArray, n_spots: int) -> StageFeatures:
    """Split rows of spots, which come first, from those of reference windows."""
    spots = values.head(n_spots) if isinstance(values, RowFile) else values[:n_spots]
    return StageFeatures(spots, measure_moments(values[n_spots : len(values)]))
