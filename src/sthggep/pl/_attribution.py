"""What carried a prediction: maps of what the tissue adds, and the share of each part."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import one_of, positive
from sthggep._log import log
from sthggep.pl._figure import COLORS, figure_of, new_figure, save_figure, style
from sthggep.pl._maps import GeneMaps, color_scale
from sthggep.pl._tissue import (
    View,
    draw_scale_bar,
    draw_spots,
    draw_tissue,
    section_label,
    spot_diameter,
    view_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from xarray import DataArray

    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide
    from sthggep.tl import Attribution

PAGE_INCHES = 7.2  # width of a journal's page
PANEL_INCHES = 2.4
TALLEST_INCHES = 3.6
CHART_INCHES = 2.1  # width of the bars with their names
GAP_INCHES = 0.12  # between panels
BELOW_INCHES = 0.95  # height of title, scale bar, color bar and its label
LINE_INCHES = 0.16  # height of a bar of the chart
LETTER_INCHES = 0.053  # of labels
BAR_INCHES = 0.06
MOST_COLUMNS = 3
WHOLE = "all"
BARS = {"own": COLORS[0], "neighbors": COLORS[6], "network": COLORS[5]}


@checked
def attribution(
    attribution: Attribution,
    *,
    size_um: float = 50.0,
    parts: Sequence[str] = (WHOLE,),
    cmap: str = "RdBu_r",
    vmax: float | None = None,
    alpha: float = 0.6,
    figsize: tuple[float, float] | None = None,
    dpi: float = 200,
    save: str | Path | None = None,
    device: str = "auto",
    show_progress_bar: bool = True,
) -> Figure:
    """Draw what carried a prediction: the prediction, what each place of the tissue adds to it, and the share of each part.

    The left panel shows the prediction: a circle is a spot, to scale, over the H&E image. The maps show what each square
    of the tissue adds to the prediction of a spot whose windows hold nothing else, relative to the mean tissue of the
    section. All maps share one color scale with 0 in its middle, so that colors compare between fields of view. A
    pointed end of a color bar marks values beyond its scale. The bars are the share of each part in the variance of the
    prediction over the spots; a part that works against the others has a negative share.

    A model has maps if its encoder reads the tissue; they show the closed form, without the share of networks. Of other
    models, the function draws prediction and bars. A line under the panels says what the maps leave out, or why there are
    none.

    Parameters
    ----------
    attribution
        What :func:`sthggep.tl.attribution` returned.
    size_um
        Side of the squares of the maps in microns.
    parts
        Maps to draw: ``"all"``, the sum over fields of view, and fields of view such as ``"80 µm"``. An empty list draws
        no map, which spares the encoder a second reading of the tissue.
    cmap
        Color map of the maps; a diverging one.
    vmax
        Upper end of their color scale; its lower end is ``-vmax``. Default: the 98th percentile of the absolute values.
    alpha
        Opacity of the maps over the H&E image.
    figsize
        Width and height in inches. Default: a size that fits the section, at most as wide as a journal's page.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.
    device
        Device of the encoder, which reads the tissue for the maps.
    show_progress_bar
        Show progress.

    Returns
    -------
    The figure. ``figure.axes`` lists the panel of the prediction, one panel for each map, and the bars. A color bar is
    the only one of the ``child_axes`` of its panel.

    Raises
    ------
    ValueError
        The model has no such part, or the squares are so small that there are too many.

    See Also
    --------
    sthggep.tl.attribution : The numbers of this figure.
    sthggep.pl.patch_gallery : Patches of the highest and of the lowest prediction.

    Examples
    --------
    >>> carried = sthggep.tl.attribution(slide, model, "FASN")
    >>> sthggep.pl.attribution(carried, parts=["all", "80 µm"], save="fasn.png")
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    fields = [name.removesuffix(" own") for name in map(str, attribution.table) if name.endswith(" own")]
    names = [one_of(name, [WHOLE, *fields], "part of the map") for name in dict.fromkeys(parts)]
    limit = None if vmax is None else positive(vmax, "`vmax`")
    reason = _explain_absence(attribution.model.inputs) if names else ""
    values = None
    if names and not reason:
        values = attribution.map(size_um, device=device, show_progress_bar=show_progress_bar).sel(part=names)
    elif reason:
        log.info("Section %s: no map of what the tissue adds, since %s.", attribution.section, reason)
    slide = attribution.slide
    diameter = spot_diameter(slide)
    view = view_of(slide, margin=max(1.5 * diameter, 0 if values is None else _reach(values, slide)))
    shares = _shares(attribution)
    note = f"No map: {reason}." if reason else ""
    if values is not None and "network" in shares:
        note = "The maps show what the closed form adds, without the networks."
    layout = _lay_out(view, 0 if values is None else len(names), len(shares), note)
    with style():
        figure = new_figure(figsize or layout.size, dpi)
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=layout.widths)[0]
        grid = left.add_gridspec(layout.rows, layout.columns)
        first, *maps = (left.add_subplot(grid[divmod(i, layout.columns)], anchor="N") for i in range(layout.n))
        _draw_prediction(first, attribution, view, diameter, layout)
        if values is not None:
            highest = limit or float(np.percentile(np.abs(values), 98)) or 1.0
            colors = ScalarMappable(Normalize(-highest, highest), cmap)
            for ax, name in zip(maps, names, strict=True):
                draw_tissue(ax, view)
                part = values.sel(part=name).values
                ax.imshow(part, extent=_extent(values, slide), cmap=cmap, norm=colors.norm, alpha=alpha)
                ax.set_title("all fields of view" if name == WHOLE else f"field of view of {name}")
                draw_scale_bar(ax, view, slide.mpp)
                label = f"adds to {attribution.name}\n{_wrap(f'({attribution.units})', layout.panel)}"
                _draw_color_bar(ax, colors, part, label, layout)
        chart = right.add_gridspec(2, 1, height_ratios=(layout.chart, max(layout.size[1] - layout.chart, 1e-3)))
        _draw_bars(right.add_subplot(chart[0]), shares)
        if note:
            left.supxlabel(textwrap.fill(note, int(layout.widths[0] / LETTER_INCHES)), fontsize=7)
        figure.draw_without_rendering()  # fixes the ticks of the color bars, so that the layout has room for them
        save_figure(figure, save)
    return figure


@dataclass(frozen=True)
class _Layout:
    """Number of tissue panels, how they stand, and inches: of a panel, of the tissue in it, of chart and figure."""

    n: int
    columns: int
    panel: float
    tissue: float
    chart: float
    size: tuple[float, float]

    @property
    def rows(self) -> int:
        """Rows of panels."""
        return -(-self.n // self.columns)

    @property
    def widths(self) -> tuple[float, float]:
        """Inches of the panels, and of the chart at their right."""
        return self.size[0] - CHART_INCHES, CHART_INCHES


def _lay_out(view: View, n_maps: int, n_bars: int, note: str) -> _Layout:
    n = 1 + n_maps
    rows = -(-n // MOST_COLUMNS)
    columns = -(-n // rows)
    panel = min(PANEL_INCHES, (PAGE_INCHES - CHART_INCHES - 0.2) / columns - GAP_INCHES)
    tissue = min(panel * view.height / view.width, TALLEST_INCHES)
    chart = n_bars * LINE_INCHES + 0.6
    height = max(rows * (tissue + BELOW_INCHES), chart) + (0.15 if note else 0.0)
    return _Layout(n, columns, panel, tissue, chart, (columns * (panel + GAP_INCHES) + 0.2 + CHART_INCHES, height))


def _explain_absence(inputs: Inputs) -> str:
    """Say in a few words why a model has no maps; empty where it has them."""
    if inputs.kind == "obsm":
        return "the model reads features of obsm, not the image"
    return "" if inputs.encoding == "tissue" else "the model reads the patch of each spot by itself, not the tissue"


def _extent(values: DataArray, slide: Slide) -> tuple[float, float, float, float]:
    """Left, right, bottom and top border of the squares of a map in full-resolution pixels."""
    half = values.attrs["size_um"] / slide.require_mpp() / 2
    x, y = values["x"].values, values["y"].values
    return float(x[0] - half), float(x[-1] + half), float(y[-1] + half), float(y[0] - half)


def _reach(values: DataArray, slide: Slide) -> float:
    """Full-resolution pixels by which a map exceeds the spots."""
    left, right, bottom, top = _extent(values, slide)
    (x0, y0), (x1, y1) = slide.xy.min(axis=0), slide.xy.max(axis=0)
    return float(max(x0 - left, right - x1, y0 - top, bottom - y1))


def _shares(attribution: Attribution) -> pd.Series:
    """The importance of the parts that vary between spots; without networks, there is no bar for them."""
    absent = ["mean"] if attribution.table["network"].any() else ["mean", "network"]
    return attribution.importance.drop(absent)


def _draw_prediction(ax: Axes, attribution: Attribution, view: View, diameter: float, layout: _Layout) -> None:
    """Draw the prediction of each spot over the H&E, in the colors of :func:`sthggep.pl.gene_map`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    slide, values = attribution.slide, attribution.prediction.to_numpy(np.float32)
    scale = color_scale([GeneMaps(slide, view, diameter, values[:, None], None, "", False)], 0, None, None)
    draw_tissue(ax, view)
    norm = Normalize(scale.low, scale.high)
    draw_spots(ax, slide.xy, diameter, array=values, cmap="viridis", norm=norm)
    ax.set_title(f"{attribution.name} predicted")
    ax.set_ylabel(textwrap.fill(section_label(slide), max(8, int(layout.tissue / LETTER_INCHES))))
    draw_scale_bar(ax, view, slide.mpp)
    _draw_color_bar(ax, ScalarMappable(norm, "viridis"), values, _wrap(attribution.units, layout.panel), layout)


def _draw_color_bar(ax: Axes, colors: ScalarMappable, values: NDArray[np.float32], label: str, layout: _Layout) -> None:
    """Draw a color bar under its panel, right of the scale bar, with a pointed end where values lie beyond it."""
    low, high = colors.get_clim()
    assert low is not None
    assert high is not None
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    extend = ends[bool(np.nanmin(values) < low), bool(np.nanmax(values) > high)]
    height = BAR_INCHES / layout.tissue
    inset = ax.inset_axes((0.45, -2 * height, 0.5, height))
    bar = figure_of(ax).colorbar(colors, cax=inset, extend=extend, orientation="horizontal")
    # All ticks have as many decimals as the range needs
    decimals = int(np.clip(1 - np.floor(np.log10(high - low)), 0, 6))
    ticks = [low, (low + high) / 2, high]
    bar.set_ticks(ticks, labels=[_signed(value, f".{decimals}f") for value in ticks])
    bar.outline.set(visible=False)
    inset.set_xlabel(label, fontsize=7, x=1.1, ha="right", labelpad=2)


def _signed(value: float, form: str) -> str:
    """Format a number with a minus as long as a plus; zero has no sign."""
    return f"{value:z{form}}".replace("-", "\N{MINUS SIGN}")


def _wrap(text: str, inches: float) -> str:
    """Break a label into lines of about the same length."""
    width = max(16, int(inches / LETTER_INCHES))
    lines = -(-len(text) // width)
    return textwrap.fill(text, min(width, -(-len(text) // lines) + 5))


def _draw_bars(ax: Axes, shares: pd.Series) -> None:
    """Draw a bar for each part, in its order from the top."""
    y = np.arange(len(shares))
    kinds = [str(name).rpartition(" ")[2] for name in shares.index]
    ax.barh(y, shares.fillna(0), height=0.75, color=[BARS[kind] for kind in kinds])
    for place, share in zip(y, shares, strict=True):
        text = "n/a" if np.isnan(share) else _signed(share, ".0%").replace("%", " %")
        ax.annotate(text, (max(share, 0), place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    ax.set_yticks(y, labels=[textwrap.shorten(str(name), 24, placeholder="…") for name in shares.index])
    ax.invert_yaxis()
    ax.axvline(0, color="black", lw=0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.2)
    ax.set_title("importance")
    ax.set_xlabel("share of the variance", fontsize=7)
