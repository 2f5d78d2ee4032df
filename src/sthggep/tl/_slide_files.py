"""Slides as files: AnnData, SpatialData, and bare images whose spots are laid over the tissue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

PLACES = ("table_key", "shapes_key", "spatial_key", "library_key", "coordinate_system", "mpp")
IMAGES = (".tif", ".tiff", ".svs", ".jpg", ".jpeg", ".png")
EXPECTED = "an AnnData (.h5ad, .zarr) or a SpatialData (.zarr) was expected"
SPACING_UM = 100.0
GRID = "tissue_grid"


def kind_of(path: Path) -> str:
    """``"anndata"``, ``"spatialdata"`` or ``"image"``, by the ending and by what a .zarr says of itself."""
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
    """Say which file it was that could not be read."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as reason:
        msg = f"{path} cannot be read: {EXPECTED}. {type(reason).__name__}: {reason}"
        raise ValueError(msg) from reason


def read_slide(path: Path) -> AnnData | SpatialData:
    """An AnnData or a SpatialData from disk."""
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


def opened(
    path: Path, spacing_um: float | None = None, *, image_key: str | None = None, **places: Any
) -> tuple[AnnData | SpatialData, dict[str, Any]]:
    """A slide, with new spots over its tissue where they are wanted or there are none, and where its spots are then."""
    kind = kind_of(path)
    if kind != "image" and spacing_um is None:
        return read_slide(path), {}

    from sthggep import io, pp

    data = io.read_slide(path, mpp=places["mpp"]) if kind == "image" else read_slide(path)
    spacing_um = SPACING_UM if spacing_um is None else spacing_um
    grid = pp.tissue_grid(data, spacing_um=spacing_um, key_added=GRID, image_key=image_key, **places)
    # In a SpatialData the grid is a table beside others; of an AnnData it is an object of its own
    return (grid, {}) if kind == "anndata" else (data, {"table_key": GRID, "shapes_key": None})
