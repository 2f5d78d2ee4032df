"""Tissue colors of new slides beside those of the training sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import listing
from sthggep._docs import document_places
from sthggep._slides._colors import FAR, ColorRange, Colors, read_colors, tissue_colors
from sthggep._slides._places import Places
from sthggep.pl._figure import new_figure, save_figure, style
from sthggep.pl._tissue import sections_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP
    from sthggep.pl._tissue import Slides

MOST_ROWS = 12  # of swatches of training sections
ROW_INCHES = 0.21
SWATCHES = (-1.0, 0.0, 1.0)  # standard deviations of L*
AXES = ("L* (dark to light)", "a* (green to red)", "b* (blue to yellow)")


@checked
@document_places
def colors(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    model: HGGEP | str | Path | AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    *,
    figsize: tuple[float, float] | None = None,
    dpi: float = 120,
    save: str | Path | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
) -> Figure:
    """Draw the tissue colors of new slides beside those of the sections that a model was trained on.

    The left panel has a row of three swatches for each section: the mean a* and b* of its tissue at a dark, the mean
    and a light L* (mean minus and plus one standard deviation). Of more than 12 training sections it shows 12, from the
    darkest to the lightest. The number after the name of a new slide is the distance of its mean color from the range
    of the training sections, in CIELAB units.

    The other panels show the mean color of each section in CIELAB: b* (blue to yellow) and L* (dark to light) against
    a* (green to red). A dashed line surrounds the range of the training sections at a distance of 9 units.
    :func:`sthggep.tl.predict` warns of slides outside of it; their names are bold. If the model normalizes the stain,
    the colors are those after normalization.

    Parameters
    ----------
    data
        New slides: one, a list, or a dict by name.
    model
        The model, its folder or name; or the slides that it was, or will be, trained on. Default: the bundled model
        ``"her2st"``.
    figsize
        Width and height in inches. Default: a size that fits the content.
    dpi
        Dots per inch on the screen; saved files have 300.
    save
        File to write; its ending chooses the format. Default: no file.
    {places}

    Returns
    -------
    The figure. Its axes are the swatches, b* against a*, and L* against a*.

    Raises
    ------
    KeyError
        A slide has no image.
    ValueError
        The model has no record of colors, or the function finds no tissue in an image.

    Examples
    --------
    >>> sthggep.pl.colors({"biopsy": slide}, model)
    >>> sthggep.pl.colors(new_slides, training_slides, save="colors.png")
    """
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
    )
    training, normalize = _training_colors(model, places)
    new = _measure_colors([normalize(slide) for slide in sections_of(data, places)])
    color_range = ColorRange.of(training)
    rows = _swatch_sections(training)
    with style():
        height = max(2.4, ROW_INCHES * (len(rows) + len(new)) + 0.9)
        figure = new_figure(figsize or (7.2, height), dpi)
        swatches, hue, light = figure.subplots(1, 3, width_ratios=(2.0, 2.2, 2.2))
        _draw_swatches(swatches, rows, new, color_range, len(training))
        _draw_means(hue, training, new, color_range, (1, 2))
        _draw_means(light, training, new, color_range, (1, 0))
        hue.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=1, borderaxespad=0.2, handletextpad=0.4)
        save_figure(figure, save)
    return figure


def _training_colors(
    model: HGGEP | str | Path | Slides | None, places: Places
) -> tuple[list[Colors], Callable[[Slide], Slide]]:
    """Colors of the training sections, from the model's record or their slides, and the model's stain normalization."""
    from sthggep.model._hggep import HGGEP
    from sthggep.model._load import load_model

    if not (model is None or isinstance(model, str | Path | HGGEP)):
        return _measure_colors(sections_of(model, places)), lambda slide: slide
    loaded = load_model(model)
    training = read_colors(loaded.training.colors)
    if not training:
        msg = (
            f"The model {loaded.id} has no record of colors: an earlier version trained it, or it was trained without images. "
            "Pass its training slides instead of the model: `sthggep.pl.colors(data, slides)`."
        )
        raise ValueError(msg)
    return training, loaded.normalized


def _measure_colors(slides: Sequence[Slide]) -> list[Colors]:
    by_name = {slide.name: tissue_colors(slide) for slide in slides}
    blank = [name for name, section in by_name.items() if section is None]
    if blank:
        msg = (
            f"Tissue under the spots was expected, in an image with a level that is small enough to be read whole; none was "
            f"found in {listing(blank)}. Call `sthggep.pl.patches(data)` to see where the spots lie."
        )
        raise ValueError(msg)
    return [section for section in by_name.values() if section is not None]


def _swatch_sections(training: Sequence[Colors]) -> list[Colors]:
    """All training sections, or 12 of more sections, from the darkest to the lightest."""
    if len(training) <= MOST_ROWS:
        return list(training)
    by_light = sorted(training, key=lambda section: section.mean[0])
    return [by_light[i] for i in np.linspace(0, len(training) - 1, MOST_ROWS).round().astype(int)]


def _rgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert CIELAB to sRGB (0 to 1); clip colors that a screen cannot show."""
    from skimage.color import lab2rgb

    clipped = np.array(lab, dtype=np.float64)
    clipped[..., 0] = clipped[..., 0].clip(0, 100)
    return np.asarray(lab2rgb(clipped)).clip(0, 1)


def _draw_swatches(
    ax: Axes, training: Sequence[Colors], new: Sequence[Colors], color_range: ColorRange, n_training: int
) -> None:
    rows = [*training, *new]
    lab = np.array([[section.mean] * len(SWATCHES) for section in rows])
    lab[..., 0] += np.array([section.spread[0] for section in rows])[:, None] * SWATCHES
    ax.imshow(_rgb(lab), aspect="auto", interpolation="nearest")
    for edge in np.arange(len(rows) - 1) + 0.5:
        # A gap between rows, wider above the new slides
        ax.axhline(edge, color="white", lw=6 if edge == len(training) - 0.5 else 1.5)
    distances = [color_range.distance(section) for section in new]
    labels = [section.name for section in training]
    labels += [f"{section.name}: {distance:.1f}" for section, distance in zip(new, distances, strict=True)]
    ax.set_yticks(range(len(rows)), labels)
    for label, distance in zip(ax.get_yticklabels()[len(training) :], distances, strict=True):
        label.set_fontweight("bold" if distance > FAR else "normal")
    ax.tick_params(length=0)
    ax.set_xticks(range(len(SWATCHES)), ["dark", "mean", "light"])
    ax.spines[:].set_visible(False)
    whole = len(training) == n_training
    which = "training sections" if whole else f"{len(training)} of {n_training} training sections"
    ax.set_title(f"Tissue of {which}\nand of new slides (distance)")


def _draw_means(
    ax: Axes, training: Sequence[Colors], new: Sequence[Colors], color_range: ColorRange, axes: tuple[int, int]
) -> None:
    """Draw the mean colors on two axes of CIELAB, and the limit beyond which the prediction warns."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), (low, high) = axes, (color_range.low, color_range.high)
    box = FancyBboxPatch(
        (low[x], low[y]),
        high[x] - low[x],
        high[y] - low[y],
        boxstyle=f"round,pad={FAR},rounding_size={FAR}",
        fill=False,
        ls="--",
        ec="black",
        lw=0.8,
        label="limit of the warning",
    )
    ax.add_patch(box)
    # A new slide is larger and lies below, so that no training section is hidden
    groups = ((training, "o", 20, "training sections", 3.0), (new, "D", 60, "new slides", 2.9))
    for group, marker, size, label, order in groups:
        means = np.array([section.mean for section in group])
        look: dict[str, Any] = {"s": size, "marker": marker, "c": _rgb(means), "ec": "black", "lw": 0.7, "label": label}
        ax.scatter(means[:, x], means[:, y], zorder=order, **look)
    for section in new:
        place = (section.mean[x], section.mean[y])
        ax.annotate(section.name, place, xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7)
    ax.margins(0.12)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=AXES[x], ylabel=AXES[y])
