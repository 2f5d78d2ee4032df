"""Slides and gene lists in, slides out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._disk._whole import whole_file, whole_folder
from sthggep._log import log
from sthggep._slides._container_files import kind_of, read_container
from sthggep.tl._slide_files import SPACING_UM, open_with_spots

__all__ = ["SPACING_UM", "open_with_spots"]

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._places import Places

LISTS = (".txt", ".tsv", ".csv", ".list")


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Say which of several slides an error is about."""
    try:
        yield
    except Exception as error:
        error.add_note(str(path))
        raise


def read_slides(paths: Sequence[Path], places: Places) -> list[AnnData | SpatialData]:
    """All slides, each with a line on what it holds; nothing is read unless all are there."""
    for path in paths:
        kind_of(path)
    found = []
    for path in paths:
        with about(path):
            data = read_container(path)
            describe(data, path, places)
        found.append(data)
    return found


def describe(data: AnnData | SpatialData, path: Path, places: Places) -> None:
    """Say what was read, and where the microns per pixel come from."""
    from sthggep._slides._resolve import resolve

    for slide in resolve(data, places, need_image=False):
        scale = "µm/px not known" if slide.mpp is None else f"{slide.mpp:.4g} µm/px (from the {slide.mpp_source})"
        log.info("%s: section %s, %d spots, %d genes, %s", path, slide.name, slide.n_spots, slide.adata.n_vars, scale)


def whole(path: Path) -> AbstractContextManager[Path]:
    """A name for a slide to be written, which takes the place of ``path`` whole or not at all."""
    return whole_folder(path, replace=True) if path.suffix.lower() == ".zarr" else whole_file(path)


def write_slide(data: AnnData | SpatialData, path: Path, table_key: str = "table") -> None:
    """Write a slide; of a SpatialData its table alone where the file is an .h5ad."""
    if not hasattr(data, "tables"):
        data.write_zarr(path) if path.suffix.lower() == ".zarr" else data.write_h5ad(path)
    elif path.suffix.lower() == ".zarr":
        data.write(path)
    else:
        data.tables[table_key].write_h5ad(path)


def check_folder(out: Path, mark: str, what: str) -> None:
    """Refuse, before work starts, a folder that holds something else: ``mark`` is in it if ``what`` was written there."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / mark).exists()):
        msg = f"{out} is there and holds no {what}; it is left alone. Pass another --out."
        raise FileExistsError(msg)


def read_gene_list(given: Sequence[str]) -> list[str] | None:
    """Genes from files (one a line) and from names with commas between them; ``None`` where nothing was given."""
    genes: list[str] = []
    for text in given:
        path = Path(text)
        if path.suffix in LISTS or path.parent != Path() or path.is_file():
            found = path.read_text(encoding="utf-8").splitlines()
        else:
            found = text.split(",")
        genes += [name.strip() for name in found if name.strip()]
    if given and not genes:
        msg = (
            f"No gene is named in {', '.join(given)}: a gene a line, or names with commas between them, were expected."
        )
        raise ValueError(msg)
    return genes or None


def targets_of(given: str | None) -> str | list[str] | None:
    """What `tl.fit` takes: a key of obsm, or a list of columns of obs."""
    if given is None or not given.startswith("obs:"):
        return given
    return [name.strip() for name in given.removeprefix("obs:").split(",") if name.strip()]
