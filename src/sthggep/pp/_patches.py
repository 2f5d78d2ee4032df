"""Lazy patches of a section, in microns or in pixels, padded at the border."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._slides._patches import Patches
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
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
    """Cut patches around the spots of one section, lazily.

    Parameters
    ----------
    data
        One section: AnnData with its image in ``uns["spatial"]``, or SpatialData.
    size_um
        Field of view in microns, resampled to ``size_px``. Default: ``size_px`` full-resolution pixels, as in the paper;
        slides of other microns per pixel then have other fields of view.
    size_px
        Width and height of the patches.
    {places}

    Returns
    -------
    A sequence that reads uint8 arrays (n, size_px, size_px, 3), RGB, rows first, when you index it.

    Raises
    ------
    KeyError
        The slide has no image, or the image has no scale factor.
    ValueError
        Spots lie outside the image, or ``size_um`` needs microns per pixel that are not known.

    Examples
    --------
    >>> patches = sthggep.pp.patches(slide, size_um=160)
    >>> patches[:4].shape
    (4, 112, 112, 3)
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
