"""Tissue and spots on axes in full-resolution pixels, so that all is to scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import listing, one_of, positive
from sthggep._keys import GRID, TOOL
from sthggep._slides._libraries import read_libraries
from sthggep._slides._resolve import resolve
from sthggep._slides._slide import LARGE_PX
from sthggep._slides._values import as_mapping, id_text
from sthggep.pl._figure import empty_axes, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from matplotlib.transforms import Affine2DBase, Transform
    from spatialdata import SpatialData

    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide

    Slides: TypeAlias = AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData]

# Pixels of a printed panel: 2.7 inches at 300 dots per inch
PANEL_PX = 800
THUMBNAIL_PX = 6000
OUTLINE_CELLS = 800  # of the longer side of a grid on which outlines are found
# A vector drawing of more spots is slow to open
VECTOR_SPOTS = 10_000


def sections_of(
    data: Slides,
    places: Places,
    names: Sequence[str] | None = None,
    *,
    need_image: bool = True,
) -> list[Slide]:
    """Sections of one object, of a list of objects, or of a dict of objects, whose keys name the sections."""
    if isinstance(data, Mapping):
        groups = [(key, resolve(item, places, need_image=need_image)) for key, item in data.items()]
        slides = [
            replace(s, name=key if len(group) == 1 else f"{key} {s.name}") for key, group in groups for s in group
        ]
    elif isinstance(data, Sequence):
        slides = [slide for item in data for slide in resolve(item, places, need_image=need_image)]
    else:
        slides = resolve(data, places, need_image=need_image)
    if not slides:
        msg = "At least one AnnData or SpatialData was expected, found an empty `data`."
        raise ValueError(msg)
    if names is None:
        return slides
    slide_names = [slide.name for slide in slides]
    wanted = [names] if isinstance(names, str) else names
    order = [one_of(n if n in slide_names else id_text(n), slide_names, "section") for n in wanted]
    return [slide for name in order for slide in slides if slide.name == name]


def section_label(slide: Slide) -> str:
    """The name of a section for readers; a grid of pseudo-spots goes by its slide, since its own name is a key."""
    record = as_mapping(slide.adata.uns.get(GRID))
    if record.get("tool") != TOOL or slide.image is None or not slide.name.endswith("_spots"):
        return slide.name
    library = as_mapping(read_libraries(slide.adata).get(slide.name))
    file = str(as_mapping(library.get("metadata")).get("source_image_path") or "")
    return f"{Path(file).stem or slide.image}, pseudo-spots"


def spot_diameter(slide: Slide, spot_size: float | None = None) -> float:
    """Diameter of drawn spots in full-resolution pixels: the argument, else the data's, else 0.7 of the spot pitch."""
    if spot_size is not None:
        return positive(spot_size, "`spot_size`")
    if slide.spot_diameter is not None and slide.spot_diameter > 0:
        return slide.spot_diameter
    if slide.n_spots < 2:
        return 100.0
    from scipy.spatial import cKDTree

    return 0.7 * float(np.median(cKDTree(slide.xy).query(slide.xy, k=2)[0][:, 1])) or 100.0


@dataclass(frozen=True)
class View:
    """The part of a section that a figure shows: its borders in full-resolution pixels, and its image."""

    left: float
    right: float
    top: float
    bottom: float
    image: NDArray[np.uint8] | None

    @property
    def width(self) -> float:
        """In full-resolution pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """In full-resolution pixels."""
        return self.bottom - self.top


def view_of(slide: Slide, margin: float) -> View:
    """The area of the spots and a margin (full-resolution pixels) around it, within the image."""
    low, high = slide.xy.min(axis=0) - margin, slide.xy.max(axis=0) + margin
    if not slide.levels:
        return View(low[0], high[0], low[1], high[1], None)
    size = np.array(slide.size)
    low, high = np.maximum(low, 0), np.minimum(high, size)
    longest = PANEL_PX * size.max() / (high - low).max()
    image, factors = slide.thumbnail(max_px=int(min(np.ceil(longest), THUMBNAIL_PX)))
    return _cut(image, factors, low, high)


def image_of_box(slide: Slide, low: NDArray[np.float64], high: NDArray[np.float64], max_px: int) -> View:
    """A box (full-resolution pixels) within the image, from the coarsest level that has ``max_px`` on its longer side.

    Only the box is read, so a small one is as sharp as the image allows.
    """
    if not slide.levels:
        return View(low[0], high[0], low[1], high[1], None)
    low, high = np.maximum(low, 0), np.minimum(high, slide.size)
    wanted = max_px / (high - low).max()
    enough = [level for level in slide.levels if min(level.scale) >= wanted]
    level = enough[-1] if enough else slide.levels[0]
    scale = np.array(level.scale)
    start = np.floor(low * scale).astype(int)
    stop = np.minimum(np.maximum(np.ceil(high * scale).astype(int), start + 1), level.shape[::-1])
    if np.prod(stop - start) > LARGE_PX:  # most of a large image of one resolution
        return _cut(*slide.thumbnail(max_px=THUMBNAIL_PX), low, high)
    image = level.read([[*start, *stop]])[0]
    shrink = max(1, int((stop - start).max() // max_px))
    if shrink > 1:
        from PIL import Image

        stop -= (stop - start) % shrink  # whole blocks of pixels, so that the borders are exact
        rows, columns = stop[1] - start[1], stop[0] - start[0]
        image = np.asarray(Image.fromarray(image[:rows, :columns]).reduce(shrink))
    low, high = start / scale, stop / scale
    return View(low[0], high[0], low[1], high[1], image)


def _cut(
    image: NDArray[np.uint8], factors: tuple[float, float], low: NDArray[np.float64], high: NDArray[np.float64]
) -> View:
    """A box of a thumbnail: whole pixels, so that the borders of the image are exact."""
    start = np.floor(low * factors).astype(int)
    stop = np.minimum(np.ceil(high * factors).astype(int), image.shape[1::-1])
    low, high = start / factors, stop / factors
    return View(low[0], high[0], low[1], high[1], image[start[1] : stop[1], start[0] : stop[0]])


def draw_tissue(ax: Axes, view: View, *, alpha: float = 1.0, gray: bool = False) -> None:
    """Show the image, or an empty axes of the same view if there is none; the y axis points down."""
    if view.image is not None and alpha > 0:
        image = view.image
        if gray:
            luminance = image @ np.array([0.299, 0.587, 0.114])
            image = np.repeat(np.rint(luminance)[..., None], 3, axis=-1).astype(np.uint8)
        # The image is mixed with white, since some PDF readers print transparent images wrongly
        faded = np.rint(255 - alpha * (255.0 - image)).astype(np.uint8)
        extent = (view.left, view.right, view.bottom, view.top)
        ax.imshow(faded, extent=extent, interpolation="antialiased")
    ax.set(xlim=(view.left, view.right), ylim=(view.bottom, view.top))
    ax.set_aspect("equal")
    empty_axes(ax)


def draw_spots(ax: Axes, xy: NDArray[np.float64], diameter: float, **style: object) -> EllipseCollection:
    """Draw spots as circles to scale: they grow with the figure, unlike the markers of a scatter plot."""
    from matplotlib.collections import EllipseCollection

    options: dict[str, object] = {"linewidths": 0, "rasterized": len(xy) > VECTOR_SPOTS, **style}
    widths, angles = np.full(len(xy), diameter), np.zeros(len(xy))
    circles = EllipseCollection(
        widths, widths, angles, units="xy", offsets=xy, offset_transform=ax.transData, **options
    )
    ax.add_collection(circles, autolim=False)
    return circles


def outline_of(xy: NDArray[np.float64], reach: float) -> list[NDArray[np.float64]]:
    """Lines around spots; those that are closer to each other than twice ``reach`` have one together."""
    from scipy.spatial import cKDTree
    from skimage.measure import find_contours

    low, high = xy.min(axis=0) - 2 * reach, xy.max(axis=0) + 2 * reach
    cell = max(reach / 5, (high - low).max() / OUTLINE_CELLS)
    x, y = (np.arange(start, stop + cell, cell) for start, stop in zip(low, high, strict=True))
    places = np.stack(np.meshgrid(x, y), axis=-1)
    distance, _ = cKDTree(xy).query(places, distance_upper_bound=2 * reach)
    return [low + cell * ring[:, ::-1] for ring in find_contours(np.minimum(distance, 2 * reach), reach)]


def draw_outline(ax: Axes, rings: Sequence[NDArray[np.float64]]) -> None:
    """Draw dashed lines."""
    from matplotlib.collections import LineCollection

    # A white line under the dashed one is visible on dark and on light spots
    for color, width, dashes in (("white", 1.6, "-"), ("black", 0.8, "--")):
        line = LineCollection(rings, colors=color, linewidths=width, linestyles=dashes, label="measured spots")
        ax.add_collection(line, autolim=False)


def draw_scale_bar(ax: Axes, view: View, mpp: float | None) -> None:
    """Draw a bar of a round length, about a quarter of the width, under the image; none if the mpp is unknown.

    The bar follows the limits of the x axis, so it stays right where a user zooms.
    """
    if mpp is None:
        return
    place: dict[str, Any] = {"transform": below(ax, ax.transData), "clip_on": False}
    (bar,) = ax.plot([], [], color="black", lw=1.5, solid_capstyle="butt", scalex=False, scaley=False, **place)
    label = ax.text(0, -0.08, "", ha="center", va="top", fontsize=7, **place)

    def follow(ax: Axes) -> None:
        left, right = sorted(ax.get_xlim())
        microns = round_length(0.3 * (right - left) * mpp)
        bar.set_data([left, left + microns / mpp], [-0.05, -0.05])
        label.set_x(left + microns / mpp / 2)
        label.set_text(f"{microns:g} µm" if microns < 1000 else f"{microns / 1000:g} mm")

    follow(ax)
    ax.callbacks.connect("xlim_changed", follow)


def below(ax: Axes, x: Transform) -> Transform:
    """Coordinates of what stands under a panel: x as the transform says, y in inches above the lower edge of the panel."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    corner = cast("Affine2DBase", ax.transAxes)
    return blended_transform_factory(x, figure_of(ax).dpi_scale_trans + ScaledTranslation(0, 0, corner))


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, … that is not above ``longest``."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def find_spots(slide: Slide, names: Sequence[str]) -> NDArray[np.intp]:
    """Positions, within the section, of the spots with these names."""
    spot_names = slide.adata.obs_names[slide.rows]
    positions = spot_names.get_indexer(list(names))
    if (positions < 0).any():
        absent = [name for name, i in zip(names, positions, strict=True) if i < 0]
        some = listing(spot_names, 4)
        msg = f"These are not spots of section {slide.name!r}: {listing(absent, 5)}. It has {len(spot_names)}: {some}."
        raise KeyError(msg)
    return np.asarray(positions, dtype=np.intp)


def spread_spots(slide: Slide, n: int, seed: int) -> NDArray[np.intp]:
    """Positions of ``n`` spots spread over the section, top to bottom: the nearest to the centers of ``n`` clusters."""
    from sklearn.cluster import KMeans

    n = min(int(positive(n, "The number of spots")), slide.n_spots)
    clusters = KMeans(n, n_init=1, random_state=seed).fit(slide.xy)
    distance = np.linalg.norm(slide.xy - clusters.cluster_centers_[clusters.labels_], axis=1)
    spots = [int(np.where(clusters.labels_ == k, distance, np.inf).argmin()) for k in np.unique(clusters.labels_)]
    return np.array(sorted(spots, key=lambda i: (slide.xy[i, 1], slide.xy[i, 0])), dtype=np.intp)
