"""Which columns of a table are the genes asked for, whether it names them by symbol or by Ensembl id."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import genes_present, listing
from sthggep._log import ONCE, log

# ENSG00000141736.14, ENSMUSG00000002985.17, also with _PAR_Y: the version says nothing about which gene it is
_VERSION = re.compile(r"^(ENS[A-Z]*[GT]\d{11})\.\d+")


def gene_columns(var: pd.DataFrame, genes: Sequence[str], where: str = "var_names") -> NDArray[np.intp]:
    """Columns of ``genes`` in a table whose genes ``var`` describes.

    Looked for are they in ``var_names``; if not all are there, without the versions of Ensembl ids; else in the columns
    of ``var`` that hold text (``gene_ids``, ``gene_symbols``, ``feature_name``, …), one of which must hold them all. Of
    genes that a column of ``var`` names twice the first is taken, as after ``var_names_make_unique``.

    Parameters
    ----------
    var
        Genes × annotations; its index are the ``var_names``.
    genes
        Genes, in the order of the columns returned.
    where
        What errors call the ``var_names``.

    Returns
    -------
    Array of shape (n_genes,).

    Raises
    ------
    KeyError
        Some gene is nowhere.
    ValueError
        Two columns of ``var`` hold them all and disagree.
    """
    wanted = [str(gene) for gene in genes]
    names = [str(name) for name in var.index]
    if not wanted or set(wanted) <= set(names):
        return genes_present(wanted, names, where)
    plain = pd.Index([_unversioned(gene) for gene in wanted])
    found = {label: pd.Index(keys) for label, keys in _namings(var).items()}
    whole = {label: _first_places(keys, plain) for label, keys in found.items() if plain.isin(keys).all()}
    if not whole:
        held = {label: int(plain.isin(keys).sum()) for label, keys in found.items()}
        best = max(held, key=lambda label: held[label])
        by_names = len(set(wanted) & set(names))
        # Some are nowhere: the error names those that are absent from where most are
        return genes_present(plain, found[best], best) if held[best] > by_names else genes_present(wanted, names, where)
    (label, columns), *others = whole.items()
    differing = [other for other, places in others if (places != columns).any()]
    if differing:
        msg = (
            f"The genes are not in var_names, and {listing([label, *differing])} name them differently. "
            "Choose one: `adata.var_names = adata.var[...]`."
        )
        raise ValueError(msg)
    twice = int(pd.Index(found[label][found[label].duplicated()]).isin(plain).sum())
    more = f"; {twice} more columns of the same names are left alone" if twice else ""
    log.info("Genes are found by %s (var_names are such as %s)%s.", label, listing(names, 2), more, extra=ONCE)
    return columns


def names_genes(var: pd.DataFrame, genes: Sequence[str]) -> bool:
    """Whether a table holds all of these genes, by whatever name."""
    try:
        gene_columns(var, genes)
    except (KeyError, ValueError):
        return False
    return True


def known_genes(var: pd.DataFrame, genes: Sequence[str]) -> list[str]:
    """Those of the genes that a table holds, by the name that knows most of them."""
    wanted = [str(gene) for gene in genes]
    if names_genes(var, wanted):
        return wanted
    names = {str(name) for name in var.index}
    found = [[gene for gene in wanted if gene in names]]
    found += [[g for g in wanted if _unversioned(g) in keys] for keys in map(set, _namings(var).values())]
    return max(found, key=len)


def shares_genes(var: pd.DataFrame, genes: Sequence[str]) -> bool:
    """Whether a table holds any of these genes, by whatever name."""
    wanted = {_unversioned(str(gene)) for gene in genes}
    return any(not wanted.isdisjoint(keys) for keys in _namings(var).values())


def _unversioned(name: str) -> str:
    found = _VERSION.match(name)
    return found.group(1) if found else name


def _namings(var: pd.DataFrame) -> dict[str, list[str]]:
    """Names of the genes by where they stand, each without versions."""
    texts = [c for c in var.columns if isinstance(var[c].dtype, pd.CategoricalDtype) or var[c].dtype.kind in "OU"]
    namings = {"var_names without versions": var.index} | {f"var[{c!r}]": var[c].astype(object) for c in texts}
    return {label: [_unversioned(str(name)) for name in names] for label, names in namings.items()}


def _first_places(keys: pd.Index, wanted: pd.Index) -> NDArray[np.intp]:
    first = np.flatnonzero(~keys.duplicated())
    return np.asarray(first[keys[first].get_indexer(wanted)], dtype=np.intp)
