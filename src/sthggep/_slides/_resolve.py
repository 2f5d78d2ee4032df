"""Sections of an AnnData or SpatialData, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import counted, listing, no_slide, warn_user
from sthggep._image._microns import check_mpp, check_possible
from sthggep._log import NOTEBOOK, ONCE, log
from sthggep._names import is_storable
from sthggep._slides._anndata import SectionData, anndata_image, from_anndata, is_spatialdata
from sthggep._slides._doubled import check_places
from sthggep._slides._in_tissue import spots_on_tissue
from sthggep._slides._lattice import is_interleaved, lattice_mpp
from sthggep._slides._pictures import check_values
from sthggep._slides._places import DEFAULT_PLACES, TABLE, Places
from sthggep._slides._slide import Slide
from sthggep._slides._spatialdata import from_spatialdata, spatialdata_image

if TYPE_CHECKING:
    from spatialdata import SpatialData

VISIUM_PITCH_UM = 100.0


# Above this ratio, the stated microns per pixel contradict the spot pitch
MPP_TOLERANCE = 1.2


def resolve(data: AnnData | SpatialData, places: Places = DEFAULT_PLACES, *, need_image: bool = True) -> list[Slide]:
    """Read the sections of an AnnData or SpatialData: spots, image, microns per pixel.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError, TypeError
        If something is missing, or the spots and the image do not fit; the message says which call to make.
    """
    _check_mpp(places)
    if isinstance(data, AnnData):
        sections = from_anndata(data, places, need_image=need_image)
    elif is_spatialdata(data):
        sections = from_spatialdata(data, places, need_image=need_image)
    else:
        raise no_slide(data)
    slides = [_to_slide(section, places.mpp) for section in sections]
    for slide in slides:
        _check_spots(slide)
    return slides


def resolve_one(data: AnnData | SpatialData, places: Places = DEFAULT_PLACES, *, need_image: bool = True) -> Slide:
    """Read the section of data with exactly one, as :func:`resolve` does."""
    slides = resolve(data, places, need_image=need_image)
    if len(slides) != 1:
        msg = (
            f"One section was expected, found {len(slides)}: {listing(s.name for s in slides)}. "
            "Pass the rows of one section, or `shapes_key=` for a SpatialData."
        )
        raise ValueError(msg)
    return slides[0]


def resolve_image(data: AnnData | SpatialData, places: Places = DEFAULT_PLACES) -> Slide:
    """Read one section as :func:`resolve_one` does, or an image without spots, whose section has the name of the image."""
    if isinstance(data, AnnData) and data.n_obs == 0:
        section = anndata_image(data, places)
    elif is_spatialdata(data) and not data.tables and places.table_key == TABLE:
        section = spatialdata_image(data, places)
    else:
        return resolve_one(data, places)
    _check_mpp(places)
    return _to_slide(section, places.mpp)


def _check_mpp(places: Places) -> None:
    if places.mpp is not None:
        check_mpp(places.mpp)


def _to_slide(section: SectionData, mpp_argument: float | None) -> Slide:
    """Make a slide of the spots on tissue, with its microns per pixel."""
    for level in section.levels:
        level.section = section.name
    if section.levels and section.levels[-1].blocks is None:  # a lazy image is checked when it is read
        check_values(section.levels[-1], f"Section {section.name!r}")
    on_tissue = spots_on_tissue(section)
    slide = Slide(
        section.name,
        section.adata,
        section.rows[on_tissue],
        section.xy[on_tissue],
        section.levels,
        spot_diameter=section.spot_diameter,
        image=section.image,
    )
    mpp, source = _find_mpp(slide, mpp_argument, section)
    return replace(slide, mpp=mpp, mpp_source=source)


def _find_mpp(slide: Slide, mpp_argument: float | None, section: SectionData) -> tuple[float | None, str]:
    """Microns per full-resolution pixel: the argument, else metadata, else the spot pitch, else the image file."""
    try:
        measured = _mpp_from_pitch(slide, section.pitch_um)
    except ValueError as reason:
        # Calls without microns do not need the mpp; `require_mpp` says how to pass it
        if mpp_argument is None and section.mpp is None:
            log.warning(
                "Section %s: sthggep cannot compute microns per pixel from the spots. %s",
                slide.name,
                reason,
                extra=ONCE | NOTEBOOK,
            )
        measured = None
    if mpp_argument is not None:
        mpp_argument = check_possible(check_mpp(mpp_argument), measured)
    stated, source = (mpp_argument, "argument") if mpp_argument is not None else (section.mpp, "metadata")
    if stated is None and section.mpp_fault:
        if measured is None and section.stated_mpp is None and section.levels:
            raise ValueError(section.mpp_fault)
        log.warning("%s sthggep does not use it.", section.mpp_fault, extra=ONCE | NOTEBOOK)
    if stated is not None:
        if measured and not 1 / MPP_TOLERANCE < stated / measured < MPP_TOLERANCE:
            origin = (
                f"you passed `mpp={stated:.4g}`" if source == "argument" else f"the metadata say {stated:.4g} µm/px"
            )
            msg = (
                f"Section {slide.name!r}: {origin}, but by the distance of the spots it is {measured:.4g}. Either that number or "
                "the coordinates belong to another resolution of the image: coordinates must be pixels of its full "
                "resolution. See `sthggep.pl.patches(data)`."
            )
            warn_user(msg)
        return stated, source
    if measured is None and section.stated_mpp is not None:
        log.info(
            "Section %s: %.4g µm/px, as the image file says.", slide.name, section.stated_mpp, extra=ONCE | NOTEBOOK
        )
        return section.stated_mpp, "image file"
    if measured is None:
        return None, ""
    coarse = bool(slide.levels) and slide.levels[0].scale[0] < 1
    read = (
        f", of full resolution; the image that is read has {measured / slide.levels[0].scale[0]:.3g}" if coarse else ""
    )
    text = "Section %s: %.4g µm/px, from the spot pitch%s."
    log.info(text, slide.name, measured, read, extra=ONCE | NOTEBOOK)
    return measured, "spot pitch"


def _mpp_from_pitch(slide: Slide, pitch_um: float | None) -> float | None:
    """Microns per pixel from the array of the spots; ``None`` without an array or a known pitch."""
    array_xy = slide.array_xy()
    if array_xy is None or slide.n_spots < 3 or not np.isfinite(slide.xy).all():
        return None
    columns = {"array_row", "array_col"} <= set(slide.adata.obs)
    # Visium has an interleaved array; the square bins of Visium HD have the same columns and another pitch
    if pitch_um is None and columns and is_interleaved(array_xy):
        pitch_um = VISIUM_PITCH_UM
    return None if pitch_um is None else lattice_mpp(array_xy, slide.xy, pitch_um)


def _check_spots(slide: Slide) -> None:
    """Check that there are spots, that their coordinates are finite, and that they lie on the image."""
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
    check_places(slide)
    if slide.levels:
        _check_inside(slide)


def _check_inside(slide: Slide) -> None:
    width, height = slide.size
    outside = _outside(slide.xy, width, height)
    if not outside.any():
        return
    low, high = slide.xy.min(axis=0), slide.xy.max(axis=0)
    span = f"x from {low[0]:.0f} to {high[0]:.0f}, y from {low[1]:.0f} to {high[1]:.0f}"
    if not _outside(slide.xy[:, ::-1], width, height).any():
        advice = "They fit when x and y are swapped: coordinates must be (x, y), not (row, column)."
    elif outside.all():
        advice = "Are they pixels of this very image, at its full resolution? Check the scale factor and the image."
    else:
        names = slide.adata.obs_names[slide.rows[outside]]
        advice = f"Drop them, or check the scale factor: {listing(names, 5)}."
    msg = (
        f"Section {slide.name!r}: {int(outside.sum())} of {slide.n_spots} spots lie outside the image, "
        f"which is {width:.0f} wide and {height:.0f} high in full-resolution pixels; the spots span {span}. {advice}"
    )
    raise ValueError(msg)


def _outside(xy: NDArray[np.float64], width: float, height: float) -> NDArray[np.bool_]:
    """Spots whose center is off the image by more than a pixel of rounding."""
    inside = (xy >= -1).all(axis=1) & (xy[:, 0] <= width + 1) & (xy[:, 1] <= height + 1)
    return np.asarray(~inside)


def extra_sections_of(
    expression: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None, places: Places
) -> list[Slide]:
    """Read sections of which the model uses the counts alone, without their images and without ``mpp``."""
    containers = [] if expression is None else list(expression) if isinstance(expression, Sequence) else [expression]
    slides = [slide for data in containers for slide in resolve(data, replace(places, mpp=None), need_image=False)]
    check_names(slides)
    return slides


def check_names(slides: Sequence[Slide]) -> None:
    """Reject names of sections that no file can hold: records of trainings hold them."""
    for slide in slides:
        if not is_storable(slide.name):
            msg = (
                f"The name of a section must be text that files can hold, without NUL and halves of characters, found "
                f"{slide.name!r}. Rename it in `uns['spatial']` and in the column of obs that names it."
            )
            raise ValueError(msg)


def distinct_names(slides: Sequence[Slide]) -> list[Slide]:
    """Number sections that share a name, as those of different files may: history and validation need distinct names."""
    check_names(slides)
    names, taken = {slide.name for slide in slides}, set[str]()
    out = []
    for slide in slides:
        name, times = slide.name, 1
        while name in taken or (times > 1 and name in names):
            times += 1
            name = f"{slide.name}-{times}"
        taken.add(name)
        out.append(replace(slide, name=name))
    return out
