"""Maps of predicted and observed expression, side by side on the tissue."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep._table._verdicts import TRUSTED
from sthggep.pl._figure import figure_of, new_figure, save_figure, style
from sthggep.pl._map_layout import BAR_INCHES, LETTER_INCHES, MapLayout, is_doubtful, lay_out, row_height
from sthggep.pl._maps import ColorScale, GeneMaps, color_scale, read_maps
from sthggep.pl._tissue import draw_scale_bar, draw_spots, draw_tissue, sections_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

HATCH = "/" * 9  # dense enough for small spots


@checked
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
    marks: bool = True,
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
    """Draw maps of observed and predicted expression of genes on the tissue, beside the H&E image.

    Each section has one H&E panel, with its genes to the right. A circle is a spot, to scale, over the tissue in pale
    gray. Its color is the expression, in the units under the figure. A gene has one color scale for its observed and
    predicted maps and for all sections: from the 2nd to the 98th percentile of all these values. The color bar is under
    the predicted map; a pointed end marks values beyond the scale. Predictions vary less than noisy counts; to give
    them a color scale of their own, pass ``observed=False``.

    The title of a predicted map gives the Pearson correlation (PCC) of predicted and observed values over all spots of
    the section, on the prediction's scale and without smoothing. The function computes the observed values from raw
    counts. Spots whose counts the model used (``measured`` of :func:`sthggep.tl.predict`) are left out of it.
    "(trained on)" marks a section that the model was trained on: its PCC does not show how well the model
    predicts new tissue.

    Parameters
    ----------
    data
        Slide with a prediction, a list of such slides, or a dict of them by name.
    genes
        One gene or several.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    {places}
    sections
        Names of the sections to draw, in this order. Default: all sections.
    image
        Show the H&E image. With ``False`` the slide needs no image.
    observed
        Show the observed maps. If no section has counts of the panel, the figure omits them and a log line gives the
        reason.
    genes_per_row
        Genes side by side; fewer genes make larger maps. Default: four maps in a row, that is two genes, or four with
        ``observed=False``.
    cmap
        Color map.
    vmin, vmax
        Ends of the color scale, for every gene: a value, or a percentile such as ``"p98"``. Default: ``"p2"`` and
        ``"p98"``.
    spot_size
        Diameter of a spot in full-resolution pixels. Default: the diameter that the data state, else 0.7 of the
        distance between spots.
    alpha
        Opacity of the spots.
    alpha_img
        Strength of the gray tissue under the maps, from 0 (none) to 1.
    marks
        Mark what cannot be trusted. Titles of genes that :func:`sthggep.tl.trust` does not call *spot* are gray, with the
        verdict. Hatched spots have a novelty above 0.95: their image is unlike the training tissue.
    figsize
        Width and height in inches. Default: a size that fits the sections, at most as wide as a journal's page.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.

    Returns
    -------
    The figure. ``figure.axes`` lists, section after section, the H&E panel and the observed and predicted map of each
    gene, as far as the figure shows them; ``ax.get_label()`` names a panel, such as ``"B4: H&E"`` or
    ``"B4: FASN predicted"``. A color bar is the only one of the ``child_axes`` of its predicted map.

    Raises
    ------
    KeyError
        The slide has no such prediction, the prediction does not hold a gene, or the slide has no image.
    ValueError
        The counts are not raw, or ``vmin`` or ``vmax`` is neither a number nor a percentile.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> sthggep.pl.gene_map(slide, ["FASN", "GNAS"], save="genes.png")
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
    if not marks:
        maps = [replace(item, verdicts=(), novel=None) for item in maps]
    layout = lay_out(maps, names, kinds, image, genes_per_row)
    with style():
        figure = new_figure(figsize or layout.size, dpi)
        section_axes = _axes(figure, maps, names, layout)
        for item, axes in zip(maps, section_axes, strict=True):
            _name_section(axes, item, layout)
        for i, gene in enumerate(names):
            look = _MapStyle(cmap, color_scale(maps, i, vmin, vmax), alpha, alpha_img)
            for item, axes in zip(maps, section_axes, strict=True):
                for kind, ax in axes.genes[i].items():
                    _draw_map(ax, item, i, kind, look)
                    _set_title(ax, gene, item, i, kind, layout)
                _draw_color_bar(axes.genes[i]["predicted"], look.scale, layout.height(item))
        caption = f"colors: {'; '.join(dict.fromkeys(m.units for m in maps))}"
        if any(item.novel is not None and item.novel.any() for item in maps):
            caption += "\nhatched: the image is unlike the training tissue"
        figure.supxlabel(caption, x=0.99, ha="right", fontsize=7)
        figure.draw_without_rendering()  # fixes the ticks of the color bars, so that the layout has room for them
        save_figure(figure, save)
    return figure


@dataclass(frozen=True)
class _MapStyle:
    """How the maps of one gene are drawn."""

    cmap: str
    scale: ColorScale
    alpha: float
    alpha_img: float


@dataclass(frozen=True)
class _SectionAxes:
    """The axes of one section; those of each gene by the kind of map."""

    tissue: Axes | None
    genes: list[dict[str, Axes]]


def _axes(figure: Figure, maps: list[GeneMaps], names: list[str], layout: MapLayout) -> list[_SectionAxes]:
    """One axes for each panel; a place without a gene stays empty, without axes."""
    heights = [row_height(layout, item) for item in maps for _ in range(layout.rows)]
    grid = figure.add_gridspec(len(heights), layout.columns, height_ratios=heights)
    section_axes = []
    for s, item in enumerate(maps):
        top, section = s * layout.rows, item.slide.name
        tissue = figure.add_subplot(grid[top, 0], label=f"{section}: H&E") if layout.image else None
        genes = []
        for i, gene in enumerate(names):
            row, first = top + i // layout.beside, layout.image + i % layout.beside * len(layout.kinds)
            columns = enumerate(layout.kinds, start=first)
            label = f"{section}: {gene}"
            genes.append({k: figure.add_subplot(grid[row, column], label=f"{label} {k}") for column, k in columns})
        section_axes.append(_SectionAxes(tissue, genes))
    return section_axes


def _name_section(axes: _SectionAxes, item: GeneMaps, layout: MapLayout) -> None:
    """Draw the H&E, the scale bar and the section's name; without H&E, the latter two go to the first map of each row."""
    firsts = [next(iter(by_kind.values())) for by_kind in axes.genes[:: layout.beside]]
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


def _draw_map(ax: Axes, item: GeneMaps, i: int, kind: str, look: _MapStyle) -> None:
    from matplotlib.colors import Normalize

    values = item.predicted if kind == "predicted" else item.observed
    draw_tissue(ax, item.view, alpha=look.alpha_img, gray=True)
    if values is None or np.isnan(values[:, i]).all():
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center")
        return
    norm = Normalize(look.scale.low, look.scale.high)
    draw_spots(ax, item.slide.xy, item.diameter, array=values[:, i], cmap=look.cmap, norm=norm, alpha=look.alpha)
    if kind == "predicted" and item.novel is not None and item.novel.any():
        novel = draw_spots(
            ax, item.slide.xy[item.novel], item.diameter, facecolors="none", edgecolors="white", hatch=HATCH
        )
        if hasattr(novel, "set_hatch_linewidth"):  # matplotlib 3.11
            novel.set_hatch_linewidth(0.6)


def _set_title(ax: Axes, gene: str, item: GeneMaps, i: int, kind: str, layout: MapLayout) -> None:
    """Name gene and kind of a map; gray, with the verdict, where the prediction cannot be read spot by spot."""
    title = layout.break_at.join([gene, _map_title(item, i, kind)])
    if kind == "predicted" and item.verdicts and is_doubtful(item.verdicts[i]):
        verdict = item.verdicts[i]
        words = "only means over regions" if verdict == TRUSTED[1] else verdict
        ax.set_title(f"{title}\n({words})", color="0.5")
        return
    ax.set_title(title)


def _map_title(item: GeneMaps, i: int, kind: str) -> str:
    """Kind of a map, and the correlation of predicted and observed values."""
    if kind == "observed" or item.observed is None or np.isnan(item.observed[:, i]).all():
        return kind
    r = item.pearson(i)
    return f"{kind}  PCC {'n/a' if np.isnan(r) else f'{r:.2f}'}"


def _draw_color_bar(ax: Axes, scale: ColorScale, height: float) -> None:
    """Draw a color bar under its map, narrower than the map so that its numbers do not stick out."""
    inset = ax.inset_axes((0.06, -2 * BAR_INCHES / height, 0.88, BAR_INCHES / height))
    bar = figure_of(ax).colorbar(ax.collections[0], cax=inset, extend=scale.extend, orientation="horizontal")
    low, high = scale.low, scale.high
    # All three ticks have as many decimals as the range needs
    decimals = int(np.clip(1 - np.floor(np.log10(high - low)), 0, 6)) if high > low else 2
    ticks = [low, (low + high) / 2, high]
    bar.set_ticks(ticks, labels=[f"{value:.{decimals}f}" for value in ticks])
    bar.outline.set(visible=False)
    if bar.solids is not None:
        bar.solids.set(alpha=1)
