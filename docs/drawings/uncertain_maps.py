"""Three genes of one predicted section: one that you can trust, one with few counts, one without a pattern."""

from __future__ import annotations

import numpy as np
from _style import GRAY, bare, save
from matplotlib import pyplot as plt

import sthggep
from sthggep._table._counts import log10_cp10k

GENES = {"STRO1": "collagen", "RARE6": "nuclei, few counts", "NOISE1": "nothing"}
DEPTH = 600.0

train = [sthggep.datasets.toy(seed=seed, counts_per_spot=DEPTH) for seed in range(3)]
slide = sthggep.datasets.toy(seed=3, counts_per_spot=DEPTH)
model = sthggep.tl.fit(train, genes=list(slide.var_names), show_progress_bar=False)
sthggep.tl.predict(slide, model, show_progress_bar=False)
scores = sthggep.tl.evaluate(slide)
truth, measured = log10_cp10k(slide.layers["true_rate"]), log10_cp10k(slide.X.toarray())
columns = slide.var_names.get_indexer(list(GENES))
predicted = slide.obsm["hggep"]

fig, axes = plt.subplots(3, 4, figsize=(8.2, 6.4), layout="constrained")
for row, (gene, column) in enumerate(zip(GENES, columns, strict=True)):
    maps = {"truth": truth, "measured": measured, "predicted": predicted, "predicted, own color scale": predicted}
    low, high = np.quantile(measured[:, column], [0.01, 0.99])
    for ax, (title, values) in zip(axes[row], maps.items(), strict=True):
        own_scale = title.endswith("own color scale")
        limits = {} if own_scale else {"vmin": low, "vmax": high}
        bare(ax).scatter(
            *slide.obsm["spatial"].T, c=values[:, column], s=42, marker="s", lw=0, cmap="viridis", **limits
        )
        ax.set_aspect("equal")
        ax.invert_yaxis()
        if row == 0:
            ax.set_title(title)
    gene_scores = scores.loc[gene]
    axes[row, 0].set_ylabel(f"{gene}: follows {GENES[gene]}", fontsize=9)
    text = f"Pearson {gene_scores['pearson']:.2f}   ceiling {gene_scores['ceiling']:.2f}"
    axes[row, 2].set_xlabel(text, fontsize=9)
    axes[row, 3].set_xlabel(f"spread {predicted[:, column].std():.3f}", color=GRAY, fontsize=9)
save(fig, __file__)
print(scores.loc[list(GENES), ["pearson", "ceiling", "mean_observed"]].round(3).to_string())
print(f"{scores['pearson'].mean():.3f} of {scores['ceiling'].mean():.3f}")
