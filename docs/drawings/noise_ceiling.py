"""Counting noise lowers a correlation; the ceiling, estimated by splitting the counts, shows by how much."""

from __future__ import annotations

import numpy as np
from _style import BLUE, GRAY, ORANGE, bare, save
from matplotlib import pyplot as plt

import sthggep
from sthggep._table._counts import log10_cp10k
from sthggep._table._scores import column_pearson, noise_ceiling

GENE = "STRO1"
DEPTHS = (30.0, 100.0, 300.0, 1000.0, 3000.0)


def dense(matrix) -> np.ndarray:
    return np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix, dtype=np.float32)


def tissue(depth: float):
    """One section of toy tissue, and the expression that a perfect prediction would return."""
    adata = sthggep.datasets.toy(seed=3, counts_per_spot=depth)
    return adata, log10_cp10k(dense(adata.layers["true_rate"]))


def ceiling_and_correlation(raw: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ceiling estimated from the counts, and the correlation of the truth with the counts."""
    return noise_ceiling(raw, np.random.default_rng(0)), column_pearson(truth, log10_cp10k(raw))


fig = plt.figure(figsize=(9.4, 3.1), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[1.6, 1])
axes = left.subplots(1, 3)
for ax, depth in zip(axes, (None, 2000.0, 60.0), strict=True):
    adata, truth = tissue(depth or 2000.0)
    column = adata.var_names.get_loc(GENE)
    measured = log10_cp10k(dense(adata.X))
    values = truth if depth is None else measured
    r = float(column_pearson(truth[:, [column]], measured[:, [column]])[0])
    bare(ax).scatter(*adata.obsm["spatial"].T, c=values[:, column], s=30, cmap="viridis", marker="s", lw=0)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    ax.set_title("the truth\n" if depth is None else f"{depth:g} counts a spot\nr with the truth {r:.2f}", fontsize=9)
ax = right.subplots()
rng = np.random.default_rng(1)
kinds = {"counting noise only": (BLUE, []), "spots have further differences": (ORANGE, [])}
for depth in DEPTHS:
    adata, truth = tissue(depth)
    has_pattern = (adata.var["family"] != "NOISE").to_numpy()
    poisson = rng.poisson(dense(adata.layers["true_rate"])).astype(np.float32)
    for raw, (_, points) in zip((poisson, dense(adata.X)), kinds.values(), strict=True):
        points.append(np.array(ceiling_and_correlation(raw, truth))[:, has_pattern])
ax.plot([0, 1], [0, 1], color=GRAY, lw=1)
for label, (color, points) in kinds.items():
    x, y = np.concatenate(points, axis=1)
    ax.scatter(x, y, s=8, color=color, alpha=0.6, lw=0, label=label)
    print(f"{label}: the truth reaches the ceiling {np.nanmedian(y - x):+.3f} (median over genes and depths)")
ax.set(xlabel="ceiling, from the counts alone", ylabel="correlation of the truth\nwith the counts", aspect="equal")
ax.set(xlim=(0, 1.02), ylim=(-0.15, 1.02))
ax.legend(fontsize=7.5, loc="lower right", handletextpad=0.1, borderpad=0)
save(fig, __file__)
