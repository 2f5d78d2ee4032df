"""Check that spots lie on tissue: swapped coordinates, or those of another image, may fit inside the image, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import warn_user
from sthggep._slides._colors import sample_of, stained_pixels
from sthggep._slides._lattice import is_transposed
from sthggep._slides._pictures import check_values

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

FEWEST_SPOTS = 20
# Seven real sections: 77-96 % of the spots on tissue, 15-70 percentage points fewer with x and y swapped
BETTER_SWAPPED = 0.1
ON_GLASS = 0.3
DARKEST = 64  # brightest value of an image without any glass or pale tissue
# Extent of the tissue over that of the spots, to the right and down; seven real sections: 0.95 to 1.31
SHRUNK, ALIKE = 1.4, 1.15


def warn_of_misplaced(slide: Slide) -> None:
    """Warn if the image cannot be the H&E, x and y seem swapped, coordinates seem scaled, or few spots lie on tissue."""
    pixels = sample_of(slide)
    if pixels is None:
        return
    check_values(slide.levels[-1], f"Section {slide.name!r}")
    tissue = stained_pixels(pixels)
    if (fault := _value_fault(pixels)) or tissue is None:
        fault = fault or "sthggep finds no tissue in its image, which has one color throughout."
        msg = (
            f"Section {slide.name!r}: {fault} Is it the H&E image, with values from 0 to 255 (or 0 to 1 as float)? If not, "
            "pass another by `image_key=`; see `sthggep.pl.patches(data)`."
        )
        warn_user(msg)
        return
    if slide.n_spots < FEWEST_SPOTS:
        return
    share, swapped = _tissue_shares(slide, tissue)
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
    elif not share > swapped + BETTER_SWAPPED and _array_transposed(slide):
        msg = (
            f"Section {slide.name!r}: columns of the array run down the image and its rows across, as if x and y were "
            "swapped, and the outline of the tissue does not exclude it. Coordinates must be (x, y), not (row, column): see "
            "`sthggep.pl.patches(data)`. They are right only if the image was mirrored and turned by 90° against the array."
        )
    elif extent := _extent_ratio(slide, tissue):
        msg = (
            f"Section {slide.name!r}: the tissue extends {extent:.1f} times as far as the spots, to the right and down, as "
            "if coordinates were pixels of a smaller copy of the image (hires, lowres). They must be pixels of its full "
            "resolution: divide them by the copy's scale factor, if they are not. See `sthggep.pl.patches(data)`."
        )
    else:
        return
    warn_user(msg)


def _value_fault(pixels: NDArray[np.uint8]) -> str:
    """Say what the values of an image show if no H&E image has them, else nothing."""
    if pixels.max() < DARKEST:
        return (
            f"its image is nearly black, with values up to {pixels.max()} of 255. Floats from 0 to 1 become so when they are "
            "converted to integers: multiply them by 255 before."
        )
    values = np.unique(pixels)
    if len(values) == 2 and (pixels == pixels[..., :1]).all():
        return f"its image holds only the two gray values {values[0]} and {values[1]}, as a mask does."
    return ""


def _extent_ratio(slide: Slide, tissue: NDArray[np.bool_]) -> float:
    """Extent of the tissue over that of the spots if it looks like a scale factor, else 0."""
    rows, columns = np.nonzero(tissue)
    if not len(rows):
        return 0.0
    step = np.array(slide.size) / np.array(tissue.shape[::-1])
    # Percentiles ignore a speck of dust or a single distant spot
    far = np.array([np.percentile(columns, 99), np.percentile(rows, 99)]) * step
    ratio = far / (np.percentile(slide.xy, 99, axis=0) + slide.pitch() / 2)
    alike = ratio.max() / ratio.min() < ALIKE
    return float(ratio.mean()) if ratio.min() > SHRUNK and alike else 0.0


def _array_transposed(slide: Slide) -> bool:
    array_xy = slide.array_xy()
    return array_xy is not None and is_transposed(array_xy, slide.xy)


def on_tissue(slide: Slide) -> tuple[float, float]:
    """Fractions of the spots on tissue, as they are and with x and y swapped; NaN if no tissue can be identified."""
    pixels = sample_of(slide)
    tissue = None if pixels is None else stained_pixels(pixels)
    return (np.nan, np.nan) if tissue is None else _tissue_shares(slide, tissue)


def _tissue_shares(slide: Slide, tissue: NDArray[np.bool_]) -> tuple[float, float]:
    shrink = np.array(tissue.shape[::-1]) / slide.size

    def share(xy: NDArray[np.float64]) -> float:
        column, row = np.clip((xy * shrink).astype(int), 0, np.array(tissue.shape[::-1]) - 1).T
        return float(tissue[row, column].mean())

    return share(slide.xy), share(slide.xy[:, ::-1])
