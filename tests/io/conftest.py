"""A small section of legacy Spatial Transcriptomics with known content."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

PITCH_PX = 50.0


@pytest.fixture
def section(tmp_path: Path) -> SimpleNamespace:
    """3 x 3 spots at array x 10-12, y 20-22; spot (x, y) stands at pixel (100 + 50 (x - 10), 40 + 50 (y - 20)).

    Gene `X` counts array x, gene `Y` array y. The image's red is x, its green y.
    """
    x, y = (axis.ravel() for axis in np.meshgrid([10, 11, 12], [20, 21, 22]))
    jitter = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 9))
    spots = pd.DataFrame(
        {
            "x": x,
            "y": y,
            "new_x": x + jitter[0],
            "new_y": y + jitter[1],
            "pixel_x": 100 + PITCH_PX * (x + jitter[0] - 10),
            "pixel_y": 40 + PITCH_PX * (y + jitter[1] - 20),
            "selected": 1,
        }
    )
    counts = pd.DataFrame({"X": x, "Y": y, "zero": 0}, index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)])
    counts = counts.sample(frac=1, random_state=0)
    rows, columns = np.mgrid[:180, :250]
    image = np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    paths = SimpleNamespace(
        counts=tmp_path / "S1.tsv.gz", spots=tmp_path / "S1_selection.tsv", image=tmp_path / "S1.png"
    )
    counts.to_csv(paths.counts, sep="\t")
    spots.to_csv(paths.spots, sep="\t", index=False)
    Image.fromarray(image).save(paths.image)
    return SimpleNamespace(counts=counts, spots=spots, image=image, paths=paths, folder=tmp_path)
