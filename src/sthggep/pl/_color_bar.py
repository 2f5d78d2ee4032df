"""A color bar under the panels that it measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.transforms import Bbox, BboxBase, BboxTransformTo
from numpy.typing import NDArray

from sthggep.pl._figure import figure_of
from sthggep.pl._map_layout import BAR_INCHES
from sthggep.pl._tissue import below

if TYPE_CHECKING:
    from sthggep.pl._map_panels import MapStyle

WIDTH = 0.88  # of a bar, as a fraction of one panel
BESIDE = 0.38  # fraction of a panel that a scale bar takes


class ColorBarAxes(Axes):
    """Axes under one or several panels, which may be wider than their own: the layout makes room for the height alone."""

    panel: Axes

    def get_tightbbox(self, *args: Any, **options: Any) -> Bbox | None:
        """Return the box of bar and numbers, as wide as the panel."""
        box: Bbox | None = super().get_tightbbox(*args, **options)
        return None if box is None else Bbox.from_extents(self.panel.bbox.x0, box.y0, self.panel.bbox.x1, box.y1)


class _Span(BboxBase):
    """The box from the first to the last of some panels, wherever the layout moves them."""

    def __init__(self, first: Axes, last: Axes) -> None:
        super().__init__()
        self.first, self.last = first.bbox, last.bbox
        self.set_children(self.first, self.last)

    def get_points(self) -> NDArray[np.float64]:
        """Lower left and upper right corner."""
        self._invalid = 0  # what was read is reported again when the panels move
        return np.array([[self.first.x0, self.last.y0], [self.last.x1, self.last.y1]])


def draw_color_bar(panels: Sequence[Axes], look: MapStyle, label: str, *, scale_bar: bool) -> None:
    """Draw a color bar under panels that stand side by side; right of the scale bar, if the first panel has one.

    The bar belongs to the last panel. It follows the panels where a user zooms, and has the opacity of the spots.
    """
    first, last, scale = panels[0], panels[-1], look.scale
    n = len(panels)
    left, right = (BESIDE / n, 0.97) if scale_bar else (0.5 - WIDTH / n / 2, 0.5 + WIDTH / n / 2)
    bounds = (left, -2 * BAR_INCHES, right - left, BAR_INCHES)
    inset = last.inset_axes(bounds, transform=below(last, BboxTransformTo(_Span(first, last))), axes_class=ColorBarAxes)
    cast("ColorBarAxes", inset).panel = last
    colors = ScalarMappable(Normalize(scale.low, scale.high), look.cmap)
    options: dict[str, Any] = {"extend": scale.extend, "orientation": "horizontal", "alpha": look.alpha}
    bar = figure_of(last).colorbar(colors, cax=inset, **options)
    low, high = scale.low, scale.high
    # All three ticks have as many decimals as the range needs
    decimals = int(np.clip(1 - np.floor(np.log10(high - low)), 0, 6)) if high > low else 2
    ticks = [low, (low + high) / 2, high]
    # Adding 0 turns the rounded -0.0 into 0.0
    bar.set_ticks(ticks, labels=[f"{round(value, decimals) + 0:.{decimals}f}" for value in ticks])
    bar.set_label(label, fontsize=7, labelpad=1)
    bar.outline.set(visible=False)
    inset.tick_params(length=2, pad=1.5)
    if bar.solids is not None:
        bar.solids.set(rasterized=True)  # steps of a transparent bar would overlap
