"""One section with its spots and its image, whatever object it came in: `_containers` and `_spatialdata` know those."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import counted, listing, no_slide, positive, warn_user
from sthggep._keys import ARRAY_COLUMNS
from sthggep._slides._anndata import TABLE, Found, anndata_image, from_anndata, is_spatialdata, table_of, under_tissue
from sthggep._slides._lattice import is_interleaved, lattice_mpp, lattice_pitch
from sthggep._slides._spatialdata import from_spatialdata, spatialdata_image

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthggep._image._level import Level
    from sthggep._image._recolor import Recoloring

log = logging.getLogger("sthggep")
VISIUM_PITCH_UM = 100.0
# Beyond this, microns per pixel that were given and the spot pitch contradict each other
MPP_TOLERANCE = 1.2
LARGE_PX = 64 << 20  # 192 MB

__all__ = ["Slide", "resolve", "resolve_one", "table_of"]


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
    image: str | None = None
    stain: Recoloring | None = field(default=None, repr=False)

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
        """Full-resolution pixels between nearest spots: of the fitted array, else the median to the nearest."""
        array_xy = self.array_xy()
        if array_xy is not None and self.n_spots > 2:
            try:
                return lattice_pitch(array_xy, self.xy)
            except ValueError:
                log.info(
                    "Section %s: spots do not follow their array positions; the nearest spot tells the pitch.",
                    self.name,
                )
        if self.n_spots < 2:
            return 1.0
        from scipy.spatial import cKDTree

        nearest = cKDTree(self.xy).query(self.xy, k=2)[0][:, 1]
        return float(np.median(nearest[nearest > 0])) if (nearest > 0).any() else 1.0

    def denser_than(self, pitch_um: float | None) -> int:
        """How many times denser the spots stand on their array than ``pitch_um``; 1 where that is not known."""
        array_xy = self.array_xy()
        if pitch_um is None or self.mpp is None or array_xy is None or self.n_spots < 3:
            return 1
        try:
            return max(1, round(pitch_um / (lattice_pitch(array_xy, self.xy) * self.mpp)))
        except ValueError:  # the spots do not follow their array
            return 1

    def require_mpp(self) -> float:
        """Microns per full-resolution pixel, or an error that says how to give it."""
        if self.mpp is None:
            msg = (
                f"Section {self.name!r}: microns per pixel are not known (no metadata, no array positions with a known "
                "pitch). Pass `mpp=`, microns per full-resolution pixel: scanners say it, about 0.25 at 40x and 0.5 at 20x."
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
        shrink = min(1.0, max_px / max(height, width))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        # An image of one large resolution is never held whole
        by = 1 if height * width < LARGE_PX else 2 ** int(np.log2(max(1.0, 1 / shrink)))
        whole = level.shrunk(by) if by > 1 else level.read(np.array([[0, 0, width, height]]))[0]
        box = (0, 0, width / by, height / by)
        small = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BOX, box, reducing_gap=3.0))
        return small, (level.scale[0] * size[0] / width, level.scale[1] * size[1] / height)


def resolve(
    data: AnnData | SpatialData,
    *,
    image_key: str | None = None,
    table_key: str = TABLE,
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
        found = from_anndata(
            data, image_key=image_key, spatial_key=spatial_key, library_key=library_key, need_image=need_image
        )
    elif is_spatialdata(data):
        found = from_spatialdata(
            data,
            image_key=image_key,
            table_key=table_key,
            shapes_key=shapes_key,
            coordinate_system=coordinate_system,
            need_image=need_image,
        )
    else:
        raise no_slide(data)
    slides = [_slide(section, mpp) for section in found]
    for slide in slides:
        _check(slide)
    return slides


def resolve_one(data: AnnData | SpatialData, **options: Any) -> Slide:
    """As :func:`resolve`, for data that hold exactly one section."""
    slides = resolve(data, **options)
    if len(slides) != 1:
        msg = (
            f"One section was expected, found {len(slides)}: {listing(s.name for s in slides)}. "
            "Pass the rows of one section, or `shapes_key=` for a SpatialData."
        )
        raise ValueError(msg)
    return slides[0]


def resolve_image(
    data: AnnData | SpatialData,
    *,
    image_key: str | None = None,
    table_key: str = TABLE,
    coordinate_system: str | None = None,
    mpp: float | None = None,
    **options: Any,
) -> Slide:
    """As :func:`resolve_one`, also for an image without spots; of such the section is called as the image."""
    if isinstance(data, AnnData) and data.n_obs == 0:
        found = anndata_image(data, image_key=image_key)
    elif is_spatialdata(data) and not data.tables and table_key == TABLE:
        found = spatialdata_image(data, image_key=image_key, coordinate_system=coordinate_system)
    else:
        where = {"image_key": image_key, "table_key": table_key, "coordinate_system": coordinate_system}
        return resolve_one(data, mpp=mpp, **where, **options)
    if mpp is not None:
        positive(mpp, "`mpp`")
    return _slide(found, mpp)


def _slide(found: Found, given_mpp: float | None) -> Slide:
    """A section, without the spots that are off the tissue, with its microns per pixel."""
    under = under_tissue(found)
    rows, xy = found.rows[under], found.xy[under]
    slide = Slide(found.name, found.adata, rows, xy, found.levels, spot_diameter=found.spot_diameter, image=found.image)
    mpp, source = _find_mpp(slide, given_mpp, found)
    return replace(slide, mpp=mpp, mpp_source=source)


def _find_mpp(slide: Slide, given: float | None, found: Found) -> tuple[float | None, str]:
    """Microns per full-resolution pixel: the argument, else metadata, else the spot pitch, else the image file."""
    known = found.mpp
    try:
        measured = _mpp_from_pitch(slide, found.pitch_um)
    except ValueError as reason:
        # Only those who ask for microns need them; `require_mpp` says how to give them
        if given is None and known is None:
            log.warning("Section %s: microns per pixel cannot be read off the spots. %s", slide.name, reason)
        measured = None
    said, source = (given, "argument") if given is not None else (known, "metadata")
    if said is not None:
        if measured and not 1 / MPP_TOLERANCE < said / measured < MPP_TOLERANCE:
            whose = f"mpp={said:.4g} was passed" if source == "argument" else f"the metadata say {said:.4g} µm/px"
            msg = (
                f"Section {slide.name!r}: {whose}, but by the distance of the spots it is {measured:.4g}. Either that number or "
                "the coordinates belong to another resolution of the image: coordinates must be pixels of its full "
                "resolution. See `sthggep.pl.patches(data)`."
            )
            warn_user(msg)
        return said, source
    if measured is None and found.stated_mpp is not None:
        log.info("Section %s: %.4g µm/px, as the image file says.", slide.name, found.stated_mpp)
        return found.stated_mpp, "image file"
    if measured is None:
        return None, ""
    log.info("Section %s: %.4g µm/px, from the spot pitch.", slide.name, measured)
    return measured, "spot pitch"


def _mpp_from_pitch(slide: Slide, pitch_um: float | None) -> float | None:
    """Microns per pixel from the spots' array; ``None`` where there is no array, or nobody knows its pitch."""
    array_xy = slide.array_xy()
    if array_xy is None or slide.n_spots < 3 or not np.isfinite(slide.xy).all():
        return None
    columns = {"array_row", "array_col"} <= set(slide.adata.obs)
    # Visium's array is interleaved; the square bins of Visium HD have the same columns and another pitch
    if pitch_um is None and columns and is_interleaved(array_xy):
        pitch_um = VISIUM_PITCH_UM
    return None if pitch_um is None else lattice_mpp(array_xy, slide.xy, pitch_um)


def _check(slide: Slide) -> None:
    """Spots are there, are numbers, and lie on the image."""
    if slide.n_spots == 0:
        msg = f"Section {slide.name!r} holds no spots; at least one was expected."
        raise ValueError(msg)
    broken = ~np.isfinite(slide.xy).all(axis=1)
    if broken.any():
        names = slide.adata.obs_names[slide.rows[broken]]
        msg = (
            f"Section {slide.name!r}: {counted(int(broken.sum()), 'spot')} without coordinates (NaN): {listing(names, 5)}. "
            "Drop them first."
        )
        raise ValueError(msg)
    if slide.n_spots > 2 and (slide.xy == slide.xy[0]).all():
        msg = f"Section {slide.name!r}: all {slide.n_spots} spots have the same coordinates, {tuple(slide.xy[0].tolist())}."
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
    """Spots whose center is off the image, a pixel of rounding allowed."""
    inside = (xy >= -1).all(axis=1) & (xy[:, 0] <= width + 1) & (xy[:, 1] <= height + 1)
    return np.asarray(~inside)
