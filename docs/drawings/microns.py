"""A fixed number of pixels shows different tissue at each resolution; a fixed number of microns shows the same tissue."""

from __future__ import annotations

from _style import BLUE, ORANGE, bare, save
from matplotlib import pyplot as plt

import sthggep

MPP = (0.5, 1.0, 2.0)

fig, axes = plt.subplots(2, 3, figsize=(6.6, 4.7), layout="constrained")
slides = [sthggep.datasets.toy(seed=3, size_um=(1600.0, 1600.0), mpp=mpp) for mpp in MPP]
spot = slides[0].n_obs // 2 + 3
for column, (slide, mpp) in enumerate(zip(slides, MPP, strict=True)):
    rows = ((None, ORANGE, f"112 px = {112 * mpp:g} µm"), (112.0, BLUE, "112 µm"))
    for ax, (size, color, label) in zip(axes[:, column], rows, strict=True):
        patch = sthggep.pp.patches(slide, size_um=size, size_px=112)[spot]
        bare(ax).imshow(patch)
        ax.spines[:].set(visible=True, color=color, linewidth=2.5)
        ax.set_xlabel(label, color=color)
    axes[0, column].set_title(f"scanned at {mpp:g} µm/px")
axes[0, 0].set_ylabel("size_um=None\n(as published)", color=ORANGE)
axes[1, 0].set_ylabel("size_um=112", color=BLUE)
save(fig, __file__)
