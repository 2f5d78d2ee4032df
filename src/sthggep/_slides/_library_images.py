"""The images of a section in ``uns["spatial"]``: arrays, pictures of other libraries, or paths of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sthggep._checks import has_key, listing, warn_user
from sthggep._image._arrays import is_pixel_array
from sthggep._image._channels import color_channels
from sthggep._image._level import Level, open_levels, read_mpp
from sthggep._image._plain import as_array
from sthggep._log import ONCE, log
from sthggep._slides._metadata import as_length, is_text
from sthggep._slides._pictures import (
    STAINS,
    check_alpha,
    check_one_image,
    color_difference,
    kind_of,
    likely_keys,
    size_difference,
)
from sthggep._slides._values import as_mapping, as_text

if TYPE_CHECKING:
    from PIL import Image
    from xarray import DataArray

    from sthggep._image._arrays import PixelArray

# Images whose name says that they have the full resolution; CELLxGENE and stLearn store no factor for them
FULL_RESOLUTION = ("fullres", "fulres")
NO_IMAGE_ADVICE = (
    "Pass the SpatialData that holds the image, or an AnnData with `uns['spatial'][section]['images']` "
    "(`sthggep.io.read_st` and `scanpy` / `squidpy` readers write it; `anndata.concat` keeps it with "
    "`uns_merge='unique'`), or with the path of its file in `['metadata']['source_image_path']` there."
)


@dataclass(frozen=True)
class Library:
    """One entry of ``uns["spatial"]``."""

    name: str
    images: Mapping[str, object]
    scale_factors: Mapping[str, object]
    metadata: Mapping[str, object]

    @classmethod
    def of(cls, libraries: Mapping[str, object], name: str) -> Library:
        """Read the entry of a section; parts that are missing are empty."""
        library = as_mapping(libraries.get(name))
        return cls(name, *(as_mapping(library.get(part)) for part in ("images", "scalefactors", "metadata")))

    @property
    def place(self) -> str:
        """Where the entry stands, for messages."""
        return f"Section {self.name!r}: uns['spatial'][{self.name!r}]"

    @property
    def source(self) -> Path | None:
        """Path of the image file that the metadata name, whether or not it exists."""
        path = as_text(self.metadata.get("source_image_path"))
        return Path(path) if path else None

    def scale_factor(self, key: str) -> float:
        """Scale factor of an image; required, since a guess of 1 would cut patches from the wrong place."""
        name_of_factor = f"tissue_{key}_scalef"
        if name_of_factor not in self.scale_factors and key in FULL_RESOLUTION:
            return 1.0
        if name_of_factor not in self.scale_factors:
            msg = (
                f"Section {self.name!r}: image {key!r} has no scale factor. "
                f"uns['spatial'][{self.name!r}]['scalefactors'][{name_of_factor!r}] was expected, found "
                f"{listing(self.scale_factors)}. Set it to (image pixels) / (full-resolution pixels of obsm['spatial']), or "
                "pass `image_key=` to use another image."
            )
            raise KeyError(msg)
        return as_length(self.scale_factors[name_of_factor], f"Section {self.name!r}: {name_of_factor}")


def library_levels(libraries: Mapping[str, object], name: str, image_key: str | None) -> tuple[Level, ...]:
    """Images of ``uns['spatial'][name]``, finest first; lowres only if ``image_key`` names it."""
    library = Library.of(libraries, name)
    levels = _chosen(library, image_key) if image_key is not None else _resolutions(library)
    if levels:
        return tuple(levels)
    if library.source is not None:
        msg = (
            f"Section {name!r}: the image at {str(library.source)!r} (`source_image_path`) does not exist, "
            "and `images` holds no other."
        )
        raise FileNotFoundError(msg)
    stored = f"only {listing(library.images)}; pass `image_key=` to use it" if library.images else "none"
    if name not in libraries and libraries:
        stored = f"none; uns['spatial'] holds the sections {listing(libraries)}"
    msg = f"Section {name!r} has no image: uns['spatial'][{name!r}]['images'] was expected, found {stored}. {NO_IMAGE_ADVICE}"
    raise KeyError(msg)


def source_mpp(library: Library, levels: tuple[Level, ...]) -> float | None:
    """Microns per pixel that the image file states, if it holds the image of the section."""
    path = library.source
    stated = read_mpp(path) if path is not None and path.is_file() else None
    if path is None or stated is None or not levels or any(level.source == path for level in levels):
        return stated
    fits = levels[0].scale == (1.0, 1.0) and not size_difference(open_levels(path)[0], levels[0])
    return stated if fits else None


def _chosen(library: Library, key: str) -> list[Level]:
    image = has_key(library.images, key, f"uns['spatial'][{library.name!r}]['images']", "Pass another `image_key=`.")
    return _levels_of(library, key, _pixels_of(image, f"{library.place}['images'][{key!r}]"))


def _resolutions(library: Library) -> list[Level]:
    """Resolutions of the H&E image, and the file behind them if none has full resolution."""
    pixels = {
        key: _pixels_of(image, f"{library.place}['images'][{key!r}]")
        for key, image in library.images.items()
        if key != "lowres"
    }
    kinds = {key: _kind(each) for key, each in pixels.items()}
    keys = likely_keys(kinds, f"Section {library.name!r}")
    if pixels and not keys and library.source is None:
        keys = _of_stains(kinds, library.place)
    by_key = {key: _levels_of(library, key, pixels[key]) for key in keys}
    if len(by_key) > 1:
        check_one_image({key: levels[0] for key, levels in by_key.items()}, f"Section {library.name!r}")
    levels = sorted((level for each in by_key.values() for level in each), key=lambda level: -level.scale[0])
    if not levels or levels[0].scale[0] < 1.0:
        levels = sorted(source_levels(library.source, levels, library.name) + levels, key=lambda level: -level.scale[0])
    return levels


def _of_stains(kinds: Mapping[str, str], where: str) -> list[str]:
    """Return images whose error will say how many channels they have; reject masks alone."""
    stains = [key for key, kind in kinds.items() if kind == STAINS]
    if not stains:
        msg = (
            f"{where}['images'] holds no H&E image, but what looks like masks: {listing(kinds)}. Add the image, or pass "
            "`image_key=` if one of them is the H&E."
        )
        raise ValueError(msg)
    return stains


Pixels = Path | tuple["PixelArray", str]
"""Path of an image file, or an array with its axes."""


def _pixels_of(image: object, where: str) -> Pixels:
    """Return the array of an image and its axes, or the path of its file; a TypeError says what is expected."""
    if isinstance(image, Path) or is_text(image):
        return image if isinstance(image, Path) else Path(str(np.asarray(image).item()))
    if hasattr(image, "getbands") and hasattr(image, "convert"):
        return as_array(cast("Image.Image", image)), "yxc"
    if isinstance(image, sparse.sparray | sparse.spmatrix):  # a mask
        return np.asarray(image.toarray() != 0), "yx"
    if hasattr(image, "dims") and hasattr(image, "isel") and hasattr(image, "data"):
        return _of_xarray(cast("DataArray", image), where)
    if not (is_pixel_array(image) and isinstance(image.dtype, np.dtype)):
        image = _as_numpy(image)
    if image.dtype.kind not in "uifb" or len(image.shape) < 2:
        msg = (
            f"{where} is a {type(image).__name__} of {image.dtype} values and shape {tuple(image.shape)}, expected an array "
            "of pixels (y, x, channel), an image of Pillow, a DataArray of xarray, or the path of an image file."
        )
        raise TypeError(msg)
    return image, "yx" if len(image.shape) == 2 else "yxc"


def _as_numpy(image: object) -> NDArray[np.generic]:
    try:
        return np.asarray(image)
    except (TypeError, ValueError, RuntimeError):  # lists of unequal length, data sets of xarray, tensors on a GPU
        return np.asarray(None)


def _of_xarray(image: DataArray, where: str) -> Pixels:
    """Array of a DataArray with axes by its dimensions, colors by their names."""
    names = {"y": "y", "x": "x", "c": "c", "channel": "c", "channels": "c", "band": "c", "s": "c", "rgb": "c"}
    array = image.squeeze([dim for dim in image.dims if dim not in names and image.sizes[dim] == 1])
    axes = "".join(names.get(str(dim).lower(), "?") for dim in array.dims)
    if all(str(dim).startswith("dim_") for dim in array.dims):
        axes = "yxc"[: array.ndim]
    if sorted(axes) not in (["x", "y"], ["c", "x", "y"]):
        msg = f"{where} is a {type(image).__name__} with dimensions {tuple(array.dims)}, expected y, x and c."
        raise TypeError(msg)
    if "c" in axes:
        channel = array.dims[axes.index("c")]
        labels = list(array.coords[channel].values) if channel in array.coords else [""] * array.sizes[channel]
        order = color_channels(labels)
        array = array if order is None else array.isel({channel: order})
    order_of_axes = [array.dims[axes.index(axis)] for axis in "yxc" if axis in axes]
    return array.transpose(*order_of_axes).data, "yxc"[: len(order_of_axes)]


def _kind(pixels: Pixels) -> str:
    if isinstance(pixels, Path):
        return "color"
    array, axes = pixels
    return kind_of(array.shape, np.dtype(array.dtype), 1 if axes == "yx" else int(array.shape[-1]))


def _levels_of(library: Library, key: str, pixels: Pixels) -> list[Level]:
    factor = library.scale_factor(key)
    if isinstance(pixels, Path):
        levels = open_levels(pixels)
        for level in levels:
            level.scale = (level.scale[0] * factor, level.scale[1] * factor)
            level.section = library.name
        return levels
    array, axes = pixels
    level = Level(array, scale=(factor, factor), axes=axes)
    level.section = library.name
    check_alpha(level, f"{library.place}['images'][{key!r}]")
    return [level]


def source_levels(path: Path | None, coarser: list[Level], name: str) -> list[Level]:
    """Open the image file that the metadata name, if it exists and is the image of the smaller ones."""
    if path is None or not path.is_file():
        if path is not None and coarser:
            log.info(
                "Section %s: the image file %s does not exist; sthggep uses the smaller image.", name, path, extra=ONCE
            )
        return []
    levels = open_levels(path)
    for level in levels:
        level.section = name
    fault = size_difference(levels[0], coarser[0]) if coarser else ""
    if fault:
        log.warning(
            "Section %s: the size of %s does not fit its hires image; sthggep does not use the file (%s).",
            name,
            path,
            fault,
            extra=ONCE,
        )
        return []
    # The coarsest resolution of a pyramid is quick to read
    if coarser and (fault := color_difference(levels[-1], coarser[0])):
        msg = (
            f"Section {name!r}: the file {str(path)!r} (`source_image_path`) has the size of the hires image, but {fault}. "
            "sthggep reads the file. If it shows another stain or is turned, pass `image_key='hires'`."
        )
        warn_user(msg)
    return levels
