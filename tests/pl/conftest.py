"""A section small enough to check by hand."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sthggep._keys import UNITS

WIDTH, HEIGHT = 800, 600  # full-resolution pixels; the stored image is half as large
GENES = ["ACTB", "FASN", "ERBB2", "CD74"]
COLUMNS, ROWS = 6, 4
PITCH, DIAMETER = 100, 50


def gradient() -> np.ndarray:
    """An image whose color shows the position: red grows with x, green with y."""
    y, x = np.mgrid[: HEIGHT // 2, : WIDTH // 2]
    image = np.full((HEIGHT // 2, WIDTH // 2, 3), 128, dtype=np.uint8)
    image[..., 0] = x * 255 / (WIDTH // 2)
    image[..., 1] = y * 255 / (HEIGHT // 2)
    return image


@pytest.fixture
def section() -> Callable[..., ad.AnnData]:
    """Return a function that makes sections: 6 × 4 spots, 100 pixels (200 µm) apart, with counts and a prediction."""

    def make(name: str = "S1", seed: int = 0) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        array = np.array([(x, y) for y in range(ROWS) for x in range(COLUMNS)])
        counts = rng.poisson(5, (len(array), len(GENES) + 1)).astype(np.float32)
        adata = ad.AnnData(
            sparse.csr_matrix(counts),
            obs=pd.DataFrame(
                {"array_x": array[:, 0], "array_y": array[:, 1], "section": pd.Categorical([name] * len(array))},
                index=[f"{x}x{y}" for x, y in array],
            ),
            var=pd.DataFrame(index=[*GENES, "OTHER"]),
        )
        adata.obsm["spatial"] = 100.0 + PITCH * array
        adata.uns["spatial"] = {
            name: {
                "images": {"hires": gradient()},
                "scalefactors": {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": DIAMETER},
                "metadata": {"pitch_um": 200.0},
            }
        }
        adata.obsm["hggep"] = rng.normal(3.0, 0.2, (len(array), len(GENES))).astype(np.float32)
        adata.uns["hggep"] = {"tool": "sthggep", "genes": np.array(GENES), "units": UNITS, "model": "m", "params": {}}
        return adata

    return make


@pytest.fixture(scope="session")
def in_browser() -> Callable[[Path, str], dict]:
    """Opens a page with a script of the test in a headless browser; returns what the script saw, the text of #seen."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("Needs a headless Chromium to open the page.")

    def see(path: Path, script: str) -> dict:
        page = path.with_name("seen.html")
        page.write_text(path.read_text(encoding="utf-8").replace("</body>", script + "</body>"), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
        process = subprocess.run(
            [browser, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=False
        )
        output = re.search(r'<pre id="seen">(.*?)</pre>', process.stdout, re.DOTALL)
        assert output, process.stderr[-2000:]
        return json.loads(html.unescape(output.group(1)))

    return see
