"""Axes of a user that a gene map is drawn into."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np

from sthggep._checks import counted, listing
from sthggep.pl._map_panels import SectionAxes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sthggep.pl._map_layout import MapLayout
    from sthggep.pl._maps import GeneMaps


def check_axes(
    ax: Axes | Sequence[Axes] | None, names: list[str], slides: Sequence[object], options: dict[str, object]
) -> list[Axes] | None:
    """The axes of the user as a list; refuse what cannot be drawn into them."""
    if ax is None:
        return None
    if given := [name for name, value in options.items() if value is not None]:
        msg = f"`ax` and `{given[0]}` do not go together: your figure has its own size, rows and title. Leave out one of them."
        raise ValueError(msg)
    panels = list(np.ravel(np.asarray(ax, dtype=object)))
    wrong = [type(panel).__name__ for panel in panels if not hasattr(panel, "transAxes")]
    if wrong:
        msg = f"`ax` must be a matplotlib Axes or a list of them, found {listing(wrong, 3)}. Pass those of `plt.subplots()`."
        raise TypeError(msg)
    if hasattr(ax, "transAxes") and (len(names) > 1 or len(slides) > 1):
        msg = (
            f"One Axes takes the predicted map of one gene of one section, found {counted(names, 'gene')} of "
            f"{counted(slides, 'section')}. Pass one gene (and `sections=`), a list of Axes, or leave out `ax`."
        )
        raise ValueError(msg)
    return cast("list[Axes]", panels)


def user_axes(axes: Sequence[Axes], maps: list[GeneMaps], names: list[str], layout: MapLayout) -> list[SectionAxes]:
    """The user's axes, section after section: the H&E, then the maps of each gene."""
    panels = ["H&E"] * layout.image + [f"{gene} {kind}" for gene in names for kind in layout.kinds]
    wanted = [f"{item.slide.name}: {panel}" for item in maps for panel in panels]
    if len(axes) != len(wanted):
        msg = (
            f"`ax` must hold one Axes for each of the {len(wanted)} panels ({listing(wanted, 6)}), found {len(axes)}. "
            "`image=False` and `observed=False` leave out panels; a single Axes takes the predicted map of one gene."
        )
        raise ValueError(msg)
    left = iter(axes)
    return [
        SectionAxes(next(left) if layout.image else None, [{kind: next(left) for kind in layout.kinds} for _ in names])
        for _ in maps
    ]


def are_in_a_row(panels: Sequence[Axes]) -> bool:
    """Whether panels stand side by side, as those of a user may not."""
    boxes = [ax.get_position(original=True) for ax in panels]
    return all(np.isclose(box.y0, boxes[0].y0) for box in boxes) and all(a.x1 <= b.x0 for a, b in pairwise(boxes))
