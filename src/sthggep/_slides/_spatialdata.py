"""Sections, spots and images of a SpatialData, with positions in pixels of the image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import unique_names
from sthggep._image._channels import are_colors, color_channels
from sthggep._image._level import Level, as_pyramid
from sthggep._keys import TOOL
from sthggep._slides._anndata import SectionData, table_of
from sthggep._slides._element_choice import channel_names, choose_image
from sthggep._slides._labels import resolutions
from sthggep._slides._libraries import read_libraries
from sthggep._slides._metadata import first_mpp, length_or_none
from sthggep._slides._pictures import check_alpha, size_difference
from sthggep._slides._regions import Region, element_of, read_regions, spots_of
from sthggep._slides._shared_image import refuse_shared_image
from sthggep._slides._values import as_mapping

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from spatialdata.models import SpatialElement
    from xarray import DataArray

    from sthggep._slides._labels import ImageElement
    from sthggep._slides._places import Places


def from_spatialdata(sdata: SpatialData, places: Places, *, need_image: bool) -> list[SectionData]:
    """Read the sections of a SpatialData, the regions of its table, with positions in pixels of their image."""
    table_key, shapes_key = places.table_key, places.shapes_key
    table = table_of(sdata, table_key)
    unique_names(table)
    regions = read_regions(table, table_key, shapes_key)
    sections = [_read_region(sdata, table, region, places, need_image=need_image) for region in regions]
    if need_image and len(sections) > 1:
        refuse_shared_image(sections, _ambiguous(sdata, sections, places))
    return sections


def _read_region(
    sdata: SpatialData, table: AnnData, region: Region, places: Places, *, need_image: bool
) -> SectionData:
    """Read image, positions and scale of one region."""
    name, rows = region.name, region.rows
    element, xy, diameter = spots_of(sdata, name, region.instances)
    stretch = 1.0
    image_name = None
    levels: tuple[Level, ...] = ()
    if need_image:
        image_name, system = choose_image(sdata, element, places)
        matrix = _to_image(sdata, image_name, element, system)
        xy = xy @ matrix[:2, :2].T + matrix[:2, 2]
        stretch = _stretch(matrix)
        levels = _element_levels(sdata.images[image_name], image_name)
    mpp, fault = _mpp(sdata, table, name, stretch)
    if mpp is None and sdata.attrs.get("spatialdata_io_reader") == "xenium":
        mpp = _xenium_mpp(table, rows, xy)
    metadata = _table_metadata(table, name)
    pitch = length_or_none(metadata.get("pitch_um", _bin_um(name)), f"Section {name!r}: pitch_um in the metadata")
    diameter = None if diameter is None else diameter * stretch
    return SectionData(name, table, rows, xy, levels, mpp, pitch, diameter, image_name, mpp_fault=fault)


def _ambiguous(sdata: SpatialData, sections: Sequence[SectionData], places: Places) -> list[str]:
    """Regions for which nothing but ``image_key`` chooses this image."""
    if places.image_key is None:
        return []
    ambiguous = []
    for section in sections:
        try:
            by_itself, _ = choose_image(sdata, element_of(sdata, section.name), replace(places, image_key=None))
        except (KeyError, ValueError):
            by_itself = None
        if by_itself != section.image:
            ambiguous.append(section.name)
    return ambiguous


def spatialdata_image(sdata: SpatialData, places: Places) -> SectionData:
    """Read the image of a SpatialData without spots."""
    name, system = choose_image(sdata, None, places)
    no_spots = np.zeros(0, dtype=np.intp), np.zeros((0, 2))
    levels = _element_levels(sdata.images[name], name)
    mpp, fault = first_mpp(_slide_mpp(sdata))
    if mpp is None:
        wsi_mpp, wsi_fault = first_mpp(_wsi_mpp(sdata))
        mpp = None if wsi_mpp is None else wsi_mpp * _stretch(_affine(sdata.images[name], system))
        fault = fault or wsi_fault
    return SectionData(name, AnnData(), *no_spots, levels, mpp, None, None, name, mpp_fault=fault)


def may_add_spots(sdata: SpatialData, key: str, record: str) -> None:
    """Reject names that exist already, except those of spots that :func:`add_spots` wrote (by ``uns[record]``)."""
    if key in sdata.tables and as_mapping(sdata.tables[key].uns.get(record)).get("tool") == TOOL:
        return
    taken = {name.lower(): name for _, name, _ in sdata.gen_elements()}
    for name in (key, spots_key(key)):
        if name.lower() in taken:
            msg = (
                f"{taken[name.lower()]!r} exists already in the SpatialData, and sthggep did not write it and does not "
                "overwrite it. Pass another `key_added=`, or delete it first."
            )
            raise ValueError(msg)


def spots_key(key: str) -> str:
    """Name of the shapes of the table ``key``."""
    return f"{key}_spots"


def add_spots(sdata: SpatialData, table: AnnData, key: str, image: str, diameter: float) -> None:
    """Write a table and its spots as circles, in pixels of an image and with its transformations.

    ``table.obsm["spatial"]`` holds the centers of the spots.
    """
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import get_transformation

    region = spots_key(key)
    table.obs["region"] = pd.Categorical([region] * table.n_obs)
    table.obs["spot_id"] = np.arange(table.n_obs)
    parsed = TableModel.parse(table, region=region, region_key="region", instance_key="spot_id")
    systems = get_transformation(sdata.images[image], get_all=True)
    circles = ShapesModel.parse(table.obsm["spatial"], geometry=0, radius=diameter / 2, transformations=systems)
    sdata.shapes[region] = circles
    sdata.tables[key] = parsed


def source_path(sdata: SpatialData, image: str) -> str:
    """Path of the file that `sthggep.io.read_slide` read an image from; empty for images of other origin.

    Of a file with several images, the path alone does not say which one was read.
    """
    record = as_mapping(sdata.attrs.get(TOOL))
    path = record.get("source_image_path") if record.get("series") is None else None
    return str(path) if path and image == "image" else ""


def _mpp(sdata: SpatialData, table: AnnData, region: str, stretch: float) -> tuple[float | None, str]:
    """Microns per pixel of the image, and why those that are stated are of no use."""
    place = f"Section {region!r}: mpp in the metadata of the table"
    # The mpp of the table and of a WSIData refer to coordinates of the spots, that of `read_slide` to image pixels
    of_spots, fault = first_mpp({place: _table_metadata(table, region).get("mpp"), **_wsi_mpp(sdata)})
    if of_spots is not None:
        return of_spots / stretch, ""
    of_image, image_fault = first_mpp(_slide_mpp(sdata))
    return of_image, fault or image_fault


def _slide_mpp(sdata: SpatialData) -> dict[str, object]:
    """Microns per pixel that `sthggep.io.read_slide` recorded, by their place."""
    return {f"attrs[{TOOL!r}]['mpp']": as_mapping(sdata.attrs.get(TOOL)).get("mpp")}


def _wsi_mpp(sdata: SpatialData) -> dict[str, object]:
    """Microns per full-resolution pixel of a WSIData, the unit of its tiles and coordinates, by their place."""
    return {"attrs['slide_properties']['mpp']": as_mapping(sdata.attrs.get("slide_properties")).get("mpp")}


def _xenium_mpp(table: AnnData, rows: NDArray[np.intp], xy: NDArray[np.float64]) -> float | None:
    """Microns per pixel of an image over Xenium cells, from the centers in microns in their table."""
    if "spatial" not in table.obsm or len(rows) < 2:
        return None
    microns = np.asarray(table.obsm["spatial"], dtype=np.float64)[rows, :2]
    pixels = float(np.sqrt(np.square(xy - xy.mean(axis=0)).sum()))
    return float(np.sqrt(np.square(microns - microns.mean(axis=0)).sum())) / pixels if pixels else None


def _bin_um(region: str) -> float | None:
    """Bin size of Visium HD from the name of its shapes (``..._square_008um``), the only place that holds it."""
    match = re.search(r"square_(\d{3})um$", region)
    return float(match.group(1)) if match else None


def _table_metadata(table: AnnData, region: str) -> Mapping[str, object]:
    """Metadata of this region (Visium readers write one entry, under the name of the data set)."""
    libraries = read_libraries(table)
    library = libraries.get(region, next(iter(libraries.values())) if len(libraries) == 1 else {})
    return as_mapping(as_mapping(library).get("metadata"))


def _to_image(sdata: SpatialData, image_name: str, shapes: SpatialElement, system: str) -> NDArray[np.float64]:
    """Affine matrix from the coordinates of the shapes to pixels of the image."""
    return np.asarray(
        np.linalg.inv(_affine(sdata.images[image_name], system)) @ _affine(shapes, system), dtype=np.float64
    )


def _affine(element: SpatialElement, system: str) -> NDArray[np.float64]:
    """Affine matrix from the coordinates of an element to a coordinate system."""
    from spatialdata.transformations import get_transformation

    axes = ("x", "y")
    matrix = get_transformation(element, to_coordinate_system=system).to_affine_matrix(axes, axes)
    return np.asarray(matrix, dtype=np.float64)


def _stretch(matrix: NDArray[np.float64]) -> float:
    """Factor by which a transformation lengthens a line."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def _element_levels(element: ImageElement, name: str = "image") -> tuple[Level, ...]:
    """Resolutions of an image element; their spacing comes from coordinates, since pyramids are not exact halves."""
    names = channel_names(element)
    order = color_channels(names)
    arrays = [array if order is None else array.isel(c=order) for array in resolutions(element)]
    arrays.sort(key=lambda array: -int(array.sizes["x"]))
    base = _spacing(arrays[0])
    levels = []
    for array in arrays:
        spacing = _spacing(array)
        if spacing == base and array.sizes["x"] < arrays[0].sizes["x"]:
            spacing = _spacing_by_transformation(array, arrays[0], base)
        levels.append(
            Level(array.data, scale=(base[0] / spacing[0], base[1] / spacing[1]), axes="".join(map(str, array.dims)))
        )
    for level in levels[1:]:
        if fault := size_difference(levels[0], level):
            msg = f"The resolutions of the image {name!r} are not of one image: {fault}. Write its finest scale alone."
            raise ValueError(msg)
    if not are_colors(names):
        check_alpha(levels[-1], f"The image {name!r} of the SpatialData")
    return tuple(as_pyramid(levels))


def _spacing_by_transformation(array: DataArray, full: DataArray, base: tuple[float, float]) -> tuple[float, float]:
    """Spacing of pyramids whose levels each have pixel coordinates and a transformation that scales them."""
    from spatialdata.transformations import get_transformation

    system = next(iter(get_transformation(full, get_all=True)))
    ratio = np.linalg.inv(_affine(full, system)) @ _affine(array, system)
    return base[0] * float(ratio[0, 0]), base[1] * float(ratio[1, 1])


def _spacing(array: DataArray) -> tuple[float, float]:
    def step(axis: str) -> float:
        if axis not in array.coords or array.sizes[axis] < 2:
            return 1.0
        values = array.coords[axis].values
        return float((values[-1] - values[0]) / (len(values) - 1))

    return step("x"), step("y")
