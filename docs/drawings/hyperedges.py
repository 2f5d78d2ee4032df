"""An edge of a graph connects two spots; a hyperedge connects any number of spots."""

from __future__ import annotations

import numpy as np
from _style import BLUE, GRAY, INK, ORANGE, bare, save
from matplotlib import pyplot as plt
from matplotlib.patches import Circle
from scipy.spatial import ConvexHull

from sthggep.nn import spatial_incidence, spatial_neighbors


def lattice(kind: str) -> np.ndarray:
    """Centers of a small array, in pitches."""
    x, y = (part.ravel() for part in np.meshgrid(np.arange(7.0), np.arange(6.0)))
    if kind == "hexagonal":
        x, y = x + 0.5 * (y % 2), y * np.sqrt(3) / 2
    return np.column_stack([x, y])


def outline(ax, points: np.ndarray, color: str) -> None:
    """A soft line around the spots that a hyperedge holds."""
    around = np.concatenate([points + 0.34 * np.array([np.cos(a), np.sin(a)]) for a in np.linspace(0, 2 * np.pi, 40)])
    ax.fill(*around[ConvexHull(around).vertices].T, fc=color, ec=color, alpha=0.22, lw=0)
    ax.fill(*around[ConvexHull(around).vertices].T, fc="none", ec=color, lw=1.6)


fig, axes = plt.subplots(1, 3, figsize=(9.4, 3.0), layout="constrained")
square = lattice("square")
titles = ["graph: pairs of spots", "hypergraph, square array\n(legacy ST)", "hypergraph, hexagonal array\n(Visium)"]
for ax, kind, title in zip(axes, ("square", "square", "hexagonal"), titles, strict=True):
    xy = lattice(kind)
    rows = spatial_neighbors(xy, 9, max_distance=1.6).rows
    spots, edges = spatial_incidence(rows).numpy()
    inner = [(np.abs(xy - center).sum(axis=1)).argmin() for center in ([2, 2 * (xy[7, 1])], [4, 3 * xy[7, 1]])]
    for spot, color in zip(inner, (BLUE, ORANGE), strict=True):
        members = spots[edges == spot]
        if title.startswith("graph"):
            for other in members[members != spot]:
                ax.plot(*xy[[spot, other]].T, color=color, lw=1.6, zorder=1)
        else:
            outline(ax, xy[members], color)
    for center in xy:
        ax.add_patch(Circle(center, 0.2, fc="white", ec=GRAY, lw=1, zorder=2))
    for spot, color in zip(inner, (BLUE, ORANGE), strict=True):
        ax.add_patch(Circle(xy[spot], 0.2, fc=color, ec=INK, lw=1, zorder=3))
    bare(ax).set(xlim=(-0.6, 7.1), ylim=(5.6, -0.6), aspect="equal", title=title)
save(fig, __file__, "svg")
