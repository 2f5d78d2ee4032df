"""The record in ``uns`` of features in ``obsm``: encoder, field of view and sections."""

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
    frozen: FrozenEncoder, size_um: float, *, flips: bool, encoding: str, stain: Recoloring | None = None
) -> dict[str, object]:
    """Return the record of features: all that they depend on besides the image."""
    record: dict[str, object] = {
        "tool": TOOL,
        "encoder": frozen.entry.name,
        "weights": frozen.weights,
        "size_um": size_um,
        "size_px": frozen.entry.size_px,
        "flips": flips,
    }
    if encoding != "patches":
        record["encoding"] = encoding
    return record if stain is None else record | {"stain": stain.id}


def has_features(table: AnnData, key: str, record: Mapping[str, object], slide: Slide | None = None) -> bool:
    """Whether the table holds these features of all spots, or of one section at its microns per pixel."""
    if not matches_record(table, key, record):
        return False
    if slide is None:
        return bool(np.isfinite(table.obsm[key]).all())
    mpp = mpp_by_section(table.uns[key]).get(slide.name)
    same = mpp is not None and slide.mpp is not None and np.isclose(mpp, slide.mpp, rtol=1e-6)
    return bool(same and np.isfinite(table.obsm[key][slide.rows]).all())


def matches_record(table: AnnData, key: str, record: Mapping[str, object]) -> bool:
    """Whether the features under ``key`` have this record."""
    stored = table.uns.get(key)
    if key not in table.obsm or not isinstance(stored, Mapping):
        return False
    # The record of features of patches, or without stain normalization, has no entry for it
    return all(stored.get(name) == record.get(name) for name in {*record, "encoding", "stain"})


def has_uncolored_features(table: AnnData, key: str, encoder: str, section: str) -> bool:
    """Whether the table holds this encoder's features of a section without stain normalization."""
    stored = table.uns.get(key)
    if key not in table.obsm or not isinstance(stored, Mapping) or stored.get("encoder") != encoder:
        return False
    return section in mpp_by_section(stored) and not stored.get("stain")


def mpp_by_section(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the microns per pixel of each section from a record in ``uns``."""
    names, mpp = record.get("sections", ()), record.get("mpp", ())
    # Merging objects may break a record: the function then returns no section, and callers encode again
    return {str(n): float(value) for n, value in zip(names, mpp, strict=True)} if len(names) == len(mpp) else {}
