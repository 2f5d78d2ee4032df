"""Gene sets: names with the genes whose mean expression is a score, as a dict or in a GMT file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import counted, gene_list, listing, unique, warn_user
from sthggep._table._gene_list import decode_text
from sthggep._table._gene_names import as_named

LEAST_GENES = 2  # of a set among the panel; a set of one is that gene

GeneSets = Mapping[str, Sequence[str]] | str | Path


def read_gene_sets(gene_sets: GeneSets) -> dict[str, list[str]]:
    """Read gene sets from a dict or from a GMT file: a line a set, of its name, a description and the genes, by tabs.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        There is no set, a name is empty or stands twice, a set has no genes, or the file is no GMT.
    """
    pairs = _read_gmt(Path(gene_sets)) if isinstance(gene_sets, str | PathLike) else list(gene_sets.items())
    unique([str(name) for name, _ in pairs], "The names of `gene_sets`", "Name each set once.")
    sets = {str(name): list(dict.fromkeys(gene_list(genes, f"gene_sets[{name!r}]"))) for name, genes in pairs}
    empty = [name for name, genes in sets.items() if not genes or not name.strip()]
    if empty or not sets:
        found = f"found no genes, or no name, in {listing(empty, 5)}" if sets else "found none"
        msg = f"`gene_sets` must be gene sets, names with lists of genes, or the path of a GMT file, {found}."
        raise ValueError(msg)
    return sets


def _read_gmt(path: Path) -> list[tuple[str, list[str]]]:
    """Read the lines of a GMT file."""
    if not path.is_file():
        msg = f"`gene_sets`: there is no file {str(path)!r}. Pass the path of a GMT file, or a dict of names and lists of genes."
        raise FileNotFoundError(msg)
    text = decode_text(path, "gene set")
    rows = [[cell.strip() for cell in line.split("\t")] for line in text.splitlines() if line.strip()]
    short = [row[0] for row in rows if len(row) < 3]
    if short:
        msg = (
            f"{str(path)!r} is no GMT file: each line must hold a name, a description and genes, separated by tabs, found only "
            f"{listing(short, 3)} in a line."
        )
        raise ValueError(msg)
    return [(row[0], [gene for gene in row[2:] if gene]) for row in rows]


def sets_of_panel(gene_sets: Mapping[str, Sequence[str]], panel: Sequence[str]) -> dict[str, list[str]]:
    """Keep the genes of each set that a panel holds, and warn of sets of which it holds fewer than two.

    Raises
    ------
    ValueError
        The panel holds too few genes of every set.
    """
    held = set(panel)
    kept = {name: [gene for gene in as_named(genes, panel) if gene in held] for name, genes in gene_sets.items()}
    small = [name for name, genes in kept.items() if len(genes) < LEAST_GENES]
    if len(small) == len(kept):
        genes = next(iter(gene_sets.values()))
        msg = (
            f"Of no set in `gene_sets` ({listing(kept, 3)}) the panel holds {LEAST_GENES} genes or more. The panel has "
            f"{counted(panel, 'gene')}, such as {listing(panel, 3)}, the first set {listing(genes, 3)}. Pass sets with names of the same "
            "kind, or a panel with their genes: `genes=sthggep.pp.gene_panel(slides, include=[...])`."
        )
        raise ValueError(msg)
    if small:
        warn_user(
            f"`gene_sets`: {len(small)} of {counted(kept, 'set')} are left out, since the panel holds fewer than {LEAST_GENES} of "
            f"their genes: {listing(small, 5)}."
        )
    return {name: genes for name, genes in kept.items() if name not in small}


def set_weights(gene_sets: Mapping[str, Sequence[str]], panel: Sequence[str]) -> NDArray[np.float32]:
    """Weights (genes, sets) with which the expression of a panel gives the mean over the genes of each set."""
    number = {gene: i for i, gene in enumerate(panel)}
    weights = np.zeros((len(panel), len(gene_sets)), dtype=np.float32)
    for column, genes in enumerate(gene_sets.values()):
        weights[[number[gene] for gene in genes], column] = 1 / len(genes)
    return weights
