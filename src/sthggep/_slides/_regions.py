"""Regions of the table of a SpatialData, and the shapes or labels that its rows name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import has_key, listing
from sthggep._log import ONCE, log
from sthggep._slides._instances import describe_absent, match_instances
from sthggep._slides._labels import label_centers
from sthggep._slides._values import read_column

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData
    from spatialdata.models import SpatialElement

ATTRS = "spatialdata_attrs"
ADVICE = "Link the table to shapes by `TableModel.parse`."


@dataclass(frozen=True)
class Region:
    """A section of a SpatialData: an element, and the rows of the table that annotate it."""

    name: str
    rows: NDArray[np.intp]
    instances: pd.Series
    """The id of each row in the element."""


def read_regions(table: AnnData, table_key: str, shapes_key: str | None) -> list[Region]:
    """Read the regions that have rows, or of these only ``shapes_key``."""
    attrs = has_key(table.uns, ATTRS, f"uns of table {table_key!r}", ADVICE)
    if not isinstance(attrs, Mapping):
        msg = f"uns[{ATTRS!r}] of table {table_key!r} must be a dict, found {type(attrs).__name__}. {ADVICE}"
        raise ValueError(msg)
    listed, region_key, instance_key = (
        has_key(attrs, name, f"uns[{ATTRS!r}] of table {table_key!r}", ADVICE)
        for name in ("region", "region_key", "instance_key")
    )
    column = read_column(table.obs, str(region_key), ADVICE)
    instances = read_column(table.obs, str(instance_key), ADVICE)
    names = column.astype(object).where(column.notna(), None).map(str, na_action="ignore")
    regions = list(
        dict.fromkeys([*map(str, np.atleast_1d(np.asarray(listed, dtype=object))), *names.dropna().unique()])
    )
    if shapes_key is not None and shapes_key not in regions:
        msg = f"Table {table_key!r} does not annotate {shapes_key!r}; it annotates {listing(regions)}."
        raise KeyError(msg)
    with_rows = [name for name in regions if (names == name).any()]
    _check_rows(with_rows, regions, table_key, shapes_key)
    if shapes_key is not None:
        with_rows = [shapes_key]
    rows_of = {name: np.flatnonzero((names == name).to_numpy()) for name in with_rows}
    return [Region(name, rows, instances.iloc[rows]) for name, rows in rows_of.items()]


def _check_rows(with_rows: list[str], regions: list[str], table_key: str, shapes_key: str | None) -> None:
    """Refuse a table without rows of the regions, and log regions that filtering left without rows."""
    if not with_rows or (shapes_key is not None and shapes_key not in with_rows):
        name = shapes_key or listing(regions, 3)
        msg = f"Table {table_key!r} holds no spots of region {name!r}; at least one was expected. Regions with rows: {listing(with_rows)}."
        raise ValueError(msg)
    empty = [name for name in regions if name not in with_rows]
    if empty and shapes_key is None:
        log.info(
            "Table %r holds no rows of %s; sthggep leaves these regions out.", table_key, listing(empty), extra=ONCE
        )


def spots_of(
    sdata: SpatialData, region: str, instances: pd.Series
) -> tuple[SpatialElement, NDArray[np.float64], float | None]:
    """Return the element that rows of the table annotate, their centers in its coordinates, and their diameter."""
    element = element_of(sdata, region)
    if region in sdata.labels:
        return element, label_centers(element, instances.to_numpy(), region), None
    shapes = _shapes_of_rows(element, instances, region)
    xy = np.column_stack([shapes.geometry.centroid.x, shapes.geometry.centroid.y])
    return element, xy, float(2 * shapes["radius"].median()) if "radius" in shapes and len(shapes) else None


def element_of(sdata: SpatialData, region: str) -> SpatialElement:
    """Return the labels or the shapes of a region."""
    if region in sdata.labels:
        return sdata.labels[region]
    return has_key(sdata.shapes, region, "the shapes of the SpatialData", "Pass `shapes_key=`.")


def _shapes_of_rows(element: GeoDataFrame, instances: pd.Series, region: str) -> GeoDataFrame:
    """Return shapes in the order of the rows of the table, matched by instance and not by position."""
    positions = match_instances(instances, element.index) if element.index.is_unique else np.zeros(0, dtype=np.intp)
    if not len(positions) or (positions < 0).any():
        fault = describe_absent(instances, positions, element.index) if len(positions) else "its index has duplicates."
        msg = f"The table's rows of region {region!r} name the shapes {region!r} by their index, but {fault}"
        raise ValueError(msg)
    return element.iloc[positions]
