"""Correct spots, and two common mistakes."""

from __future__ import annotations

from _style import BLUE, ORANGE, bare, image_of, save
from matplotlib import pyplot as plt

import sthggep

slide = sthggep.datasets.toy(seed=5, size_um=(3600.0, 2600.0), pitch_um=150.0)
image = image_of(slide)
xy = slide.obsm["spatial"]
cases = {
    "correct: (x, y),\nfull-resolution pixels": (xy, BLUE),
    "x and y swapped": (xy[:, ::-1], ORANGE),
    "scale factor missing:\npixels of a smaller image": (xy * 0.5, ORANGE),
}
fig, axes = plt.subplots(1, 3, figsize=(9.4, 2.9), layout="constrained")
for ax, (title, (points, color)) in zip(axes, cases.items(), strict=True):
    bare(ax).imshow(image)
    ax.scatter(*points.T, s=7, color=color, lw=0)
    ax.set(xlim=(-60, 3660), ylim=(3660, -60))
    ax.set_title(title, color=color)
save(fig, __file__)
