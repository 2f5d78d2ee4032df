"""Files that `sthggep predict` writes: slides, and tables of spots and genes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._log import log
from sthggep._slides._container_files import file_names, kind_of
from sthggep._slides._space_ranger import is_space_ranger

if TYPE_CHECKING:
    import pandas as pd

    from sthggep._cli._records import PredictionOptions

ANNDATA = (".h5ad", ".zarr")
ENDINGS = {"anndata": ANNDATA, "image": ANNDATA, "spatialdata": (".zarr",)}
PARQUET = ".parquet"
TABLES = (".csv", ".tsv", PARQUET)


def output_files(slides: tuple[Path, ...], out: str, *, as_table: bool = False) -> dict[Path, Path]:
    """The output file of each slide; raise if a file cannot hold its slide.

    With ``as_table`` the output of any slide is an AnnData: a grid of spots, or predictions alone.
    """
    kinds = {slide: kind_of(slide) for slide in slides}
    path = Path(out)
    is_folder = out.endswith(("/", "\\")) or not path.suffix or (path.is_dir() and path.suffix.lower() != ".zarr")
    if len(slides) > 1 and not is_folder:
        msg = f"One output file holds one slide, found {len(slides)} slides. Pass a folder: --out predicted/"
        raise ValueError(msg)
    if not is_folder:
        (kind,) = kinds.values()
        endings = (*(ANNDATA if as_table else ENDINGS[kind]), *TABLES)
        if path.suffix.lower() not in endings:
            noun = {"anndata": "an AnnData", "spatialdata": "a SpatialData", "image": "an image"}[kind]
            msg = f"{path} cannot hold this slide ({noun}). Pass an --out that ends in {', '.join(endings[:-1])} or {endings[-1]}."
            raise ValueError(msg)
        return {slides[0]: path}
    own_endings = [
        ".h5ad" if as_table or kind == "image" or is_space_ranger(slide) else slide.suffix.lower()
        for slide, kind in kinds.items()
    ]
    return file_names(slides, path, own_endings)


def is_table_file(path: Path) -> bool:
    """Whether a file holds the prediction as a table of spots and genes."""
    return path.suffix.lower() in TABLES


def check_tables(files: dict[Path, Path], options: PredictionOptions) -> None:
    """Refuse, before work starts, options that a table cannot hold, and a format that cannot be written here."""
    target = next(iter(files.values()))
    if not is_table_file(target):
        return
    check_table_format(target)
    more = ("latent", "counts", "size_factors", "interval", "workers", "scheduler")
    passed = [f"--{name.replace('_', '-')}" for name in more if options[name]]  # type: ignore[literal-required]
    if passed:
        msg = f"{target} is a table of the prediction alone, without what {' and '.join(passed)} asks for. Pass an --out that ends in .h5ad."
        raise ValueError(msg)


def unwritten_files(files: dict[Path, Path], *, overwrite: bool, skip_existing: bool) -> dict[Path, Path]:
    """Slides whose output file is still to be written; raise if a file would replace an input or an existing file."""
    for target in files.values():
        if any(target.resolve() == slide.resolve() for slide in files):
            msg = f"{target} is an input slide, which the command does not overwrite. Pass another --out."
            raise ValueError(msg)
    existing = [target for target in files.values() if target.exists()]
    if existing and not (overwrite or skip_existing):
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        msg = f"{existing[0]}{more} exists already. Pass another --out, --skip-existing or --overwrite."
        raise FileExistsError(msg)
    if skip_existing and existing:
        log.info("%d of %d output files exist already; their slides are skipped.", len(existing), len(files))
    return {slide: target for slide, target in files.items() if not (skip_existing and target.exists())}


def check_table_format(path: Path) -> None:
    """Refuse, before work starts, a table whose format needs a package that is not installed."""
    if path.suffix.lower() == PARQUET and not any(map(importlib.util.find_spec, ("pyarrow", "fastparquet"))):
        msg = f"{path}: Parquet needs pyarrow or fastparquet. Call `pip install pyarrow`, or pass an --out that ends in .csv."
        raise ImportError(msg)


def write_table(rows: pd.DataFrame, path: Path, *, index: bool = False) -> None:
    """Write a table in the format that the ending of ``path`` names."""
    ending = path.suffix.lower()
    if ending == PARQUET:
        rows.to_parquet(path, index=index)
    else:
        rows.to_csv(path, index=index, sep="\t" if ending == ".tsv" else ",")
