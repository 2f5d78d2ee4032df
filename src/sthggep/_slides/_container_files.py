"""Slides as files: the kind of a file, and AnnData and SpatialData from disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

IMAGES = (".tif", ".tiff", ".svs", ".jpg", ".jpeg", ".png")


EXPECTED = "an AnnData (.h5ad, .zarr) or a SpatialData (.zarr) was expected"


def kind_of(path: Path) -> str:
    """Return ``"anndata"``, ``"spatialdata"`` or ``"image"``, by the ending and the attributes of a .zarr."""
    if not path.exists():
        near = [p.name for p in path.parent.glob("*") if p.suffix in (".h5ad", ".zarr")] if path.parent.is_dir() else []
        beside = f" Slides beside it: {', '.join(sorted(near)[:8])}." if near else ""
        msg = f"{path} does not exist; {EXPECTED}.{beside}"
        raise FileNotFoundError(msg)
    ending = path.suffix.lower()
    if ending == ".h5ad":
        return "anndata"
    if ending in IMAGES:
        return "image"
    if ending != ".zarr":
        msg = f"{path} has an unknown ending; {EXPECTED}."
        raise ValueError(msg)
    import zarr

    with readable(path):
        of_anndata = zarr.open_group(path, mode="r").attrs.get("encoding-type") == "anndata"
    return "anndata" if of_anndata else "spatialdata"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Name the file in errors of readers."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as reason:
        msg = f"{path} cannot be read: {EXPECTED}. {type(reason).__name__}: {reason}"
        raise ValueError(msg) from reason


def read_container(path: Path) -> AnnData | SpatialData:
    """Read an AnnData or a SpatialData from disk."""
    kind = kind_of(path)
    if kind == "image":
        msg = f"{path} is a bare image: it holds no counts; {EXPECTED}. `sthggep predict` takes images."
        raise ValueError(msg)
    with readable(path):
        if kind == "spatialdata":
            from spatialdata import read_zarr

            return read_zarr(path)
        import anndata

        return anndata.read_h5ad(path) if path.suffix.lower() == ".h5ad" else anndata.read_zarr(path)
