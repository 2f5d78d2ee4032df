"""Which spots are tied, drawn on the tissue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sthggep._checks import has_key, listing
from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep.pl._figure import COLORS, figure_of, new_figure, save_figure, style
from sthggep.pl._tissue import (
    draw_scale_bar,
    draw_spots,
    draw_tissue,
    sections_of,
    spot_diameter,
    spots_named,
    spread_spots,
    view_of,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide

PANEL_INCHES = 3.6
LINES = ("solid", (0, (2, 1)), (0, (0.6, 0.8)))


@document_places
def hypergraph(
    data: AnnData | SpatialData,
    *,
    key: str = "hypergraph",
    n: int = 4,
    spots: Sequence[str] | None = None,
    seed: int = 0,
    section: str | None = None,
    library_key: str | None = None,
    image: bool = True,
    alpha_img: float = 0.3,
    spot_size: float | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
    ax: Axes | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    mpp: float | None = None,
) -> Figure | Axes:
    """Draw, for a few spots, which others the hypergraph ties them to.

    Each chosen spot has a color, a black ring and a line to every member of the hyperedges drawn around it; each kind
    of hyperedge has a line style of its own. Where the record does not say (any more) around which spot a hyperedge was
    drawn, because the incidence is another tool's or rows were dropped since, all that hold the chosen spot are drawn.

    Parameters
    ----------
    data
        Slide that :func:`sthggep.pp.hypergraph` was called on.
    key
        Key in ``obsm`` of the incidence, spots × hyperedges.
    n
        Number of spots, spread over the section.
    spots
        Names of the spots to draw, instead of ``n`` of our choice.
    seed
        Chooses other spots.
    section
        Name of the section, where there are several.
    {places}
    image
        Show the tissue in gray. ``False`` needs no image.
    alpha_img
        Strength of the gray tissue: 0 is none.
    spot_size
        Diameter of a spot in full-resolution pixels; ``None`` takes the data's own.
    figsize
        Width and height in inches; ``None`` fits the section.
    dpi
        Resolution on the screen; files are written with 300.
    save
        File to write; its ending chooses the format.
    ax
        Axes to draw into.

    Returns
    -------
    The figure, or ``ax`` where it was passed.

    Raises
    ------
    KeyError
        There is no such incidence, or a spot is not of this section.
    ValueError
        There are several sections and none was named, or the array is no incidence.
    """
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    slides = sections_of(data, places, None if section is None else [section], need_image=image)
    if len(slides) > 1:
        msg = f"There are {len(slides)} sections: {listing(s.name for s in slides)}. Pass `section=`, one of them."
        raise ValueError(msg)
    slide = slides[0]
    ties = _ties(slide.adata, key)
    chosen = spread_spots(slide, n, seed) if spots is None else spots_named(slide, spots)
    view = view_of(slide, margin=1.5 * spot_diameter(slide, spot_size))
    with style():
        target = ax
        if target is None:
            size = figsize or (PANEL_INCHES, PANEL_INCHES * view.height / view.width + 0.65)
            target = new_figure(size, dpi).subplots()
        draw_tissue(target, view, alpha=alpha_img, gray=True)
        sizes = _draw_ties(target, slide, ties, chosen, spot_diameter(slide, spot_size))
        title = f"{slide.name}: hyperedges of {len(chosen)} of {slide.n_spots} spots"
        target.set_title(f"{title}\n{_sizes(sizes)} spots each")
        _legend(target, ties.kinds)
        draw_scale_bar(target, view, slide.mpp)
        save_figure(figure_of(target), save)
    return figure_of(target) if ax is None else ax


@dataclass(frozen=True)
class DrawnHyperedges:
    """Which spots each hyperedge holds, and, where it is known, around which spot (row) it was drawn, and its kind."""

    incidence: sparse.csc_array
    spot: NDArray[np.intp] | None
    kind: NDArray[np.str_] | None

    @property
    def kinds(self) -> list[str]:
        """Kinds of hyperedges, in their order; one without a name where they are not known."""
        return [""] if self.kind is None else list(dict.fromkeys(self.kind.tolist()))

    def of(self, row: int, kind: str) -> NDArray[np.intp]:
        """A spot's own hyperedges of one kind; all that hold it where its own are not known."""
        if self.spot is None or self.kind is None:
            return np.asarray(self.incidence[[row]].nonzero()[1], dtype=np.intp)
        return np.flatnonzero((self.spot == row) & (self.kind == kind))

    def members(self, edge: int) -> NDArray[np.intp]:
        """Rows of the spots that a hyperedge holds."""
        start, stop = self.incidence.indptr[edge : edge + 2]
        return np.asarray(self.incidence.indices[start:stop], dtype=np.intp)


def _ties(adata: AnnData, key: str) -> DrawnHyperedges:
    found = has_key(adata.obsm, key, "obsm", f"Call `sthggep.pp.hypergraph(data, key_added={key!r})` first.")
    if not sparse.issparse(found):
        msg = f"obsm[{key!r}] must be a sparse incidence (spots × hyperedges), found {type(found).__name__}."
        raise ValueError(msg)
    incidence = sparse.csc_array(found != 0)
    record = adata.uns.get(key, {})
    spot, kind = np.asarray(record.get("spot", [])), np.asarray(record.get("kind", []), dtype=str)
    # After rows were dropped or reordered the record names other rows: then not every hyperedge holds "its" spot
    known = len(spot) == len(kind) == incidence.shape[1] and len(spot) > 0 and spot.max() < adata.n_obs
    if not known or incidence[spot, np.arange(len(spot))].sum() < len(spot):
        return DrawnHyperedges(incidence, None, None)
    return DrawnHyperedges(incidence, spot, kind)


def _draw_ties(ax: Axes, slide: Slide, ties: DrawnHyperedges, chosen: NDArray[np.intp], diameter: float) -> list[int]:
    """Draw the hyperedges of the chosen spots; how many spots each of them holds."""
    from matplotlib.collections import LineCollection

    draw_spots(ax, slide.xy, diameter, facecolors="none", edgecolors="0.55", linewidths=0.5)
    position = np.full(slide.adata.n_obs, -1)
    position[slide.rows] = np.arange(slide.n_spots)
    sizes = []
    for k, spot in enumerate(chosen):
        color, center = COLORS[k % len(COLORS)], slide.xy[spot]
        for which, kind in enumerate(ties.kinds):
            held = [ties.members(edge) for edge in ties.of(int(slide.rows[spot]), kind)]
            sizes += [len(rows) for rows in held]
            rows = np.unique(np.concatenate([np.empty(0, dtype=np.intp), *held]))
            members = slide.xy[position[rows[position[rows] >= 0]]]
            lines = [np.array([center, member]) for member in members]
            # Black on the color of the first kind: a spot may be tied by both
            look = {"colors": "black", "lw": 0.8} if which else {"colors": color, "lw": 1.4}
            ax.add_collection(LineCollection(lines, ls=LINES[which % len(LINES)], zorder=3, **look))
            draw_spots(ax, members, diameter, facecolors=color, zorder=4)
        draw_spots(ax, center[None], diameter, facecolors=color, edgecolors="black", linewidths=1.2, zorder=5)
    return sizes


def _legend(ax: Axes, kinds: list[str]) -> None:
    """Which line style is which kind, right of the scale bar."""
    from matplotlib.lines import Line2D

    if len(kinds) > 1:
        styles = [("black" if i else "0.5", LINES[i % len(LINES)]) for i in range(len(kinds))]
        lines = [Line2D([], [], color=color, lw=1, ls=dashes) for color, dashes in styles]
        ax.legend(lines, kinds, loc="upper right", bbox_to_anchor=(1.0, 0.0), ncols=len(kinds), borderaxespad=0.2)


def _sizes(sizes: list[int]) -> str:
    if not sizes:
        return "0"
    return f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)}–{max(sizes)}"
