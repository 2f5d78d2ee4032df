"""Refuse features in ``obsm`` of positions, images or resolutions that have changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from sthggep._checks import counted
from sthggep._encoders._cache import image_fingerprint
from sthggep._encoders._record import MPP_TOLERANCE, FeatureSections, Stamps, read_sections
from sthggep._keys import TOOL
from sthggep._slides._anndata import table_of
from sthggep._slides._resolve import resolve

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide


def refuse_stale(data: AnnData | SpatialData, places: Places, keys: Sequence[str]) -> None:
    """Refuse features that `pp.features` wrote before the positions, the image or its resolution were changed.

    The function cannot judge features of other tools, nor compare images that the data no longer hold.
    """
    table = table_of(data, places.table_key)
    for key in keys:
        record = table.uns.get(key)
        if key not in table.obsm or not isinstance(record, Mapping) or record.get("tool") != TOOL:
            continue
        sections, image_key = read_sections(record), record.get("image_key") or None
        for slide in _slides(data, replace(places, image_key=image_key)):
            if change := _change(np.asarray(table.obsm[key][slide.rows]), slide, sections):
                msg = (
                    f"obsm[{key!r}] of section {slide.name!r} holds features from before {change}. Call "
                    "`sthggep.pp.features` again, or undo that change."
                )
                raise ValueError(msg)


def _slides(data: AnnData | SpatialData, places: Places) -> list[Slide]:
    """The sections with their images; without, if there are none and the positions are those of the images."""
    try:
        return resolve(data, places)
    except (KeyError, FileNotFoundError):
        return resolve(data, places, need_image=False) if isinstance(data, AnnData) else []


def _change(values: np.ndarray, slide: Slide, sections: FeatureSections) -> str:
    """What changed since the features were computed, in words; empty if nothing did, or nothing is known."""
    stamps = Stamps.of(values, slide.xy)
    ours = np.isin(stamps.values, sections.stamps.values)
    moved = ours & ~np.isin(stamps.pairs(), sections.stamps.pairs())
    if moved.any():
        return f"{counted(int(moved.sum()), 'spot')} moved"
    numbers = np.unique(sections.number[np.isin(sections.stamps.pairs(), stamps.pairs())])
    if not len(numbers):
        return ""
    if slide.levels and image_fingerprint(slide.levels) not in {sections.images[i] for i in numbers}:
        return "the image was changed"
    stated = [sections.mpp[i] for i in numbers if sections.mpp_source[i] == slide.mpp_source]
    if slide.mpp is not None and stated and not np.isclose(stated, slide.mpp, rtol=MPP_TOLERANCE).any():
        return f"microns per pixel changed from {stated[0]:.4g} to {slide.mpp:.4g}"
    return ""
