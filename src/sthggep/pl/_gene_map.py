"""Maps of predicted and observed expression, side by side on the tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from anndata import AnnData

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._keys import prediction_keys
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep.pl._crop import crops_of
from sthggep.pl._figure import figure_of, new_figure, save_figure, style
from sthggep.pl._map_layout import LINE_INCHES, TITLE_INCHES, lay_out
from sthggep.pl._map_panels import MapStyle, SectionAxes, draw_map, grid_axes, name_section, set_title
from sthggep.pl._maps import GeneMaps, color_scale, read_maps
from sthggep.pl._tissue import sections_of
from sthggep.pl._user_axes import are_in_a_row, check_axes, user_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from shapely import MultiPolygon, Polygon
    from spatialdata import SpatialData

    from sthggep.pl._map_layout import MapLayout

CHOSEN = 2  # genes that are drawn if the user names none


@checked
@document_places
def gene_map(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    genes: str | Sequence[str] | None = None,
    *,
    key: str = "hggep",
    layer: str | None = None,
    library_key: str | None = None,
    sections: Sequence[str] | None = None,
    crop_coord: Sequence[float] | Sequence[Sequence[float]] | None = None,
    region: str | Sequence[object] | Polygon | MultiPolygon | None = None,
    image: bool = True,
    bw: bool = False,
    observed: bool = True,
    genes_per_row: int | None = None,
    cmap: str = "viridis",
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    spot_size: float | None = None,
    size: float = 1.0,
    alpha: float = 1.0,
    alpha_img: float = 0.5,
    marks: bool = True,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float = 200,
    save: str | Path | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    mpp: float | None = None,
) -> Figure | Axes | Sequence[Axes]:
    """Draw maps of observed and predicted expression of genes on the tissue, beside the H&E image.

    Each section has one H&E panel, with its genes to the right. A circle is a spot, to scale, over the pale H&E. Its
    color is the expression, in the units under the color bar. A gene has one color scale for its observed and predicted
    maps and for all sections: from the 2nd to the 98th percentile of all values that are drawn. The color bar is under
    the maps that it measures; a pointed end marks values beyond the scale. Predictions vary less than noisy counts; to
    give them a color scale of their own, pass ``observed=False``.

    The title of a predicted map gives the Pearson correlation (PCC) of predicted and observed values over all spots of
    the section, on the prediction's scale and without smoothing, also where the figure shows a part of the section. The
    function computes the observed values from raw counts. Spots whose counts the model used (``measured`` of
    :func:`sthggep.tl.predict`) are left out of it. "(trained on)" marks a section that the model was trained on: its PCC
    does not show how well the model predicts new tissue.

    Parameters
    ----------
    data
        Slide with a prediction, a list of such slides, or a dict of them by name.
    genes
        One gene or several. Default: the two genes that :func:`sthggep.tl.top_genes` ranks first, which the figure says.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    {places}
    sections
        Names of the sections to draw, in this order. Default: all sections.
    crop_coord
        Box to draw: left, right, top and bottom in full-resolution pixels, as ``obsm["spatial"]``. Or a list of boxes, one
        for each section. The order is that of ``scanpy.pl.spatial``. The image is read at a resolution that is sharp in
        the box. Default: the area of the spots.
    region
        Spots to draw, and their surroundings. A column of ``obs``, or the polygons of a SpatialData (name of a shapes
        element), with one or several of its regions, as in :func:`sthggep.tl.regions`: ``("domain", "tumor")``. Or the name
        alone, of a column that is true in the region, or of polygons of which all are drawn. Or a shapely polygon in
        full-resolution pixels. With ``crop_coord``, the box is drawn with the spots of the region.
    image
        Show the H&E image. With ``False`` the slide needs no image.
    bw
        Show the H&E under the maps in gray.
    observed
        Show the observed maps. If no section has counts of the panel, the figure omits them and a log line gives the
        reason.
    genes_per_row
        Genes side by side; fewer genes make larger maps. Default: up to four maps in a row, that is two genes, or four with
        ``observed=False``, so that few places stay empty.
    cmap
        Color map.
    vmin, vmax
        Ends of the color scale, for every gene: a value, or a percentile such as ``"p98"``. Default: ``"p2"`` and
        ``"p98"``.
    spot_size
        Diameter of a spot in full-resolution pixels. Default: the diameter that the data state, else 0.7 of the
        distance between spots.
    size
        Factor on the diameter of the spots.
    alpha
        Opacity of the spots, and of the color bar. Below 1 the H&E shines through, so that colors match the bar less
        exactly; with ``alpha_img=0`` or ``bw=True`` they match better.
    alpha_img
        Strength of the H&E under the maps, from 0 (none) to 1.
    marks
        Mark what cannot be trusted. Titles of genes that :func:`sthggep.tl.trust` does not call *spot* are gray, with the
        verdict. Hatched spots have a novelty above 0.95: their image is unlike the training tissue. A dashed line surrounds
        the spots whose counts the model was trained on.
    title
        Text above the figure, for example why you chose these genes.
    figsize
        Width and height in inches. Default: a size that fits the sections, at most as wide as a journal's page.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.
    ax
        Axes to draw into. One Axes takes the predicted map of one gene of one section, as large as you make it, with the
        H&E under the spots. A list takes one Axes for each panel, in the order below. Default: a new figure.

    Returns
    -------
    The figure, or ``ax`` if you pass it. ``figure.axes`` lists, section after section, the H&E panel and the observed and
    predicted map of each gene, as far as the figure shows them; ``ax.get_label()`` names a panel, such as ``"B4: H&E"`` or
    ``"B4: FASN predicted"``. A color bar is the only one of the ``child_axes`` of its predicted map.

    Raises
    ------
    KeyError
        The slide has no such prediction, the prediction does not hold a gene, or the slide has no image.
    ValueError
        The counts are not raw, ``vmin`` or ``vmax`` is neither a number nor a percentile, no spot lies in ``crop_coord`` or
        ``region``, or ``ax`` does not fit the panels or the other options.
    TypeError
        ``ax`` holds something else than Axes.

    See Also
    --------
    sthggep.pl.view : Look at a prediction interactively.

    Notes
    -----
    ``squidpy.pl.spatial_scatter`` also documents ``crop_coord`` as (left, right, top, bottom), but squidpy 1.8 reads (left,
    top, right, bottom). The figures of scanpy and sthggep follow the documented order.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> sthggep.pl.gene_map(slide, ["FASN", "GNAS"], save="genes.png")

    One gene, large, on a part of the tissue:

    >>> sthggep.pl.gene_map(slide, "FASN", crop_coord=(4000, 7000, 2000, 5000), alpha_img=1, alpha=0.7)
    >>> sthggep.pl.gene_map(slide, "FASN", region=("domain", "tumor"), ax=ax)
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
    names, why = _genes(data, genes, key, places, n=CHOSEN if ax is None else 1)
    slides = sections_of(data, places, sections, need_image=image)
    own_axes = check_axes(ax, names, slides, {"figsize": figsize, "genes_per_row": genes_per_row, "title": title})
    crops = crops_of(data, slides, crop_coord, region, places, large=ax is not None)
    maps = [
        read_maps(slide, names, key, layer=layer, observed=observed, spot_size=spot_size, size=size, crop=crop)
        for slide, crop in zip(slides, crops, strict=True)
    ]
    if not marks:
        maps = [replace(item, verdicts=(), novel=None) for item in maps]
    alone = hasattr(ax, "transAxes")
    kinds = ["observed"] * (not alone and any(m.observed is not None for m in maps)) + ["predicted"]
    lines = _lines_below(why, maps, marks=marks)
    layout = lay_out(maps, names, kinds, image and not alone, genes_per_row, own_axes)
    with style():
        if own_axes is not None:
            section_axes = user_axes(own_axes, maps, names, layout)
            figure = figure_of(own_axes[0])
        else:
            width, height = layout.size
            height += TITLE_INCHES * (title is not None) + LINE_INCHES * len(lines)
            figure = new_figure(figsize or (width, height), dpi)
            section_axes = grid_axes(figure, maps, names, layout)
        for i in range(len(names)):
            scale = color_scale(maps if len(kinds) > 1 else [replace(m, observed=None) for m in maps], i, vmin, vmax)
            _draw_gene(i, names[i], maps, section_axes, layout, MapStyle(cmap, scale, alpha, alpha_img, bw, marks))
        for item, axes in zip(maps, section_axes, strict=True):
            name_section(axes, item, layout)
        if own_axes is None:
            _write_around(figure, title, lines)
        save_figure(figure, save)
    return figure if ax is None else ax


def _genes(data: object, genes: str | Sequence[str] | None, key: str, places: Places, n: int) -> tuple[list[str], str]:
    """The genes to draw, and why they were chosen if the user named none."""
    if genes is not None:
        return ([genes] if isinstance(genes, str) else [str(gene) for gene in genes]), ""
    from sthggep.tl import top_genes

    first = next(iter(data.values())) if isinstance(data, Mapping) else data[0] if isinstance(data, Sequence) else data
    names = top_genes(first, n, key=key, library_key=places.library_key, table_key=places.table_key)
    held_out = table_of(first, places.table_key).uns[prediction_keys(key).uns].get("held_out_pearson")
    rule = "noise ceiling in the training" if held_out is None else "correlation on tissue held out in the training"
    return names, f"genes: the {len(names)} of highest {rule}"


def _draw_gene(
    i: int, gene: str, maps: list[GeneMaps], section_axes: list[SectionAxes], layout: MapLayout, look: MapStyle
) -> None:
    """Draw the maps of a gene in all sections, with a color bar under each row of them."""
    from sthggep.pl._color_bar import draw_color_bar

    for item, axes in zip(maps, section_axes, strict=True):
        for kind, ax in axes.genes[i].items():
            draw_map(ax, item, i, kind, look)
            set_title(ax, gene, item, i, kind, layout)
        panels = list(axes.genes[i].values())
        if not are_in_a_row(panels):
            panels = panels[-1:]
        has_scale_bar = item.slide.mpp is not None and panels[0] is axes.firsts(layout.beside)[0]
        draw_color_bar(panels, look, layout.units, scale_bar=has_scale_bar)


def _lines_below(why: str, maps: list[GeneMaps], *, marks: bool) -> list[str]:
    """What stands under the panels: why these genes, and what the marks mean."""
    lines = [why] if why else []
    if any(item.shown is not None and item.observed is not None for item in maps):
        lines.append("PCC: over all spots of the section, not only those shown")
    if any(item.novel is not None and item.drawn(item.novel).any() for item in maps):
        lines.append("hatched: the image is unlike the training tissue")
    if marks and any(item.outline for item in maps):
        lines.append("dashed: around the spots whose counts the model was trained on")
    return lines


def _write_around(figure: Figure, title: str | None, lines: list[str]) -> None:
    if title is not None:
        figure.suptitle(title, fontsize=8)
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7)
    figure.draw_without_rendering()  # fixes the ticks of the color bars, so that the layout has room for them
