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

from sthggep._checks import has_key, listing, unique_names
from sthggep._image._level import Level
from sthggep._keys import TOOL
from sthggep._slides._anndata import SectionData, table_of
from sthggep._slides._labels import resolutions
from sthggep._slides._libraries import read_libraries
from sthggep._slides._regions import Region, element_of, read_regions, spots_of
from sthggep._slides._shared_image import refuse_shared_image
from sthggep._slides._values import as_float, as_mapping, positive_or_none

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from spatialdata.models import SpatialElement
    from xarray import DataArray

    from sthggep._slides._labels import ImageElement
    from sthggep._slides._places import Places

PREVIEW_ENDINGS = ("lowres_image", "thumbnail")  # images too coarse for patches


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
        image_name, system = _choose_image(sdata, element, places)
        matrix = _to_image(sdata, image_name, element, system)
        xy = xy @ matrix[:2, :2].T + matrix[:2, 2]
        stretch = _stretch(matrix)
        levels = _element_levels(sdata.images[image_name])
    metadata = _table_metadata(table, name)
    mpp = positive_or_none(metadata.get("mpp"), f"Section {name!r}: mpp in the metadata")
    if mpp is None:
        mpp = _wsi_mpp(sdata)
    # The mpp of the table and of a WSIData refer to coordinates of the spots, that of `read_slide` to image pixels
    mpp = _slide_mpp(sdata) if mpp is None else mpp / stretch
    if mpp is None and sdata.attrs.get("spatialdata_io_reader") == "xenium":
        mpp = _xenium_mpp(table, rows, xy)
    pitch = positive_or_none(metadata.get("pitch_um", _bin_um(name)), f"Section {name!r}: pitch_um in the metadata")
    diameter = None if diameter is None else diameter * stretch
    return SectionData(name, table, rows, xy, levels, mpp, pitch, diameter, image_name)


def _ambiguous(sdata: SpatialData, sections: Sequence[SectionData], places: Places) -> list[str]:
    """Regions for which nothing but ``image_key`` chooses this image."""
    if places.image_key is None:
        return []
    ambiguous = []
    for section in sections:
        try:
            by_itself, _ = _choose_image(sdata, element_of(sdata, section.name), replace(places, image_key=None))
        except (KeyError, ValueError):
            by_itself = None
        if by_itself != section.image:
            ambiguous.append(section.name)
    return ambiguous


def spatialdata_image(sdata: SpatialData, places: Places) -> SectionData:
    """Read the image of a SpatialData without spots."""
    name, system = _choose_image(sdata, None, places)
    no_spots = np.zeros(0, dtype=np.intp), np.zeros((0, 2))
    levels = _element_levels(sdata.images[name])
    mpp, wsi_mpp = _slide_mpp(sdata), _wsi_mpp(sdata)
    if mpp is None and wsi_mpp is not None:
        mpp = wsi_mpp * _stretch(_affine(sdata.images[name], system))
    return SectionData(name, AnnData(), *no_spots, levels, mpp, None, None, name)


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
    """Path of the file that `sthggep.io.read_slide` read an image from; empty for images of other origin."""
    path = as_mapping(sdata.attrs.get(TOOL)).get("source_image_path")
    return str(path) if path and image == "image" else ""


def _slide_mpp(sdata: SpatialData) -> float | None:
    """Microns per pixel that `sthggep.io.read_slide` recorded."""
    mpp = as_mapping(sdata.attrs.get(TOOL)).get("mpp")
    return None if mpp is None else as_float(mpp)


def _wsi_mpp(sdata: SpatialData) -> float | None:
    """Microns per full-resolution pixel of a WSIData, the unit of its tiles and coordinates."""
    return positive_or_none(as_mapping(sdata.attrs.get("slide_properties")).get("mpp"), "mpp in the slide properties")


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


def _choose_image(sdata: SpatialData, spots: SpatialElement | None, places: Places) -> tuple[str, str]:
    """Choose the H&E image that shares a coordinate system with the spots (``None``: any image), and that system."""
    from spatialdata.transformations import get_transformation

    image_key, coordinate_system = places.image_key, places.coordinate_system
    systems = {key: set(get_transformation(image, get_all=True)) for key, image in sdata.images.items()}
    ours = set.union(set(), *systems.values()) if spots is None else set(get_transformation(spots, get_all=True))
    if coordinate_system is not None:
        if coordinate_system not in ours:
            what = "images" if spots is None else "spots"
            msg = f"The {what} are not in coordinate system {coordinate_system!r}; they are in {listing(sorted(ours))}."
            raise KeyError(msg)
        ours = {coordinate_system}
    if image_key is not None:
        has_key(sdata.images, image_key, "the images of the SpatialData", "Pass another `image_key=`.")
    keys = [image_key] if image_key else [key for key in sdata.images if not key.endswith(PREVIEW_ENDINGS)]
    shared = {key: sorted(ours & systems[key]) for key in keys if ours & systems[key]}
    candidates = _best_candidates(sdata, list(shared))
    if len(candidates) != 1:
        what = "no image" if not candidates else f"several images ({listing(candidates)})"
        msg = (
            f"Expected one H&E image in the spots' coordinate systems ({listing(sorted(ours))}), found {what}. "
            f"The images are {listing(sdata.images)}. Pass `image_key=` or `coordinate_system=`; of several regions, one a "
            "call by `shapes_key=`."
        )
        raise KeyError(msg) if not candidates else ValueError(msg)
    return candidates[0], shared[candidates[0]][0]


def _best_candidates(sdata: SpatialData, keys: list[str]) -> list[str]:
    """Of several images, return the only full image, else the only one in color: Xenium names its stains differently."""
    for accepts in (lambda key: key.endswith("full_image"), lambda key: _is_rgb(sdata.images[key])):
        accepted = [key for key in keys if accepts(key)]
        if len(keys) > 1 and len(accepted) == 1:
            return accepted
    return keys


def _is_rgb(element: ImageElement) -> bool:
    from spatialdata.models import get_channel_names

    return {str(name).lower() for name in get_channel_names(element)} in ({"r", "g", "b"}, {"r", "g", "b", "a"})


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


def _element_levels(element: ImageElement) -> tuple[Level, ...]:
    """Resolutions of an image element; their spacing comes from coordinates, since pyramids are not exact halves."""
    arrays = resolutions(element)
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
    return tuple(levels)


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
