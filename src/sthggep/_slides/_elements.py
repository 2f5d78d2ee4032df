"""Sections of an AnnData as elements of a SpatialData, and a SpatialData with a further table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthggep._image._level import Level
    from sthggep._slides._slide import Slide

REGION, SPOT = "sthggep_region", "sthggep_spot"  # columns of the table that link it to the spots
PYRAMID_PX = 4000  # side of an image above which viewers need lower resolutions, too


def with_table(sdata: SpatialData, table: AnnData, key: str) -> SpatialData:
    """Return the same elements in a new object, with the table beside the others."""
    from spatialdata import SpatialData

    kinds = ("images", "labels", "points", "shapes")
    elements = {kind: dict(getattr(sdata, kind)) for kind in kinds}
    return SpatialData(**elements, tables={**sdata.tables, key: table})


def sections_as_spatialdata(
    slides: Sequence[Slide], diameters: Sequence[float], table: AnnData, key: str
) -> SpatialData:
    """Make images and circles of the sections of an AnnData, each in a coordinate system of its own.

    ``table`` holds all or some of their spots, by name; it becomes the table ``key``, without the images in ``uns``.
    """
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    images, shapes = {}, {}
    for slide, diameter in zip(slides, diameters, strict=True):
        name = element_name(slide.name)
        images[f"{name}_image"] = _image(slide.levels[0], name)
        shapes[name] = ShapesModel.parse(
            slide.xy,
            geometry=0,
            radius=diameter / 2,
            index=pd.Index(slide.rows),
            transformations={name: Identity()},
        )
    return SpatialData(images=images, shapes=shapes, tables={key: _linked(table, slides)})


def _linked(table: AnnData, slides: Sequence[Slide]) -> AnnData:
    """A table whose rows name their section and spot."""
    from spatialdata.models import TableModel

    all_names = slides[0].adata.obs_names
    regions = pd.Series(index=all_names, dtype=object)
    for slide in slides:
        regions.iloc[slide.rows] = element_name(slide.name)
    linked = table[regions[table.obs_names].notna().to_numpy()].copy()
    linked.obs[REGION] = pd.Categorical(regions[linked.obs_names])
    linked.obs[SPOT] = all_names.get_indexer(linked.obs_names)
    linked.uns.pop("spatial", None)  # the images are elements
    names = list(linked.obs[REGION].cat.categories)
    return TableModel.parse(linked, region=names, region_key=REGION, instance_key=SPOT)


def element_name(name: str) -> str:
    """A name that SpatialData accepts: letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("_") or "section"


def _image(level: Level, system: str) -> Any:
    """The finest resolution of an image, in full-resolution pixels; lower ones are computed where it is large."""
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    array: Any = level.array
    if level.axes == "yx":
        array = array[None]
    elif level.axes == "yxc":
        array = array.transpose(2, 0, 1)
    colors = {"c_coords": ("r", "g", "b")} if len(array) >= 3 else {}
    return Image2DModel.parse(
        array[: 3 if colors else 1],
        dims=("c", "y", "x"),
        scale_factors=[2, 2, 2] if max(level.shape) > PYRAMID_PX else None,
        transformations={system: Scale(1 / np.array(level.scale), axes=("x", "y"))},
        **colors,
    )


def first_elements(sdata: SpatialData, slide: Slide, system: str | None) -> list[tuple[str, str]]:
    """Image and spots of a section, each with a coordinate system that both have."""
    from spatialdata.transformations import get_transformation

    spots = slide.name if slide.name in sdata.shapes or slide.name in sdata.labels else element_name(slide.name)
    image = slide.image if slide.image is not None and slide.image in sdata.images else f"{spots}_image"
    of_image, of_spots = (list(get_transformation(sdata[name], get_all=True)) for name in (image, spots))
    shared = system or next(each for each in of_image if each in of_spots)
    return [(image, shared), (spots, shared)]
