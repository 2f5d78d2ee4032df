"""Checks of arguments; their errors say what was expected, what was found, what there is, and which call to make."""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._keys import TOOL, prediction_keys
from sthggep._names import check_key, same_on_some_disk

NUMBERS: tuple[type, ...] = (float, int, np.floating, np.integer)
MOSTLY = 0.8  # of gene names that are spelled as those of a species are
FEW_SHARED = 0.05  # of the genes: names that only look like those of another species share more
LARGEST = 1e300  # a Python integer may be larger than any float
PACKAGE = str(Path(__file__).parent)
LOST_RECORD = (
    "`anndata.concat` drops `uns` unless you pass `uns_merge=`: concatenate again with `uns_merge='same'`, or delete the array "
    "from obsm and compute it again."
)


def listing(names: Iterable[object], limit: int = 12) -> str:
    """Show names in an error message, the first ``limit`` of them."""
    items = [repr(str(name)) for name in names]
    if not items:
        return "nothing"
    return ", ".join(items[:limit]) + (f", … ({len(items)} in all)" if len(items) > limit else "")


def counted(things: int | Sized, one: str, many: str | None = None) -> str:
    """Format a number with its noun: ``1 section``, ``2 sections``."""
    n = things if isinstance(things, int) else len(things)
    return f"{n} {one if n == 1 else many or one + 's'}"


def no_slide(data: object, name: str = "data") -> TypeError:
    """Make the error for data that are not a slide, such as a list of slides, or a path."""
    advice = "Pass one slide."
    if isinstance(data, list | tuple):
        advice = (
            "Pass one slide, and loop over a list: `fit`, `cross_validate`, `compare`, `folds`, `gene_panel`, `summary`, `gene_map`, "
            "`colors` and `report` alone take several at once."
        )
    elif isinstance(data, str | Path):
        advice = f"Read the file first: {_reader_of(Path(data))}."
    elif type(data).__name__ == "HGGEP":
        advice = "That is a model: pass the slide first."
    return TypeError(f"`{name}` must be an AnnData or a SpatialData, found {type(data).__name__}. {advice}")


def _reader_of(path: Path) -> str:
    """The call that reads a file or a folder, or all calls where its name does not tell."""
    ending = path.suffix.lower()
    calls = {
        ".h5ad": "`anndata.read_h5ad`",
        ".zarr": "`spatialdata.read_zarr`, or `anndata.read_zarr` of an AnnData",
        ".svs": "`sthggep.io.read_slide`",
        ".tif": "`sthggep.io.read_slide`",
        ".tiff": "`sthggep.io.read_slide`",
    }
    if (path / "spatial").is_dir():
        return "`squidpy.read.visium` reads a folder of Space Ranger"
    several = "`anndata.read_h5ad`, `spatialdata.read_zarr`, of a folder of Space Ranger `squidpy.read.visium`, or of a bare image "
    return calls.get(ending, f"{several}`sthggep.io.read_slide`")


def warn_user(message: str) -> None:
    """Warn at the line of the user that called sthggep."""
    frame, level = sys._getframe(1), 2
    while frame.f_code.co_filename.startswith(PACKAGE) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def one_of(value: str, choices: Iterable[str], what: str, *, where: str | Path = "", limit: int = 12) -> str:
    """Return ``value`` if it is among ``choices``; the error lists the choices (``where``)."""
    choices = list(choices)
    if value in choices:
        return value
    near = get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    place = f"In {where} there is" if str(where) else "There is"
    msg = f"Unknown {what} {value!r}.{hint} {place}: {listing(choices, limit)}."
    raise ValueError(msg)


def has_key(mapping: Mapping[str, Any], key: str, where: str, first: str = "") -> Any:
    """Return ``mapping[key]``; the error lists the keys and names the call to make first."""
    if key in mapping:
        return mapping[key]
    hint = f" {first}" if first else ""
    others = listing(name for name in mapping if name is not None)  # anndata 0.13 holds X as layers[None]
    msg = f"{key!r} is not in {where}, which holds {others}.{hint}"
    raise KeyError(msg)


def positive(value: Any, what: str) -> float:
    """Return a positive number; reject any other value."""
    is_number = isinstance(value, NUMBERS) and not isinstance(value, bool)
    plain = value.item() if isinstance(value, np.generic) else value  # numpy would cast the limit to float32
    if not is_number or not 0 < plain < LARGEST:
        msg = f"{what} must be a positive number, found {value!r}."
        raise ValueError(msg)
    number: float = value
    return number


def unique(names: Iterable[object], what: str, fix: str) -> None:
    """Reject duplicated names."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        msg = f"{what} must be unique, but found more than once: {listing(twice, 5)}. {fix}"
        raise ValueError(msg)


def unique_names(adata: AnnData) -> None:
    """Reject duplicate spot or gene names."""
    unique(adata.obs_names, "Spot names (obs_names)", "Call `adata.obs_names_make_unique()` first.")
    unique(
        adata.var_names, "Gene names (var_names)", "Call `adata.var_names_make_unique()` first, or sum the duplicates."
    )


def gene_list(genes: object, what: str = "genes") -> list[str]:
    """Return the genes of an argument as a list; reject a single name."""
    if isinstance(genes, str):
        msg = f"`{what}` must be a list of genes, found {genes!r}. Pass `{what}=[{genes!r}]`."
        raise TypeError(msg)
    if not hasattr(genes, "__iter__"):
        msg = f"`{what}` must be a list of genes, found {type(genes).__name__}. Read a file of genes first."
        raise TypeError(msg)
    return [str(gene) for gene in genes]


def genes_present(
    genes: Iterable[str], available: Iterable[str], where: str = "var_names", argument: str = "genes"
) -> NDArray[np.intp]:
    """Return the columns of ``genes``; the error names the absent ones, and the argument that asked for them."""
    index = {str(name): i for i, name in enumerate(available)}
    wanted = [str(gene) for gene in genes]
    if not wanted:
        msg = "The gene list is empty. Pass `genes=[...]`, or choose them by `sthggep.pp.gene_panel(slides)`."
        raise ValueError(msg)
    absent = [gene for gene in wanted if gene not in index]
    if absent:
        near = {gene: near_names(gene, index) for gene in absent[:5]}
        species = other_species(absent, index)
        if species:  # other near names are those of other genes
            near = {gene: [name for name in names if name.upper() == gene.upper()] for gene, names in near.items()}
        hints = [f"{gene!r}: {', '.join(names)}" for gene, names in near.items() if names]
        hint = f"Near names: {'; '.join(hints)}. " if hints else ""
        naming = f"Check the naming (symbols against Ensembl ids; names in a text column of `var` are found, too), or leave them out of `{argument}`."
        msg = (
            f"{len(absent)} of {len(wanted)} genes are not in {where}: {listing(absent, 8)}. {species and f'{species} '}{hint}"
            f"There are {len(index)} genes, such as {listing(list(index)[:4])}.{'' if species else f' {naming}'}"
        )
        raise KeyError(msg)
    return np.array([index[gene] for gene in wanted], dtype=np.intp)


def near_names(gene: str, names: Iterable[str]) -> list[str]:
    """Return names similar to a misspelled one, regardless of case."""
    by_capitals = {name.upper(): name for name in names}
    return [by_capitals[name] for name in get_close_matches(gene.upper(), by_capitals, n=3)]


def other_species(genes: Iterable[str], names: Iterable[str]) -> str:
    """A sentence if genes are written as those of another species than the names of a table; else empty."""
    (kind, shown), (found, like) = _species_of(genes), _species_of(names)
    if not kind or not found or kind == found:
        return ""
    return (
        f"They are written as genes of {kind} ({shown}), but the names here as those of {found} ({like}). sthggep does not "
        "translate between species: take a model and a panel of the same one, or rename the genes to their orthologs."
    )


def _species_of(names: Iterable[str]) -> tuple[str, str]:
    """The species by the spelling of most gene names, and one of them; nothing where they do not tell."""
    known = [str(name) for name in islice(names, 1000)]
    spellings = {
        "human": re.compile(r"ENSG\d{11}.*|[A-Z]{2}[A-Z0-9-]+|C\d+orf\d+"),
        "mouse or rat": re.compile(r"ENS(MUS|RNO)G\d{11}.*|[A-Z][a-z][a-z0-9-]+|mt-\w+|H2-\w+|\d+[A-Z]\d+Rik"),
    }
    for species, spelling in spellings.items():
        like = [name for name in known if spelling.fullmatch(name)]
        if len(like) >= max(MOSTLY * len(known), 1):
            return species, like[0]
    return "", ""


def predicted_genes(genes: Iterable[str], model_genes: Iterable[str], where: str) -> NDArray[np.intp]:
    """Return the columns of ``genes`` among those that a model predicts; the error lists similar names."""
    index = {str(name): i for i, name in enumerate(model_genes)}
    wanted = gene_list(genes)
    if not wanted:
        msg = f"`genes` is empty. Pass some of the {counted(index, 'gene')} of {where}."
        raise ValueError(msg)
    absent = [gene for gene in dict.fromkeys(wanted) if gene not in index]
    if absent:
        near = {gene: near_names(gene, index) for gene in absent[:5]}
        hints = [
            repr(gene) + (f" (did you mean {' or '.join(map(repr, names))}?)" if names else "")
            for gene, names in near.items()
        ]
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        msg = f"Not among the {counted(index, 'gene')} of {where}: {', '.join(hints)}{more}."
        capitals = {name.upper() for name in index}
        if unknown := [gene for gene in absent if gene.upper() not in capitals]:
            msg += (
                " A model predicts the genes that it was trained on. Train one with a panel that includes them: "
                f"`sthggep.tl.fit(slides, genes=sthggep.pp.gene_panel(slides, include={unknown[:3]}))`."
            )
        raise KeyError(msg)
    return np.array([index[gene] for gene in wanted], dtype=np.intp)


def may_write(adata: AnnData, key: str, of: str | None = None) -> None:
    """Reject a key that holds something that sthggep did not write.

    sthggep recognizes its arrays by the record under ``key``, or by the list ``obsm`` in the record ``of`` of a prediction.
    """
    check_key(key, "`key_added`")
    accepts_results(adata)
    for other in {*adata.obsm, *adata.uns} - {key}:
        if same_on_some_disk(str(other)) == same_on_some_disk(key):
            msg = (
                f"{key!r} and {str(other)!r}, which is there already, would be one file on a disk that ignores case. Pass another "
                "`key_added=`."
            )
            raise ValueError(msg)
    record = adata.uns.get(of or key)
    is_own = isinstance(record, Mapping) and record.get("tool") == TOOL
    if of is not None:
        is_own = is_own and key not in adata.uns and key in written_beside(record)
    has_record = key in adata.uns and not is_empty(adata.uns[key])
    if is_own or (key not in adata.obsm and not has_record):
        return
    if has_record:
        msg = (
            f"{key!r} exists already and sthggep did not write it; it is left alone. "
            "Pass another `key_added=`, or delete it from obsm / uns first."
        )
    elif prediction_keys(key).source in adata.obs:
        msg = f"obsm[{key!r}] is a prediction of sthggep whose record in uns was lost; it is left alone. {LOST_RECORD}"
    else:
        msg = (
            f"{key!r} exists already and sthggep did not write it, or its record in uns was lost; it is left alone. "
            f"Pass another `key_added=`, or delete it from obsm first. {LOST_RECORD}"
        )
    raise ValueError(msg)


def accepts_results(adata: AnnData) -> None:
    """Reject a view of a file: anndata cannot write to it."""
    if adata.isbacked and adata.is_view:
        msg = (
            "The AnnData is a view of a file (`backed=`), to which results cannot be written. Load it first: `data = "
            "data.to_memory()`."
        )
        raise ValueError(msg)


def may_write_table(adata: AnnData, name: str, columns: Iterable[str]) -> None:
    """Refuse to overwrite anything in ``uns`` but a table with these columns."""
    import pandas as pd

    accepts_results(adata)
    stored = adata.uns.get(name)
    if stored is not None and not (isinstance(stored, pd.DataFrame) and set(columns) <= set(stored.columns)):
        msg = f"uns[{name!r}] exists already and sthggep did not write it; it is left alone. Rename or delete it first."
        raise ValueError(msg)


def is_empty(record: object) -> bool:
    """Whether a record is there without entries, as concatenation may leave it."""
    return isinstance(record, Mapping) and not record


def written_beside(record: object) -> list[str]:
    """Names of the further arrays in ``obsm`` that the record of a prediction lists."""
    listed = record.get("obsm", ()) if isinstance(record, Mapping) else ()
    return [str(name) for name in np.atleast_1d(np.asarray(listed, dtype=object))]
