"""Reading of slides and gene lists, and writing of slides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._checks import counted
from sthggep._disk._run_folder import check_folder
from sthggep._disk._whole import whole_file, whole_folder
from sthggep._log import log
from sthggep._slides._container_files import kind_of, read_container
from sthggep._slides._space_ranger import is_space_ranger
from sthggep._table._gene_list import read_gene_file, split_names
from sthggep.tl._slide_files import SPACING_UM, open_with_spots

__all__ = ["SPACING_UM", "open_with_spots"]

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._places import Places

LISTS = (".txt", ".tsv", ".csv", ".list")


@contextmanager
def name_slide(path: Path) -> Iterator[None]:
    """Name the slide in the message of an error that is raised within the context."""
    try:
        yield
    except Exception as error:
        error.add_note(str(path))
        raise


def match_images(paths: Sequence[Path], images: Sequence[Path]) -> dict[Path, Path]:
    """The image at full resolution of each folder of Space Ranger; all or none must have one."""
    folders = [path for path in paths if is_space_ranger(path)]
    if images and len(images) != len(folders):
        msg = (
            f"--fullres-image must name an image for each folder of Space Ranger among the slides, in their order: found "
            f"{counted(images, 'image')} for {counted(folders, 'folder')}. An .h5ad and a .zarr name their own image."
        )
        raise ValueError(msg)
    for image in images:
        if not image.is_file():
            msg = f"--fullres-image: there is no file {image}."
            raise FileNotFoundError(msg)
    return dict(zip(folders, images, strict=False))


def read_slides(paths: Sequence[Path], places: Places, images: Sequence[Path] = ()) -> list[AnnData | SpatialData]:
    """Read all slides, after a check that all exist, and log the contents of each.

    ``images`` are the full resolution of the folders of Space Ranger among the slides.
    """
    for path in paths:
        kind_of(path)
    image_of = match_images(paths, images)
    slides = []
    for path in paths:
        with name_slide(path):
            data = read_container(path, image_of.get(path))
            describe(data, path, places)
        slides.append(data)
    return slides


def describe(data: AnnData | SpatialData, path: Path, places: Places) -> None:
    """Log the sections of a slide, and the source of their microns per pixel."""
    from sthggep._slides._resolve import resolve

    for slide in resolve(data, places, need_image=False):
        scale = "µm/px unknown" if slide.mpp is None else f"{slide.mpp:.4g} µm/px (from the {slide.mpp_source})"
        log.info("%s: section %s, %d spots, %d genes, %s", path, slide.name, slide.n_spots, slide.adata.n_vars, scale)


def write_whole(path: Path) -> AbstractContextManager[Path]:
    """A name for a slide to be written, which takes the place of ``path`` whole or not at all."""
    return whole_folder(path, replace=True) if path.suffix.lower() == ".zarr" else whole_file(path)


def write_slide(data: AnnData | SpatialData, path: Path, table_key: str = "table") -> None:
    """Write a slide; of a SpatialData only its table if the file is an .h5ad."""
    if not hasattr(data, "tables"):
        data.write_zarr(path) if path.suffix.lower() == ".zarr" else data.write_h5ad(path)
    elif path.suffix.lower() == ".zarr":
        data.write(path)
    else:
        data.tables[table_key].write_h5ad(path)


def check_contents(out: Path, mark: str, what: str) -> None:
    """Refuse, before work starts, a file, or a folder with other contents: a folder of ``what`` holds ``mark``."""
    check_folder(out.parent, "--out")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / mark).exists()):
        msg = f"A new folder or a folder of a {what} was expected; {out} holds no {what} and stays unchanged. Pass another --out."
        raise FileExistsError(msg)


def read_gene_list(texts: Sequence[str]) -> list[str] | None:
    """Genes from files (one gene a line) and from names separated by commas; ``None`` without any text."""
    genes: list[str] = []
    for text in texts:
        path = Path(text)
        # `os.path`: a long list of names is no possible path, at which `Path.is_file` raises
        is_path = path.suffix.lower() in LISTS or path.parent != Path() or os.path.isfile(text)
        genes += read_gene_file(path) if is_path else split_names(text)
    if texts and not genes:
        msg = f"A file with one gene a line, or names separated by commas, were expected, found no gene in {', '.join(texts)}."
        raise ValueError(msg)
    return genes or None


def read_panel(texts: Sequence[str]) -> str | list[str] | None:
    """The panel of a training: genes as in `read_gene_list`, or the word ``union``."""
    from sthggep._table._mixed_panels import UNION

    return UNION if list(texts) == [UNION] and not Path(UNION).is_file() else read_gene_list(texts)


def targets_of(text: str | None) -> str | list[str] | None:
    """The argument of `tl.fit`: a key of obsm, or a list of columns of obs."""
    if text is None or not text.startswith("obs:"):
        return text
    return [name.strip() for name in text.removeprefix("obs:").split(",") if name.strip()]
