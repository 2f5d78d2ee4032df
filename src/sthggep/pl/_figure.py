"""Figures for print: font sizes in points at journal width; the user's own style stays unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from sthggep._disk._whole import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType


class DotStyle(TypedDict):
    """How a plot draws the dots that it points at."""

    ms: float
    mec: str
    mew: float
    zorder: float


STYLE: dict[RcKeyType, object] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.06,
    # A journal's editor can change text that is stored as text
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}
# Okabe and Ito's colors, which color-blind readers can distinguish; the pale ones last
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#F0E442")
MANY_COLORS = "turbo"  # for more
DOT: DotStyle = {"ms": 4.5, "mec": "white", "mew": 0.6, "zorder": 4}
SAVE_DPI = 300


def distinct_colors(n: int) -> list[str]:
    """Return so many colors without a repetition; of few, those that all readers can distinguish."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    if n <= len(COLORS):
        return list(COLORS[:n])
    return [to_hex(mpl.colormaps[MANY_COLORS](0.05 + 0.9 * i / (n - 1))) for i in range(n)]


@contextmanager
def style() -> Iterator[None]:
    """Use the sizes of this module within the context, and the user's settings before and after it."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def new_figure(size: tuple[float, float], dpi: float) -> Figure:
    """An empty figure of a size in inches; its layout keeps labels from overlapping."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=size, dpi=dpi, layout="constrained")
    # A notebook shows what a call returns; it would show an open figure a second time
    if "inline" in plt.get_backend():
        plt.close(figure)
    return figure


def save_figure(figure: Figure, path: str | Path | None) -> None:
    """Write the figure to a file, if there is a path; the ending chooses the format."""
    if path is None:
        return
    path = Path(path)
    with whole_file(path if path.suffix else path.with_suffix(".png")) as part:
        figure.savefig(part, dpi=SAVE_DPI)


def empty_axes(ax: Axes) -> None:
    """Remove ticks and frame, but keep titles and labels (``axis("off")`` would drop them)."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def figure_of(ax: Axes) -> Figure:
    """The outermost figure that holds the axes."""
    return ax.figure.figure
