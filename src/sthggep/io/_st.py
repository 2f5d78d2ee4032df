"""One section of legacy Spatial Transcriptomics: counts, spot positions and H&E, as an AnnData."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from sthggep._arguments import checked
from sthggep._checks import positive, warn_user
from sthggep._image._level import open_levels
from sthggep._log import log
from sthggep._slides._lattice import is_interleaved, lattice_mpp
from sthggep.io._st_tables import match, read_counts, read_labels, read_spots

_PREVIEW = 2000


@checked
def read_st(
    counts: str | Path | pd.DataFrame,
    image: str | Path | None,
    spots: str | Path | pd.DataFrame,
    *,
    patient: str | None = None,
    section: str | None = None,
    labels: str | Path | pd.DataFrame | None = None,
    pitch_um: float = 200,
    fullres: bool = True,
) -> AnnData:
    """Read one section of legacy Spatial Transcriptomics (her2st, cSCC, mouse olfactory bulb and their like).

    The function matches counts and spots by array position, rounded to integers. It drops spots with `selected == 0` and spots
    that only one of the two tables has. The log names the dropped spots; if they are many, the function warns.

    Parameters
    ----------
    counts
        Raw counts, spots x genes, with row names such as `10x21` (or refined ones, `10.02x21.3`): a table file, plain
        or gzipped, or a DataFrame.
    image
        The H&E image file; `None` reads the section without an image.
    spots
        Table with `x`, `y` (array), `pixel_x`, `pixel_y` (full-resolution pixels of the image) and optionally
        `new_x`, `new_y` (refined array positions) and `selected`.
    patient
        Name of the patient. Default: missing in `obs`.
    section
        Name of the section. Default: the start of the counts file's name.
    labels
        Table with `x`, `y`, `label`, joined on array positions rounded to integers. Default: no labels.
    pitch_um
        Microns between nearest spots: 200 on the 1K array, 141 on the 2K array, where every other place has a spot.
    fullres
        Whether to hold the image at full resolution in memory. With `False` it stays in its file, and patches are cut from the
        file; if the file is gone, they are cut from a preview of 2,000 pixels, which costs some accuracy.

    Returns
    -------
    AnnData of raw counts (CSR float32), with `obs[["patient", "section", "array_x", "array_y"]]`, `obs["label"]` if
    labels were given, `obsm["spatial"]` in full-resolution pixels as (x, y), and `uns["spatial"][section]` with the
    images (none without an image), scale factors, pitch and microns per pixel.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If a table is malformed, counts are not raw, the tables do not belong together, or the image cannot be read.

    Examples
    --------
    >>> adata = sthggep.io.read_st("C2.tsv.gz", "C2.jpg", "C2_selection.tsv", patient="C", section="C2")
    >>> sthggep.tl.predict(adata)
    """
    pitch_um = positive(pitch_um, "`pitch_um`")
    _check_image(image)
    section = _section_name(counts) if section is None else str(section)
    counts_table, spots_table = read_counts(counts), read_spots(spots)
    rows, matched_spots = match(counts_table, spots_table, section)
    label = None if labels is None else read_labels(labels, matched_spots, section)
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical([None if patient is None else str(patient)] * len(matched_spots)),
            "section": pd.Categorical([section] * len(matched_spots)),
            "array_x": matched_spots["array_x"].to_numpy(),
            "array_y": matched_spots["array_y"].to_numpy(),
        },
        index=[f"{x}x{y}" for x, y in zip(matched_spots["array_x"], matched_spots["array_y"], strict=True)],
    )
    if label is not None:
        obs["label"] = label
    matrix = csr_matrix(counts_table.values[rows], dtype=np.float32)
    adata = AnnData(matrix, obs=obs, var=pd.DataFrame(index=pd.Index(counts_table.genes)))
    adata.obsm["spatial"] = matched_spots[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float64)
    library = _scale(matched_spots, pitch_um, section)
    if image is not None:
        _add_image(library, Path(image), adata.obsm["spatial"], fullres=fullres)
    adata.uns["spatial"] = {section: library}
    log.info("%s: %d spots, %d genes", section, adata.n_obs, adata.n_vars)
    return adata


def _check_image(image: object) -> None:
    if image is not None and not isinstance(image, str | os.PathLike):
        msg = f"`image` must be the path of an image file, or None, found {type(image).__name__}."
        raise TypeError(msg)


def _section_name(counts: str | Path | pd.DataFrame) -> str:
    return Path(counts).name.split(".")[0] if isinstance(counts, str | os.PathLike) else "section"


def _scale(spots: pd.DataFrame, pitch_um: float, section: str) -> dict[str, Any]:
    """Scale factors and metadata, with microns per pixel from the lattice of the spots."""
    scalefactors: dict[str, Any] = {}
    metadata: dict[str, Any] = {"pitch_um": float(pitch_um)}
    array_xy = spots[["refined_x", "refined_y"]].to_numpy(dtype=np.float64)
    try:
        mpp = lattice_mpp(array_xy, spots[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float64), pitch_um)
    except ValueError as error:
        msg = f"{section}: microns per pixel cannot be computed. {error}"
        warn_user(msg)
        return {"scalefactors": scalefactors, "metadata": metadata}
    if is_interleaved(array_xy) and pitch_um >= 200:
        msg = (
            f"{section}: only every other place of the array has a spot, as on the 2K array, whose nearest spots are "
            f"141 microns apart, not {pitch_um:g}. Pass pitch_um=141, or microns will be 1.4 times too large."
        )
        warn_user(msg)
    metadata["mpp"] = mpp
    # A printed spot is half a pitch wide (100 of 200 microns).
    scalefactors["spot_diameter_fullres"] = pitch_um / 2 / mpp
    return {"scalefactors": scalefactors, "metadata": metadata}


def _add_image(library: dict[str, Any], path: Path, xy: NDArray[np.float64], *, fullres: bool) -> None:
    from PIL import Image

    level = open_levels(path)[0]
    height, width = level.shape
    _check_inside(xy, width, height, path)
    pixels = level.read(np.array([[0, 0, width, height]]))[0]
    factor = min(1.0, _PREVIEW / max(height, width))
    images = {"hires": pixels}
    if factor < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        images = {"hires": np.asarray(small)} | ({"fullres": pixels} if fullres else {})
    library["images"] = images
    library["scalefactors"] |= {"tissue_hires_scalef": factor, "tissue_fullres_scalef": 1.0}
    library["metadata"]["source_image_path"] = str(path.resolve())


def _check_inside(xy: NDArray[np.float64], width: int, height: int, path: Path) -> None:
    size = np.array([width, height])
    outside = ((xy < 0) | (xy > size)).any(axis=1)
    if not outside.any():
        return
    swapped = not ((xy[:, ::-1] < 0) | (xy[:, ::-1] > size)).any()
    span = "x {:.0f} to {:.0f}, y {:.0f} to {:.0f}".format(*np.column_stack([xy.min(axis=0), xy.max(axis=0)]).ravel())
    hint = "They fit with pixel_x and pixel_y swapped." if swapped else "Check that image and spots belong together."
    msg = f"{outside.sum()} of {len(xy)} spots ({span}) lie outside the image {path} of {width} x {height} px. {hint}"
    if swapped or outside.mean() > 0.5:
        raise ValueError(msg)
    warn_user(msg)
