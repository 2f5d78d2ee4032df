"""Slides of different panels: their genes, their common scale, and the panel of all."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sthggep._slides._slide import Slide
from sthggep._table._counts import log10_cp10k
from sthggep._table._gene_names import union_genes
from sthggep._table._mixed_panels import PanelCounts, PanelScale, read_held_counts
from sthggep._table._panel import choose_panel

SYMBOLS = ["ERBB2", "FASN", "MATR3", "GNAS"]
IDS = ["ENSG00000141736", "ENSG00000169710", "ENSG00000015479", "ENSG00000087460"]


def var(names: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=names)


def slide(name: str, genes: list[str], counts: np.ndarray) -> Slide:
    adata = ad.AnnData(counts.astype(np.float32), var=var(genes))
    return Slide(name, adata, np.arange(len(counts)), np.zeros((len(counts), 2)))


def test_parts_of_the_panel_from_slides_that_share_genes():
    """Three slides of other depths, none of which holds all genes: the parts are those that made the counts."""
    parts = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    held = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]], dtype=bool)
    sections = [
        PanelCounts(np.tile(depth * parts * holds, (4, 1)).astype(np.float32), holds)
        for depth, holds in zip((1000, 50, 300), held, strict=True)
    ]
    scale = PanelScale.of(sections)
    np.testing.assert_allclose(scale.parts, parts, rtol=1e-4)
    for section in sections:  # as if the whole panel had been counted
        expression = scale.expression(section)
        np.testing.assert_allclose(
            expression[:, section.held], np.tile(np.log10(1 + 1e4 * parts), (4, 1))[:, section.held], rtol=1e-4
        )
        assert np.isnan(expression[:, ~section.held]).all()


def test_a_slide_of_all_genes_has_the_usual_scale_and_empty_spots_are_zero():
    counts = np.random.default_rng(0).poisson(3, (6, 4)).astype(np.float32)
    every = np.ones(4, dtype=bool)
    scale = PanelScale.of([PanelCounts(counts, every)])
    np.testing.assert_array_equal(scale.expression(PanelCounts(counts, every)), log10_cp10k(counts))
    counts[0], counts[:, 3] = 0, 0
    expression = scale.expression(PanelCounts(counts, np.array([True, True, True, False])))
    assert expression[0, :3].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([var(SYMBOLS[:3]), var(SYMBOLS[1:])], SYMBOLS),
        ([var(SYMBOLS[:2]), var(IDS[1:], gene_symbols=SYMBOLS[1:])], SYMBOLS),
        ([var(IDS[:2], gene_symbols=SYMBOLS[:2]), var(SYMBOLS[1:])], SYMBOLS),
        ([var([f"{IDS[0]}.3", f"{IDS[1]}.4"]), var(IDS[1:])], [f"{IDS[0]}.3", f"{IDS[1]}.4", *IDS[2:]]),
        # The third joins the first two
        ([var(["A"]), var(["B"]), var(["B", "A", "C"])], ["A", "B", "C"]),
        ([var(["A", "B"])], ["A", "B"]),
    ],
)
def test_genes_of_any_table(tables: list[pd.DataFrame], expected: list[str]):
    assert union_genes(tables) == expected


def test_tables_that_share_nothing_are_refused():
    with pytest.raises(ValueError, match=r"1 slide of 3 \(such as one with 'X'\) share no genes"):
        union_genes([var(["A", "B"]), var(["X"]), var(["B"])])


def test_each_gene_is_judged_by_the_slides_that_hold_it():
    often, seldom = np.r_[np.ones(20), np.zeros(0)], np.r_[np.ones(3), np.zeros(17)]
    first = slide("1", ["A", "B", "C"], np.column_stack([often, seldom, seldom]))
    second = slide("2", ["D", "A", "B"], np.column_stack([seldom, often, np.zeros(20)]))
    assert choose_panel([first, second], min_fraction=0.15) == ["A"]
    # B is in 3 of 40 spots, C and D in 3 of the 20 that could show them
    assert choose_panel([first, second], min_fraction=0.15, union=True) == ["A", "C", "D"]
    assert choose_panel([first, second], min_fraction=0.15, max_genes=2, union=True) == ["A", "C"]


def test_counts_of_the_genes_that_a_table_holds():
    table = slide("1", ["B", "A"], np.arange(6).reshape(3, 2)).adata
    counts, held, _ = read_held_counts(table, ["A", "X", "B"], rows=np.array([2, 0]))
    assert held.tolist() == [True, False, True]
    assert counts.tolist() == [[5, 0, 4], [1, 0, 0]]
    with pytest.raises(
        ValueError, match=r"must hold 2 genes of the panel or more, found 1 of 2 in a slide with 'B', 'A'"
    ):
        read_held_counts(table, ["A", "X"])
