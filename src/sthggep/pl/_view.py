"""A slide and its prediction in napari."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from anndata import AnnData

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._slides._elements import first_elements, sections_as_spatialdata, with_table
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep.pl._tissue import spot_diameter

if TYPE_CHECKING:
    from spatialdata import SpatialData

PACKAGE = "napari-spatialdata"


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
    from sthggep.tl import to_adata

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
    table = to_adata(data, key, table_key=table_key, spatial_key=spatial_key)
    if isinstance(data, AnnData):
        sdata = sections_as_spatialdata(slides, [spot_diameter(slide) for slide in slides], table, key)
    else:
        sdata = with_table(data, table, key)
    viewer = interactive(sdata, headless=True)
    for name, system in first_elements(sdata, slides[0], coordinate_system):
        viewer.add_element(element=name, element_coordinate_system=system, view_element_system=True)
    if not headless:
        viewer.run()
    return viewer
