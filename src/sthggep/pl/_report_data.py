"""Data of the report page, in plain types: sections, genes, and the ends of their color scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from anndata import AnnData

from sthggep._keys import prediction_keys
from sthggep._log import log
from sthggep._table._prediction import read_prediction
from sthggep.pl._maps import GeneMaps, color_scale, read_maps
from sthggep.pl._report_section import SectionData, Wanted, section_data
from sthggep.pl._report_values import MISSING

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

MOST_BYTES = 20_000_000
TILE_BYTES = 1_600_000  # of all sections in a page
LEAST_TILE_BYTES = 250_000  # of one section, however many there are


class PageData(TypedDict):
    """Sections and genes of the page, under the names that its script reads."""

    sections: list[SectionData]
    genes: list[str]
    noun: str
    """What a gene is: a gene, or a target."""
    units: str
    heldOut: list[float | None]
    ends: list[tuple[float, float]]
    """Of the color scale of each gene."""
    colors: list[list[int]]
    predictedBy: str
    learnedFrom: list[str]


def choose_genes(
    genes: Sequence[str] | None, predicted: Sequence[str], held_out: Sequence[float | None], n_values: int
) -> list[str]:
    """Choose ``genes``, or those with the best held-out correlation that fit into the page at ``n_values`` bytes each."""
    if genes is not None:
        return [str(gene) for gene in genes]
    fit = max(1, MOST_BYTES // max(1, n_values))
    if len(predicted) <= fit:
        return list(predicted)
    scores = [-2.0 if score is None else score for score in held_out]
    rank = sorted(range(len(predicted)), key=lambda i: -scores[i])
    log.warning("The report holds the maps of %d of %d genes; pass `genes=` to choose them.", fit, len(predicted))
    return [predicted[i] for i in sorted(rank[:fit])]


def page_data(
    named: Sequence[tuple[str, Slide]],
    *,
    key: str,
    layer: str | None,
    genes: Sequence[str] | None,
    folder: Path | None = None,
    address: str = "",
) -> PageData:
    """Sections, genes and maps of the sections with their names; tiles are written into ``folder``, if there is one."""
    if not named:
        return {
            "sections": [],
            "genes": [],
            "noun": "gene",
            "units": "",
            "heldOut": [],
            "ends": [],
            "colors": [],
            "predictedBy": "",
            "learnedFrom": [],
        }
    first = named[0][1].adata
    prediction = read_prediction(first, key)
    held_out = _held_out_pearson(first, key, prediction.genes)
    n_spots = sum(slide.n_spots for _, slide in named)
    genes = choose_genes(genes, prediction.genes, [held_out.get(gene) for gene in prediction.genes], 3 * n_spots)
    maps = [read_maps(slide, genes, key, layer=layer, observed=True, spot_size=None) for _, slide in named]
    tile_bytes = max(TILE_BYTES // len(named), LEAST_TILE_BYTES)
    wanted = [
        Wanted(key, layer, genes, tile_bytes, None if folder is None else folder / str(i), f"{address}/{i}")
        for i in range(len(named))
    ]
    return {
        "sections": [section_data(name, item, want) for (name, _), item, want in zip(named, maps, wanted, strict=True)],
        "genes": genes,
        "noun": "gene" if prediction.targets is None else "target",
        "units": prediction.units,
        "heldOut": [held_out.get(gene) for gene in genes],
        "ends": [_ends(maps, i) for i in range(len(genes))],
        "colors": _colors(),
        "predictedBy": str(first.uns[prediction_keys(key).uns].get("model", "")),
        "learnedFrom": [name for (name, _), item in zip(named, maps, strict=True) if item.learned_from],
    }


def _ends(maps: list[GeneMaps], gene: int) -> tuple[float, float]:
    scale = color_scale(maps, gene, None, None)
    return round(scale.low, 5), round(scale.high, 5)


def _held_out_pearson(adata: AnnData, key: str, genes: Sequence[str]) -> dict[str, float]:
    """Held-out correlation of the genes that have one, from the record of the prediction."""
    values = adata.uns[prediction_keys(key).uns].get("held_out_pearson")
    if values is None or len(values) != len(genes):
        return {}
    return {gene: float(value) for gene, value in zip(genes, values, strict=True) if np.isfinite(value)}


def _colors() -> list[list[int]]:
    import matplotlib as mpl

    table = mpl.colormaps["viridis"](np.linspace(0, 1, MISSING))[:, :3]
    return [[int(v) for v in row] for row in np.rint(255 * table)]
