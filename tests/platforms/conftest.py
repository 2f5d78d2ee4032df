"""Small folders in the layouts of the platforms, with slides whose pixels hold their position."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

# Counts hold the place of the spot: gene "COL" its column, "ROW" its row. MATR3 occurs twice, as in whole transcriptomes
SYMBOLS = ["COL", "ROW", "ERBB2", "MATR3", "MATR3"]
IDS = ["ENSG00000000001", "ENSG00000000002", "ENSG00000141736", "ENSG00000015479", "ENSG00000280987"]
PANEL = 4  # the number of genes of a targeted assay: the first, each once


def exact(width: int, height: int) -> NDArray[np.uint8]:
    """Pixels that hold their position: red x, green y (modulo 256), blue the number of the block of 256."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8)


def ramp(width: int, height: int, step: float) -> NDArray[np.uint8]:
    """Red is x / step, green y / step: this survives resampling."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x // step, y // step, np.zeros_like(x)], axis=-1).astype(np.uint8)


def write_matrix(
    path: Path, barcodes: list[str], columns: NDArray[Any], rows: NDArray[Any], n: int = len(IDS), **attrs: Any
) -> None:
    """A feature-barcode matrix (HDF5, version 3) of the first ``n`` genes: genes × barcodes, compressed by barcode."""
    counts = np.column_stack([columns, rows, np.full_like(rows, 3), np.full_like(rows, 2), np.ones_like(rows)])[:, :n]
    write_counts(path, barcodes, counts, IDS[:n], SYMBOLS[:n], library_ids=np.array([b"S1"]), **attrs)


def write_counts(
    path: Path, barcodes: list[str], counts: Any, ids: list[str], symbols: list[str], **attrs: Any
) -> None:
    """A feature-barcode matrix of these counts (barcodes × genes)."""
    matrix = sparse.csr_matrix(counts).astype(np.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(filetype="matrix", version=2, **attrs)
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes, dtype="S")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices.astype(np.int64), matrix.indptr
        group["shape"] = np.array(counts.shape[::-1], dtype=np.int32)
        features = group.create_group("features")
        features["id"], features["name"] = np.array(ids, dtype="S"), np.array(symbols, dtype="S")
        features["feature_type"] = np.array([b"Gene Expression"] * len(ids))
        features["genome"] = np.array([b"GRCh38"] * len(ids))
        features["_all_tag_keys"] = np.array([b"genome"])


@dataclass(frozen=True)
class Folder:
    """A written folder and its true content: spots by barcode, with columns x, y (full-resolution pixels)."""

    path: Path
    spots: pd.DataFrame
    image: NDArray[np.uint8]
    mpp: float


# --- Visium -------------------------------------------------------------------------------------------------------

VISIUM_WIDTH, VISIUM_HEIGHT, VISIUM_MPP, HIRES = 1000, 920, 1.25, 0.25


def visium_spots(seed: int = 0) -> pd.DataFrame:
    """An interleaved array, 100 µm apart, slightly rotated; two thirds of the spots are under tissue."""
    rows, columns = np.mgrid[:10, :20]
    keep = (rows + columns) % 2 == 0
    row, column = rows[keep], columns[keep]
    xy = np.column_stack([column * 50.0, row * 50.0 * np.sqrt(3)]) / VISIUM_MPP
    angle = np.deg2rad(2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x, y = np.rint(xy @ turn.T + [90, 110]).astype(int).T
    under = (np.hypot(x - 480, y - 400) < 380).astype(int)
    barcodes = [f"{'ACGT'[i % 4]}{i:015d}-1" for i in range(len(row))]
    table = pd.DataFrame({"in_tissue": under, "array_row": row, "array_col": column, "y": y, "x": x}, index=barcodes)
    # The file of positions has another order
    return table.sample(frac=1, random_state=seed)


def write_visium(path: Path, version: int) -> Folder:
    """``outs`` of Space Ranger 1 (positions without a header) or 2 and later."""
    spots, image = visium_spots(), exact(VISIUM_WIDTH, VISIUM_HEIGHT)
    for name, part in (("raw", spots.sort_index()), ("filtered", spots[spots["in_tissue"] == 1].sort_index())):
        write_matrix(
            path / f"{name}_feature_bc_matrix.h5",
            list(part.index),
            part["array_col"].to_numpy(),
            part["array_row"].to_numpy(),
            chemistry_description="Spatial 3' v1",
            software_version=f"spaceranger-{version}.0.0",
        )
    scales = {"hires": HIRES, "lowres": HIRES / 4}
    small = {name: ramp(round(VISIUM_WIDTH * k), round(VISIUM_HEIGHT * k), 4 * k) for name, k in scales.items()}
    write_spatial(path, version, spots, small, scales, VISIUM_MPP)
    tifffile.imwrite(path / "slide.tif", image, photometric="rgb", tile=(256, 256))
    return Folder(path, spots, image, VISIUM_MPP)


def write_spatial(
    path: Path,
    version: int,
    spots: pd.DataFrame,
    images: dict[str, NDArray[np.uint8]],
    scales: dict[str, float],
    mpp: float,
) -> None:
    """The folder ``spatial`` of a version of Space Ranger: positions, scale factors, small images."""
    spatial = path / "spatial"
    spatial.mkdir(parents=True, exist_ok=True)
    names = {"y": "pxl_row_in_fullres", "x": "pxl_col_in_fullres"}
    file = spatial / ("tissue_positions_list.csv" if version == 1 else "tissue_positions.csv")
    spots.rename(columns=names).to_csv(file, header=version > 1, index_label="barcode")
    factors = {f"tissue_{name}_scalef": scale for name, scale in scales.items()}
    factors |= {"fiducial_diameter_fullres": 144 / mpp, "spot_diameter_fullres": 65 / mpp}
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    for name, image in images.items():
        Image.fromarray(image).save(spatial / f"tissue_{name}_image.png")


@pytest.fixture(scope="session")
def visium_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Folder]:
    """Return a function that makes ``outs`` of a version of Space Ranger, once."""
    folders: dict[int, Folder] = {}

    def make(version: int) -> Folder:
        if version not in folders:
            folders[version] = write_visium(tmp_path_factory.mktemp(f"spaceranger{version}") / "outs", version)
        return folders[version]

    return make


# --- Visium HD ----------------------------------------------------------------------------------------------------

HD_MPP = 0.5


def hd_bins(size_um: int, seed: int = 0) -> pd.DataFrame:
    """Square bins over 160 µm, rotated by two degrees; those of one corner hold no tissue."""
    n = 160 // size_um
    row, column = (axis.ravel() for axis in np.mgrid[:n, :n])
    xy = (np.column_stack([column, row]) + 0.5) * size_um / HD_MPP
    angle = np.deg2rad(2)
    x, y = (xy @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + [40.2, 30.4]).T
    table = pd.DataFrame(
        {
            "barcode": [f"s_{size_um:03}um_{r:05}_{c:05}-1" for r, c in zip(row, column, strict=True)],
            "in_tissue": (row + column > n // 2).astype(np.int64),
            "array_row": row.astype(np.int64),
            "array_col": column.astype(np.int64),
            "pxl_row_in_fullres": y,
            "pxl_col_in_fullres": x,
        }
    )
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


def write_bins(path: Path, size: int, bins: pd.DataFrame, mpp: float) -> None:
    """Positions and scale factors of bins of one size."""
    folder = path / f"binned_outputs/square_{size:03}um/spatial"
    folder.mkdir(parents=True)
    bins.to_parquet(folder / "tissue_positions.parquet", index=False)
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.125, "regist_target_img_scalef": 0.5}
    factors |= {"microns_per_pixel": mpp, "bin_size_um": float(size), "spot_diameter_fullres": size / mpp}
    (folder / "scalefactors_json.json").write_text(json.dumps(factors))


def write_hd_images(path: Path, small: dict[str, NDArray[np.uint8]], image: NDArray[np.uint8]) -> None:
    """The images of Visium HD, and the file of slices, of which the reader takes the transformations."""
    (path / "spatial").mkdir(parents=True)
    for name, pixels in small.items():
        Image.fromarray(pixels).save(path / f"spatial/tissue_{name}_image.png")
    tifffile.imwrite(path / "slide.tif", image, photometric="rgb", tile=(128, 128))
    matrices = {
        name: np.eye(3).tolist() for name in ("spot_colrow_to_microscope_colrow", "microscope_colrow_to_spot_colrow")
    }
    layout = {"file_format": "1.0", "transform": np.eye(3).tolist()}
    metadata = {"hd_layout_json": json.dumps(layout), "transform_matrices": matrices}
    with h5py.File(path / "feature_slice.h5", "w") as file:
        file.attrs["metadata_json"] = json.dumps(metadata)


@pytest.fixture(scope="session")
def hd_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """``outs`` of Space Ranger 3 for Visium HD, bins of 8 and 16 µm."""
    path = tmp_path_factory.mktemp("hd") / "outs"
    image = exact(420, 400)
    small = {"hires": ramp(210, 200, 1), "lowres": ramp(52, 50, 0.25)}
    for size in (8, 16):
        bins, folder = hd_bins(size), path / f"binned_outputs/square_{size:03}um"
        for name, part in (("raw", bins), ("filtered", bins[bins["in_tissue"] == 1])):
            part = part.sort_values("barcode")
            file = folder / f"{name}_feature_bc_matrix.h5"
            write_matrix(file, list(part["barcode"]), part["array_col"].to_numpy(), part["array_row"].to_numpy())
        write_bins(path, size, bins, HD_MPP)
    write_hd_images(path, small, image)
    bins = hd_bins(8).set_index("barcode")
    spots = bins.rename(columns={"pxl_row_in_fullres": "y", "pxl_col_in_fullres": "x"})
    return Folder(path, spots, image, HD_MPP)


# --- Xenium -------------------------------------------------------------------------------------------------------

XENIUM_PX, HE_MPP = 0.2125, 0.2738
XENIUM_WIDTH, XENIUM_HEIGHT = 900, 700
HE_WIDTH, HE_HEIGHT = 580, 720


def he_to_xenium() -> NDArray[np.float64]:
    """Matrix from pixels of the H&E to those of the instrument: a rotation by about 90 degrees, a scale, a shift."""
    angle, scale = np.deg2rad(91), HE_MPP / XENIUM_PX
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = np.array([XENIUM_WIDTH / 2, XENIUM_HEIGHT / 2]) - turn @ [HE_WIDTH / 2, HE_HEIGHT / 2]
    return matrix


def cell_ids(n: int) -> tuple[NDArray[np.uint32], list[str]]:
    """Cell numbers as the instrument stores them, and as text: hexadecimal digits as letters from a to p."""
    numbers = np.column_stack([np.arange(1, n + 1) * 7919, np.ones(n)]).astype(np.uint32)
    letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    return numbers, [f"{number:08x}".translate(letters) + f"-{suffix}" for number, suffix in numbers.tolist()]


def write_cells_zarr(path: Path, numbers: NDArray[np.uint32], masks: dict[str, NDArray[np.uint32]], xy: Any) -> None:
    """Write ``cells.zarr.zip``: ids, a summary, masks of nuclei (0) and cells (1), and the cell of each polygon."""
    with zarr.storage.ZipStore(path, mode="w") as store:
        root = zarr.create_group(store, zarr_format=2)
        root.create_array("cell_id", data=numbers)
        columns = ["cell_centroid_x", "cell_centroid_y", "cell_area", "nucleus_centroid_x", "nucleus_centroid_y"]
        columns += ["nucleus_area", "z_level", "nucleus_count"]
        n = len(numbers)
        summary = np.column_stack([xy, np.full(n, 60.0), xy, np.full(n, 20.0), np.zeros(n), np.ones(n)])
        root.create_array("cell_summary", data=summary).attrs["column_names"] = columns
        for name, mask in masks.items():
            root.create_array(f"masks/{name}", data=mask, chunks=(256, 256))
            root.create_array(f"polygon_sets/{name}/cell_index", data=np.arange(n, dtype=np.uint32))


def boundaries(xy: NDArray[np.float64], ids: list[str], half: float) -> pd.DataFrame:
    """Square outlines in microns, a row a vertex."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * half
    vertices = (xy[:, None] + corners).reshape(-1, 2)
    each = np.repeat(np.arange(len(xy)), 5)
    columns = {"cell_id": np.array(ids)[each], "vertex_x": vertices[:, 0], "vertex_y": vertices[:, 1]}
    return pd.DataFrame(columns).assign(label_id=each + 1)


@pytest.fixture(scope="session")
def xenium_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An output folder of Xenium 2 with an H&E that was registered later. Spots: x, y are pixels of the H&E."""
    path = tmp_path_factory.mktemp("xenium") / "output-XETG00000__0000000__Region_1"
    row, column = (axis.ravel() for axis in np.mgrid[:7, :9])
    pixels = np.column_stack([column, row]) * 80 + 120 + np.array([5, -3]) * (row % 2)[:, None]
    image = exact(HE_WIDTH, HE_HEIGHT)
    ids = write_xenium(path, pixels, (XENIUM_WIDTH, XENIUM_HEIGHT), image, he_to_xenium())
    write_matrix(path / "cell_feature_matrix.h5", ids, column, row, PANEL)
    centers = np.column_stack([pixels + 0.5, np.ones(len(pixels))]) @ np.linalg.inv(he_to_xenium()).T
    spots = pd.DataFrame({"array_row": row, "array_col": column, "x": centers[:, 0], "y": centers[:, 1]}, index=ids)
    return Folder(path, spots, image, HE_MPP)


def write_xenium(
    path: Path,
    pixels: NDArray[np.int64],
    size: tuple[int, int],
    he: NDArray[np.uint8],
    he_matrix: NDArray[np.float64],
) -> list[str]:
    """An output folder of Xenium without counts, of cells at these pixels of an image of this width and height; their ids."""
    (path / "morphology_focus").mkdir(parents=True)
    microns = (pixels + 0.5) * XENIUM_PX
    numbers, ids = cell_ids(len(pixels))
    masks = {name: np.zeros(size[::-1], np.uint32) for name in ("0", "1")}
    for number, (x, y) in enumerate(pixels.tolist(), start=1):
        for name, half in (("0", 6), ("1", 18)):
            masks[name][y - half : y + half + 1, x - half : x + half + 1] = number
    write_cells_zarr(path / "cells.zarr.zip", numbers, masks, microns)
    cells = pd.DataFrame({"cell_id": ids, "x_centroid": microns[:, 0], "y_centroid": microns[:, 1]})
    cells.assign(transcript_counts=9, cell_area=60.0, nucleus_area=20.0).to_parquet(path / "cells.parquet", index=False)
    for name, half in (("cell", 3.9), ("nucleus", 1.3)):
        boundaries(microns, ids, half).to_parquet(path / f"{name}_boundaries.parquet", index=False)
    transcripts = pd.DataFrame({"transcript_id": np.arange(len(ids)), "cell_id": ids, "overlaps_nucleus": 1})
    transcripts = transcripts.assign(feature_name="ERBB2", x_location=microns[:, 0], y_location=microns[:, 1])
    transcripts.assign(z_location=1.0, qv=40.0).to_parquet(path / "transcripts.parquet", index=False)
    stain = np.full(size[::-1], 500, np.uint16)
    tifffile.imwrite(path / "morphology_focus/morphology_focus_0000.ome.tif", stain, tile=(256, 256))
    tifffile.imwrite(path / "Run_he_image.ome.tif", he, photometric="rgb", tile=(128, 128), metadata={"axes": "YXS"})
    np.savetxt(path / "Run_he_imagealignment.csv", he_matrix, delimiter=",")
    specs = {"run_name": "Run", "pixel_size": XENIUM_PX, "analysis_sw_version": "xenium-2.0.0.10"}
    (path / "experiment.xenium").write_text(json.dumps(specs | {"major_version": 5, "minor_version": 1}))
    return ids


@pytest.fixture(scope="session")
def writers() -> SimpleNamespace:
    """The functions that write parts of the folders, for folders of other content."""
    return SimpleNamespace(
        counts=write_counts,
        spatial=write_spatial,
        bins=write_bins,
        hd_images=write_hd_images,
        xenium=write_xenium,
        xenium_px=XENIUM_PX,
    )
