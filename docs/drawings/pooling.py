"""Why a correlation pooled over all sections is too high."""

from __future__ import annotations

import numpy as np
from _style import BLUE, GREEN, INK, ORANGE, save
from matplotlib import pyplot as plt

rng = np.random.default_rng(4)
fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.0), layout="constrained", sharey=True)
centers, colors = ((1.0, 1.1), (2.1, 1.9), (3.0, 3.2)), (BLUE, ORANGE, GREEN)
measured = [y + 0.35 * rng.standard_normal(60) for _, y in centers]
predicted = [x + 0.25 * rng.standard_normal(60) for x, _ in centers]
for x, y, color in zip(predicted, measured, colors, strict=True):
    axes[0].scatter(x, y, s=10, color=INK, alpha=0.6, lw=0)
    axes[1].scatter(x, y, s=10, color=color, alpha=0.75, lw=0)
    place = (x.mean(), y.max() + 0.12)
    axes[1].annotate(f"r = {np.corrcoef(x, y)[0, 1]:.2f}", place, ha="center", color=color, fontsize=9)
pooled = np.corrcoef(np.concatenate(predicted), np.concatenate(measured))[0, 1]
axes[0].set(title=f"three sections pooled: r = {pooled:.2f}", xlabel="predicted", ylabel="measured")
axes[1].set(title="the same spots, section by section", xlabel="predicted")
for ax in axes:
    ax.set(xticks=[], yticks=[], ylim=(0, 4.5))
save(fig, __file__, "svg")
