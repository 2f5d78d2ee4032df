"""Folders of Space Ranger, read by squidpy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._checks import listing
from sthggep._log import log

if TYPE_CHECKING:
    from anndata import AnnData

MATRICES = ("filtered_feature_bc_matrix.h5", "raw_feature_bc_matrix.h5")


def is_space_ranger(path: Path) -> bool:
    """Whether a folder holds the output of Space Ranger, itself or in ``outs``."""
    return path.suffix.lower() != ".zarr" and any((folder / "spatial").is_dir() for folder in (path, path / "outs"))


def name_of_sample(path: Path) -> str:
    """Name of the sample: that of its folder, which Space Ranger makes around ``outs``."""
    folder = path.resolve()
    return folder.parent.name if folder.name == "outs" else folder.name


def read_space_ranger(path: Path, image: Path | None = None) -> AnnData:
    """Read a Visium sample, with the path of its image at full resolution if there is one.

    Raises
    ------
    FileNotFoundError
        The folder holds no matrix, or there is no such image.
    ValueError
        The sample is Visium HD.
    """
    import h5py

    folder = path if (path / "spatial").is_dir() else path / "outs"
    if image is not None and not image.is_file():
        msg = f"{image} does not exist; the image at full resolution of {path} was expected."
        raise FileNotFoundError(msg)
    if any((folder / "spatial").glob("*.parquet")):
        msg = f"{path} is Visium HD. Read it in Python: `spatialdata_io.visium_hd(folder, bin_size=8)`, and write it as .zarr."
        raise ValueError(msg)
    matrix = _matrix_of(folder)
    with h5py.File(matrix) as file:
        library = None if "library_ids" in file.attrs else name_of_sample(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice, and of packages on their import
        import squidpy

        adata = squidpy.read.visium(folder, counts_file=matrix.name, library_id=library, source_image_path=image)
    doubled = adata.var_names[adata.var_names.duplicated()]
    if len(doubled):
        adata.var_names_make_unique()
        text = "%s: several genes have one name, such as %s; the further ones have a number now (such as %s-1)."
        log.info(text, path, listing(doubled, 3), doubled[0])
    if image is None:
        factor = next(iter(adata.uns["spatial"].values()))["scalefactors"].get("tissue_hires_scalef", float("nan"))
        log.info(
            "%s: Space Ranger writes no image at full resolution, so the hires image is read, which is %.3g times coarser. Pass the image "
            "by --fullres-image to see nuclei.",
            path,
            1 / factor,
        )
    return adata


def _matrix_of(folder: Path) -> Path:
    """The matrix of counts, under its name or, as in public archives, with the sample's name before it."""
    for name in MATRICES:
        found = sorted(folder.glob(f"*{name}"))
        if len(found) == 1:
            return found[0]
        if found:
            msg = f"{folder} holds several matrices: {listing(each.name for each in found)}. Keep one in the folder."
            raise ValueError(msg)
    msg = f"{folder} looks like a folder of Space Ranger, but holds no {MATRICES[0]}. It holds {listing(p.name for p in folder.iterdir())}."
    raise FileNotFoundError(msg)
