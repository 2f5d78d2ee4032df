"""Sections, spots and images as an AnnData keeps them, in ``uns["spatial"]`` (for SpatialData see `_spatialdata`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import counted, has_key, listing, no_slide, positive, unique_names
from sthggep._image._level import Level, open_levels, read_mpp
from sthggep._log import ONCE, log
from sthggep._slides._places import TABLE, Places

if TYPE_CHECKING:
    from spatialdata import SpatialData

IN_TISSUE = "in_tissue"
NO_IMAGE = (
    "Pass the SpatialData that holds the image, or an AnnData with `uns['spatial'][section]['images']` "
    "(`sthggep.io.read_st` and `scanpy` / `squidpy` readers write it; `anndata.concat` keeps it with "
    "`uns_merge='unique'`), or with the path of its file in `['metadata']['source_image_path']` there."
)


@dataclass(frozen=True)
class Found:
    """What a container says of one section; ``mpp`` and ``pitch_um`` are ``None`` where it does not say."""

    name: str
    adata: AnnData
    rows: NDArray[np.intp]
    xy: NDArray[np.float64]
    levels: tuple[Level, ...]
    mpp: float | None
    pitch_um: float | None
    spot_diameter: float | None
    image: str | None = None  # name of the image of a SpatialData
    stated_mpp: float | None = None  # by the image file itself: less to be trusted than the spots


def is_spatialdata(data: object) -> bool:
    """Whether ``data`` is a SpatialData (or made from one), asked without importing it."""
    return any(base.__name__ == "SpatialData" for base in type(data).__mro__)


def table_of(data: AnnData | SpatialData, table_key: str = TABLE) -> AnnData:
    """The AnnData that results are written to: the object itself, or a SpatialData's table, of one its only one."""
    if isinstance(data, AnnData):
        return data
    if not is_spatialdata(data):
        raise no_slide(data)
    if table_key == TABLE and table_key not in data.tables and len(data.tables) == 1:
        # Nothing else can be meant: Visium HD names its tables by their bins
        (table_key,) = data.tables
        log.info("The table %r is used, the only one.", table_key, extra=ONCE)
    advice = "Pass `table_key=`."
    if not data.tables:
        advice = "A slide without spots gets some over its tissue by `sthggep.pp.tissue_grid(data)`."
    table: AnnData = has_key(data.tables, table_key, "the tables of the SpatialData", advice)
    return table


def under_tissue(found: Found) -> NDArray[np.bool_]:
    """Which spots are not said to be off the tissue, as Space Ranger does in ``obs["in_tissue"]``."""
    if IN_TISSUE not in found.adata.obs or not len(found.rows):
        return np.ones(len(found.rows), dtype=bool)
    column = found.adata.obs[IN_TISSUE].iloc[found.rows]
    under = np.asarray(pd.to_numeric(column.astype(object), errors="coerce") != 0, dtype=bool)
    if not under.any():
        msg = (
            f"Section {found.name!r}: all {len(under)} spots are off the tissue, obs[{IN_TISSUE!r}] is 0. "
            "Correct that column, or drop it to use them all."
        )
        raise ValueError(msg)
    if not under.all():
        text = "Section %s: %d of %d spots are off the tissue (obs['in_tissue'] is 0) and are left out."
        log.info(text, found.name, int((~under).sum()), len(under), extra=ONCE)
    return under


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any, what: str) -> float | None:
    """A positive number, or ``None`` where there is none."""
    return None if value is None else positive(float(value), what)


def from_anndata(adata: AnnData, places: Places, *, need_image: bool) -> list[Found]:
    """Sections of an AnnData: its images stand in ``uns["spatial"]``, or in a file named there."""
    unique_names(adata)
    hint = "Pass `spatial_key=`: the (x, y) of each spot in full-resolution pixels."
    xy = np.asarray(has_key(adata.obsm, places.spatial_key, "obsm", hint), dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] < 2:
        msg = f"obsm[{places.spatial_key!r}] must hold the (x, y) of each spot, found an array of shape {xy.shape}. {hint}"
        raise ValueError(msg)
    libraries = mapping(adata.uns.get("spatial"))
    return [
        _library(adata, libraries, name, rows, xy[rows, :2], image_key=places.image_key, need_image=need_image)
        for name, rows in _sections(adata, libraries, places.library_key)
    ]


def anndata_image(adata: AnnData, places: Places) -> Found:
    """The image of an AnnData without spots."""
    libraries = mapping(adata.uns.get("spatial"))
    if len(libraries) > 1:
        msg = f"The AnnData holds several images: {listing(libraries)}. Pass one of them in `uns['spatial']`."
        raise ValueError(msg)
    name = str(next(iter(libraries), "section"))
    nothing = np.zeros(0, dtype=np.intp), np.zeros((0, 2))
    return _library(adata, libraries, name, *nothing, image_key=places.image_key, need_image=True)


def _library(
    adata: AnnData,
    libraries: Mapping[str, Any],
    name: str,
    rows: NDArray[np.intp],
    xy: NDArray[np.float64],
    *,
    image_key: str | None,
    need_image: bool,
) -> Found:
    """What ``uns["spatial"][name]`` says of a section."""
    library = mapping(libraries.get(name))
    levels = _library_levels(libraries, name, image_key) if need_image else ()
    scale_factors, metadata = mapping(library.get("scalefactors")), mapping(library.get("metadata"))
    known = metadata.get("mpp") if metadata.get("mpp") is not None else scale_factors.get("microns_per_pixel")
    mpp = number(known, f"Section {name!r}: mpp in the metadata")
    pitch = number(metadata.get("pitch_um"), f"Section {name!r}: pitch_um in the metadata")
    diameter = scale_factors.get("spot_diameter_fullres")
    diameter = None if diameter is None else float(diameter)
    path = Path(str(metadata.get("source_image_path") or ""))
    stated = read_mpp(path) if need_image and mpp is None and path.is_file() else None
    return Found(name, adata, rows, xy, levels, mpp, pitch, diameter, stated_mpp=stated)


def _sections(
    adata: AnnData, libraries: Mapping[str, Any], library_key: str | None
) -> list[tuple[str, NDArray[np.intp]]]:
    """Rows of each section."""
    if adata.n_obs == 0:
        msg = "The AnnData holds no spots (n_obs is 0); at least one was expected."
        raise ValueError(msg)
    if library_key is not None:
        column = has_key(adata.obs, library_key, "obs", "Pass the column that names each spot's section.")
        if column.isna().any():
            missing = int(column.isna().sum())
            msg = (
                f"{counted(missing, 'spot')} without a section: obs[{library_key!r}] is missing there. Drop them first."
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


def _library_levels(libraries: Mapping[str, Any], name: str, image_key: str | None) -> tuple[Level, ...]:
    """Images of ``uns['spatial'][name]``, finest first: the full resolution before hires, never lowres unasked."""
    library = mapping(libraries.get(name))
    images, scale_factors = mapping(library.get("images")), mapping(library.get("scalefactors"))
    path = mapping(library.get("metadata")).get("source_image_path") or None
    if image_key is not None:
        has_key(images, image_key, f"uns['spatial'][{name!r}]['images']", "Pass another `image_key=`.")
    chosen = [key for key in images if key == image_key] if image_key else [key for key in images if key != "lowres"]
    levels = [_image_level(images[key], _scale_factor(scale_factors, key, name)) for key in chosen]
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
    there = f"only {listing(images)}; pass `image_key=` to use it" if images else "none"
    if name not in libraries and libraries:
        there = f"none; uns['spatial'] holds the sections {listing(libraries)}"
    msg = f"Section {name!r} has no image: uns['spatial'][{name!r}]['images'] was expected, found {there}. {NO_IMAGE}"
    raise KeyError(msg)


def _image_level(image: Any, factor: float) -> Level:
    return Level(image, scale=(factor, factor), axes="yx" if np.ndim(image) == 2 else "yxc")


def _scale_factor(scale_factors: Mapping[str, Any], key: str, name: str) -> float:
    """The exact scale factor: a guess of 1 would cut patches from the wrong place."""
    wanted = f"tissue_{key}_scalef"
    if wanted not in scale_factors:
        msg = (
            f"Section {name!r}: image {key!r} has no scale factor. "
            f"uns['spatial'][{name!r}]['scalefactors'][{wanted!r}] was expected, found {listing(scale_factors)}. "
            "Set it to (image pixels) / (full-resolution pixels of obsm['spatial'])."
        )
        raise KeyError(msg)
    return positive(float(scale_factors[wanted]), f"Section {name!r}: {wanted}")


def _source_levels(path: Any, coarser: list[Level], name: str) -> list[Level]:
    """The image file beside the data, if it is there and is the one that the smaller images were made from."""
    if path is None or not Path(str(path)).is_file():
        if path is not None and coarser:
            log.info("Section %s: the image file %s is not there; the smaller image is used.", name, path, extra=ONCE)
        return []
    levels = open_levels(Path(str(path)))
    if coarser:
        hires = coarser[0]
        expected = np.array(hires.shape) / hires.scale[::-1]
        if np.abs(expected / levels[0].shape - 1).max() > 0.02:
            log.warning(
                "Section %s: %s has another size than its hires image says; it is not used.", name, path, extra=ONCE
            )
            return []
    return levels


def copied(data: AnnData | SpatialData) -> AnnData | SpatialData:
    """A copy that can be changed without touching ``data``."""
    if not hasattr(data, "tables"):
        return data.copy()
    from spatialdata import deepcopy

    return deepcopy(data)
