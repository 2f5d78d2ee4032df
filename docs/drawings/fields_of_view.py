"""One spot of toy tissue in the four fields of view of the default preset."""

from __future__ import annotations

import numpy as np
from _style import BLUE, GREEN, ORANGE, PURPLE, bare, image_of, save
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

import sthggep

SIZES = {80: PURPLE, 160: BLUE, 320: GREEN, 640: ORANGE}

slide = sthggep.datasets.toy(seed=3)
image = image_of(slide)
center = slide.obsm["spatial"].mean(axis=0) + np.array([250, -150])
spot = int(np.linalg.norm(slide.obsm["spatial"] - center, axis=1).argmin())
x, y = slide.obsm["spatial"][spot]

fig, axes = plt.subplots(1, 5, figsize=(9.4, 2.25), layout="constrained", width_ratios=[1.15, 1, 1, 1, 1])
bare(axes[0]).imshow(image)
axes[0].set_title("section, 3 mm")
axes[0].scatter(*slide.obsm["spatial"].T, s=3, color="white", alpha=0.9, lw=0)
for ax, (size, color) in zip(axes[1:], SIZES.items(), strict=True):
    axes[0].add_patch(Rectangle((x - size / 2, y - size / 2), size, size, fc="none", ec=color, lw=1.5))
    patch = sthggep.pp.patches(slide, size_um=size, size_px=224)[spot]
    bare(ax).imshow(patch)
    ax.spines[:].set(visible=True, color=color, linewidth=2.5)
    ax.set_title(f"{size} µm", color=color)
save(fig, __file__)
