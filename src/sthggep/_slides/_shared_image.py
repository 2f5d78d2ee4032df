"""Regions of a SpatialData that lie on one image, though each may have an image of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import listing

if TYPE_CHECKING:
    from sthggep._slides._anndata import SectionData

MIXED = 0.1  # fraction of spots that lie between those of another region, within half of their distance
SAMPLE = 2000


def refuse_shared_image(sections: Sequence[SectionData], ambiguous: Sequence[str]) -> None:
    """Refuse regions that lie over each other on one image.

    Parameters
    ----------
    sections
        All regions of the table that are read.
    ambiguous
        Regions for which there is another image than that of ``image_key``.
    """
    for one, other in combinations(sections, 2):
        if one.image is None or one.image != other.image:
            continue
        chosen = one.name in ambiguous or other.name in ambiguous
        if (chosen and _boxes_overlap(one.xy, other.xy)) or _are_mixed(one.xy, other.xy):
            raise ValueError(_message(one, other, chosen=chosen))


def _message(one: SectionData, other: SectionData, *, chosen: bool) -> str:
    names = listing([one.name, other.name])
    advice = f"Pass one region a call: `shapes_key={one.name!r}`, with its own image as `image_key=`."
    if chosen:
        return (
            f"Each region must lie on its own image, but `image_key={one.image!r}` would be that of {names}. {advice}"
        )
    return (
        f"Each region must lie on its own image, but the spots of {names} lie over each other on the image {one.image!r}, "
        f"as if they were different sections. {advice}"
    )


def _boxes_overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool((np.maximum(a.min(axis=0), b.min(axis=0)) <= np.minimum(a.max(axis=0), b.max(axis=0))).all())


def _are_mixed(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether spots of one region lie nearer to those of the other than these lie to each other."""
    from scipy.spatial import cKDTree

    a, b = a[np.isfinite(a).all(axis=1)], b[np.isfinite(b).all(axis=1)]
    if len(a) < 2 or not len(b) or not _boxes_overlap(a, b):
        return False
    tree = cKDTree(a)
    pitch = np.median(tree.query(a[:: -(-len(a) // SAMPLE)], k=2)[0][:, 1])
    return bool((tree.query(b[:: -(-len(b) // SAMPLE)])[0] < pitch / 2).mean() > MIXED)
