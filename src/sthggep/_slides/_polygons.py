"""Spots inside the polygons of a SpatialData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import listing
from sthggep._slides._regions import element_of

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide


def polygon_labels(data: AnnData | SpatialData, slide: Slide, name: str, table_key: str) -> pd.Series:
    """Return the polygon in which the center of each spot lies: its name in the index, missing outside of all.

    Where polygons overlap, a spot belongs to the first. Positions are compared in a coordinate system that both elements
    share; those of ``slide`` must be the element's own, as they are where no image was asked for.

    Raises
    ------
    KeyError
        There is neither such a column of ``obs`` nor such a shapes element.
    ValueError
        The element holds no polygons, or shares no coordinate system with the spots.
    """
    if isinstance(data, AnnData):
        msg = (
            f"{name!r} is not in obs. Pass a column with the region of each spot; obs holds {listing(slide.adata.obs)}."
        )
        raise KeyError(msg)
    if name not in data.shapes:
        msg = (
            f"{name!r} is neither a column of obs of the table {table_key!r} ({listing(slide.adata.obs)}) nor a shapes element "
            f"({listing(data.shapes)})."
        )
        raise KeyError(msg)
    from spatialdata import transform
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    spots, polygons = element_of(data, slide.name), data.shapes[name]
    of_spots, of_polygons = (get_transformation(element, get_all=True) for element in (spots, polygons))
    shared = [system for system in of_spots if system in of_polygons]
    kinds = set(polygons.geom_type)
    if not shared or not kinds <= {"Polygon", "MultiPolygon"}:
        found = f"geometries {listing(sorted(kinds))}" if shared else f"coordinate systems {listing(of_polygons)}"
        msg = f"{name!r} must hold polygons in a coordinate system of {slide.name!r} ({listing(of_spots)}); found {found}."
        raise ValueError(msg)
    matrix = of_spots[shared[0]].to_affine_matrix(("x", "y"), ("x", "y"))
    points = ShapesModel.parse(slide.xy @ matrix[:2, :2].T + matrix[:2, 2], geometry=0, radius=1)
    moved = transform(polygons, to_coordinate_system=shared[0])
    at, inside = moved.sindex.query(points.geometry, predicate="within")
    first = np.full(len(points), len(moved))
    np.minimum.at(first, at, inside)
    names = np.array([*moved.index.astype(str), None], dtype=object)
    labels = pd.Series(names[first], dtype=object)
    if labels.isna().all():
        msg = f"No spot of {slide.name!r} lies in a polygon of {name!r}, in the coordinate system {shared[0]!r}."
        raise ValueError(msg)
    return labels


def points_within(polygon: Polygon | MultiPolygon, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the points (n, 2) lie in a polygon."""
    from spatialdata.models import ShapesModel

    return np.asarray(ShapesModel.parse(xy, geometry=0, radius=1).within(polygon), dtype=bool)
