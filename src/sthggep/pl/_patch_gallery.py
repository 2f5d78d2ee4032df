"""Patches of the highest and of the lowest prediction of a gene, beside their places on the tissue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import listing
from sthggep._docs import document_places
from sthggep._slides._patches import Patches
from sthggep._slides._places import Places
from sthggep._table._prediction import Prediction, read_prediction
from sthggep.pl._figure import COLORS, empty_axes, new_figure, save_figure, style
from sthggep.pl._maps import read_observed
from sthggep.pl._tissue import (
    draw_scale_bar,
    draw_tissue,
    round_length,
    section_label,
    sections_of,
    spot_diameter,
    view_of,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide
    from sthggep.tl import Attribution

TISSUE_INCHES, TALLEST_INCHES = 1.75, 3.2
PATCH_INCHES, GAP_INCHES = 0.8, 0.03
PATCH_PX = 300  # a printed patch at 300 dots per inch
LINE_INCHES = 0.12  # of the titles above a patch
MOST_COLUMNS = 6
TAG_INCHES = 0.15  # between the numbers on the tissue
KINDS = {"highest": COLORS[1], "lowest": COLORS[0]}


@checked
@document_places
def patch_gallery(
    data: AnnData | SpatialData,
    gene: str | Attribution,
    *,
    key: str = "hggep",
    n: int = 6,
    size_um: float = 160.0,
    min_distance_um: float | None = None,
    observed: bool = True,
    layer: str | None = None,
    section: str | None = None,
    figsize: tuple[float, float] | None = None,
    dpi: float = 200,
    save: str | Path | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
) -> Figure:
    """Draw the patches of the spots with the highest and with the lowest prediction of a gene.

    The left panel shows the tissue with the numbered places of the patches. The upper row holds the ``n`` spots of the
    highest prediction, from the highest; the lower row those of the lowest, from the lowest. A title gives the predicted
    value and, where the slide has counts, the observed one on the same scale. Patches do not overlap: from spots that
    are closer to each other than ``min_distance_um``, the function takes the most extreme one. No spot is in both rows,
    so that a section with few spots has fewer patches.

    Parameters
    ----------
    data
        One section with an image.
    gene
        A gene of the prediction, or what :func:`sthggep.tl.attribution` returned for this section, whose prediction the
        function then draws.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`. An attribution needs none.
    n
        Number of patches in each row.
    size_um
        Field of view of a patch in microns.
    min_distance_um
        Distance between the spots of patches in microns. Default: ``size_um``.
    observed
        Give the observed values, too.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    section
        Name of the section; needed if ``data`` holds several.
    figsize
        Width and height in inches. Default: a size that fits the patches, at most as wide as a journal's page.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.
    {places}

    Returns
    -------
    The figure. ``figure.axes`` lists the tissue, then the patches of the highest and those of the lowest prediction.

    Raises
    ------
    KeyError
        The slide has no such prediction, the prediction does not hold the gene, or the slide has no image.
    ValueError
        Microns per pixel are unknown, counts are not raw, ``data`` holds several sections and ``section`` names none,
        or the attribution is of other spots.

    See Also
    --------
    sthggep.pl.gene_map : The gene on the whole section.
    sthggep.pl.patches : Patches spread over the section, to check that spots and image match.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model)
    >>> sthggep.pl.patch_gallery(slide, "FASN", size_um=160)
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
    slides = sections_of(data, places, None if section is None else [section])
    if len(slides) > 1:
        found = f"{len(slides)}: {listing(s.name for s in slides)}"
        msg = f"One section was expected, found {found}. Pass `section=` with the name of one."
        raise ValueError(msg)
    slide = slides[0]
    values = _read_values(slide, gene, key, layer=layer, observed=observed)
    distance_um = size_um if min_distance_um is None else min_distance_um
    high, low = _choose_spots(values.predicted, slide.xy, n, distance_um / slide.require_mpp())
    patches = Patches(slide, size_um=size_um, size_px=PATCH_PX)
    view = view_of(slide, margin=max(1.5 * spot_diameter(slide), patches.width / 2))
    columns = min(MOST_COLUMNS, max(len(high), 1))
    lines = [-(-len(end) // columns) for end in (high, low)]
    row = PATCH_INCHES + LINE_INCHES * (1 if values.observed is None else 2) + 0.08
    tissue = min(TISSUE_INCHES * view.height / view.width, TALLEST_INCHES)
    widths = TISSUE_INCHES + 0.2, max(columns, 2) * (PATCH_INCHES + GAP_INCHES) + 0.25
    with style():
        figure = new_figure(figsize or (sum(widths), max(sum(lines) * row, tissue + 0.35) + 0.25), dpi)
        figure.suptitle(f"{values.name} in {section_label(slide)}, {values.units}", fontsize=8)
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=widths)[0]
        ax = left.subplots(subplot_kw={"anchor": "N"})
        draw_tissue(ax, view)
        draw_scale_bar(ax, view, slide.mpp)
        _draw_marks(ax, slide.xy[high], slide.xy[low], TAG_INCHES * view.height / tissue)
        _draw_rows(right, patches, values, (high, low), columns)
        save_figure(figure, save)
    return figure


def _draw_rows(
    figure: SubFigure, patches: Patches, values: _Values, ends: tuple[NDArray[np.intp], NDArray[np.intp]], columns: int
) -> None:
    """Draw the patches of the highest and of the lowest spots, in rows of so many columns; the first has a scale bar."""
    lines = [-(-len(end) // columns) for end in ends]
    grid, number = figure.add_gridspec(max(sum(lines), 1), columns), 0
    for kind, end, first_line in zip(KINDS, ends, (0, lines[0]), strict=True):
        for at, (spot, patch) in enumerate(zip(end, patches[end], strict=True)):
            number += 1
            line, column = divmod(at, columns)
            ax = figure.add_subplot(grid[first_line + line, column], anchor="N")
            _draw_patch(ax, patch, str(number), KINDS[kind])
            ax.set_title(values.describe(int(spot)), fontsize=7, pad=3)
            ax.set_ylabel("" if at else kind, color=KINDS[kind])
            if number == 1:
                _draw_length(ax, patches.size_um or 0.0)


@dataclass(frozen=True)
class _Values:
    """Predicted and, if there are any, observed values of the gene at the spots of the section."""

    name: str
    units: str
    predicted: NDArray[np.float32]
    observed: NDArray[np.float32] | None

    def describe(self, spot: int) -> str:
        """Title of a patch; all titles have as many decimals as the largest value needs."""
        largest = float(np.nanmax(np.abs(self.predicted)))
        decimals = int(np.clip(2 - np.floor(np.log10(largest)), 0, 6)) if largest else 2
        lines = [f"predicted {self.predicted[spot]:.{decimals}f}"]
        if self.observed is not None:
            lines.append(f"observed {self.observed[spot]:.{decimals}f}")
        return "\n".join(lines)


def _read_values(slide: Slide, gene: str | Attribution, key: str, *, layer: str | None, observed: bool) -> _Values:
    prediction = read_prediction(slide.adata, key) if isinstance(gene, str) else _prediction_of(gene, slide)
    (column,) = prediction.columns([gene if isinstance(gene, str) else gene.name])
    name = prediction.genes[column]
    measured = read_observed(slide, prediction, layer) if observed and name in prediction.panel else None
    measured = None if measured is None or np.isnan(measured[:, column]).all() else measured[:, column]
    return _Values(name, prediction.units, prediction.take(slide.rows, [column])[:, 0], measured)


def _prediction_of(attribution: Attribution, slide: Slide) -> Prediction:
    """Return the prediction of an attribution as one that stands in the table, with a value for each of its rows."""
    names = slide.adata.obs_names[slide.rows]
    predicted = attribution.prediction
    absent = names.difference(predicted.index)
    if len(absent):
        msg = (
            f"The attribution is of section {attribution.section!r} and has no value for spots of section {slide.name!r}: "
            f"{listing(absent, 5)}. Pass the slide that you passed to `sthggep.tl.attribution`."
        )
        raise ValueError(msg)
    values = np.full((slide.adata.n_obs, 1), np.nan, dtype=np.float32)
    values[slide.rows, 0] = predicted.loc[names]
    genes, targets = attribution.model.genes, attribution.model.targets
    return Prediction("attribution", values, [attribution.name], genes, attribution.units, targets)


def _choose_spots(
    predicted: NDArray[np.float32], xy: NDArray[np.float64], n: int, distance: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose the spots of highest and of lowest prediction; each is at least ``distance`` pixels from all before."""
    order = np.argsort(predicted, kind="stable")
    order = order[np.isfinite(predicted[order])]
    half, chosen, ends = len(order) // 2, list[int](), []
    # A spot of the upper half is never among the lowest
    for candidates in (order[half:][::-1], order[:half]):
        before = len(chosen)
        for spot in candidates.tolist():
            if len(chosen) == before + n:
                break
            if not chosen or np.linalg.norm(xy[chosen] - xy[spot], axis=1).min() >= distance:
                chosen.append(spot)
        ends.append(np.array(chosen[before:], dtype=np.intp))
    return ends[0], ends[1]


def _draw_marks(ax: Axes, high: NDArray[np.float64], low: NDArray[np.float64], tag: float) -> None:
    """Draw a dot at each place, and its number beside it; a line joins the two where numbers make room for each other."""
    places = np.concatenate([high, low])
    colors = [KINDS["highest"]] * len(high) + [KINDS["lowest"]] * len(low)
    for number, (place, (x, y), color) in enumerate(zip(places, _spread(places, tag), colors, strict=True), start=1):
        ax.plot([place[0], x], [place[1], y], color=color, lw=0.7, clip_on=False)
        ax.plot(*place, "o", color=color, ms=3.5, mec="white", mew=0.5, clip_on=False)
        ax.text(x, y, str(number), color="white", fontsize=6, ha="center", va="center", bbox=_box(color), zorder=4)


def _spread(places: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Places of numbers: above the dots, then moved apart until none covers another one or a dot."""
    texts: NDArray[np.float64] = places - np.array([0, distance])
    reach = np.repeat([distance, 0.7 * distance], len(places))  # of numbers, then of dots, which are small
    for _ in range(200):
        apart = texts[:, None] - np.concatenate([texts, places])
        lengths = np.linalg.norm(apart, axis=2)
        np.fill_diagonal(lengths, np.inf)
        short = np.maximum(reach - lengths, 0) / 2
        step = (short[..., None] * apart / np.maximum(lengths, 1e-9)[..., None]).sum(axis=1)
        if np.abs(step).max(initial=0) < 0.01 * distance:
            break
        texts += step
    return texts


def _box(color: str) -> dict[str, Any]:
    return {"facecolor": color, "edgecolor": "none", "pad": 1.0}


def _draw_patch(ax: Axes, patch: NDArray[np.uint8], number: str, color: str) -> None:
    ax.imshow(patch, interpolation="antialiased")
    empty_axes(ax)
    box = _box(color)
    ax.text(0.02, 0.98, number, color="white", fontsize=6, ha="left", va="top", transform=ax.transAxes, bbox=box)


def _draw_length(ax: Axes, size_um: float) -> None:
    """Draw a scale bar into a patch, black with a white border, so that it is visible on nuclei and on glass."""
    from matplotlib.patheffects import withStroke

    microns = round_length(0.45 * size_um)
    right, y = 0.95 * PATCH_PX, 0.93 * PATCH_PX
    left = right - microns / size_um * PATCH_PX
    thick, thin = ([withStroke(linewidth=width, foreground="white")] for width in (3.5, 2))
    ax.plot([left, right], [y, y], color="black", lw=1.5, solid_capstyle="butt", path_effects=thick)
    label = f"{microns:g} µm" if microns < 1000 else f"{microns / 1000:g} mm"
    at = (left + right) / 2, y - 0.05 * PATCH_PX
    ax.text(*at, label, fontsize=6, ha="center", va="bottom", path_effects=thin)
