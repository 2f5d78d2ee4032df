"""Sections, spots and images as an AnnData keeps them, in ``uns["spatial"]`` (for SpatialData see `_spatialdata`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import counted, has_key, listing, no_slide, positive, unique_names
from sthggep._image._arrays import is_pixel_array
from sthggep._image._level import Level, open_levels, read_mpp
from sthggep._log import ONCE, log
from sthggep._slides._libraries import explain_no_library, read_libraries
from sthggep._slides._places import TABLE, Places
from sthggep._slides._values import as_float, as_mapping, as_text, id_texts, positive_or_none, read_column

if TYPE_CHECKING:
    from spatialdata import SpatialData

# Images whose name says that they have the full resolution; CELLxGENE and stLearn store no factor for them
FULL_RESOLUTION = ("fullres", "fulres")
NO_IMAGE_ADVICE = (
    "Pass the SpatialData that holds the image, or an AnnData with `uns['spatial'][section]['images']` "
    "(`sthggep.io.read_st` and `scanpy` / `squidpy` readers write it; `anndata.concat` keeps it with "
    "`uns_merge='unique'`), or with the path of its file in `['metadata']['source_image_path']` there."
)


@dataclass(frozen=True)
class SectionData:
    """One section as its container holds it; ``mpp`` and ``pitch_um`` are ``None`` if the metadata lack them."""

    name: str
    adata: AnnData
    rows: NDArray[np.intp]
    xy: NDArray[np.float64]
    levels: tuple[Level, ...]
    mpp: float | None
    pitch_um: float | None
    spot_diameter: float | None
    image: str | None = None  # name of the image of a SpatialData
    stated_mpp: float | None = None  # in the metadata of the image file, which are less reliable than the spots


def is_spatialdata(data: object) -> bool:
    """Whether ``data`` is a SpatialData or of a class derived from it, without an import of spatialdata."""
    return any(base.__name__ == "SpatialData" for base in type(data).__mro__)


def refuse_lazy(adata: AnnData) -> None:
    """Refuse an AnnData whose ``obs`` is still on disk, as `anndata.experimental.read_lazy` opens it."""
    if not isinstance(adata.obs, pd.DataFrame):
        msg = (
            f"An AnnData in memory was expected, but its obs is a {type(adata.obs).__name__}, as `read_lazy` opens it. "
            "Pass `adata.to_memory()`."
        )
        raise TypeError(msg)


def table_of(data: AnnData | SpatialData, table_key: str = TABLE) -> AnnData:
    """Return the AnnData for results: the object itself, or the table of a SpatialData (of a single table, that one)."""
    if isinstance(data, AnnData):
        refuse_lazy(data)
        return data
    if not is_spatialdata(data):
        raise no_slide(data)
    if table_key == TABLE and table_key not in data.tables and len(data.tables) == 1:
        # Visium HD names its tables by their bins; a single one is unambiguous
        (table_key,) = data.tables
        log.info("The SpatialData holds one table, %r; sthggep uses it.", table_key, extra=ONCE)
    advice = "Pass `table_key=`."
    if not data.tables:
        advice = "To lay spots over the tissue of a slide without any, call `sthggep.pp.tissue_grid(data)`."
    table: AnnData = has_key(data.tables, table_key, "the tables of the SpatialData", advice)
    refuse_lazy(table)
    return table


def from_anndata(adata: AnnData, places: Places, *, need_image: bool) -> list[SectionData]:
    """Read the sections of an AnnData, with images from ``uns["spatial"]`` or from the file that it names."""
    refuse_lazy(adata)
    unique_names(adata)
    xy = read_coordinates(adata, places.spatial_key)
    libraries = read_libraries(adata)
    if need_image:
        _refuse_no_library(adata)
    return [
        _read_library(adata, libraries, name, rows, xy[rows], image_key=places.image_key, need_image=need_image)
        for name, rows in _section_rows(adata, libraries, places.library_key)
    ]


def read_coordinates(adata: AnnData, spatial_key: str) -> NDArray[np.float64]:
    """Read the (x, y) of each spot, shape (n_obs, 2): the columns ``x`` and ``y`` of a table, else the first two."""
    hint = "Pass `spatial_key=`: the (x, y) of each spot in full-resolution pixels."
    values = has_key(adata.obsm, spatial_key, "obsm", hint)
    if isinstance(values, pd.DataFrame) and {"x", "y"} <= set(values.columns):
        values = values[["x", "y"]]
    values = values.toarray() if hasattr(values, "toarray") else values
    try:
        xy = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"obsm[{spatial_key!r}] must hold numbers, the (x, y) of each spot, found other values: {error}. {hint}"
        raise ValueError(msg) from error
    if xy.ndim != 2 or xy.shape[1] < 2:
        msg = f"obsm[{spatial_key!r}] must hold the (x, y) of each spot, found an array of shape {xy.shape}. {hint}"
        raise ValueError(msg)
    return xy[:, :2]


def _refuse_no_library(adata: AnnData) -> None:
    """Refuse ``uns["spatial"]`` in a form that holds no section."""
    if reason := explain_no_library(adata):
        msg = f"The AnnData has no image: {reason} {NO_IMAGE_ADVICE}"
        raise KeyError(msg)


def anndata_image(adata: AnnData, places: Places) -> SectionData:
    """Read the image of an AnnData without spots."""
    refuse_lazy(adata)
    libraries = read_libraries(adata)
    _refuse_no_library(adata)
    if len(libraries) > 1:
        msg = f"The AnnData holds several images: {listing(libraries)}. Pass one of them in `uns['spatial']`."
        raise ValueError(msg)
    name = str(next(iter(libraries), "section"))
    no_spots = np.zeros(0, dtype=np.intp), np.zeros((0, 2))
    return _read_library(adata, libraries, name, *no_spots, image_key=places.image_key, need_image=True)


def _read_library(
    adata: AnnData,
    libraries: Mapping[str, object],
    name: str,
    rows: NDArray[np.intp],
    xy: NDArray[np.float64],
    *,
    image_key: str | None,
    need_image: bool,
) -> SectionData:
    """Read image, scale and pitch of a section from ``uns["spatial"][name]``."""
    library = as_mapping(libraries.get(name))
    levels = _library_levels(libraries, name, image_key) if need_image else ()
    scale_factors, metadata = as_mapping(library.get("scalefactors")), as_mapping(library.get("metadata"))
    mpp_value = metadata.get("mpp") if metadata.get("mpp") is not None else scale_factors.get("microns_per_pixel")
    mpp = positive_or_none(mpp_value, f"Section {name!r}: mpp in the metadata")
    pitch = positive_or_none(metadata.get("pitch_um"), f"Section {name!r}: pitch_um in the metadata")
    diameter = scale_factors.get("spot_diameter_fullres")
    diameter = None if diameter is None else as_float(diameter, f"Section {name!r}: spot_diameter_fullres")
    path = Path(as_text(metadata.get("source_image_path")))
    stated = read_mpp(path) if need_image and mpp is None and path.is_file() else None
    return SectionData(name, adata, rows, xy, levels, mpp, pitch, diameter, stated_mpp=stated)


def _section_rows(
    adata: AnnData, libraries: Mapping[str, object], library_key: str | None
) -> list[tuple[str, NDArray[np.intp]]]:
    """Names of the sections and their rows."""
    if adata.n_obs == 0:
        msg = "The AnnData holds no spots (n_obs is 0); at least one was expected."
        raise ValueError(msg)
    if library_key is not None:
        column = read_column(adata.obs, library_key, "Pass the column that names each spot's section.")
        if column.isna().any():
            missing = int(column.isna().sum())
            msg = (
                f"Expected a section for each spot, but obs[{library_key!r}] is missing for {counted(missing, 'spot')}. "
                "Drop them first."
            )
            raise ValueError(msg)
        labels = np.array(id_texts(column), dtype=object)
        return [(str(name), np.flatnonzero(labels == name)) for name in dict.fromkeys(labels)]
    if len(libraries) > 1:
        msg = (
            f"The AnnData holds several sections: {listing(libraries)}. "
            "Pass `library_key=`: the column of obs whose values are those names."
        )
        raise ValueError(msg)
    return [(str(next(iter(libraries), "section")), np.arange(adata.n_obs))]


def _library_levels(libraries: Mapping[str, object], name: str, image_key: str | None) -> tuple[Level, ...]:
    """Images of ``uns['spatial'][name]``, finest first; lowres only if ``image_key`` names it."""
    library = as_mapping(libraries.get(name))
    images, scale_factors = as_mapping(library.get("images")), as_mapping(library.get("scalefactors"))
    path = as_text(as_mapping(library.get("metadata")).get("source_image_path")) or None
    if image_key is not None:
        has_key(images, image_key, f"uns['spatial'][{name!r}]['images']", "Pass another `image_key=`.")
    keys = [key for key in images if key == image_key] if image_key else [key for key in images if key != "lowres"]
    levels = [_image_level(images[key], _scale_factor(scale_factors, key, name)) for key in keys]
    levels.sort(key=lambda level: -level.scale[0])
    if image_key is None and (not levels or levels[0].scale[0] < 1.0):
        levels = sorted(_source_levels(path, levels, name) + levels, key=lambda level: -level.scale[0])
    if levels:
        return tuple(levels)
    if path is not None:
        msg = (
            f"Section {name!r}: the image at {str(path)!r} (`source_image_path`) does not exist, "
            "and `images` holds no other."
        )
        raise FileNotFoundError(msg)
    stored = f"only {listing(images)}; pass `image_key=` to use it" if images else "none"
    if name not in libraries and libraries:
        stored = f"none; uns['spatial'] holds the sections {listing(libraries)}"
    msg = f"Section {name!r} has no image: uns['spatial'][{name!r}]['images'] was expected, found {stored}. {NO_IMAGE_ADVICE}"
    raise KeyError(msg)


def _image_level(image: object, factor: float) -> Level:
    pixels = image if is_pixel_array(image) else np.asarray(image)
    return Level(pixels, scale=(factor, factor), axes="yx" if len(pixels.shape) == 2 else "yxc")


def _scale_factor(scale_factors: Mapping[str, object], key: str, name: str) -> float:
    """Scale factor of an image; required, since a guess of 1 would cut patches from the wrong place."""
    name_of_factor = f"tissue_{key}_scalef"
    if name_of_factor not in scale_factors and key in FULL_RESOLUTION:
        return 1.0
    if name_of_factor not in scale_factors:
        msg = (
            f"Section {name!r}: image {key!r} has no scale factor. "
            f"uns['spatial'][{name!r}]['scalefactors'][{name_of_factor!r}] was expected, found {listing(scale_factors)}. "
            "Set it to (image pixels) / (full-resolution pixels of obsm['spatial'])."
        )
        raise KeyError(msg)
    what = f"Section {name!r}: {name_of_factor}"
    return positive(as_float(scale_factors[name_of_factor], what), what)


def _source_levels(path: object, coarser: list[Level], name: str) -> list[Level]:
    """Open the image file that the metadata name, if it exists and has the shape of the smaller images."""
    if path is None or not Path(str(path)).is_file():
        if path is not None and coarser:
            log.info(
                "Section %s: the image file %s does not exist; sthggep uses the smaller image.", name, path, extra=ONCE
            )
        return []
    levels = open_levels(Path(str(path)))
    if coarser:
        hires = coarser[0]
        expected = np.array(hires.shape) / hires.scale[::-1]
        if np.abs(expected / levels[0].shape - 1).max() > 0.02:
            log.warning(
                "Section %s: the size of %s does not fit its hires image; sthggep does not use the file.",
                name,
                path,
                extra=ONCE,
            )
            return []
    return levels


def copy_data(data: AnnData | SpatialData) -> AnnData | SpatialData:
    """Return a deep copy of ``data``."""
    if not hasattr(data, "tables"):
        if data.isbacked:
            msg = "`copy=True` copies an AnnData in memory, found one in a file (`backed=`). Load it first: `data = data.to_memory()`."
            raise ValueError(msg)
        return data.copy()
    from spatialdata import deepcopy

    return deepcopy(data)
