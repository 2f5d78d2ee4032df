"""What features in obsm were made of: the record beside them in uns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sthggep._keys import TOOL

if TYPE_CHECKING:
    from anndata import AnnData

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._image._recolor import Recoloring
    from sthggep._slides._slide import Slide


def feature_record(
    frozen: FrozenEncoder, size_um: float, flips: bool, stain: Recoloring | None = None
) -> dict[str, Any]:
    """What the features depend on, beside the image: the record in ``uns``."""
    record = {
        "tool": TOOL,
        "encoder": frozen.entry.name,
        "weights": frozen.weights,
        "size_um": size_um,
        "size_px": frozen.entry.size_px,
        "flips": flips,
    }
    return record if stain is None else record | {"stain": stain.id}


def is_done(table: AnnData, key: str, record: dict[str, Any], slide: Slide | None = None) -> bool:
    """Whether the very same features are there already: of all spots, or of one section at its microns per pixel."""
    if not _agrees(table, key, record):
        return False
    if slide is None:
        return bool(np.isfinite(table.obsm[key]).all())
    mpp = _sections(table.uns[key]).get(slide.name)
    same = mpp is not None and slide.mpp is not None and np.isclose(mpp, slide.mpp, rtol=1e-6)
    return bool(same and np.isfinite(table.obsm[key][slide.rows]).all())


def _agrees(table: AnnData, key: str, record: dict[str, Any]) -> bool:
    there = table.uns.get(key)
    if key not in table.obsm or not isinstance(there, Mapping):
        return False
    # Features of a slide's own colors have no entry for the stain
    return all(there.get(name) == record.get(name) for name in {*record, "stain"})


def holds_plain(table: AnnData, key: str, encoder: str, section: str) -> bool:
    """Whether features of this section by this encoder are there, of its own colors."""
    there = table.uns.get(key)
    if key not in table.obsm or not isinstance(there, Mapping) or there.get("encoder") != encoder:
        return False
    return section in _sections(there) and not there.get("stain")


def _sections(record: Mapping[str, Any]) -> dict[str, float]:
    """Microns per pixel of each section, as a record in ``uns`` has them."""
    names, mpp = record.get("sections", ()), record.get("mpp", ())
    # A record merged from several objects may not fit any more: then nothing counts as done
    return {str(n): float(value) for n, value in zip(names, mpp, strict=True)} if len(names) == len(mpp) else {}
