"""Tissue colors of new slides beside those that a model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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

MOST_ROWS = 12  # training sections that are shown one by one
ROW_INCHES = 0.21
SWATCHES = (-1.0, 0.0, 1.0)  # standard deviations of L*
AXES = ("L* (dark to light)", "a* (green to red)", "b* (blue to yellow)")


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
    """Draw the colors of new slides' tissue beside those of the sections that a model was trained on.

    Left a row of swatches for each section: its tissue at the mean of a* and b*, dark, middling and light (one standard
    deviation of L* either way). Right the mean colors in CIELAB, whose distances are about those that one sees. The dashed
    lines go around the range of the training sections, 9 units away: :func:`sthggep.tl.predict` warns of slides outside.
    The number behind a new slide is its distance from that range, bold where it is warned of. Of a model with stain
    normalization, colors are those after it.

    Parameters
    ----------
    data
        New slides: one, a list, or a dict by name.
    model
        The model, its folder or name; or the slides that it is, or will be, trained on. ``None`` takes the model that comes
        with the package.
    figsize
        Width and height in inches.
    dpi
        Resolution on the screen; files are written with 300.
    save
        File to write; its ending chooses the format.
    {places}

    Returns
    -------
    The figure. Its axes are the swatches, b* against a*, and L* against a*.

    Raises
    ------
    KeyError
        There is no image.
    ValueError
        The model has no record of colors, or a picture shows no tissue to take them from.
    """
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
    )
    seen, look = _seen(model, places)
    new = _measured([look(slide) for slide in sections_of(data, places)])
    known = ColorRange.of(seen)
    shown = _some(seen)
    with style():
        height = max(2.4, ROW_INCHES * (len(shown) + len(new)) + 0.9)
        figure = new_figure(figsize or (7.2, height), dpi)
        swatches, hue, light = figure.subplots(1, 3, width_ratios=(2.0, 2.2, 2.2))
        _draw_swatches(swatches, shown, new, known, len(seen))
        _draw_means(hue, seen, new, known, (1, 2))
        _draw_means(light, seen, new, known, (1, 0))
        hue.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=1, borderaxespad=0.2, handletextpad=0.4)
        save_figure(figure, save)
    return figure


def _seen(model: Any, places: Places) -> tuple[list[Colors], Callable[[Slide], Slide]]:
    """Colors of the training sections, by the model's record or from the slides themselves; and how slides are looked at."""
    from sthggep.model._load import load_model

    if not (model is None or isinstance(model, str | Path) or hasattr(model, "training")):
        return _measured(sections_of(model, places)), lambda slide: slide
    found = load_model(model)
    seen = read_colors(found.training.colors)
    if not seen:
        msg = (
            f"The model {found.id} has no record of colors: it was trained by an earlier version, or without images. Pass "
            "the slides that it was trained on in its place: `sthggep.pl.colors(data, slides)`."
        )
        raise ValueError(msg)
    return seen, found.normalized


def _measured(slides: Sequence[Slide]) -> list[Colors]:
    found = {slide.name: tissue_colors(slide) for slide in slides}
    blank = [name for name, each in found.items() if each is None]
    if blank:
        msg = (
            f"No tissue colors could be taken of {listing(blank)}: tissue under the spots was expected, in an image with a "
            "resolution that is not too large to be read whole. See `sthggep.pl.patches(data)`."
        )
        raise ValueError(msg)
    return [each for each in found.values() if each is not None]


def _some(seen: Sequence[Colors]) -> list[Colors]:
    """All sections, or of many some from the darkest to the lightest."""
    if len(seen) <= MOST_ROWS:
        return list(seen)
    by_light = sorted(seen, key=lambda each: each.mean[0])
    return [by_light[i] for i in np.linspace(0, len(seen) - 1, MOST_ROWS).round().astype(int)]


def _rgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB, 0 to 1, of CIELAB colors; the nearest there is where a screen has none."""
    from skimage.color import lab2rgb

    inside = np.array(lab, dtype=np.float64)
    inside[..., 0] = inside[..., 0].clip(0, 100)
    return np.asarray(lab2rgb(inside)).clip(0, 1)


def _draw_swatches(ax: Axes, seen: Sequence[Colors], new: Sequence[Colors], known: ColorRange, n_seen: int) -> None:
    rows = [*seen, *new]
    lab = np.array([[each.mean] * len(SWATCHES) for each in rows])
    lab[..., 0] += np.array([each.spread[0] for each in rows])[:, None] * SWATCHES
    ax.imshow(_rgb(lab), aspect="auto", interpolation="nearest")
    for edge in np.arange(len(rows) - 1) + 0.5:
        # A gap between rows, wider above the new slides
        ax.axhline(edge, color="white", lw=6 if edge == len(seen) - 0.5 else 1.5)
    labels = [each.name for each in seen] + [f"{each.name}: {known.distance(each):.1f}" for each in new]
    ax.set_yticks(range(len(rows)), labels)
    for label, each in zip(ax.get_yticklabels()[len(seen) :], new, strict=True):
        label.set_fontweight("bold" if known.distance(each) > FAR else "normal")
    ax.tick_params(length=0)
    ax.set_xticks(range(len(SWATCHES)), ["dark", "mean", "light"])
    ax.spines[:].set_visible(False)
    which = "training sections" if len(seen) == n_seen else f"{len(seen)} of {n_seen} training sections"
    ax.set_title(f"Tissue of {which}\nand of new slides (distance)")


def _draw_means(
    ax: Axes, seen: Sequence[Colors], new: Sequence[Colors], known: ColorRange, at: tuple[int, int]
) -> None:
    """Two of the three axes of the mean colors, and the line beyond which a slide is warned of."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), (low, high) = at, (known.low, known.high)
    width, height = high[x] - low[x], high[y] - low[y]
    around = f"round,pad={FAR},rounding_size={FAR}"
    border: Any = {"fill": False, "ls": "--", "ec": "black", "lw": 0.8, "label": "warned of outside"}
    ax.add_patch(FancyBboxPatch((low[x], low[y]), width, height, boxstyle=around, **border))
    for group, marker, size, label in ((seen, "o", 22, "training sections"), (new, "D", 34, "new slides")):
        means = np.array([each.mean for each in group])
        ax.scatter(
            means[:, x], means[:, y], s=size, marker=marker, c=_rgb(means), ec="black", lw=0.7, label=label, zorder=3
        )
    for each in new:
        ax.annotate(
            each.name, (each.mean[x], each.mean[y]), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7
        )
    ax.margins(0.12)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=AXES[x], ylabel=AXES[y])
