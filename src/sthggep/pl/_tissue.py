"""Tissue and spots on axes whose units are full-resolution pixels, so that everything is to scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import listing, one_of, positive
from sthggep._slides._resolve import resolve
from sthggep.pl._figure import empty_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from spatialdata import SpatialData

    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide

# Pixels of a printed panel: 2.7 inches at 300 dots an inch
PANEL_PX = 800
THUMBNAIL_PX = 6000
# Above this many spots a vector drawing is slow to open
VECTOR_SPOTS = 10_000


def sections_of(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    places: Places,
    names: Sequence[str] | None = None,
    *,
    need_image: bool = True,
) -> list[Slide]:
    """Sections of one object, of several in a list, or of several in a dict, whose keys then name them."""
    if isinstance(data, Mapping):
        found = [(key, resolve(item, places, need_image=need_image)) for key, item in data.items()]
        slides = [replace(s, name=key if len(group) == 1 else f"{key} {s.name}") for key, group in found for s in group]
    elif isinstance(data, Sequence):
        slides = [slide for item in data for slide in resolve(item, places, need_image=need_image)]
    else:
        slides = resolve(data, places, need_image=need_image)
    if not slides:
        msg = "`data` is empty; at least one AnnData or SpatialData was expected."
        raise ValueError(msg)
    if names is None:
        return slides
    wanted = [names] if isinstance(names, str) else list(names)
    there = [slide.name for slide in slides]
    order = [one_of(name, there, "section") for name in wanted]
    return [slide for name in order for slide in slides if slide.name == name]


def spot_diameter(slide: Slide, given: float | None = None) -> float:
    """Full-resolution pixels across a drawn spot: the argument, the data's own, or 0.7 of the spots' distance."""
    if given is not None:
        return positive(given, "`spot_size`")
    if slide.spot_diameter is not None and slide.spot_diameter > 0:
        return slide.spot_diameter
    if slide.n_spots < 2:
        return 100.0
    from scipy.spatial import cKDTree

    return 0.7 * float(np.median(cKDTree(slide.xy).query(slide.xy, k=2)[0][:, 1])) or 100.0


@dataclass(frozen=True)
class View:
    """The part of a section that is drawn: its borders in full-resolution pixels, and its picture."""

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
    """The spots' surroundings, ``margin`` full-resolution pixels wider on each side, cut off where the image ends."""
    low, high = slide.xy.min(axis=0) - margin, slide.xy.max(axis=0) + margin
    if not slide.levels:
        return View(low[0], high[0], low[1], high[1], None)
    size = np.array(slide.size)
    low, high = np.maximum(low, 0), np.minimum(high, size)
    wanted = PANEL_PX * size.max() / (high - low).max()
    image, factors = slide.thumbnail(max_px=int(min(np.ceil(wanted), THUMBNAIL_PX)))
    # Whole pixels, so that the picture's borders are known exactly
    start = np.floor(low * factors).astype(int)
    stop = np.minimum(np.ceil(high * factors).astype(int), image.shape[1::-1])
    low, high = start / factors, stop / factors
    return View(low[0], high[0], low[1], high[1], image[start[1] : stop[1], start[0] : stop[0]])


def draw_tissue(ax: Axes, view: View, *, alpha: float = 1.0, gray: bool = False) -> None:
    """Show the picture, and the same field of view where there is none; the y axis points down, as in images."""
    if view.image is not None and alpha > 0:
        image = view.image
        if gray:
            luminance = image @ np.array([0.299, 0.587, 0.114])
            image = np.repeat(np.rint(luminance)[..., None], 3, axis=-1).astype(np.uint8)
        # Mixed with white rather than transparent, which some printers' PDF readers get wrong
        faded = np.rint(255 - alpha * (255.0 - image)).astype(np.uint8)
        extent = (view.left, view.right, view.bottom, view.top)
        ax.imshow(faded, extent=extent, interpolation="antialiased")
    ax.set(xlim=(view.left, view.right), ylim=(view.bottom, view.top))
    ax.set_aspect("equal")
    empty_axes(ax)


def draw_spots(ax: Axes, xy: NDArray[np.float64], diameter: float, **style: Any) -> EllipseCollection:
    """Circles to scale: they grow with the figure, unlike a scatter's markers."""
    from matplotlib.collections import EllipseCollection

    options = {"linewidths": 0, "rasterized": len(xy) > VECTOR_SPOTS, **style}
    widths, angles = np.full(len(xy), diameter), np.zeros(len(xy))
    circles = EllipseCollection(
        widths, widths, angles, units="xy", offsets=xy, offset_transform=ax.transData, **options
    )
    ax.add_collection(circles, autolim=False)
    return circles


def draw_scale_bar(ax: Axes, view: View, mpp: float | None) -> None:
    """A bar of a round length, about a quarter of the width, under the picture; nothing where microns are not known."""
    if mpp is None:
        return
    microns = round_length(0.3 * view.width * mpp)
    length = microns / mpp
    where = ax.get_xaxis_transform()
    line: Any = {"color": "black", "lw": 1.5, "solid_capstyle": "butt"}
    ax.plot([view.left, view.left + length], [-0.03, -0.03], transform=where, clip_on=False, **line)
    label = f"{microns:g} µm" if microns < 1000 else f"{microns / 1000:g} mm"
    ax.text(view.left + length / 2, -0.05, label, transform=where, ha="center", va="top", fontsize=7)


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, … that is not above ``longest``."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def spots_named(slide: Slide, names: Sequence[str]) -> NDArray[np.intp]:
    """Positions, within the section, of spots given by name."""
    there = slide.adata.obs_names[slide.rows]
    found = there.get_indexer(list(names))
    if (found < 0).any():
        absent = [name for name, i in zip(names, found, strict=True) if i < 0]
        some = listing(there, 4)
        msg = f"These are not spots of section {slide.name!r}: {listing(absent, 5)}. It has {len(there)}: {some}."
        raise KeyError(msg)
    return np.asarray(found, dtype=np.intp)


def spread_spots(slide: Slide, n: int, seed: int) -> NDArray[np.intp]:
    """``n`` spots spread over the section, from top to bottom: those nearest to the centers of ``n`` clusters."""
    from sklearn.cluster import KMeans

    n = min(int(positive(n, "The number of spots")), slide.n_spots)
    fitted = KMeans(n, n_init=1, random_state=seed).fit(slide.xy)
    distance = np.linalg.norm(slide.xy - fitted.cluster_centers_[fitted.labels_], axis=1)
    chosen = [int(np.where(fitted.labels_ == k, distance, np.inf).argmin()) for k in np.unique(fitted.labels_)]
    return np.array(sorted(chosen, key=lambda i: (slide.xy[i, 1], slide.xy[i, 0])), dtype=np.intp)
