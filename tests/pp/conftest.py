"""Small sections, and their content as plain values."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse


@pytest.fixture
def state() -> Callable[[object], object]:
    """Return a function that converts the content of an object to plain values, for comparison."""

    def plain(value: object) -> object:
        if isinstance(value, ad.AnnData):
            parts = ("obs", "var", "obsm", "varm", "layers", "obsp", "uns", "X")
            return {part: plain(getattr(value, part)) for part in parts}
        if isinstance(value, pd.DataFrame):
            return value.index.tolist(), {name: (str(value[name].dtype), list(map(str, value[name]))) for name in value}
        if sparse.issparse(value):
            return type(value).__name__, plain(value.toarray())
        if hasattr(value, "items"):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, np.ndarray):
            return str(value.dtype), value.shape, value.tolist() if value.dtype == object else value.tobytes()
        return repr(value)

    return plain


@pytest.fixture
def section() -> Callable[..., ad.AnnData]:
    """Return a function that makes sections: spots on a square array, 100 µm = 50 pixels apart, over speckled tissue."""

    def make(name: str = "S1", side: int = 3, seed: int = 0) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        y, x = np.divmod(np.arange(side * side), side)
        adata = ad.AnnData(
            sparse.csr_matrix(rng.poisson(3, (side * side, 4)).astype(np.float32)),
            obs=pd.DataFrame(
                {"array_x": x, "array_y": y, "section": name}, index=[f"{name}-{i}" for i in range(side**2)]
            ),
            var=pd.DataFrame(index=["G1", "G2", "G3", "G4"]),
        )
        adata.obsm["spatial"] = np.column_stack([x, y]) * 50.0 + 40
        pixels = 50 * side + 40
        image = rng.integers(0, 255, (pixels // 10, pixels // 10, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        adata.uns["spatial"] = {
            name: {
                "images": {"hires": image},
                "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 25.0},
                "metadata": {"mpp": 2.0},
            }
        }
        return adata

    return make


@pytest.fixture
def two_sections(section: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Two sections in one AnnData, at the same coordinates, rows mixed."""
    first, second = section("A"), section("B", seed=1)
    joined = ad.concat([first, second])
    joined.uns["spatial"] = {**first.uns["spatial"], **second.uns["spatial"]}
    return joined[np.random.default_rng(0).permutation(joined.n_obs)].copy()
