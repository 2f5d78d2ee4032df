"""Sections, spots and images as an AnnData keeps them, in ``uns["spatial"]`` (for SpatialData see `_spatialdata`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import counted, has_key, listing, no_slide, unique_names
from sthggep._log import ONCE, log
from sthggep._slides._libraries import explain_no_library, read_libraries
from sthggep._slides._library_images import NO_IMAGE_ADVICE, Library, library_levels, source_mpp
from sthggep._slides._metadata import first_mpp, length_or_none
from sthggep._slides._places import TABLE, Places
from sthggep._slides._values import id_texts, read_column

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthggep._image._level import Level


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
    mpp_fault: str = ""  # why the microns per pixel in the metadata are of no use


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
    library = Library.of(libraries, name)
    levels = library_levels(libraries, name, image_key) if need_image else ()
    metadata, scale_factors = library.metadata, library.scale_factors
    mpp, fault = first_mpp(
        {
            f"{library.place}['metadata']['mpp']": metadata.get("mpp"),
            f"{library.place}['scalefactors']['microns_per_pixel']": scale_factors.get("microns_per_pixel"),
        }
    )
    return SectionData(
        name,
        adata,
        rows,
        xy,
        levels,
        mpp,
        length_or_none(metadata.get("pitch_um"), f"{library.place}['metadata']['pitch_um']"),
        length_or_none(
            scale_factors.get("spot_diameter_fullres"), f"{library.place}['scalefactors']['spot_diameter_fullres']"
        ),
        stated_mpp=source_mpp(library, levels) if need_image and mpp is None else None,
        mpp_fault=fault,
    )


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


def copy_data(data: AnnData | SpatialData) -> AnnData | SpatialData:
    """Return a deep copy of ``data``."""
    if not hasattr(data, "tables"):
        if data.isbacked:
            msg = "`copy=True` copies an AnnData in memory, found one in a file (`backed=`). Load it first: `data = data.to_memory()`."
            raise ValueError(msg)
        return data.copy()
    from spatialdata import deepcopy

    return deepcopy(data)
