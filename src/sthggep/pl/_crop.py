"""The part of a section that a figure shows: a box, a region of spots, or polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, listing
from sthggep._slides._anndata import table_of
from sthggep._slides._polygons import points_within, polygon_labels
from sthggep._slides._resolve import resolve
from sthggep._table._labels import read_labels
from sthggep.pl._tissue import View, image_of_box, spot_diameter, view_of

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide
    from sthggep.pl._tissue import Slides

    Region: TypeAlias = str | Sequence[object] | Polygon | MultiPolygon

ORDER = "(left, right, top, bottom)"
CROP_PX = 1600  # of the longer side of a cropped panel: 5.3 inches at 300 dots per inch


@dataclass(frozen=True)
class Crop:
    """What a figure shows of one section."""

    box: tuple[float, float, float, float] | None
    """Left, right, top and bottom in full-resolution pixels; ``None`` for the area of the spots."""
    spots: NDArray[np.bool_] | None
    """The spots that are drawn; ``None`` for all."""
    large: bool = False
    """Whether the panel may be large."""

    def view(self, slide: Slide, diameter: float) -> View:
        """The area that is shown and its image, sharp enough for print."""
        if self.box is None and self.spots is None and not self.large:
            return view_of(slide, margin=1.5 * diameter)
        if self.box is not None:
            left, right, top, bottom = self.box
            low, high = np.array([left, top]), np.array([right, bottom])
        else:
            xy = slide.xy if self.spots is None else slide.xy[self.spots]
            low, high = xy.min(axis=0) - 1.5 * diameter, xy.max(axis=0) + 1.5 * diameter
        return image_of_box(slide, low, high, CROP_PX)


WHOLE = Crop(None, None)


def crops_of(
    data: Slides,
    slides: Sequence[Slide],
    crop_coord: Sequence[object] | None,
    region: Region | None,
    places: Places,
    *,
    large: bool = False,
) -> list[Crop]:
    """Read and check ``crop_coord`` and ``region`` for each section.

    Raises
    ------
    KeyError
        There is no such column of ``obs`` and no such shapes element.
    ValueError
        A box is no box, lies outside the image or holds no spot; or a section has no spot of the region.
    """
    boxes = _boxes(crop_coord, slides)
    crops = []
    for slide, box in zip(slides, boxes, strict=True):
        inside = None if region is None else _spots_of(data, slide, region, places)
        if box is not None:
            in_box = _in_box(slide, box)
            inside = in_box if inside is None else inside & in_box
            if not inside.any():
                raise ValueError(_explain_empty(slide, box, region))
        crops.append(Crop(box, inside, large))
    return crops


def _boxes(
    crop_coord: Sequence[object] | None, slides: Sequence[Slide]
) -> list[tuple[float, float, float, float] | None]:
    """One box for each section; a single one is for all of them."""
    if crop_coord is None:
        return [None] * len(slides)
    single = len(crop_coord) == 4 and all(np.ndim(number) == 0 for number in crop_coord)  # type: ignore[arg-type]
    boxes = [crop_coord] * len(slides) if single else list(crop_coord)
    if len(boxes) != len(slides):
        msg = (
            f"`crop_coord` must be one box {ORDER}, or a list of one box for each of the {counted(slides, 'section')}; "
            f"found {len(boxes)}: {crop_coord!r}."
        )
        raise ValueError(msg)
    return [_check_box(box, slide) for box, slide in zip(boxes, slides, strict=True)]


def _check_box(box: object, slide: Slide) -> tuple[float, float, float, float]:
    try:
        left, right, top, bottom = (float(number) for number in box)  # type: ignore[attr-defined]
        valid = bool(np.isfinite([left, right, top, bottom]).all()) and left < right and top < bottom
    except (TypeError, ValueError):
        valid = False
    if not valid:
        msg = (
            f"`crop_coord` must be four numbers {ORDER} in full-resolution pixels, as `obsm['spatial']`, with left below right "
            f"and top below bottom, since y points down; found {box!r}."
        )
        raise ValueError(msg)
    if slide.levels:
        width, height = slide.size
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            msg = (
                f"Section {slide.name!r}: `crop_coord` {box!r}, which is {ORDER}, lies outside the image, {width:.0f} wide "
                f"and {height:.0f} high in full-resolution pixels."
            )
            raise ValueError(msg)
    return left, right, top, bottom


def _in_box(slide: Slide, box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Spots whose center lies in the box, or so near to it that a part of them is seen."""
    left, right, top, bottom = box
    x, y = slide.xy.T
    reach = spot_diameter(slide) / 2
    near = (x > left - reach) & (x < right + reach) & (y > top - reach) & (y < bottom + reach)
    return np.asarray(near)


def _explain_empty(slide: Slide, box: tuple[float, float, float, float], region: Region | None) -> str:
    low, high = slide.xy.min(axis=0), slide.xy.max(axis=0)
    what = "no spot" if region is None else f"no spot of the region {region!r}"
    msg = (
        f"Section {slide.name!r}: `crop_coord` {box}, which is {ORDER}, holds {what}. Spots span x from {low[0]:.0f} to "
        f"{high[0]:.0f}, y from {low[1]:.0f} to {high[1]:.0f}."
    )
    left, top, right, bottom = box
    if left < right and top < bottom and _in_box(slide, (left, right, top, bottom)).any():
        msg += f" Did you mean (left, top, right, bottom)? Pass `crop_coord={(left, right, top, bottom)}`."
    return msg


def _spots_of(data: Slides, slide: Slide, region: Region, places: Places) -> NDArray[np.bool_]:
    """The spots of a section that belong to a region."""
    if hasattr(region, "geom_type"):
        return _spots_in(cast("Polygon", region), slide)
    name, *values = [region] if isinstance(region, str) else list(region)
    labels = _labels(data, slide, str(name), places)
    return _rows_with(labels, slide, str(name), [str(value) for value in values])


def _spots_in(polygon: Polygon, slide: Slide) -> NDArray[np.bool_]:
    """The spots whose center lies in a polygon."""
    inside = points_within(polygon, slide.xy)
    if not inside.any():
        msg = (
            f"Section {slide.name!r}: no spot lies in the polygon `region`, which spans {polygon.bounds} (x, y, x, y). It "
            "must be in full-resolution pixels, as `obsm['spatial']`."
        )
        raise ValueError(msg)
    return inside


def _labels(data: Slides, slide: Slide, name: str, places: Places) -> pd.Series:
    """Name the region of each spot, by a column of ``obs`` or the polygons of a SpatialData; missing for spots in none."""
    if name in slide.adata.obs:
        return read_labels(slide, name).reset_index(drop=True)
    containers = (
        list(data.values()) if isinstance(data, Mapping) else list(data) if isinstance(data, Sequence) else [data]
    )
    container = next(item for item in containers if table_of(item, places.table_key) is slide.adata)
    # Polygons are compared with the spots in their own coordinates, not in pixels of the image
    own = resolve(container, replace(places, image_key=None, mpp=None), need_image=False)
    section = next(item for item in own if np.array_equal(item.rows, slide.rows))
    return polygon_labels(container, section, name, places.table_key)


def _rows_with(labels: pd.Series, slide: Slide, name: str, values: list[str]) -> NDArray[np.bool_]:
    """Spots with one of the values; without values those for which a column is true, or in any of the polygons."""
    column = slide.adata.obs.get(name)
    if not values and column is None:
        return labels.notna().to_numpy()
    if not values and column.dtype == bool:
        values = ["True"]
    inside = labels.isin(values).to_numpy(dtype=bool)
    if not inside.any():
        regions = listing(sorted(labels.dropna().unique()))
        found = f"{listing(values)} is not among them" if values else "none is named"
        msg = (
            f"Section {slide.name!r}: regions of {name!r} are {regions}; {found}. Pass the column (or polygons) and its "
            f"region: `region=({name!r}, {labels.dropna().iloc[0]!r})`."
        )
        raise ValueError(msg)
    return inside
