"""A slide and its prediction in napari."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import AnnData

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep.pl._tissue import spot_diameter

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthggep._image._level import Level
    from sthggep._slides._slide import Slide

PACKAGE = "napari-spatialdata"
REGION, SPOT = "sthggep_region", "sthggep_spot"  # columns of the table that link it to the spots
PYRAMID_PX = 4000  # side of an image above which napari needs lower resolutions, too


@checked
@document_places
def view(
    data: AnnData | SpatialData,
    *,
    key: str = "hggep",
    headless: bool = False,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
) -> object:
    """Open a slide and its prediction in napari, to zoom, pan and color spots by genes.

    The function needs ``napari-spatialdata``, which sthggep does not install. napari shows the H&E and the spots; in the
    widget *View* of ``napari-spatialdata`` choose the spots' layer, the table of the prediction, and a gene. The slide is
    not changed.

    Parameters
    ----------
    data
        Slide with a prediction.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`. The table of the prediction has this name.
    headless
        Do not start napari's event loop: for scripts that change the viewer first, and in Jupyter after ``%gui qt``.
    {places}

    Returns
    -------
    The ``napari_spatialdata.Interactive``, such as for ``.screenshot()``; by default after napari was closed.

    Raises
    ------
    ImportError
        ``napari-spatialdata`` is not installed.
    KeyError
        There is no such prediction, or an AnnData has no image.

    See Also
    --------
    sthggep.pl.gene_map : The same as a figure.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> sthggep.pl.view(slide)
    """
    try:
        interactive = import_module("napari_spatialdata").Interactive
    except ImportError as error:
        msg = (
            f"`sthggep.pl.view` needs {PACKAGE}, which cannot be imported ({error}). Install it: `pip install "
            f"'{PACKAGE}[all]'`. Without it, `sthggep.pl.gene_map` draws figures and `sthggep.pl.report` writes a page."
        )
        raise ImportError(msg) from error
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
    )
    slides = resolve(data, places)
    sdata = _from_anndata(data, slides, key) if isinstance(data, AnnData) else _with_prediction(data, key, table_key)
    viewer = interactive(sdata, headless=True)
    for name, system in _shown(sdata, slides, coordinate_system):
        viewer.add_element(element=name, element_coordinate_system=system, view_element_system=True)
    if not headless:
        viewer.run()
    return viewer


def _with_prediction(sdata: SpatialData, key: str, table_key: str) -> SpatialData:
    """The same elements, and the prediction as a further table."""
    from spatialdata import SpatialData

    from sthggep.tl import to_adata

    tables = {**sdata.tables, key: to_adata(sdata, key, table_key=table_key)}
    kinds = ("images", "labels", "points", "shapes")
    return SpatialData(**{kind: dict(getattr(sdata, kind)) for kind in kinds}, tables=tables)


def _from_anndata(adata: AnnData, slides: list[Slide], key: str) -> SpatialData:
    """Images and spots of the sections, each in a coordinate system of its own, and the prediction as their table."""
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    from sthggep.tl import to_adata

    images, shapes, regions = {}, {}, pd.Series(index=adata.obs_names, dtype=object)
    for slide in slides:
        name = element_name(slide.name)
        images[f"{name}_image"] = _image(slide.levels[0], name)
        shapes[name] = ShapesModel.parse(
            slide.xy,
            geometry=0,
            radius=spot_diameter(slide) / 2,
            index=pd.Index(slide.rows),
            transformations={name: Identity()},
        )
        regions.iloc[slide.rows] = name
    table = to_adata(adata, key)
    table.obs[REGION] = regions[table.obs_names].to_numpy()
    table.obs[SPOT] = adata.obs_names.get_indexer(table.obs_names)
    table = table[table.obs[REGION].notna()].copy()
    table.obs[REGION] = pd.Categorical(table.obs[REGION])
    table.uns.pop("spatial", None)  # the images are elements
    table = TableModel.parse(table, region=list(table.obs[REGION].cat.categories), region_key=REGION, instance_key=SPOT)
    return SpatialData(images=images, shapes=shapes, tables={key: table})


def element_name(name: str) -> str:
    """A name that SpatialData accepts: letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("_") or "section"


def _image(level: Level, system: str) -> Any:
    """The finest resolution of an image, in full-resolution pixels; lower ones are computed where it is large."""
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    array = level.array
    if level.axes == "yx":
        array = array[None]
    elif level.axes == "yxc":
        array = array.transpose(2, 0, 1)
    colors = {"c_coords": ("r", "g", "b")} if len(array) >= 3 else {}
    return Image2DModel.parse(
        array[:3],
        dims=("c", "y", "x"),
        scale_factors=[2, 2, 2] if max(level.shape) > PYRAMID_PX else None,
        transformations={system: Scale([1 / level.scale[0], 1 / level.scale[1]], axes=("x", "y"))},
        **colors,
    )


def _shown(sdata: SpatialData, slides: list[Slide], system: str | None) -> list[tuple[str, str]]:
    """Elements that are open at the start, with a coordinate system: the image of the first section and its spots."""
    from spatialdata.transformations import get_transformation

    slide = slides[0]
    name = slide.name if slide.name in sdata.shapes or slide.name in sdata.labels else element_name(slide.name)
    image = slide.image if slide.image is not None and slide.image in sdata.images else f"{name}_image"
    systems = [list(get_transformation(sdata[element], get_all=True)) for element in (image, name)]
    shared = system or next(each for each in systems[0] if each in systems[1])
    return [(image, shared), (name, shared)]
