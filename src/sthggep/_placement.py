"""Do the spots lie on tissue? Coordinates that are swapped, or of another image, may fit inside it all the same."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._colours import sample_of, tissue_mask

if TYPE_CHECKING:
    from sthggep._slide import Slide

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
    """Share of the spots on tissue: as they are, and with x and y swapped; NaN where the image cannot tell."""
    pixels = sample_of(slide)
    tissue = None if pixels is None else tissue_mask(pixels)
    if tissue is None:
        return np.nan, np.nan
    shrink = np.array(tissue.shape[::-1]) / slide.size

    def share(xy: NDArray[np.float64]) -> float:
        column, row = np.clip((xy * shrink).astype(int), 0, np.array(tissue.shape[::-1]) - 1).T
        return float(tissue[row, column].mean())

    return share(slide.xy), share(slide.xy[:, ::-1])
