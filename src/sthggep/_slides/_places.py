"""Keys of spots, image and scale in an AnnData or SpatialData, from the keywords of a public call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

TABLE = "table"


@dataclass(frozen=True)
class Places:
    """Keys of the spots, the image and the scale of a slide; sthggep resolves those that are ``None``."""

    image_key: str | None = None
    """Name of the image."""
    table_key: str = TABLE
    """Table of a SpatialData."""
    shapes_key: str | None = None
    """Region that the table of a SpatialData annotates."""
    spatial_key: str = "spatial"
    """Key in ``obsm`` of an AnnData: (x, y) of the spots in full-resolution pixels."""
    coordinate_system: str | None = None
    """Coordinate system of a SpatialData in which spots and image meet."""
    library_key: str | None = None
    """Column of ``obs`` that names the section of each spot of an AnnData."""
    mpp: float | None = None
    """Microns per full-resolution pixel."""

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> Places:
        """Take the places out of all options of a call."""
        return cls(**{field.name: options[field.name] for field in fields(cls) if field.name in options})


DEFAULT_PLACES = Places()
