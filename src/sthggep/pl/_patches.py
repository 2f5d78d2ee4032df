"""Patches beside the tissue that they are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._slides._placement import warn_of_misplaced
from sthggep.pl._figure import empty_axes, new_figure, save_figure, style
from sthggep.pl._tissue import (
    View,
    draw_scale_bar,
    draw_spots,
    draw_tissue,
    find_spots,
    section_label,
    spot_diameter,
    spread_spots,
    view_of,
)
from sthggep.pp import patches as cut_patches

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from spatialdata import SpatialData

    from sthggep._slides._patches import Patches

TISSUE_INCHES = 3.4
TALLEST_INCHES = 4.6
LEAST_INCHES = 1.8  # width of the tissue panel at least
PATCH_INCHES = 1.15
TAG = {"facecolor": "black", "edgecolor": "none", "pad": 1.2}


@checked
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
    dpi: float = 200,
    save: str | Path | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    mpp: float | None = None,
) -> Figure:
    """Draw a few patches and the places on the tissue that they are cut from, to check that spots and image match.

    The left panel shows the tissue to scale, with all spots as dots and a few patches as numbered squares. The right
    panels show these patches as a network sees them, with the name of the spot under each. If dots miss the tissue, or a patch shows other tissue than its
    square, the coordinates are swapped, mirrored, or on another scale than the image. The function warns if it detects
    such a mismatch.

    Parameters
    ----------
    data
        One section: AnnData with its image in ``uns["spatial"]``, or SpatialData.
    size_um
        Field of view in microns, as in :func:`sthggep.pp.patches`. Default: ``size_px`` full-resolution pixels.
    size_px
        Width and height of the patches in pixels.
    n
        Number of patches, spread over the section.
    spots
        Names of the spots to show. Default: ``n`` spots that the function selects.
    seed
        Another seed selects other spots.
    figsize
        Width and height in inches. Default: a size that fits the section.
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
        The slide has no image, or the section has no spot of a name in ``spots``.
    ValueError
        Spots lie outside the image, or ``size_um`` needs microns per pixel that are unknown.

    Examples
    --------
    >>> sthggep.pl.patches(slide, size_um=160)
    """
    cut = cut_patches(
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
    slide = cut.slide
    warn_of_misplaced(slide)
    selection = spread_spots(slide, n, seed) if spots is None else find_spots(slide, spots)
    view = view_of(slide, margin=max(slide.size))  # the whole image: areas without spots also show a mismatch
    columns = int(np.ceil(np.sqrt(len(selection))))
    lines = int(np.ceil(len(selection) / columns))
    with style():
        tall = view.height / view.width
        tissue = max(LEAST_INCHES, min(TISSUE_INCHES, TALLEST_INCHES / tall))
        needed = lines * (PATCH_INCHES + 0.2) + 0.5
        height = max(tissue * tall + 0.6, needed)
        width = max(columns, 2) * PATCH_INCHES + 0.3
        figure = new_figure(figsize or (tissue + width, height), dpi)
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(tissue, width))[0]
        _draw_squares(left.subplots(), cut, view, selection)
        right.suptitle(
            f"{len(selection)} of {len(cut)} patches\n{_field_of_view(cut)}\n{_meaning_of_names(cut)}", fontsize=8
        )
        _draw_patches(_patch_axes(right, lines, columns, spare=(height - needed) / PATCH_INCHES), cut, selection)
        save_figure(figure, save)
    return figure


def _draw_squares(ax: Axes, patches: Patches, view: View, selection: NDArray[np.intp]) -> None:
    from matplotlib.patches import Rectangle

    slide = patches.slide
    draw_tissue(ax, view)
    draw_spots(ax, slide.xy, 0.4 * spot_diameter(slide), facecolors="black", edgecolors="white", linewidths=0.3)
    for number, (x0, y0, x1, y1) in enumerate(patches.boxes()[selection], start=1):
        # A white line under the black one is visible on dark nuclei and on glass. A patch may extend beyond the image
        for color, width in (("white", 2.2), ("black", 1.1)):
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=width, clip_on=False))
        ax.text(x0, y0, str(number), color="white", fontsize=7, ha="right", va="bottom", bbox=TAG, zorder=4)
    ax.set_title(f"{section_label(slide)}: {len(patches)} spots")
    draw_scale_bar(ax, view, slide.mpp)


def _patch_axes(figure: SubFigure, lines: int, columns: int, spare: float) -> list[Axes]:
    """Axes for patches, row by row; spare height stays empty below them, not between them."""
    grid = figure.add_gridspec(lines + 1, columns, height_ratios=[1.0] * lines + [max(spare, 1e-3)])
    return [figure.add_subplot(grid[line, column]) for line in range(lines) for column in range(columns)]


def _draw_patches(axes: Sequence[Axes], patches: Patches, selection: NDArray[np.intp]) -> None:
    names = patches.slide.adata.obs_names[patches.slide.rows]
    for ax in axes:
        empty_axes(ax)
    for number, (ax, i, patch) in enumerate(zip(axes, selection, patches[selection], strict=False), start=1):
        ax.imshow(patch, interpolation="antialiased")
        ax.text(0, 1, str(number), color="white", fontsize=7, ha="left", va="top", bbox=TAG, transform=ax.transAxes)
        # Barcodes differ at both ends
        ax.set_xlabel(names[i] if len(names[i]) < 17 else f"{names[i][:8]}…{names[i][-6:]}", fontsize=7)


def _meaning_of_names(patches: Patches) -> str:
    """What stands under each patch: the name of its spot, which on legacy arrays is its place, such as ``8x2``."""
    slide = patches.slide
    array = slide.array_xy()
    names = slide.adata.obs_names[slide.rows]
    if array is not None and list(names) == [f"{x}x{y}" for x, y in array]:
        return "under each: its spot, as array column x row"
    return "under each: its spot"


def _field_of_view(patches: Patches) -> str:
    """Field of view, such as ``150 × 150 µm in 112 × 112 px``."""
    pixels = f"{patches.size_px} × {patches.size_px} px"
    microns = patches.size_um if patches.slide.mpp is None else patches.width * patches.slide.mpp
    if microns is None:
        return f"{pixels} of full resolution (µm/px unknown)"
    return f"{round(microns, 1):g} × {round(microns, 1):g} µm in {pixels}"
