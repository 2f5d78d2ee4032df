"""Predicted beside observed expression, on the tissue."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep.pl._figure import new_figure, save_figure, style
from sthggep.pl._maps import Maps, colour_scale, pcc, read_maps
from sthggep.pl._tissue import draw_scale_bar, draw_spots, draw_tissue, sections_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PANEL_INCHES = 2.1
TALLEST_INCHES = 3.6
LONG_NAME = 12


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

    One row for each gene and section. A gene has one colour scale, for observed and predicted and for all sections of
    the figure: from the 2nd to the 98th percentile of all these values taken together. A pointed end of the colour bar
    says that there are values beyond. Predictions vary less than noisy counts do; to see them on a scale of their own,
    pass ``observed=False``.

    The title of a predicted map gives the Pearson correlation (PCC) with what was observed, over all spots of the
    section, on the prediction's scale and without smoothing; observed values are computed from raw counts for this.
    Spots are drawn to scale, over the tissue in pale gray.

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
    library_key
        Column of ``obs`` that tells the sections of an AnnData apart.
    sections
        Names of the sections to draw, in this order; ``None`` draws all.
    image
        Show the H&E image. ``False`` needs no image.
    observed
        Show what was measured. Where nothing was (no counts of these genes), it is left out, and the log says so.
    cmap
        Colour map.
    vmin, vmax
        Ends of the colour scale, for every gene: a value, or a percentile such as ``"p98"``.
    spot_size
        Diameter of a spot in full-resolution pixels; ``None`` takes the data's own.
    alpha
        Opacity of the spots.
    alpha_img
        Strength of the gray tissue under the maps: 0 is none.
    figsize
        Width and height in inches; ``None`` fits the sections, for printing across a page.
    dpi
        Resolution on the screen; files are written with 300.
    save
        File to write; its ending chooses the format.
    image_key
        Name of the image; needed only where several could be meant.
    table_key
        Table of a SpatialData.
    shapes_key
        Region of a SpatialData's table; needed only where it annotates several.
    spatial_key
        Key in ``obsm`` of an AnnData: (x, y) in full-resolution pixels.
    coordinate_system
        Coordinate system of a SpatialData in which spots and image meet.
    mpp
        Microns per full-resolution pixel, for the scale bar. ``None`` takes metadata, else the spot pitch.

    Returns
    -------
    The figure.

    Raises
    ------
    KeyError
        There is no such prediction, a gene was not predicted, or there is no image.
    ValueError
        The counts are not raw, or a limit of the colour scale cannot be read.
    """
    names = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
    slides = sections_of(
        data,
        sections,
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
        need_image=image,
    )
    maps = [read_maps(slide, names, key, layer=layer, observed=observed, spot_size=spot_size) for slide in slides]
    columns = ["H&E"] * image + ["observed"] * any(m.observed is not None for m in maps) + ["predicted"]
    with style():
        axes = _grid(maps, len(names), len(columns), figsize, dpi)
        for i, gene in enumerate(names):
            norm, extend = colour_scale(maps, i, vmin, vmax)
            options = {"cmap": cmap, "norm": norm, "alpha": alpha}
            for k, item in enumerate(maps):
                row = axes[i * len(maps) + k]
                row[0].set_ylabel(item.slide.name)
                _draw_row(row, columns, gene, i, item, alpha_img, options)
                _colour_bar(row[-1], extend, item.units)
        figure: Figure = axes[0, 0].get_figure()
        figure.draw_without_rendering()  # the bars' ticks settle, then there is room for their labels
        save_figure(figure, save)
    return figure


def _grid(
    maps: list[Maps], n_genes: int, n_columns: int, figsize: tuple[float, float] | None, dpi: float
) -> NDArray[np.object_]:
    """Axes, one row a gene and section, each row as high as its section asks for."""
    heights = [min(PANEL_INCHES * m.view.height / m.view.width, TALLEST_INCHES) + 0.35 for m in maps] * n_genes
    size = figsize or (PANEL_INCHES * n_columns + 1.0, sum(heights))
    figure = new_figure(size, dpi)
    return figure.subplots(len(heights), n_columns, squeeze=False, height_ratios=heights)


def _draw_row(
    row: NDArray[np.object_],
    columns: list[str],
    gene: str,
    i: int,
    item: Maps,
    alpha_img: float,
    options: dict[str, Any],
) -> None:
    break_at = "\n" if len(gene) > LONG_NAME else " "
    for ax, column in zip(row, columns, strict=True):
        if column == "H&E":
            draw_tissue(ax, item.view)
            ax.set_title(column)
            continue
        values = item.predicted if column == "predicted" else item.observed
        ax.set_title(f"{gene}{break_at}{column}")
        draw_tissue(ax, item.view, alpha=alpha_img, gray=True)
        if values is None:
            ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center")
            continue
        draw_spots(ax, item.slide.xy, item.diameter, array=values[:, i], **options)
    if item.observed is not None:
        r = pcc(item.observed[:, i], item.predicted[:, i])
        reached = "PCC n/a" if np.isnan(r) else f"PCC {r:.2f}"
        row[-1].set_title(f"{gene}{break_at}predicted  {reached}")
    draw_scale_bar(row[0], item.view, item.slide.mpp)


def _colour_bar(ax: Any, extend: str, units: str) -> None:
    """A bar as high as the map it stands beside."""
    bar = ax.figure.colorbar(ax.collections[0], cax=ax.inset_axes((1.04, 0.0, 0.05, 1.0)), extend=extend)
    bar.set_label(textwrap.fill(units, 26), fontsize=7)
    bar.outline.set_visible(False)
    bar.solids.set(alpha=1)
