"""Odd AnnData."""

from __future__ import annotations

import traceback
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sthggep
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve

SOURCE = str(Path(sthggep.__file__).parent)
Rng = np.random.Generator

VALUES: list[Any] = [
    None,
    np.nan,
    np.inf,
    -1,
    0,
    1,
    0.5,
    1e300,
    10**400,
    "",
    "x",
    "1",
    "0,5",
    b"1",
    True,
    1j,
    pd.NA,
    pd.NaT,
]
VALUES += [
    [],
    [1.0],
    [1.0, 2.0],
    {},
    {"a": 1},
    set(),
    np.array([]),
    np.array([0.5]),
    np.array([[0.5]]),
    np.array(0.5),
    object(),
]
VALUES += [
    np.array(["x"]),
    np.array([b"x"]),
    pd.Series([0.5]),
    pd.DataFrame({"a": [1]}),
    sparse.csr_matrix(np.eye(2)),
    ("a", "b"),
]
IMAGES: list[Any] = [np.zeros((40, 50), np.uint8), np.zeros((40, 50, 4), np.uint8), np.zeros((40, 50, 3), np.float32)]
IMAGES += [da.zeros((40, 50, 3), dtype=np.uint8), np.zeros((20, 25, 3), np.uint8), np.full((40, 50, 3), 200, np.uint16)]
COLUMNS: list[Any] = [
    ["1", "0"],
    ["True", "False"],
    [1.0, np.nan],
    [None, None],
    ["yes", "maybe"],
    [10**20, -(10**20)],
    [np.inf, 1],
    [1, "1"],
    [[1], [2]],
    [b"1", b"0"],
    [pd.Timestamp("2020"), pd.NaT],
    [1j, 2j],
    [0, 0],
    [{}, {}],
]
DTYPES = ["category", "string", "Int64", "boolean", "float32", "uint8", "datetime64[ns]"]
NAMES = ["in_tissue", "array_row", "array_col", "array_x", "array_y", "library", "other"]


def pick(rng: Rng, things: list[Any]) -> Any:
    return things[int(rng.integers(len(things)))]


def slide(rng: Rng) -> ad.AnnData:
    """A section of 3 x 4 spots on an image of 50 x 40 pixels."""
    row, col = np.divmod(np.arange(12), 4)
    obs = pd.DataFrame(
        {"in_tissue": 1, "array_row": row, "array_col": col, "library": "S"}, index=[f"s{i}" for i in range(12)]
    )
    adata = ad.AnnData(rng.poisson(3, (12, 3)).astype(np.float32), obs=obs, var=pd.DataFrame(index=["A", "B", "C"]))
    adata.obsm["spatial"] = np.column_stack([col, row]) * 10.0 + 5
    library: dict[str, Any] = {"images": {"hires": np.full((40, 50, 3), 200, np.uint8)}}
    library |= {"scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 5.0}, "metadata": {"mpp": 10.0}}
    adata.uns["spatial"] = {"S": library}
    return adata


def change_uns(adata: ad.AnnData, rng: Rng) -> None:
    spatial = adata.uns["spatial"]
    library = spatial["S"]
    part = pick(rng, list(library))
    kind = int(rng.integers(8))
    if kind == 0:
        adata.uns["spatial"] = pick(rng, [*VALUES, library])
    elif kind == 1:
        spatial[pick(rng, ["is_single", 5, "T", "images", None, ("a",)])] = pick(rng, [*VALUES, library])
    elif kind == 2:
        spatial["S"] = pick(rng, VALUES)
    elif kind == 3:
        library[part] = pick(rng, VALUES)
    elif kind == 4:
        del library[part]
    elif kind == 5:
        name = pick(rng, ["hires", "lowres", "fullres", 5, None, "a/b"])
        library["images"][name] = pick(rng, [*VALUES, *IMAGES])
    else:
        name = pick(
            rng,
            [
                "tissue_hires_scalef",
                "spot_diameter_fullres",
                "microns_per_pixel",
                "mpp",
                "pitch_um",
                "source_image_path",
            ],
        )
        library["metadata" if name in ("mpp", "pitch_um", "source_image_path") else "scalefactors"][name] = pick(
            rng, VALUES
        )


def change_obsm(adata: ad.AnnData, rng: Rng) -> None:
    xy = np.asarray(adata.obsm["spatial"], dtype=float)
    odd = xy.copy()
    odd[int(rng.integers(12)), 0] = pick(rng, [np.nan, np.inf, -50, 1e300])
    adata.obsm["spatial"] = pick(
        rng,
        [
            odd,
            xy.astype(np.int32),
            xy.astype(str),
            xy.astype(object),
            xy[:, :1],
            xy * 0,
            xy * 100,
            xy[:, ::-1],
            xy.astype(complex),
            xy > 10,
            np.column_stack([xy, xy]),
            np.zeros((12, 0)),
            xy[:, :, None],
            sparse.csr_matrix(xy),
            da.from_array(xy),
            pd.DataFrame(xy, index=adata.obs_names, columns=["x", "y"]),
            pd.DataFrame(xy, index=adata.obs_names, columns=["y", "x"]),
            pd.DataFrame(xy.astype(str), index=adata.obs_names),
            pd.DataFrame({"x": list("abcdefghijkl")}, index=adata.obs_names),
            np.tile(xy[:6], (2, 1)),
        ],
    )


def change_obs(adata: ad.AnnData, rng: Rng) -> None:
    name, kind = pick(rng, NAMES), int(rng.integers(5))
    if kind == 0:
        adata.obs = adata.obs.drop(columns=[name], errors="ignore")
    elif kind == 1:
        adata.obs[name] = pd.Series(pick(rng, COLUMNS) * 6, index=adata.obs_names, dtype=object)
    elif kind == 2:
        adata.obs[name] = adata.obs["array_row"].astype(pick(rng, DTYPES))
    elif kind == 3:
        adata.obs = pd.concat([adata.obs, adata.obs[["in_tissue"]]], axis=1)
    else:
        adata.obs_names = pick(rng, [["s"] * 12, [str(i) for i in range(12)], [f"\u00e9{i}" for i in range(12)]])


def change_var(adata: ad.AnnData, rng: Rng) -> None:
    adata.var_names = pick(rng, [["A", "A", "B"], ["", " ", "\x00"], ["1", "2", "3"]])
    if rng.random() < 0.3:
        del adata.obsm["spatial"]


CHANGES = [change_uns, change_uns, change_uns, change_obsm, change_obs, change_obs, change_var]
OTHERS: dict[str, list[Any]] = {
    "library_key": ["library", "array_row", "absent", "in_tissue", 5],
    "spatial_key": ["X_spatial", "", None, 5],
    "image_key": ["hires", "lowres", "absent", 5],
    "mpp": [0, -1, np.nan, "0.5", 10**400, [0.5], True, 0.5],
}


def odd_slide(rng: Rng) -> tuple[ad.AnnData, dict[str, Any]]:
    """A slide with one to four changes, and options of which one may be odd; what AnnData itself refuses is left out."""
    adata = slide(rng)
    for _ in range(int(rng.integers(1, 5))):
        try:
            pick(rng, CHANGES)(adata, rng)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError):
            continue
    if rng.random() < 0.1 and adata.obs.columns.is_unique:
        adata = pick(rng, [adata[:0], adata[:1], adata[:2], adata[:, :0]]).copy()
    options: dict[str, Any] = {}
    if rng.random() < 0.3:
        name = pick(rng, list(OTHERS))
        options[name] = pick(rng, OTHERS[name])
    return adata, options


def raised_by_us(error: Exception) -> bool:
    """Whether a line of the package raised the error, and not a library that it calls."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(SOURCE) and str(last.line).startswith("raise")


@pytest.mark.handles("sthggep reads the slide correctly, or raises its own error that names what it expected.")
@pytest.mark.parametrize("block", [pytest.param(i, id=f"random slides {100 * i} to {100 * i + 99}") for i in range(4)])
def test_drawn_slides(block: int):
    faults, n_read = [], 0
    for seed in range(100 * block, 100 * block + 100):
        adata, options = odd_slide(np.random.default_rng(seed))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sections = resolve(adata, Places(**options), need_image=seed % 4 > 0)
        except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
            faults += [] if raised_by_us(error) else [f"{seed}: {error!r}"]
            continue
        n_read += 1
        for section in sections:
            assert section.xy.shape == (section.n_spots, 2)
            assert np.isfinite(section.xy).all()
            assert section.n_spots > 0
            assert section.mpp is None or section.mpp > 0
    assert faults == []
    assert n_read > 0
