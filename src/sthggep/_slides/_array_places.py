"""The occupied places of a section's array, by which it is recognized though spots were dropped or the array mirrored."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._slides._lattice import is_interleaved
from sthggep._slides._overlay import best_overlay

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

FEWEST_PLACES = 30
MOST_PLACES = 1 << 18  # of an array, free places included
FULL = 0.9  # fraction of occupied places beyond which the gaps identify no section
FEWEST_AT_OUTLINE = 20  # spots beside a free place; round tissue of fewer looks like any other
# Places that may differ, for each spot at the outline: two different sections differ by .08 (toy tissue) or .38 (serial
# sections of a breast tumor) and more
DIFFERENT = 0.05


@dataclass(frozen=True)
class ArrayPlaces:
    """The array of a section: which places have a spot."""

    occupied: NDArray[np.bool_]

    def to_dict(self) -> dict[str, object]:
        """Convert to plain types, for JSON."""
        text = base64.b64encode(np.packbits(self.occupied).tobytes()).decode()
        return {"width": self.occupied.shape[1], "height": self.occupied.shape[0], "places": text}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ArrayPlaces:
        """Read the plain types of :meth:`to_dict`."""
        packed = np.frombuffer(base64.b64decode(values["places"], validate=True), dtype=np.uint8)
        width, height = int(values["width"]), int(values["height"])
        return cls(np.unpackbits(packed, count=width * height).astype(bool).reshape(height, width))

    def outline(self) -> int:
        """Number of occupied places beside a free one inside the array's bounding box."""
        from scipy.ndimage import binary_erosion

        inside = binary_erosion(self.occupied, border_value=1)
        return int((self.occupied & ~inside).sum())


def places_of(slide: Slide) -> ArrayPlaces | None:
    """The places of a section; ``None`` if they are too few or too many to identify it."""
    array_xy = slide.array_xy()
    if array_xy is None or slide.n_spots < FEWEST_PLACES:
        return None
    places = array_xy - array_xy.min(axis=0)
    width, height = (int(n) for n in places.max(axis=0) + 1)
    if width * height > MOST_PLACES:
        return None
    occupied = np.zeros((height, width + 1), dtype=bool)
    occupied[places[:, 1], places[:, 0]] = True
    if is_interleaved(array_xy):
        occupied[:, 1:] |= occupied[:, :-1].copy()
    else:
        occupied = occupied[:, :-1]
    section = ArrayPlaces(occupied)
    return None if occupied.mean() > FULL or section.outline() < FEWEST_AT_OUTLINE else section


def same_places(a: ArrayPlaces | None, b: ArrayPlaces | None) -> bool:
    """Whether two sections occupy the same places but for a few; also turned or mirrored."""
    if a is None or b is None:
        return False
    first, second = (each.occupied.astype(np.float64) for each in (a, b))
    common = round(best_overlay(first, second).score)
    n_different = first.sum() + second.sum() - 2 * common
    return bool(n_different <= DIFFERENT * min(a.outline(), b.outline()))
