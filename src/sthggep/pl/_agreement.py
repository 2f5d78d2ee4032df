"""Clusters of predicted and measured expression beside labels, on the tissue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
# Black would hide the spots' borders of other panels; the rest are Paul Tol's muted colors, for many labels
PALETTE = (*(c for c in COLORS if c != "#000000"), "#882255", "#332288", "#999933", "#44AA99", "#661100", "#6699CC")
MISSING = "#D9D9D9"


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
    dpi: float = 120,
    save: str | Path | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    mpp: float | None = None,
) -> Figure:
    """Draw what :func:`sthggep.tl.agreement` compared: H&E, labels, clusters of the prediction and of the counts.

    Clusters have no names: each takes the color of one label, so that as many spots as can be have the same color in
    both maps; a cluster left over takes a color that no label has. Titles give the adjusted Rand index (ARI) with the
    labels and the number of clusters. Spots without a label are pale gray.

    Parameters
    ----------
    data
        One section that :func:`sthggep.tl.agreement` was called on.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    labels_key
        Column of ``obs`` with the labels; ``None`` takes those that were compared.
    image
        Show the H&E image. ``False`` needs no image.
    spot_size
        Diameter of a spot in full-resolution pixels; ``None`` takes the data's own.
    alpha_img
        Strength of the gray tissue under the maps: 0 is none.
    figsize
        Width and height in inches.
    dpi
        Resolution on the screen; files are written with 300.
    save
        File to write; its ending chooses the format.
    {places}

    Returns
    -------
    The figure.

    Raises
    ------
    KeyError
        :func:`sthggep.tl.agreement` was not called yet, or there is no such column.
    ValueError
        There are several sections, or no spot has a label.
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
    colors = dict(zip(sorted(labels.dropna().unique(), key=_in_order), _palette(), strict=False))
    shown = colors | ({"no label": MISSING} if labels.isna().any() else {})
    with style():
        figure, axes = _axes(view, len(maps) + image, shown, figsize, dpi)
        if image:
            draw_tissue(axes[0], view)
            axes[0].set_title("H&E")
        for ax, (name, values) in zip(axes[int(image) :], maps.items(), strict=True):
            draw_tissue(ax, view, alpha=alpha_img, gray=True)
            own = colors if values is labels else matched(labels, values, colors)
            draw_spots(ax, slide.xy, diameter, facecolors=values.map(own).fillna(MISSING).tolist())
            ax.set_title(name if values is labels else _title(name, labels, values))
        draw_scale_bar(axes[0], view, slide.mpp)
        _legend(figure, shown)
        save_figure(figure, save)
    return figure


def matched(labels: pd.Series, clusters: pd.Series, colors: dict[str, str]) -> dict[str, str]:
    """Colors of clusters: each takes that of a label of its own, for the most spots alike; others take new ones."""
    from scipy.optimize import linear_sum_assignment

    alike = pd.crosstab(clusters.to_numpy(), labels.to_numpy()).reindex(columns=list(colors), fill_value=0)
    alike = alike.reindex(sorted(clusters.dropna().unique(), key=_in_order), fill_value=0)
    rows, columns = linear_sum_assignment(-alike.to_numpy())
    pairs = zip(alike.index[rows], alike.columns[columns], strict=True)
    # A pair without a spot in common is an accident of the assignment
    out = {str(c): colors[str(label)] for c, label in pairs if alike.loc[c, label] > 0}
    fresh = (color for color in _palette() if color not in colors.values())
    return out | {str(c): next(fresh, MISSING) for c in alike.index if str(c) not in out}


def _palette() -> list[str]:
    """Colors for labels and for clusters, distinct as long as can be, then from a long list of the library's."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [*PALETTE, *(to_hex(colormaps["gist_ncar"](x)) for x in np.linspace(0.03, 0.95, 60))]


def _in_order(name: object) -> tuple[int, str]:
    """Numbers by their size, then names by the alphabet."""
    text = str(name)
    return (int(text), "") if text.isdecimal() else (10**9, text)


def _title(name: str, labels: pd.Series, clusters: pd.Series) -> str:
    return f"{name}: {clusters.nunique()} clusters\nARI {ari_nmi(labels, clusters)[0]:.2f}"


def _axes(
    view: View, n: int, shown: dict[str, str], figsize: tuple[float, float] | None, dpi: float
) -> tuple[Figure, NDArray[np.object_]]:
    """Axes in a row, with as much room as titles, scale bar and legend take."""
    width, height = PANEL_INCHES * n + 0.2, min(PANEL_INCHES * view.height / view.width, TALLEST_INCHES)
    rows = -(-len(shown) // _legend_columns(shown, width))
    figure = new_figure(figsize or (width, height + 0.64 + LEGEND_ROW_INCHES * rows), dpi)
    return figure, figure.subplots(1, n, squeeze=False)[0]


def _legend_columns(shown: dict[str, str], width: float) -> int:
    """As many as fit beside each other: a letter is about 0.06 inches wide, a dot with its margins 0.32."""
    return max(1, min(len(shown), int(width / (0.06 * max(map(len, shown)) + 0.32))))


def _legend(figure: Figure, shown: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    dot: Any = {"ls": "", "marker": "o", "ms": 5, "mew": 0}
    handles = [Line2D([], [], color=color, label=name, **dot) for name, color in shown.items()]
    columns = _legend_columns(shown, figure.get_figwidth())
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handletextpad=0.2, columnspacing=1.2)
