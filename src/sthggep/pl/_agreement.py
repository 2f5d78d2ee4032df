"""Clusters of predicted and measured expression beside tissue labels, on the tissue."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import has_key
from sthggep._docs import document_places
from sthggep._keys import prediction_keys
from sthggep._slides._anndata import table_of
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one
from sthggep._table._labels import ari_nmi, read_labels
from sthggep.pl._figure import COLORS, new_figure, save_figure, style
from sthggep.pl._tissue import View, draw_scale_bar, draw_spots, draw_tissue, spot_diameter, view_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PANEL_INCHES = 1.9
TALLEST_INCHES = 3.6
LEGEND_ROW_INCHES = 0.17
# Black would hide the borders of spots in other panels; the six colors at the end are Paul Tol's muted ones
PALETTE = (*(c for c in COLORS if c != "#000000"), "#882255", "#332288", "#999933", "#44AA99", "#661100", "#6699CC")
MISSING = "#D9D9D9"


@checked
@document_places
def agreement(
    data: AnnData | SpatialData,
    *,
    key: str = "hggep",
    labels_key: str | None = None,
    image: bool = True,
    spot_size: float | None = None,
    alpha_img: float = 0.3,
    figsize: tuple[float, float] | None = None,
    dpi: float = 200,
    save: str | Path | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    mpp: float | None = None,
) -> Figure:
    """Draw tissue labels beside the clusters of predicted and of measured expression, as maps on the tissue.

    The panels are the H&E image, the labels, the clusters of the prediction and, if the slide has counts, the clusters
    of the counts. All panels show the section to scale; a circle is a spot. Clusters have no names: each cluster takes
    the color of one label, so that as many spots as possible have the same color in both maps; further clusters take
    colors that no label has. The title of a cluster map gives the number of clusters and their adjusted Rand index
    (ARI) with the labels. Spots without a label are pale gray.

    Parameters
    ----------
    data
        One section. Call :func:`sthggep.tl.agreement` on it first.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    labels_key
        Column of ``obs`` with the labels. Default: the column that :func:`sthggep.tl.agreement` compared.
    image
        Show the H&E image. With ``False`` the slide needs no image.
    spot_size
        Diameter of a spot in full-resolution pixels. Default: the diameter that the data state, else 0.7 of the
        distance between spots.
    alpha_img
        Strength of the gray tissue under the maps, from 0 (none) to 1.
    figsize
        Width and height in inches. Default: a size that fits the content.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.
    {places}

    Returns
    -------
    The figure.

    Raises
    ------
    KeyError
        The slide has no result of :func:`sthggep.tl.agreement`, or no column ``labels_key``.
    ValueError
        ``data`` holds several sections, or no spot has a label.

    Examples
    --------
    >>> sthggep.tl.agreement(slide, labels_key="annotation")
    >>> sthggep.pl.agreement(slide, save="agreement.png")
    """
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        mpp=mpp,
    )
    names = prediction_keys(key)
    record = has_key(
        table_of(data, table_key).uns, names.agreement, "uns", f"Call `sthggep.tl.agreement(data, {key!r}, …)` first."
    )
    slide = resolve_one(data, places, need_image=image)
    labels_key = str(record["labels_key"]) if labels_key is None else labels_key
    labels = read_labels(slide, labels_key)
    maps = {f"labels: {labels_key}": labels}
    for name, column in (("predicted", names.clusters), ("observed", names.clusters_observed)):
        if column in slide.adata.obs:
            maps[name] = read_labels(slide, column)
    diameter = spot_diameter(slide, spot_size)
    view = view_of(slide, margin=1.5 * diameter)
    colors = dict(zip(sorted(labels.dropna().unique(), key=_sort_key), palette(), strict=False))
    legend = colors | ({"no label": MISSING} if labels.isna().any() else {})
    with style():
        figure, axes = _axes(view, len(maps) + image, legend, figsize, dpi)
        if image:
            draw_tissue(axes[0], view)
            axes[0].set_title("H&E")
        for ax, (name, values) in zip(axes[int(image) :], maps.items(), strict=True):
            draw_tissue(ax, view, alpha=alpha_img, gray=True)
            value_colors = colors if values is labels else match_colors(labels, values, colors)
            draw_spots(ax, slide.xy, diameter, facecolors=values.map(value_colors).fillna(MISSING).tolist())
            ax.set_title(name if values is labels else _title(name, labels, values))
        draw_scale_bar(axes[0], view, slide.mpp)
        _draw_legend(figure, legend)
        save_figure(figure, save)
    return figure


def match_colors(
    labels: pd.Series, clusters: pd.Series, colors: dict[str, str], taken: Collection[str] = ()
) -> dict[str, str]:
    """Give each cluster the color of one label so that the most spots agree; further clusters take new colors."""
    from scipy.optimize import linear_sum_assignment

    n_common = pd.crosstab(clusters.to_numpy(), labels.to_numpy()).reindex(columns=list(colors), fill_value=0)
    n_common = n_common.reindex(sorted(clusters.dropna().unique(), key=_sort_key), fill_value=0)
    rows, columns = linear_sum_assignment(-n_common.to_numpy())
    pairs = zip(n_common.index[rows], n_common.columns[columns], strict=True)
    # The assignment also pairs clusters and labels that have no spot in common
    cluster_colors = {str(c): colors[str(label)] for c, label in pairs if n_common.loc[c, label] > 0}
    unused = (color for color in palette() if color not in {*colors.values(), *taken})
    return cluster_colors | {str(c): next(unused, MISSING) for c in n_common.index if str(c) not in cluster_colors}


def palette() -> list[str]:
    """Colors for labels and clusters: first distinct ones, then 60 colors of a long color map."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [*PALETTE, *(to_hex(colormaps["gist_ncar"](x)) for x in np.linspace(0.03, 0.95, 60))]


def _sort_key(name: object) -> tuple[int, str]:
    """Sort numbers by value, then names by the alphabet."""
    text = str(name)
    return (int(text), "") if text.isdecimal() else (10**9, text)


def _title(name: str, labels: pd.Series, clusters: pd.Series) -> str:
    return f"{name}: {clusters.nunique()} clusters\nARI {ari_nmi(labels, clusters)[0]:.2f}"


def _axes(
    view: View, n: int, legend: dict[str, str], figsize: tuple[float, float] | None, dpi: float
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure with ``n`` axes in a row, and room for titles, scale bar and legend."""
    width, height = PANEL_INCHES * n + 0.2, min(PANEL_INCHES * view.height / view.width, TALLEST_INCHES)
    rows = -(-len(legend) // _legend_columns(legend, width))
    figure = new_figure(figsize or (width, height + 0.64 + LEGEND_ROW_INCHES * rows), dpi)
    return figure, figure.subplots(1, n, squeeze=False)[0]


def _legend_columns(legend: dict[str, str], width: float) -> int:
    """Number of columns that fit: a letter is about 0.06 inches wide, a dot with its margins 0.32."""
    return max(1, min(len(legend), int(width / (0.06 * max(map(len, legend)) + 0.32))))


def _draw_legend(figure: Figure, legend: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, label=name, ls="", marker="o", ms=5, mew=0) for name, c in legend.items()]
    columns = _legend_columns(legend, figure.get_figwidth())
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handletextpad=0.2, columnspacing=1.2)
