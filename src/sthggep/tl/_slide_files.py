"""Slide files: AnnData, SpatialData, and images with a grid of spots over the tissue."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._slides._container_files import kind_of, read_container

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._places import Places

SPACING_UM = 100.0
GRID = "tissue_grid"


def open_with_spots(
    path: Path, places: Places, spacing_um: float | None = None, image: Path | None = None
) -> tuple[AnnData | SpatialData, Places]:
    """Read a slide; make a grid of spots over its tissue if ``spacing_um`` is set or the file is an image.

    ``image`` is the full resolution of a folder of Space Ranger.
    """
    kind = kind_of(path)
    if kind != "image" and spacing_um is None:
        return read_container(path, image), places

    from sthggep import io, pp

    data = io.read_slide(path, mpp=places.mpp) if kind == "image" else read_container(path, image)
    spacing_um = SPACING_UM if spacing_um is None else spacing_um
    grid = pp.tissue_grid(data, spacing_um=spacing_um, key_added=GRID, **asdict(places))
    # The grid is another table of a SpatialData, but a new AnnData
    if kind == "anndata":
        return grid, replace(places, spatial_key="spatial", library_key=None)
    return data, replace(places, table_key=GRID, shapes_key=None)
