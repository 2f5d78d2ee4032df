"""Parts of docstrings that several public functions share, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from textwrap import indent
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

PLACES = {
    "image_key": "Name of the image. Default: the only H&E image; needed where several could be meant.",
    "table_key": "Table of a SpatialData.",
    "shapes_key": "Region of a SpatialData's table. Default: all regions that the table annotates.",
    "spatial_key": "Key in ``obsm`` of an AnnData: (x, y) of each spot in full-resolution pixels.",
    "coordinate_system": "Coordinate system of a SpatialData. Default: one that spots and image share.",
    "library_key": (
        'Column of ``obs`` that names the section of each spot; its values are the keys of ``uns["spatial"]``.\n'
        "Default: the AnnData holds one section."
    ),
    "mpp": (
        "Microns per full-resolution pixel (of a SpatialData: per pixel of the image).\n"
        "Default: what the metadata state, else computed from the distance between spots."
    ),
}


def document_places(function: F) -> F:
    """Replace the line ``{places}`` of a docstring by entries for the parameters that say where things are.

    Parameters
    ----------
    function
        A public function. Only the parameters that it takes are described.

    Returns
    -------
    The same function.
    """
    if function.__doc__:
        taken = [name for name in inspect.signature(function).parameters if name in PLACES]
        entries = "\n".join(f"{name}\n{indent(PLACES[name], '    ')}" for name in taken)
        line = next(line for line in function.__doc__.splitlines() if line.strip() == "{places}")
        margin = line[: line.index("{")]
        function.__doc__ = function.__doc__.replace(line, indent(entries, margin))
    return function
