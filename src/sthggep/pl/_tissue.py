"""Tissue and spots on axes in full-resolution pixels, so that all is to scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import listing, one_of, positive
from sthggep._slides._resolve import resolve
from sthggep._slides._values import id_text
from sthggep.pl._figure import empty_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from spatialdata import SpatialData

    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide

    Slides: TypeAlias = AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData]

# Pixels of a printed panel: 2.7 inches at 300 dots per inch
PANEL_PX = 800
THUMBNAIL_PX = 6000
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
    # Whole pixels, so that the borders of the image are exact
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


def draw_scale_bar(ax: Axes, view: View, mpp: float | None) -> None:
    """Draw a bar of a round length, about a quarter of the width, under the image; none if the mpp is unknown."""
    if mpp is None:
        return
    microns = round_length(0.3 * view.width * mpp)
    length = microns / mpp
    transform = ax.get_xaxis_transform()
    ax.plot(
        [view.left, view.left + length],
        [-0.03, -0.03],
        transform=transform,
        clip_on=False,
        color="black",
        lw=1.5,
        solid_capstyle="butt",
    )
    label = f"{microns:g} µm" if microns < 1000 else f"{microns / 1000:g} mm"
    ax.text(view.left + length / 2, -0.05, label, transform=transform, ha="center", va="top", fontsize=7)


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
