"""Panels of a gene map: the H&E, and a map of observed or predicted values."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sthggep._table._verdicts import TRUSTED
from sthggep.pl._map_layout import LETTER_INCHES, MapLayout, is_doubtful, row_height
from sthggep.pl._tissue import draw_outline, draw_scale_bar, draw_spots, draw_tissue, section_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sthggep.pl._maps import ColorScale, GeneMaps

HATCH = "/" * 9  # dense enough for small spots


@dataclass(frozen=True)
class MapStyle:
    """How the maps of one gene are drawn."""

    cmap: str
    scale: ColorScale
    alpha: float
    alpha_img: float
    bw: bool
    marks: bool


@dataclass(frozen=True)
class SectionAxes:
    """The axes of one section; those of each gene by the kind of map."""

    tissue: Axes | None
    genes: list[dict[str, Axes]]

    def firsts(self, beside: int) -> list[Axes]:
        """The panels that bear the section's name: its H&E, or without it the first map of each row."""
        if self.tissue is not None:
            return [self.tissue]
        return [next(iter(by_kind.values())) for by_kind in self.genes[::beside]]


def grid_axes(figure: Figure, maps: list[GeneMaps], names: list[str], layout: MapLayout) -> list[SectionAxes]:
    """One axes for each panel of a new figure; a place without a gene stays empty, without axes."""
    heights = [row_height(layout, item) for item in maps for _ in range(layout.rows)]
    grid = figure.add_gridspec(len(heights), layout.columns, height_ratios=heights)
    section_axes = []
    for s, item in enumerate(maps):
        top, section = s * layout.rows, item.slide.name
        tissue = None
        if layout.image:
            # Beside its genes the H&E stands in the middle of all their rows
            place = grid[top, : len(layout.kinds)] if layout.leads else grid[top : top + layout.rows, 0]
            tissue = figure.add_subplot(place, label=f"{section}: H&E")
        genes = []
        for i, gene in enumerate(names):
            row, first = layout.place(i)
            columns = enumerate(layout.kinds, start=first)
            label = f"{section}: {gene}"
            genes.append({k: figure.add_subplot(grid[top + row, c], label=f"{label} {k}") for c, k in columns})
        section_axes.append(SectionAxes(tissue, genes))
    return section_axes


def name_section(axes: SectionAxes, item: GeneMaps, layout: MapLayout) -> None:
    """Draw the H&E, the scale bar and the section's name; without H&E, the latter two go to the first map of each row."""
    firsts = axes.firsts(layout.beside)
    if axes.tissue is not None:
        draw_tissue(axes.tissue, item.view)
        axes.tissue.set_title("H&E")
    name = textwrap.fill(section_label(item.slide), max(8, int(layout.height(item) / LETTER_INCHES)))
    if item.learned_from:
        name += "\n(trained on)"
    for ax in firsts:
        ax.set_ylabel(name, fontsize="medium")  # the user's axes have their own size
    draw_scale_bar(firsts[0], item.view, item.slide.mpp)


def draw_map(ax: Axes, item: GeneMaps, i: int, kind: str, look: MapStyle) -> None:
    """Draw the tissue and the spots in the colors of their values; hatch those unlike the training tissue."""
    from matplotlib.colors import Normalize

    values = item.predicted if kind == "predicted" else item.observed
    draw_tissue(ax, item.view, alpha=look.alpha_img, gray=look.bw)
    if values is None or np.isnan(values[:, i]).all():
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center")
        return
    norm, xy = Normalize(look.scale.low, look.scale.high), item.drawn(item.slide.xy)
    draw_spots(ax, xy, item.diameter, array=item.drawn(values[:, i]), cmap=look.cmap, norm=norm, alpha=look.alpha)
    if kind == "predicted" and item.novel is not None and item.drawn(item.novel).any():
        unlike = xy[item.drawn(item.novel)]
        novel = draw_spots(ax, unlike, item.diameter, facecolors="none", edgecolors="white", hatch=HATCH)
        if hasattr(novel, "set_hatch_linewidth"):  # matplotlib 3.11
            novel.set_hatch_linewidth(0.6)
    if look.marks and item.outline:
        draw_outline(ax, item.outline)


def set_title(ax: Axes, gene: str, item: GeneMaps, i: int, kind: str, layout: MapLayout) -> None:
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
