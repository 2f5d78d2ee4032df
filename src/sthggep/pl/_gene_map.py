"""Predicted beside observed expression, on the tissue."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from sthggep._checks import positive
from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep.pl._figure import new_figure, save_figure, style
from sthggep.pl._maps import GeneMaps, color_scale, pcc, read_maps
from sthggep.pl._tissue import draw_scale_bar, draw_spots, draw_tissue, sections_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PAGE_INCHES = 7.2  # across a journal's page
PANEL_INCHES = 2.1
TALLEST_INCHES = 3.6
LETTER_INCHES = 0.062  # of titles
GAP_INCHES = 0.12  # between panels
BAR_INCHES = 0.06
BAR_ROOM = 0.3  # of a color bar with its numbers, or of a scale bar


@document_places
def gene_map(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    genes: str | Sequence[str],
    *,
    key: str = "hggep",
    layer: str | None = None,
    library_key: str | None = None,
    sections: Sequence[str] | None = None,
    image: bool = True,
    observed: bool = True,
    genes_per_row: int | None = None,
    cmap: str = "viridis",
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    spot_size: float | None = None,
    alpha: float = 1.0,
    alpha_img: float = 0.3,
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    mpp: float | None = None,
) -> Figure:
    """Draw predicted genes on the tissue: H&E, observed and predicted side by side.

    Each section has its H&E once, and its genes to the right of it. A gene has one color scale, for observed and
    predicted and for all sections of the figure: from the 2nd to the 98th percentile of all these values taken together.
    Its color bar is under the predicted map; a pointed end says that there are values beyond. Predictions vary less than
    noisy counts do; to see them on a scale of their own, pass ``observed=False``.

    The title of a predicted map gives the Pearson correlation (PCC) with what was observed, over all spots of the
    section, on the prediction's scale and without smoothing; observed values are computed from raw counts for this.
    Spots are drawn to scale, over the tissue in pale gray. A section that the model has learned from is marked "(trained
    on)" at its name: its PCC says nothing about new tissue.

    Parameters
    ----------
    data
        Slide with a prediction; or a list of such slides, or a dict of them by name.
    genes
        One gene or several.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    {places}
    sections
        Names of the sections to draw, in this order; ``None`` draws all.
    image
        Show the H&E image. ``False`` needs no image.
    observed
        Show what was measured. Where nothing was (no counts of these genes), it is left out, and the log says so.
    genes_per_row
        Genes side by side; ``None`` takes as many as make four maps in a row. The fewer, the larger are the maps.
    cmap
        Color map.
    vmin, vmax
        Ends of the color scale, for every gene: a value, or a percentile such as ``"p98"``.
    spot_size
        Diameter of a spot in full-resolution pixels; ``None`` takes the data's own.
    alpha
        Opacity of the spots.
    alpha_img
        Strength of the gray tissue under the maps: 0 is none.
    figsize
        Width and height in inches; ``None`` fits the sections, on the width of a journal's page.
    dpi
        Resolution on the screen; files are written with 300.
    save
        File to write; its ending chooses the format.

    Returns
    -------
    The figure. ``figure.axes`` are, section after section, the H&E (where it is shown) and each gene's observed (where it
    is shown) and predicted map; ``ax.get_label()`` says which, such as ``"B4: H&E"`` or ``"B4: FASN predicted"``. A
    color bar is the only one of its predicted map's ``child_axes``.

    Raises
    ------
    KeyError
        There is no such prediction, a gene was not predicted, or there is no image.
    ValueError
        The counts are not raw, or a limit of the color scale cannot be read.
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
    names = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
    slides = sections_of(data, places, sections, need_image=image)
    maps = [read_maps(slide, names, key, layer=layer, observed=observed, spot_size=spot_size) for slide in slides]
    kinds = ["observed"] * any(m.observed is not None for m in maps) + ["predicted"]
    layout = _layout(maps, names, kinds, image, genes_per_row)
    with style():
        figure = new_figure(figsize or layout.size, dpi)
        drawn = _axes(figure, maps, names, layout)
        for item, axes in zip(maps, drawn, strict=True):
            _name_section(axes, item, layout)
        for i, gene in enumerate(names):
            norm, extend = color_scale(maps, i, vmin, vmax)
            options = {"cmap": cmap, "norm": norm, "alpha": alpha}
            for item, axes in zip(maps, drawn, strict=True):
                for kind, ax in axes.genes[i].items():
                    _draw_map(ax, item, i, kind, alpha_img, options)
                    ax.set_title(layout.break_at.join([gene, _said(item, i, kind)]))
                _color_bar(axes.genes[i]["predicted"], extend, layout.height(item))
        figure.supxlabel(f"colors: {'; '.join(dict.fromkeys(m.units for m in maps))}", x=0.99, ha="right", fontsize=7)
        figure.draw_without_rendering()  # the bars' ticks settle, then there is room for their labels
        save_figure(figure, save)
    return figure


@dataclass(frozen=True)
class _Layout:
    """Where panels are: each section has rows of genes, the H&E before the first of them."""

    kinds: list[str]
    image: bool
    beside: int
    rows: int
    panel: float
    break_at: str
    size: tuple[float, float]

    @property
    def columns(self) -> int:
        """Panels in a row."""
        return self.image + self.beside * len(self.kinds)

    def height(self, item: GeneMaps) -> float:
        """Inches of a map of this section."""
        return min(self.panel * item.view.height / item.view.width, TALLEST_INCHES)


@dataclass(frozen=True)
class _SectionAxes:
    """The axes of one section; of each gene by what is shown."""

    tissue: Axes | None
    genes: list[dict[str, Axes]]


def _layout(
    maps: list[GeneMaps], names: list[str], kinds: list[str], image: bool, genes_per_row: int | None
) -> _Layout:
    beside = 4 // len(kinds) if genes_per_row is None else int(positive(genes_per_row, "`genes_per_row`"))
    beside = min(beside, len(names))
    n = image + beside * len(kinds)
    panel = min(PANEL_INCHES, (PAGE_INCHES - 0.3) / n - GAP_INCHES)
    longest = max(map(len, names)) + len(" predicted  PCC 0.00" if "observed" in kinds else " predicted")
    break_at = "\n" if LETTER_INCHES * longest > panel else " "
    layout = _Layout(kinds, image, beside, -(-len(names) // beside), panel, break_at, (0.0, 0.0))
    height = sum(_row_height(layout, item) for item in maps) * layout.rows + 0.25
    return replace(layout, size=(n * (panel + GAP_INCHES) + 0.3, height))


def _row_height(layout: _Layout, item: GeneMaps) -> float:
    """Inches of a map with its title and what is under it."""
    return layout.height(item) + BAR_ROOM + (0.36 if layout.break_at == "\n" else 0.22)


def _axes(figure: Figure, maps: list[GeneMaps], names: list[str], layout: _Layout) -> list[_SectionAxes]:
    """One axes for each panel; a place without a gene stays empty."""
    heights = [_row_height(layout, item) for item in maps for _ in range(layout.rows)]
    grid = figure.add_gridspec(len(heights), layout.columns, height_ratios=heights)
    drawn = []
    for s, item in enumerate(maps):
        top, section = s * layout.rows, item.slide.name
        tissue = figure.add_subplot(grid[top, 0], label=f"{section}: H&E") if layout.image else None
        genes = []
        for i, gene in enumerate(names):
            row, first = top + i // layout.beside, layout.image + i % layout.beside * len(layout.kinds)
            places = enumerate(layout.kinds, start=first)
            label = f"{section}: {gene}"
            genes.append({k: figure.add_subplot(grid[row, at], label=f"{label} {k}") for at, k in places})
        drawn.append(_SectionAxes(tissue, genes))
    return drawn


def _name_section(axes: _SectionAxes, item: GeneMaps, layout: _Layout) -> None:
    """The H&E with its scale bar, and the section's name; without it, both go to the first map of each row."""
    firsts = [next(iter(shown.values())) for shown in axes.genes[:: layout.beside]]
    if axes.tissue is not None:
        draw_tissue(axes.tissue, item.view)
        axes.tissue.set_title("H&E")
        firsts = [axes.tissue]
    name = textwrap.fill(item.slide.name, max(8, int(layout.height(item) / LETTER_INCHES)))
    if item.learned_from:
        name += "\n(trained on)"
    for ax in firsts:
        ax.set_ylabel(name)
    draw_scale_bar(firsts[0], item.view, item.slide.mpp)


def _draw_map(ax: Axes, item: GeneMaps, i: int, kind: str, alpha_img: float, options: dict[str, Any]) -> None:
    values = item.predicted if kind == "predicted" else item.observed
    draw_tissue(ax, item.view, alpha=alpha_img, gray=True)
    if values is None or np.isnan(values[:, i]).all():
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center")
        return
    draw_spots(ax, item.slide.xy, item.diameter, array=values[:, i], **options)


def _said(item: GeneMaps, i: int, kind: str) -> str:
    """What a map shows, and how well the prediction follows what was measured."""
    if kind == "observed" or item.observed is None or np.isnan(item.observed[:, i]).all():
        return kind
    r = pcc(item.observed[:, i], item.predicted[:, i])
    return f"{kind}  PCC {'n/a' if np.isnan(r) else f'{r:.2f}'}"


def _color_bar(ax: Any, extend: str, height: float) -> None:
    """A bar under its map, in so far that its numbers do not stick out."""
    place = ax.inset_axes((0.06, -2 * BAR_INCHES / height, 0.88, BAR_INCHES / height))
    bar = ax.figure.colorbar(ax.collections[0], cax=place, extend=extend, orientation="horizontal")
    low, high = bar.norm.vmin, bar.norm.vmax
    # As many decimals for all three as tell them apart
    decimals = int(np.clip(1 - np.floor(np.log10(high - low)), 0, 6)) if high > low else 2
    places = [low, (low + high) / 2, high]
    bar.set_ticks(places, labels=[f"{value:.{decimals}f}" for value in places])
    bar.outline.set_visible(False)
    bar.solids.set(alpha=1)
