"""Patches of a section: lazy, padded at the border, asked for in microns or in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sthggep._docs import document_places
from sthggep._slides._patches import Patches
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document_places
def patches(
    data: AnnData | SpatialData,
    *,
    size_um: float | None = None,
    size_px: int = 112,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
) -> Patches:
    """Patches around the spots of one section, cut when they are asked for.

    Parameters
    ----------
    data
        One section: AnnData with its image in ``uns["spatial"]``, or SpatialData.
    size_um
        Field of view in microns, resampled to ``size_px``. ``None`` cuts ``size_px`` full-resolution pixels, as
        published; across slides that is not the same field of view.
    size_px
        Width and height of the patches.
    {places}

    Returns
    -------
    A sequence that gives uint8 arrays (n, size_px, size_px, 3), RGB, rows first.

    Raises
    ------
    KeyError
        There is no image, or it has no scale factor.
    ValueError
        Spots lie outside the image, or microns per pixel are needed and not known.
    """
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    return Patches(resolve_one(data, places), size_um=size_um, size_px=size_px)
