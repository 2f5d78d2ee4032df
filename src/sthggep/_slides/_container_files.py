"""Slides as files: the kind of a file, and AnnData and SpatialData from disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._checks import listing
from sthggep._names import base_name, file_name, same_on_some_disk
from sthggep._slides._space_ranger import is_space_ranger, name_of_sample, read_space_ranger

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# Endings of scanners and of common image formats; a file with another ending is opened to see what it is
SCANS: tuple[str, ...] = (
    ".tif",
    ".tiff",
    ".btf",
    ".tf2",
    ".tf8",
    ".svs",
    ".ndpi",
    ".scn",
    ".bif",
    ".qptiff",
    ".mrxs",
    ".vms",
    ".vmu",
)
SCANS += (".czi", ".dcm")
IMAGES = (*SCANS, ".jpg", ".jpeg", ".jp2", ".png", ".bmp")
TABLES = (".h5ad", ".zarr")


EXPECTED = "an AnnData (.h5ad, .zarr), a SpatialData (.zarr) or a folder of Space Ranger was expected"
OR_IMAGE = "an AnnData (.h5ad, .zarr), a SpatialData (.zarr), a folder of Space Ranger or an image (TIFF, SVS, JPEG, PNG, …) was expected"


def kind_of(path: Path) -> str:
    """Return ``"anndata"``, ``"spatialdata"`` or ``"image"``, by the ending and the attributes of a .zarr.

    A folder of Space Ranger is read as an AnnData. A file with an unknown ending is an image if
    :func:`sthggep.io.read_slide` can open it.
    """
    if not path.exists():
        near = sorted(_slides_beside(path), key=lambda each: (each.suffix not in TABLES, each.name))
        beside = f" Slides beside it: {', '.join(each.name for each in near[:8])}." if near else ""
        msg = f"{path} does not exist; {OR_IMAGE}.{beside}"
        raise FileNotFoundError(msg)
    if is_space_ranger(path):
        return "anndata"
    if path.is_dir() and path.suffix.lower() != ".zarr":
        inside = (
            f" It holds {listing((each.name for each in sorted(path.iterdir())), 6)}." if any(path.iterdir()) else ""
        )
        msg = f"{path} is a folder without `spatial/`; {OR_IMAGE}.{inside}"
        raise ValueError(msg)
    ending = path.name[len(slide_name(path)) :].lower()
    if ending == ".h5ad":
        return "anndata"
    if ending != ".zarr":
        if ending not in IMAGES:
            _refuse_other_files(path)
        return "image"
    import zarr

    with readable(path):
        of_anndata = zarr.open_group(path, mode="r").attrs.get("encoding-type") == "anndata"
    return "anndata" if of_anndata else "spatialdata"


def _slides_beside(path: Path) -> list[Path]:
    """What in the folder of a path may be a slide; pictures only if there is nothing else."""
    if not path.parent.is_dir():
        return []
    beside = list(path.parent.glob("*"))
    slides = [
        each for each in beside if each.suffix.lower() in (*TABLES, *SCANS) or (each.is_dir() and is_space_ranger(each))
    ]
    return slides or [each for each in beside if each.suffix.lower() in IMAGES]


def _refuse_other_files(path: Path) -> None:
    """Refuse a file that is no image by its contents."""
    from sthggep._image._level import open_levels

    try:
        open_levels(path)
    except (ValueError, OSError) as error:
        msg = f"{path} has an unknown ending, and sthggep cannot read it as an image; {OR_IMAGE}."
        raise ValueError(msg) from error


def slide_name(path: Path) -> str:
    """Name of a slide's file without its ending, or of the sample of a folder of Space Ranger."""
    if is_space_ranger(path):
        return name_of_sample(path)
    return base_name(path, (*TABLES, *IMAGES))


def file_names(slides: Sequence[Path], folder: Path, endings: Sequence[str]) -> dict[Path, Path]:
    """Name a file in ``folder`` for each slide: a safe name of the slide, with an ending.

    Raises
    ------
    ValueError
        Two slides would have the same file, on some disk at least.
    """
    names = [f"{file_name(slide_name(slide))}{ending}" for slide, ending in zip(slides, endings, strict=True)]
    sources: dict[str, list[Path]] = {}
    for slide, name in zip(slides, names, strict=True):
        sources.setdefault(same_on_some_disk(name), []).append(slide)
    for name, slides_of_one in sources.items():
        if len(slides_of_one) > 1:
            msg = (
                f"{listing(slides_of_one)} would all be written to {folder / name} (some disks ignore upper case). Rename them, "
                "or call once for each folder."
            )
            raise ValueError(msg)
    return {slide: folder / name for slide, name in zip(slides, names, strict=True)}


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Name the file in errors of readers."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as reason:
        msg = f"{path} cannot be read: {EXPECTED}. {type(reason).__name__}: {reason}"
        raise ValueError(msg) from reason


def read_container(path: Path, image: Path | None = None) -> AnnData | SpatialData:
    """Read an AnnData or a SpatialData from disk; ``image`` is the full resolution of a folder of Space Ranger."""
    kind = kind_of(path)
    if kind == "image":
        msg = f"{path} is a bare image: it holds no counts; {EXPECTED}. `sthggep predict` takes images."
        raise ValueError(msg)
    if is_space_ranger(path):
        with readable(path):
            return read_space_ranger(path, image)
    with readable(path):
        if kind == "spatialdata":
            from spatialdata import read_zarr

            return read_zarr(path)
        import anndata

        return anndata.read_h5ad(path) if path.suffix.lower() == ".h5ad" else anndata.read_zarr(path)
