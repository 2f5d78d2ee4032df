"""Write the golden file of predictions. Run it once, before a change that must not change predictions.

STHGGEP_DATA=... python tests/golden/make_golden.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import sthggep

FILE = Path(__file__).with_name("predictions.npz")
EVERY = 20  # the file holds every twentieth gene of the bundled model, which keeps it small


def toy_sections() -> list:
    """Three small sections of toy tissue."""
    return [
        sthggep.datasets.toy(seed=seed, size_um=(1600.0, 1600.0), mpp=2.0, n_genes=12, pitch_um=120.0)
        for seed in range(3)
    ]


def predict_bundled(slide) -> np.ndarray:
    """Predictions of the bundled model for every twentieth gene, (n_spots, 43)."""
    sthggep.tl.predict(slide, "her2st", device="cpu", show_progress_bar=False)
    return slide.obsm["hggep"][:, ::EVERY]


def predict_closed_form() -> np.ndarray:
    """Predictions for the third toy section by the closed form of a fit on the first two, (n_spots, 12)."""
    *train, test = toy_sections()
    options = {"size_um": (160.0, 320.0), "n_members": 0, "validation": None, "device": "cpu"}
    model = sthggep.tl.fit(train, genes=list(test.var_names), show_progress_bar=False, **options)
    sthggep.tl.predict(test, model, device="cpu", show_progress_bar=False)
    return test.obsm["hggep"]


def main() -> None:
    """Predict and write."""
    predictions = {name: predict_bundled(sthggep.datasets.her2st(name, fullres=False)) for name in ("B4", "C2")}
    predictions["toy"] = predict_bundled(toy_sections()[2])
    predictions["closed_form"] = predict_closed_form()
    np.savez_compressed(FILE, **predictions)


if __name__ == "__main__":
    main()
