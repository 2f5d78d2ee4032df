"""Columns of a table by gene, whether the table names genes by symbol or by Ensembl id."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, genes_present, listing
from sthggep._log import ONCE, log

# ENSG00000141736.14, ENSMUSG00000002985.17, also with _PAR_Y: all versions of an id name one gene
_VERSION = re.compile(r"^(ENS[A-Z]*[GT]\d{11})\.\d+")

MOSTLY_DISTINCT = 0.9  # of the names in a column; some symbols have two Ensembl ids


def find_gene_columns(var: pd.DataFrame, genes: Sequence[str], where: str = "var_names") -> NDArray[np.intp]:
    """Find the columns of ``genes`` in a table whose genes ``var`` describes.

    The function searches ``var_names``; then ``var_names`` without the versions of Ensembl ids, and the columns of
    ``var`` that hold text (``gene_ids``, ``gene_symbols``, ``feature_name``, …). One of these must hold all genes. Where a
    column of ``var`` names a gene twice, the function takes the first, as after ``var_names_make_unique``.

    Parameters
    ----------
    var
        Genes × annotations; its index holds the ``var_names``.
    genes
        Genes, in the order of the returned columns.
    where
        Name of the ``var_names`` in errors.

    Returns
    -------
    Array of shape (n_genes,).

    Raises
    ------
    KeyError
        No naming holds all genes.
    ValueError
        Two columns of ``var`` hold all genes and disagree, or two genes are versions of one that the table holds once.
    """
    wanted = [str(gene) for gene in genes]
    names = [str(name) for name in var.index]
    if not wanted or set(wanted) <= set(names):
        return genes_present(wanted, names, where)
    plain = pd.Index([without_version(gene) for gene in wanted])
    namings = {label: pd.Index(keys) for label, keys in _namings(var).items()}
    if plain.has_duplicates and len(set(wanted)) == len(wanted):
        msg = f"{listing(np.array(wanted)[plain.duplicated(keep=False)], 4)} are versions of one gene. Name each gene once."
        raise ValueError(msg)
    complete = {label: _first_positions(keys, plain) for label, keys in namings.items() if plain.isin(keys).all()}
    if not complete:
        n_held = {label: int(plain.isin(keys).sum()) for label, keys in namings.items()}
        best = max(n_held, key=lambda label: n_held[label])
        n_in_names = len(set(wanted) & set(names))
        # The error names the genes that the best naming lacks
        return (
            genes_present(plain, namings[best], best)
            if n_held[best] > n_in_names
            else genes_present(wanted, names, where)
        )
    (label, columns), *others = complete.items()
    differing = [other_label for other_label, other_columns in others if (other_columns != columns).any()]
    if differing:
        msg = (
            f"{where} must hold the genes, but only {listing([label, *differing])} hold them, and these disagree on the "
            "columns. Choose one: `adata.var_names = adata.var[...]`."
        )
        raise ValueError(msg)
    keys = namings[label]
    n_repeated = int(pd.Index(keys[keys.duplicated()]).isin(plain).sum())
    repeated = f"; ignoring {counted(n_repeated, 'further column')} of the same names" if n_repeated else ""
    log.info("Matching genes by %s (var_names are such as %s)%s.", label, listing(names, 2), repeated, extra=ONCE)
    return columns


def has_all_genes(var: pd.DataFrame, genes: Sequence[str]) -> bool:
    """Whether a table holds all of these genes, in any naming."""
    try:
        find_gene_columns(var, genes)
    except (KeyError, ValueError):
        return False
    return True


def find_genes(var: pd.DataFrame, genes: Sequence[str]) -> list[str]:
    """Return the genes that a table holds, in the naming that holds most of them; of several versions of one, the first."""
    wanted = [str(gene) for gene in genes]
    if has_all_genes(var, wanted):
        return wanted
    names = {str(name) for name in var.index}
    held = [[gene for gene in wanted if gene in names]]
    once = list({without_version(gene): gene for gene in reversed(wanted)}.values())[::-1]
    held += [[gene for gene in once if without_version(gene) in keys] for keys in map(set, _namings(var).values())]
    return max(held, key=len)


def shared_genes(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Return the genes that all tables hold, as the first names and orders them, whatever the others call them.

    The names are the ``var_names`` of the first table. Only if no other table holds any of these, they are those of a
    column of its ``var`` that holds text, such as ``gene_symbols``.
    """
    first, *others = tables
    namings = [list(map(str, first.index)), *(_distinct_names(first[name]) for name in _text_columns(first))]
    shared = (_held_by_all(list(dict.fromkeys(names)), others) for names in namings)
    return next(filter(None, shared), [])


def union_genes(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Return all genes of tables that share some: in the names of the first, those that it lacks in the order of the others.

    The first table names its genes by its ``var_names``. Only if no other table holds any of these, it does so by a column
    of its ``var`` that holds text. A further table has its names in the place that holds most of the others' genes.

    Raises
    ------
    ValueError
        A table shares no gene with the others.
    """
    first, *others = tables
    namings = [list(map(str, first.index)), *(_distinct_names(first[name]) for name in _text_columns(first))]
    shared = (names for names in namings if not others or any(has_any_gene(var, names) for var in others))
    genes = list(dict.fromkeys(next(shared, namings[0])))
    left = list(others)
    while left:
        found = next((var for var in left if has_any_gene(var, genes)), None)
        if found is None:
            msg = f"{counted(left, 'slide')} of {len(tables)} (such as one with {listing(left[0].index, 2)}) share no genes with the others. "
            raise ValueError(
                msg + "Name the genes of all slides alike, by symbols or by Ensembl ids, or leave these slides out."
            )
        left = [var for var in left if var is not found]
        genes += _further_genes(found, genes)
    return genes


def _further_genes(var: pd.DataFrame, genes: Sequence[str]) -> list[str]:
    """Return the genes of a table that are not among ``genes``, in the naming that holds most of these."""
    known = {without_version(gene) for gene in genes}
    namings = [list(map(str, var.index)), *(_distinct_names(var[name]) for name in _text_columns(var))]
    names = max(namings, key=lambda each: len(known.intersection(map(without_version, each))))
    return list({plain: name for name in reversed(names) if (plain := without_version(name)) not in known}.values())[
        ::-1
    ]


def _distinct_names(column: pd.Series) -> list[str]:
    """Return the names of genes in a column; none of one that names many genes alike, such as the genome."""
    names = [str(name) for name in column[column.notna()] if str(name).strip()]
    return names if len(set(names)) >= MOSTLY_DISTINCT * len(names) else []


def _held_by_all(genes: list[str], tables: Sequence[pd.DataFrame]) -> list[str]:
    for var in tables:
        genes = find_genes(var, genes) if genes else []
    return genes


def as_named(genes: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return genes as ``names`` has them, whatever version of an Ensembl id they carry; others stay as they are."""
    exact = set(names)
    by_plain = {without_version(name): name for name in reversed(names)}
    return [gene if gene in exact else by_plain.get(without_version(gene), gene) for gene in genes]


def has_any_gene(var: pd.DataFrame, genes: Sequence[str]) -> bool:
    """Whether a table holds any of these genes, in any naming."""
    wanted = {without_version(str(gene)) for gene in genes}
    return any(not wanted.isdisjoint(keys) for keys in _namings(var).values())


def without_version(name: str) -> str:
    """Remove the version of an Ensembl id."""
    match = _VERSION.match(name)
    return match.group(1) if match else name


def _namings(var: pd.DataFrame) -> dict[str, list[str]]:
    """Return the gene names by the place that holds them, without versions."""
    columns = {f"var[{name!r}]": var[name].astype(object) for name in _text_columns(var)}
    namings = {"var_names without versions": var.index} | columns
    return {label: [without_version(str(name)) for name in names] for label, names in namings.items()}


def _text_columns(var: pd.DataFrame) -> list[str]:
    """Return the columns that hold text; a name that several columns have means nothing."""
    unique = var.columns[~var.columns.duplicated(keep=False)]
    return [c for c in unique if isinstance(var[c].dtype, pd.CategoricalDtype) or var[c].dtype.kind in "OU"]


def _first_positions(keys: pd.Index, wanted: pd.Index) -> NDArray[np.intp]:
    """Return the position of each wanted name among the first occurrences of ``keys``."""
    first = np.flatnonzero(~keys.duplicated())
    return np.asarray(first[keys[first].get_indexer(wanted)], dtype=np.intp)
