"""One section with its spots and its image, whatever object it came in: the only file that knows image containers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import has_key, listing, positive, unique_names
from sthggep._image import Level, open_levels
from sthggep._keys import ARRAY_COLUMNS
from sthggep._lattice import lattice_mpp, lattice_pitch

if TYPE_CHECKING:
    from spatialdata import SpatialData

log = logging.getLogger("sthggep")
VISIUM_PITCH_UM = 100.0
NO_IMAGE = (
    "Pass the SpatialData that holds the image, or an AnnData with `uns['spatial'][section]['images']` "
    "(`sthggep.io.read_st` and `scanpy` / `squidpy` readers write it)."
)


@dataclass(frozen=True)
class Slide:
    """One section: spots in full-resolution pixels, and the image in one or several resolutions."""

    name: str
    adata: AnnData
    rows: NDArray[np.intp]
    xy: NDArray[np.float64]
    levels: tuple[Level, ...] = field(default=(), repr=False)
    mpp: float | None = None
    mpp_source: str = ""
    spot_diameter: float | None = None

    @property
    def n_spots(self) -> int:
        """Number of spots of this section."""
        return len(self.rows)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the image, in full-resolution pixels."""
        level = self.levels[0]
        return level.shape[1] / level.scale[0], level.shape[0] / level.scale[1]

    def array_xy(self) -> NDArray[np.int64] | None:
        """Array positions (column, row) of the spots, shape (n_spots, 2), or ``None`` where there are none."""
        for columns in ARRAY_COLUMNS:
            if all(column in self.adata.obs for column in columns):
                found = self.adata.obs.iloc[self.rows][list(columns)].to_numpy(dtype=np.float64)
                return np.rint(found).astype(np.int64) if np.isfinite(found).all() else None
        return None

    def pitch(self) -> float:
        """Distance between nearest spots in full-resolution pixels: of the fitted array, else the median to the nearest."""
        array_xy = self.array_xy()
        if array_xy is not None and self.n_spots > 2:
            try:
                return lattice_pitch(array_xy, self.xy)
            except ValueError:
                log.info("Section %s: spots do not follow their array positions; the nearest spot tells the pitch.", self.name)
        if self.n_spots < 2:
            return 1.0
        from scipy.spatial import cKDTree

        nearest = cKDTree(self.xy).query(self.xy, k=2)[0][:, 1]
        return float(np.median(nearest[nearest > 0])) if (nearest > 0).any() else 1.0

    def require_mpp(self) -> float:
        """Microns per full-resolution pixel, or an error that says how to give it."""
        if self.mpp is None:
            msg = (
                f"Section {self.name!r}: microns per pixel are not known (no metadata, no array positions with a known "
                "pitch). Pass `mpp=` (microns per full-resolution pixel), or ask for patches in pixels by `size_um=None`."
            )
            raise ValueError(msg)
        return self.mpp

    def thumbnail(self, max_px: int = 1500) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """The whole image, small.

        Returns
        -------
        uint8 array (height, width, 3), and the factors (x, y) from full-resolution pixels to its pixels.
        """
        from PIL import Image

        enough = [level for level in self.levels if max(level.shape) >= max_px]
        level = enough[-1] if enough else self.levels[0]
        height, width = level.shape
        whole = level.read(np.array([[0, 0, width, height]]))[0]
        shrink = min(1.0, max_px / max(height, width))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        small = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BOX, reducing_gap=3.0))
        return small, (level.scale[0] * size[0] / width, level.scale[1] * size[1] / height)


def resolve(
    data: AnnData | SpatialData,
    *,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    need_image: bool = True,
) -> list[Slide]:
    """Find the sections of an AnnData or SpatialData: spots, image, microns per pixel.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError, TypeError
        Something expected is not there, or the spots and the image do not fit; the message says which call comes first.
    """
    if mpp is not None:
        positive(mpp, "`mpp`")
    if isinstance(data, AnnData):
        slides = _from_anndata(data, image_key, spatial_key, library_key, mpp, need_image)
    elif type(data).__name__ in {"SpatialData", "WSIData"}:
        slides = _from_spatialdata(data, image_key, table_key, shapes_key, coordinate_system, mpp, need_image)
    else:
        msg = f"`data` must be an AnnData or a SpatialData, found {type(data).__name__}."
        raise TypeError(msg)
    for slide in slides:
        _check(slide)
    return slides


def resolve_one(data: AnnData | SpatialData, **options: Any) -> Slide:
    """As :func:`resolve`, for data that hold exactly one section."""
    slides = resolve(data, **options)
    if len(slides) != 1:
        msg = f"One section was expected, found {len(slides)}: {listing(s.name for s in slides)}. Pass one section's rows."
        raise ValueError(msg)
    return slides[0]


def table_of(data: AnnData | SpatialData, table_key: str = "table") -> AnnData:
    """The AnnData that results are written to: the object itself, or a SpatialData's table."""
    if isinstance(data, AnnData):
        return data
    table: AnnData = has_key(data.tables, table_key, "the tables of the SpatialData", "Pass `table_key=`.")
    return table


# --- AnnData ------------------------------------------------------------------------------------------------------


def _from_anndata(
    adata: AnnData, image_key: str | None, spatial_key: str, library_key: str | None, mpp: float | None, need_image: bool
) -> list[Slide]:
    unique_names(adata)
    xy = has_key(adata.obsm, spatial_key, "obsm", "Pass `spatial_key=`: the (x, y) of each spot in full-resolution pixels.")
    xy = np.asarray(xy, dtype=np.float64)[:, :2]
    libraries: Mapping[str, Any] = adata.uns.get("spatial", {})
    slides = []
    for name, rows in _sections(adata, libraries, library_key):
        library = libraries.get(name, {})
        levels = _library_levels(library, name, image_key) if need_image else ()
        scale_factors, metadata = library.get("scalefactors", {}), library.get("metadata", {})
        array_xy = Slide(name, adata, rows, xy[rows]).array_xy()
        known = metadata.get("mpp", scale_factors.get("microns_per_pixel"))
        found, source = _find_mpp(mpp, known, metadata.get("pitch_um"), adata, array_xy, xy[rows], name)
        diameter = scale_factors.get("spot_diameter_fullres")
        diameter = None if diameter is None else float(diameter)
        slides.append(Slide(name, adata, rows, xy[rows], levels, found, source, diameter))
    return slides


def _sections(
    adata: AnnData, libraries: Mapping[str, Any], library_key: str | None
) -> list[tuple[str, NDArray[np.intp]]]:
    """Rows of each section."""
    if adata.n_obs == 0:
        msg = "The AnnData holds no spots (n_obs is 0); at least one was expected."
        raise ValueError(msg)
    if library_key is not None:
        labels = has_key(adata.obs, library_key, "obs", "Pass the column that names each spot's section.").astype(str)
        return [(str(name), np.flatnonzero(labels == name)) for name in dict.fromkeys(labels)]
    if len(libraries) > 1:
        msg = (
            f"The AnnData holds several sections: {listing(libraries)}. "
            "Pass `library_key=`: the column of obs whose values are those names."
        )
        raise ValueError(msg)
    return [(str(next(iter(libraries), "section")), np.arange(adata.n_obs))]


def _library_levels(library: Mapping[str, Any], name: str, image_key: str | None) -> tuple[Level, ...]:
    """Images of ``uns['spatial'][name]``, finest first: the full resolution before hires, never lowres unasked."""
    images: Mapping[str, Any] = library.get("images", {})
    scale_factors = library.get("scalefactors", {})
    path = library.get("metadata", {}).get("source_image_path")
    if image_key is not None:
        has_key(images, image_key, f"uns['spatial'][{name!r}]['images']", "Pass another `image_key=`.")
    chosen = [key for key in images if key == image_key] if image_key else [key for key in images if key != "lowres"]
    levels = [_image_level(images[key], _scale_factor(scale_factors, key, name)) for key in chosen]
    levels.sort(key=lambda level: -level.scale[0])
    if image_key is None and (not levels or levels[0].scale[0] < 1.0):
        levels = _source_levels(path, levels, name) + levels
    if levels:
        return tuple(levels)
    if path is not None:
        msg = f"Section {name!r}: the image at {str(path)!r} (`source_image_path`) does not exist, and `images` holds no other."
        raise FileNotFoundError(msg)
    there = f"only {listing(images)}; pass `image_key=` to use it" if images else "none"
    msg = f"Section {name!r} has no image: uns['spatial'][{name!r}]['images'] was expected, found {there}. {NO_IMAGE}"
    raise KeyError(msg)


def _image_level(image: Any, factor: float) -> Level:
    axes = "yx" if image.ndim == 2 else "yxc"
    return Level(image, scale=(factor, factor), axes=axes)


def _scale_factor(scale_factors: Mapping[str, Any], key: str, name: str) -> float:
    """The exact scale factor: a guess of 1 would cut patches from the wrong place."""
    wanted = f"tissue_{key}_scalef"
    if wanted not in scale_factors:
        msg = (
            f"Section {name!r}: image {key!r} has no scale factor. uns['spatial'][{name!r}]['scalefactors'][{wanted!r}] was "
            f"expected, found {listing(scale_factors)}. Set it to (image pixels) / (full-resolution pixels of obsm['spatial'])."
        )
        raise KeyError(msg)
    return positive(float(scale_factors[wanted]), f"Section {name!r}: {wanted}")


def _source_levels(path: Any, coarser: list[Level], name: str) -> list[Level]:
    """The image file beside the data, if it is there and is the one that the smaller images were made from."""
    if path is None or not Path(str(path)).is_file():
        return []
    levels = open_levels(Path(str(path)))
    if coarser:
        hires = coarser[0]
        expected = np.array(hires.shape) / hires.scale[::-1]
        if np.abs(expected / levels[0].shape - 1).max() > 0.02:
            log.warning("Section %s: %s has another size than its hires image says; it is not used.", name, path)
            return []
    return levels


# --- SpatialData --------------------------------------------------------------------------------------------------


def _from_spatialdata(
    sdata: SpatialData,
    image_key: str | None,
    table_key: str,
    shapes_key: str | None,
    coordinate_system: str | None,
    mpp: float | None,
    need_image: bool,
) -> list[Slide]:
    table = table_of(sdata, table_key)
    unique_names(table)
    attrs = has_key(table.uns, "spatialdata_attrs", f"uns of table {table_key!r}", "Link it to shapes by `TableModel.parse`.")
    regions = attrs["region"] if isinstance(attrs["region"], list | np.ndarray) else [attrs["region"]]
    if shapes_key is not None:
        if shapes_key not in regions:
            msg = f"Table {table_key!r} does not annotate {shapes_key!r}; it annotates {listing(regions)}."
            raise KeyError(msg)
        regions = [shapes_key]
    slides = []
    for region in map(str, regions):
        rows = np.flatnonzero(table.obs[attrs["region_key"]].astype(str) == region)
        shapes = has_key(sdata.shapes, region, "the shapes of the SpatialData", "Pass `shapes_key=`.")
        # By instance, not by position: the order of shapes and rows may differ
        shapes = shapes.loc[table.obs[attrs["instance_key"]].iloc[rows]]
        xy = np.column_stack([shapes.geometry.centroid.x, shapes.geometry.centroid.y])
        stretch, levels, known = 1.0, (), sdata.attrs.get("sthggep", {}).get("mpp")
        if need_image:
            image_name, system = _choose_image(sdata, sdata.shapes[region], image_key, coordinate_system)
            matrix = _to_image(sdata, image_name, sdata.shapes[region], system)
            xy = xy @ matrix[:2, :2].T + matrix[:2, 2]
            stretch = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
            levels = _element_levels(sdata.images[image_name])
        metadata = _table_metadata(table, region)
        known = metadata.get("mpp", known)
        array_xy = Slide(region, table, rows, xy).array_xy()
        found, source = _find_mpp(mpp, known, metadata.get("pitch_um"), table, array_xy, xy, region)
        diameter = float(2 * shapes["radius"].median() * stretch) if "radius" in shapes else None
        slides.append(Slide(region, table, rows, xy, levels, found, source, diameter))
    return slides


def _table_metadata(table: AnnData, region: str) -> Mapping[str, Any]:
    """Metadata that a reader kept for this region (Visium readers keep one entry, under the data set's name)."""
    libraries: Mapping[str, Any] = table.uns.get("spatial", {})
    library = libraries.get(region, next(iter(libraries.values())) if len(libraries) == 1 else {})
    metadata: Mapping[str, Any] = library.get("metadata", {})
    return metadata


def _choose_image(
    sdata: SpatialData, shapes: Any, image_key: str | None, coordinate_system: str | None
) -> tuple[str, str]:
    """The image that shares a coordinate system with the spots, and that system."""
    from spatialdata.transformations import get_transformation

    ours = set(get_transformation(shapes, get_all=True))
    if coordinate_system is not None:
        if coordinate_system not in ours:
            msg = f"The spots are not in coordinate system {coordinate_system!r}; they are in {listing(sorted(ours))}."
            raise KeyError(msg)
        ours = {coordinate_system}
    if image_key is not None:
        has_key(sdata.images, image_key, "the images of the SpatialData", "Pass another `image_key=`.")
    keys = [image_key] if image_key else [key for key in sdata.images if not key.endswith("lowres_image")]
    shared = {key: sorted(ours & set(get_transformation(sdata.images[key], get_all=True))) for key in keys}
    shared = {key: systems for key, systems in shared.items() if systems}
    full = [key for key in shared if key.endswith("full_image")]
    candidates = full if len(full) == 1 else list(shared)
    if len(candidates) != 1:
        what = "no image" if not candidates else f"several images ({listing(candidates)})"
        msg = (
            f"Expected one H&E image in the spots' coordinate systems ({listing(sorted(ours))}), found {what}. "
            f"The images are {listing(sdata.images)}. Pass `image_key=` or `coordinate_system=`."
        )
        raise KeyError(msg) if not candidates else ValueError(msg)
    return candidates[0], shared[candidates[0]][0]


def _to_image(sdata: SpatialData, image_name: str, shapes: Any, system: str) -> NDArray[np.float64]:
    """Affine matrix from the shapes' own coordinates to pixels of the image."""
    from spatialdata.transformations import get_transformation

    axes = ("x", "y")
    image = get_transformation(sdata.images[image_name], to_coordinate_system=system).to_affine_matrix(axes, axes)
    spots = get_transformation(shapes, to_coordinate_system=system).to_affine_matrix(axes, axes)
    return np.asarray(np.linalg.inv(image) @ spots, dtype=np.float64)


def _element_levels(element: Any) -> tuple[Level, ...]:
    """Resolutions of an image element; the spacing comes from its coordinates, since pyramids are not exact halves."""
    arrays = [element]
    if hasattr(element, "children"):
        arrays = [next(iter(scale.ds.data_vars.values())) for scale in element.children.values()]
    base = _spacing(arrays[0])
    levels = []
    for array in arrays:
        spacing = _spacing(array)
        levels.append(Level(array.data, scale=(base[0] / spacing[0], base[1] / spacing[1]), axes="".join(array.dims)))
    return tuple(sorted(levels, key=lambda level: -level.scale[0]))


def _spacing(array: Any) -> tuple[float, float]:
    def step(axis: str) -> float:
        if axis not in array.coords or array.sizes[axis] < 2:
            return 1.0
        values = array.coords[axis].values
        return float((values[-1] - values[0]) / (len(values) - 1))

    return step("x"), step("y")


# --- both ---------------------------------------------------------------------------------------------------------


def _find_mpp(
    given: float | None,
    known: Any,
    pitch_um: Any,
    adata: AnnData,
    array_xy: NDArray[np.int64] | None,
    xy: NDArray[np.float64],
    name: str,
) -> tuple[float | None, str]:
    """Microns per full-resolution pixel: the argument, else metadata, else the spot pitch."""
    if given is not None:
        return given, "argument"
    if known is not None:
        return positive(float(known), f"Section {name!r}: mpp in the metadata"), "metadata"
    if pitch_um is None and {"array_row", "array_col"} <= set(adata.obs):
        pitch_um = VISIUM_PITCH_UM
    if pitch_um is None or array_xy is None or len(xy) < 3 or not np.isfinite(xy).all():
        return None, ""
    try:
        found = lattice_mpp(array_xy, xy, float(pitch_um))
    except ValueError as reason:
        # Only those who ask for microns need them; `require_mpp` says how to give them
        log.warning("Section %s: microns per pixel cannot be read off the spots. %s", name, reason)
        return None, ""
    log.info("Section %s: %.4g µm/px, from the spot pitch of %g µm.", name, found, pitch_um)
    return found, "spot pitch"


def _check(slide: Slide) -> None:
    """Spots are there, are numbers, and lie on the image."""
    if slide.n_spots == 0:
        msg = f"Section {slide.name!r} holds no spots; at least one was expected."
        raise ValueError(msg)
    broken = ~np.isfinite(slide.xy).all(axis=1)
    if broken.any():
        names = slide.adata.obs_names[slide.rows[broken]]
        msg = f"Section {slide.name!r}: {int(broken.sum())} spots have no coordinates (NaN): {listing(names, 5)}. Drop them first."
        raise ValueError(msg)
    if slide.levels:
        _check_inside(slide)


def _check_inside(slide: Slide) -> None:
    width, height = slide.size
    outside = _outside(slide.xy, width, height)
    if not outside.any():
        return
    low, high = slide.xy.min(axis=0), slide.xy.max(axis=0)
    found = f"x from {low[0]:.0f} to {high[0]:.0f}, y from {low[1]:.0f} to {high[1]:.0f}"
    if not _outside(slide.xy[:, ::-1], width, height).any():
        advice = "They fit when x and y are swapped: coordinates must be (x, y), not (row, column)."
    elif outside.all():
        advice = "Are they pixels of this very image, at its full resolution? Check the scale factor and the image."
    else:
        names = slide.adata.obs_names[slide.rows[outside]]
        advice = f"Drop them, or check the scale factor: {listing(names, 5)}."
    msg = (
        f"Section {slide.name!r}: {int(outside.sum())} of {slide.n_spots} spots lie outside the image, "
        f"which is {width:.0f} wide and {height:.0f} high in full-resolution pixels; the spots span {found}. {advice}"
    )
    raise ValueError(msg)


def _outside(xy: NDArray[np.float64], width: float, height: float) -> NDArray[np.bool_]:
    """Spots whose centre is off the image, a pixel of rounding allowed."""
    inside = (xy >= -1).all(axis=1) & (xy[:, 0] <= width + 1) & (xy[:, 1] <= height + 1)
    return np.asarray(~inside)
