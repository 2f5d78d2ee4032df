"""What was cut, drawn on the tissue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._docs import document_places
from sthggep._slides._placement import warn_of_misplaced
from sthggep.pl._figure import empty_axes, new_figure, save_figure, style
from sthggep.pl._tissue import (
    View,
    draw_scale_bar,
    draw_spots,
    draw_tissue,
    spot_diameter,
    spots_named,
    spread_spots,
    view_of,
)
from sthggep.pp import patches as cut

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from spatialdata import SpatialData

    from sthggep._slides._patches import Patches

TISSUE_INCHES = 3.4
TALLEST_INCHES = 4.6
LEAST_INCHES = 1.8  # of the width of the tissue, however tall
PATCH_INCHES = 1.15
TAG = {"facecolor": "black", "edgecolor": "none", "pad": 1.2}


@document_places
def patches(
    data: AnnData | SpatialData,
    *,
    size_um: float | None = None,
    size_px: int = 112,
    n: int = 6,
    spots: Sequence[str] | None = None,
    seed: int = 0,
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
    """Draw patches where they were cut: the check that spots and image belong together.

    Left the tissue with all spots as dots and a few patches as numbered squares, to scale; right those patches, as a
    network gets them. Dots that miss the tissue, or patches that show other tissue than their square holds, mean that
    coordinates are swapped, mirrored or on another scale than the image. Where that can be told, there is a warning too.

    Parameters
    ----------
    data
        One section: AnnData with its image in ``uns["spatial"]``, or SpatialData.
    size_um
        Field of view in microns, as in :func:`sthggep.pp.patches`. ``None`` cuts ``size_px`` full-resolution pixels.
    size_px
        Width and height of the patches.
    n
        Number of patches, spread over the section.
    spots
        Names of the spots to show, instead of ``n`` of our choice.
    seed
        Chooses other spots.
    figsize
        Width and height in inches; ``None`` fits the section.
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
        There is no image, or a spot is not of this section.
    ValueError
        Spots lie outside the image, or microns per pixel are needed and not known.
    """
    found = cut(
        data,
        size_um=size_um,
        size_px=size_px,
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        mpp=mpp,
    )
    slide = found.slide
    warn_of_misplaced(slide)
    chosen = spread_spots(slide, n, seed) if spots is None else spots_named(slide, spots)
    view = view_of(slide, margin=max(slide.size))  # all of the image: where no spots are tells, too
    columns = int(np.ceil(np.sqrt(len(chosen))))
    lines = int(np.ceil(len(chosen) / columns))
    with style():
        tall = view.height / view.width
        tissue = max(LEAST_INCHES, min(TISSUE_INCHES, TALLEST_INCHES / tall))
        needed = lines * (PATCH_INCHES + 0.2) + 0.5
        height = max(tissue * tall + 0.6, needed)
        width = max(columns, 2) * PATCH_INCHES + 0.3
        figure = new_figure(figsize or (tissue + width, height), dpi)
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(tissue, width))[0]
        _draw_squares(left.subplots(), found, view, chosen)
        right.suptitle(f"{len(chosen)} of {len(found)} patches\n{_field_of_view(found)}", fontsize=8)
        _draw_patches(_places(right, lines, columns, spare=(height - needed) / PATCH_INCHES), found, chosen)
        save_figure(figure, save)
    return figure


def _draw_squares(ax: Axes, found: Patches, view: View, chosen: NDArray[np.intp]) -> None:
    from matplotlib.patches import Rectangle

    slide = found.slide
    draw_tissue(ax, view)
    draw_spots(ax, slide.xy, 0.4 * spot_diameter(slide), facecolors="black", edgecolors="white", linewidths=0.3)
    for number, (x0, y0, x1, y1) in enumerate(found.boxes()[chosen], start=1):
        # A white line under the black one: seen on dark nuclei and on glass. A window may leave the image
        for color, width in (("white", 2.2), ("black", 1.1)):
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=width, clip_on=False))
        ax.text(x0, y0, str(number), color="white", fontsize=7, ha="right", va="bottom", bbox=TAG, zorder=4)
    ax.set_title(f"{slide.name}: {len(found)} spots")
    draw_scale_bar(ax, view, slide.mpp)


def _places(figure: SubFigure, lines: int, columns: int, spare: float) -> list[Axes]:
    """Axes for patches, row by row; what is higher than they are stays empty below them, not between."""
    grid = figure.add_gridspec(lines + 1, columns, height_ratios=[1.0] * lines + [max(spare, 1e-3)])
    return [figure.add_subplot(grid[line, column]) for line in range(lines) for column in range(columns)]


def _draw_patches(axes: Sequence[Axes], found: Patches, chosen: NDArray[np.intp]) -> None:
    names = found.slide.adata.obs_names[found.slide.rows]
    for ax in axes:
        empty_axes(ax)
    for number, (ax, i, patch) in enumerate(zip(axes, chosen, found[chosen], strict=False), start=1):
        ax.imshow(patch, interpolation="antialiased")
        ax.text(0, 1, str(number), color="white", fontsize=7, ha="left", va="top", bbox=TAG, transform=ax.transAxes)
        ax.set_xlabel(names[i] if len(names[i]) < 17 else f"{names[i][:15]}…", fontsize=7)


def _field_of_view(found: Patches) -> str:
    """Such as ``150 × 150 µm in 112 × 112 px``."""
    pixels = f"{found.size_px} × {found.size_px} px"
    microns = found.size_um if found.slide.mpp is None else found.width * found.slide.mpp
    if microns is None:
        return f"{pixels} of full resolution (microns not known)"
    return f"{round(microns, 1):g} × {round(microns, 1):g} µm in {pixels}"
