"""The genes that all methods predict and the slide measured, and their measured values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._checks import gene_list, listing
from sthggep._keys import UNITS, UNITS_OF_ALL
from sthggep._table._counts import find_measured_genes, read_panel_counts
from sthggep._table._gene_names import find_gene_columns, find_genes
from sthggep._table._prediction import find_measured_panel

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide
    from sthggep.tl._comparison._sources import Source

GENES_AT_ONCE = 2000
Counts = NDArray[np.float32]


@dataclass(frozen=True)
class SharedGenes:
    """Genes to score, their columns in each source, and the panel whose counts define the scale."""

    genes: list[str]
    columns: list[NDArray[np.intp]]
    panel: list[str]
    on_scale: list[bool]
    """Whether the values of each source are on the scale that the counts of the panel define."""
    left_out: pd.DataFrame
    """``gene`` and ``reason`` of the genes that some method predicts and that are not scored."""

    def read_counts(self, slide: Slide, layer: str | None) -> Counts:
        """Raw counts of the genes, and in the last column those of all other genes of the panel."""
        rows = slide.rows
        library = np.zeros(len(rows), dtype=np.float64)
        for start in range(0, len(self.panel), GENES_AT_ONCE):
            part = self.panel[start : start + GENES_AT_ONCE]
            library += read_panel_counts(slide.adata, part, layer=layer, rows=rows).sum(axis=1, dtype=np.float64)
        counts = read_panel_counts(slide.adata, self.genes, layer=layer, rows=rows)
        others = np.maximum(library - counts.sum(axis=1, dtype=np.float64), 0)
        return np.column_stack([counts, others]).astype(np.float32)


def share_genes(
    sources: Sequence[Source],
    table: AnnData,
    *,
    genes: Sequence[str] | None,
    panel: Sequence[str] | None,
    layer: str | None,
) -> SharedGenes:
    """Find the genes that all sources predict and the table measured; each is named as in the first source."""
    indices = [_index(source, table) for source in sources]
    scale = _panel(sources, table, panel, layer)
    names = {
        key: source.genes[i]
        for source, index in reversed(list(zip(sources, indices, strict=True)))
        for key, i in index.items()
    }
    lacking = {key: [s.method for s, index in zip(sources, indices, strict=True) if key not in index] for key in names}
    measured = set(find_measured_genes(table, [name for key, name in names.items() if not lacking[key]], layer))
    in_panel = set(_canonical(table, scale).values())
    reasons = {
        key: _reason(lacking[key], measured=name in measured, in_panel=key in in_panel) for key, name in names.items()
    }
    wanted = None if genes is None else set(_canonical(table, gene_list(genes)).values())
    keys = [key for key, reason in reasons.items() if not reason and (wanted is None or key in wanted)]
    keys.sort(key=lambda key: indices[0][key])
    left_out = [(names[key], reason) for key, reason in reasons.items() if reason and (wanted is None or key in wanted)]
    if not keys:
        raise ValueError(_no_genes(sources, table, left_out))
    columns = [np.array([index[key] for key in keys], dtype=np.intp) for index in indices]
    on_scale = [_is_on_scale(source, table, scale, layer) for source in sources]
    reasons_table = pd.DataFrame(left_out, columns=["gene", "reason"])
    return SharedGenes([names[key] for key in keys], columns, scale, on_scale, reasons_table)


def _is_on_scale(source: Source, table: AnnData, panel: Sequence[str], layer: str | None) -> bool:
    """Whether values are log10(1 + counts per 10,000) of the same panel; only records of sthggep say so."""
    record = source.prediction
    if record is None or record.units not in (UNITS, UNITS_OF_ALL):
        return False
    if record.all_counts:
        return set(map(str, table.var_names)) == set(panel)
    return set(find_measured_genes(table, record.panel, layer)) == set(panel)


def _panel(sources: Sequence[Source], table: AnnData, panel: Sequence[str] | None, layer: str | None) -> list[str]:
    """Genes whose counts define the scale: those that were passed, those of the first record, or all of the table."""
    if panel is not None:
        return gene_list(panel)
    recorded = [source.prediction for source in sources if source.prediction is not None]
    if not recorded or recorded[0].all_counts:
        return list(map(str, table.var_names))
    return find_measured_panel(table, recorded[0], layer)


def _index(source: Source, table: AnnData) -> dict[str, int]:
    """Column of each gene of a source, by the name that the measured table gives it."""
    index: dict[str, int] = {}
    for i, name in enumerate(_canonical(table, source.genes).values()):
        if name in index:
            msg = (
                f"The prediction {source.method!r} has two columns for the gene {name!r} of the slide: "
                f"{listing([source.genes[index[name]], source.genes[i]])}. Drop one of them."
            )
            raise ValueError(msg)
        index[name] = i
    return index


def _canonical(table: AnnData, genes: Sequence[str]) -> dict[str, str]:
    """Name of each gene in the table (its ``var_names``), whatever the gene is called; the gene itself where it has none."""
    present = find_genes(table.var, genes)
    known: dict[str, str] = {}
    if present:
        columns = find_gene_columns(table.var, present)
        known = dict(zip(present, table.var_names[columns].astype(str), strict=True))
    return {gene: known.get(gene, gene) for gene in genes}


def _reason(lacking: Sequence[str], *, measured: bool, in_panel: bool) -> str:
    """Why a gene is not scored; empty for one that is."""
    if lacking:
        return f"not predicted by {', '.join(lacking)}"
    if not measured:
        return "not in the counts"
    return "" if in_panel else "not in the panel"


def _no_genes(sources: Sequence[Source], table: AnnData, left_out: Sequence[tuple[str, str]]) -> str:
    """The error message where no gene can be scored."""
    examples = "; ".join(f"{source.method!r}: {listing(source.genes, 3)}" for source in sources)
    reasons = pd.Series([reason for _, reason in left_out], dtype=object).value_counts()
    why = "; ".join(f"{n} {reason}" for reason, n in reasons.items())
    return (
        f"No gene is predicted by all {len(sources)} methods and measured, too ({why or 'none of `genes`'}). Genes are such as {examples}; "
        f"the slide's are such as {listing(table.var_names, 3)}. Rename genes to the var_names of the slide, or put the other "
        "names into a column of `slide.var`."
    )
