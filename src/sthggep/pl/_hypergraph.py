"""Hyperedges of some spots, on the tissue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sthggep._arguments import checked
from sthggep._checks import has_key, listing
from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep.pl._figure import COLORS, figure_of, new_figure, save_figure, style
from sthggep.pl._tissue import (
    draw_scale_bar,
    draw_spots,
    draw_tissue,
    find_spots,
    section_label,
    sections_of,
    spot_diameter,
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


@checked
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
    dpi: float = 200,
    save: str | Path | None = None,
    ax: Axes | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    mpp: float | None = None,
) -> Figure | Axes:
    """Draw the hyperedges of a few spots on the tissue: lines to all spots that they hold.

    The axes show the section to scale, in gray; a circle is a spot. Each selected spot has a color, a black ring, and a
    line to every member of its own hyperedges; each kind of hyperedge has its line style. If the record does not name
    the spot of each hyperedge (another tool made the incidence, or rows were dropped since), the function draws all
    hyperedges that hold the selected spot. The title gives the number of spots in a hyperedge.

    Parameters
    ----------
    data
        Slide with a hypergraph. Call :func:`sthggep.pp.hypergraph` on it first.
    key
        Key in ``obsm`` of the incidence, spots × hyperedges.
    n
        Number of spots to select, spread over the section.
    spots
        Names of the spots to draw. Default: ``n`` spots that the function selects.
    seed
        Another seed selects other spots.
    section
        Name of the section; needed if ``data`` holds several.
    {places}
    image
        Show the tissue in gray. With ``False`` the slide needs no image.
    alpha_img
        Strength of the gray tissue, from 0 (none) to 1.
    spot_size
        Diameter of a spot in full-resolution pixels. Default: the diameter that the data state, else 0.7 of the
        distance between spots.
    figsize
        Width and height in inches. Default: a size that fits the section.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.
    ax
        Axes to draw into. Default: a new figure.

    Returns
    -------
    The figure, or ``ax`` if you pass it.

    Raises
    ------
    KeyError
        ``obsm`` has no ``key``, or the section has no spot of a name in ``spots``.
    ValueError
        ``data`` holds several sections and ``section`` names none, or the array is not a sparse incidence.

    Examples
    --------
    >>> sthggep.pp.hypergraph(slide)
    >>> sthggep.pl.hypergraph(slide, n=6)
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
        names = listing(s.name for s in slides)
        msg = f"One section was expected, found {len(slides)}: {names}. Pass `section=` with the name of one."
        raise ValueError(msg)
    slide = slides[0]
    edges = _read_hyperedges(slide.adata, key)
    selection = spread_spots(slide, n, seed) if spots is None else find_spots(slide, spots)
    view = view_of(slide, margin=1.5 * spot_diameter(slide, spot_size))
    with style():
        target = ax
        if target is None:
            size = figsize or (PANEL_INCHES, PANEL_INCHES * view.height / view.width + 0.65)
            target = new_figure(size, dpi).subplots()
        draw_tissue(target, view, alpha=alpha_img, gray=True)
        sizes = _draw_hyperedges(target, slide, edges, selection, spot_diameter(slide, spot_size))
        title = f"{section_label(slide)}: hyperedges of {len(selection)} of {slide.n_spots} spots"
        target.set_title(f"{title}\n{_size_range(sizes)} spots each")
        _draw_legend(target, edges.kinds)
        draw_scale_bar(target, view, slide.mpp)
        save_figure(figure_of(target), save)
    return figure_of(target) if ax is None else ax


@dataclass(frozen=True)
class Hyperedges:
    """The spots that each hyperedge holds and, if the record names them, its own spot (row) and its kind."""

    incidence: sparse.csc_array
    spot: NDArray[np.intp] | None
    kind: NDArray[np.str_] | None

    @property
    def kinds(self) -> list[str]:
        """Kinds of hyperedges, in their order; one without a name if they are unknown."""
        return [""] if self.kind is None else list(dict.fromkeys(self.kind.tolist()))

    def of(self, row: int, kind: str) -> NDArray[np.intp]:
        """A spot's own hyperedges of one kind; if those are unknown, all hyperedges that hold the spot."""
        if self.spot is None or self.kind is None:
            return np.asarray(self.incidence[[row]].nonzero()[1], dtype=np.intp)
        return np.flatnonzero((self.spot == row) & (self.kind == kind))

    def members(self, edge: int) -> NDArray[np.intp]:
        """Rows of the spots that a hyperedge holds."""
        start, stop = self.incidence.indptr[edge : edge + 2]
        return np.asarray(self.incidence.indices[start:stop], dtype=np.intp)


def _read_hyperedges(adata: AnnData, key: str) -> Hyperedges:
    call = f"Call `sthggep.pp.hypergraph(data, key_added={key!r})` first."
    array = has_key(adata.obsm, key, "obsm", call)
    if not sparse.issparse(array):
        msg = f"obsm[{key!r}] must be a sparse incidence (spots × hyperedges), found {type(array).__name__}. {call}"
        raise ValueError(msg)
    incidence = sparse.csc_array(array != 0)
    record = adata.uns.get(key, {})
    spot, kind = np.asarray(record.get("spot", [])), np.asarray(record.get("kind", []), dtype=str)
    # If rows were dropped or reordered, the record names wrong rows: then some hyperedge does not hold its own spot
    complete = len(spot) == len(kind) == incidence.shape[1] and len(spot) > 0 and spot.max() < adata.n_obs
    if not complete or incidence[spot, np.arange(len(spot))].sum() < len(spot):
        return Hyperedges(incidence, None, None)
    return Hyperedges(incidence, spot, kind)


def _draw_hyperedges(
    ax: Axes, slide: Slide, edges: Hyperedges, selection: NDArray[np.intp], diameter: float
) -> list[int]:
    """Draw the hyperedges of the selected spots; return the number of spots in each."""
    from matplotlib.collections import LineCollection

    draw_spots(ax, slide.xy, diameter, facecolors="none", edgecolors="0.55", linewidths=0.5)
    position = np.full(slide.adata.n_obs, -1)
    position[slide.rows] = np.arange(slide.n_spots)
    sizes = []
    for k, spot in enumerate(selection):
        color, center = COLORS[k % len(COLORS)], slide.xy[spot]
        for i, kind in enumerate(edges.kinds):
            rows_of_edges = [edges.members(edge) for edge in edges.of(int(slide.rows[spot]), kind)]
            sizes += [len(rows) for rows in rows_of_edges]
            rows = np.unique(np.concatenate([np.empty(0, dtype=np.intp), *rows_of_edges]))
            members = slide.xy[position[rows[position[rows] >= 0]]]
            lines = [np.array([center, member]) for member in members]
            # Black is visible on the color of the first kind: hyperedges of both kinds may hold a spot
            line_color, width = ("black", 0.8) if i else (color, 1.4)
            ax.add_collection(LineCollection(lines, colors=line_color, lw=width, ls=LINES[i % len(LINES)], zorder=3))
            draw_spots(ax, members, diameter, facecolors=color, zorder=4)
        draw_spots(ax, center[None], diameter, facecolors=color, edgecolors="black", linewidths=1.2, zorder=5)
    return sizes


def _draw_legend(ax: Axes, kinds: list[str]) -> None:
    """Draw the line style of each kind of hyperedge, right of the scale bar."""
    from matplotlib.lines import Line2D

    if len(kinds) > 1:
        styles = [("black" if i else "0.5", LINES[i % len(LINES)]) for i in range(len(kinds))]
        lines = [Line2D([], [], color=color, lw=1, ls=dashes) for color, dashes in styles]
        ax.legend(lines, kinds, loc="upper right", bbox_to_anchor=(1.0, 0.0), ncols=len(kinds), borderaxespad=0.2)


def _size_range(sizes: list[int]) -> str:
    if not sizes:
        return "0"
    return f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)}–{max(sizes)}"
