"""The picture of the front page: H&E of a section that the model has not seen, one gene as measured and as predicted."""

from __future__ import annotations

import numpy as np
from _style import GRAY, bare, image_of, save
from matplotlib import pyplot as plt
from matplotlib.collections import EllipseCollection
from scipy import ndimage
from skimage.transform import downscale_local_mean

import sthggep
from sthggep._table._counts import log10_cp10k

GENE = "STRO3"
PITCH, SHRINK = 100.0, 3
TISSUE = {"size_um": (3400.0, 2500.0), "pitch_um": PITCH, "layout": "hex", "n_genes": 32, "counts_per_spot": 1200.0}


def without_glass(image: np.ndarray) -> np.ndarray:
    """The image from 0 to 1 with a fourth channel, which is 0 on the glass around the tissue."""
    colorless = ndimage.binary_opening(np.ptp(image, axis=2) < 0.055, iterations=2)
    regions, _ = ndimage.label(colorless)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    glass = ndimage.binary_dilation(np.isin(regions, border[border > 0]), iterations=2)
    return np.dstack([image, ndimage.gaussian_filter((~glass).astype(float), 1)])


train = [sthggep.datasets.toy(seed=seed, **TISSUE) for seed in (0, 1)]
slide = sthggep.datasets.toy(seed=4, **TISSUE)
model = sthggep.tl.fit(train, n_members=0, show_progress_bar=False)
sthggep.tl.predict(slide, model, show_progress_bar=False)
genes = model.genes
measured = log10_cp10k(slide[:, genes].X.toarray())[:, genes.index(GENE)]
predicted = slide.obsm["hggep"][:, genes.index(GENE)]
low, high = np.quantile(measured, [0.02, 0.98])

tissue = without_glass(downscale_local_mean(image_of(slide) / 255, (SHRINK, SHRINK, 1)))
pale = np.dstack([np.repeat(0.62 + 0.35 * tissue[..., :3].mean(axis=2, keepdims=True), 3, axis=2), tissue[..., 3]])
fig, axes = plt.subplots(1, 3, figsize=(10, 2.75), layout="constrained")
for ax, (title, values) in zip(axes, {"H&E": None, "observed": measured, "predicted": predicted}.items(), strict=True):
    bare(ax).imshow(tissue if values is None else pale, interpolation="antialiased")
    ax.set_title(title, color=GRAY, fontsize=17)
    if values is not None:
        size = 0.84 * PITCH / SHRINK
        spots = EllipseCollection(
            size, size, 0, units="xy", offsets=slide.obsm["spatial"] / SHRINK, offset_transform=ax.transData
        )
        spots.set(array=values, cmap="viridis", clim=(low, high), linewidth=0)
        ax.add_collection(spots)
save(fig, __file__, colors=256, dpi=200, transparent=True)
print(sthggep.tl.evaluate(slide).loc[GENE, ["pearson", "ceiling"]].round(2).to_dict())
