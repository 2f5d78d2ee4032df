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
from sthggep._slides._places import TABLE, Places

if TYPE_CHECKING:
    from spatialdata import SpatialData

IN_TISSUE = "in_tissue"
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


def table_of(data: AnnData | SpatialData, table_key: str = TABLE) -> AnnData:
    """Return the AnnData for results: the object itself, or the table of a SpatialData (of a single table, that one)."""
    if isinstance(data, AnnData):
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
    return table


def spots_on_tissue(section: SectionData) -> NDArray[np.bool_]:
    """Which spots lie on tissue by ``obs["in_tissue"]``, Space Ranger's column; all, if there is none."""
    if IN_TISSUE not in section.adata.obs or not len(section.rows):
        return np.ones(len(section.rows), dtype=bool)
    column = section.adata.obs[IN_TISSUE].iloc[section.rows]
    on_tissue = np.asarray(pd.to_numeric(column.astype(object), errors="coerce") != 0, dtype=bool)
    if not on_tissue.any():
        msg = (
            f"Section {section.name!r}: expected spots on tissue, but obs[{IN_TISSUE!r}] is 0 for all {len(on_tissue)}. "
            "Correct that column, or delete it to use all spots."
        )
        raise ValueError(msg)
    if not on_tissue.all():
        text = "Section %s: sthggep leaves out %d of %d spots, which are off the tissue (obs['in_tissue'] is 0)."
        log.info(text, section.name, int((~on_tissue).sum()), len(on_tissue), extra=ONCE)
    return on_tissue


def as_mapping(value: object) -> Mapping[str, object]:
    """Return the value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}


def as_float(value: object) -> float:
    """Return a number, also one that a file keeps as text or as an array of one value."""
    return float(np.asarray(value, dtype=np.float64).item())


def positive_or_none(value: object, what: str) -> float | None:
    """Return a positive number, or ``None`` for ``None``."""
    return None if value is None else positive(as_float(value), what)


def from_anndata(adata: AnnData, places: Places, *, need_image: bool) -> list[SectionData]:
    """Read the sections of an AnnData, with images from ``uns["spatial"]`` or from the file that it names."""
    unique_names(adata)
    hint = "Pass `spatial_key=`: the (x, y) of each spot in full-resolution pixels."
    xy = np.asarray(has_key(adata.obsm, places.spatial_key, "obsm", hint), dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] < 2:
        msg = f"obsm[{places.spatial_key!r}] must hold the (x, y) of each spot, found an array of shape {xy.shape}. {hint}"
        raise ValueError(msg)
    libraries = as_mapping(adata.uns.get("spatial"))
    return [
        _read_library(adata, libraries, name, rows, xy[rows, :2], image_key=places.image_key, need_image=need_image)
        for name, rows in _section_rows(adata, libraries, places.library_key)
    ]


def anndata_image(adata: AnnData, places: Places) -> SectionData:
    """Read the image of an AnnData without spots."""
    libraries = as_mapping(adata.uns.get("spatial"))
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
    diameter = None if diameter is None else as_float(diameter)
    path = Path(str(metadata.get("source_image_path") or ""))
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
        column = has_key(adata.obs, library_key, "obs", "Pass the column that names each spot's section.")
        if column.isna().any():
            missing = int(column.isna().sum())
            msg = (
                f"Expected a section for each spot, but obs[{library_key!r}] is missing for {counted(missing, 'spot')}. "
                "Drop them first."
            )
            raise ValueError(msg)
        labels = column.astype(str).to_numpy()
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
    path = as_mapping(library.get("metadata")).get("source_image_path") or None
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
    if name_of_factor not in scale_factors:
        msg = (
            f"Section {name!r}: image {key!r} has no scale factor. "
            f"uns['spatial'][{name!r}]['scalefactors'][{name_of_factor!r}] was expected, found {listing(scale_factors)}. "
            "Set it to (image pixels) / (full-resolution pixels of obsm['spatial'])."
        )
        raise KeyError(msg)
    return positive(as_float(scale_factors[name_of_factor]), f"Section {name!r}: {name_of_factor}")


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
        return data.copy()
    from spatialdata import deepcopy

    return deepcopy(data)
