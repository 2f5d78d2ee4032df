"""Symbols against Ensembl ids."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sthggep._table._counts import explain_missing_counts, read_panel_counts
from sthggep._table._gene_names import find_gene_columns, has_all_genes, has_any_gene

SYMBOLS = ["ERBB2", "FASN", "MATR3", "GNAS"]
IDS = ["ENSG00000141736", "ENSG00000169710", "ENSG00000015479", "ENSG00000087460"]
VERSIONED = [f"{name}.{i + 3}" for i, name in enumerate(IDS)]


def var(names: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=names)


@pytest.mark.parametrize(
    ("table", "genes"),
    [
        (var(SYMBOLS), SYMBOLS),
        (var(IDS, gene_symbols=SYMBOLS), SYMBOLS),
        (var(VERSIONED, feature_name=SYMBOLS), SYMBOLS),
        (var(SYMBOLS, gene_ids=IDS), IDS),
        (var(SYMBOLS, gene_ids=IDS), VERSIONED),
        (var(SYMBOLS, gene_ids=VERSIONED), IDS),
        (var(IDS), VERSIONED),
        (var(VERSIONED), IDS),
        (var(["A", "B", "C", "D"], genome=["GRCh38"] * 4, gene_ids=IDS, name=SYMBOLS), SYMBOLS),
    ],
)
def test_the_same_genes_by_any_name(table: pd.DataFrame, genes: list[str]):
    for columns in ([0, 1, 2, 3], [2, 0], [3]):
        np.testing.assert_array_equal(find_gene_columns(table, [genes[i] for i in columns]), columns)
    categories = table.astype("category")
    np.testing.assert_array_equal(find_gene_columns(categories, genes[::-1]), [3, 2, 1, 0])


def test_the_log_names_the_column_of_the_genes(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="sthggep"):
        find_gene_columns(var(SYMBOLS, gene_ids=IDS), SYMBOLS)
    assert not caplog.records
    with caplog.at_level(logging.INFO, logger="sthggep"):
        find_gene_columns(var(VERSIONED, gene_symbols=SYMBOLS), ["FASN"])
    assert "Matching genes by var['gene_symbols'] (var_names are such as 'ENSG00000141736.3'" in caplog.text


def test_var_names_come_first():
    # another column may give the same name to another gene
    table = var(SYMBOLS, alias=[*SYMBOLS[1:], "ERBB2"])
    np.testing.assert_array_equal(find_gene_columns(table, ["ERBB2", "GNAS"]), [0, 3])


def test_the_first_of_duplicated_names_is_used(caplog: pytest.LogCaptureFixture):
    table = var([*IDS, "ENSG00000280987"], gene_symbols=[*SYMBOLS, "MATR3"])
    with caplog.at_level(logging.INFO, logger="sthggep"):
        np.testing.assert_array_equal(find_gene_columns(table, ["MATR3", "GNAS"]), [2, 3])
    assert "ignoring 1 further column of the same names" in caplog.text


def test_columns_that_disagree_are_refused():
    table = var(IDS, old=SYMBOLS, new=[SYMBOLS[1], SYMBOLS[0], *SYMBOLS[2:]])
    np.testing.assert_array_equal(find_gene_columns(table, ["GNAS"]), [3])
    with pytest.raises(
        ValueError, match=r"\"var\['old'\]\", \"var\['new'\]\" hold them, and these disagree.*var_names"
    ):
        find_gene_columns(table, ["ERBB2"])


def test_missing_genes_are_named():
    table = var(IDS, gene_symbols=SYMBOLS)
    with pytest.raises(KeyError, match=r"1 of 2 genes are not in var\['gene_symbols'\]: 'TP53'.*such as 'ERBB2'"):
        find_gene_columns(table, ["FASN", "TP53"])
    with pytest.raises(KeyError, match="2 of 2 genes are not in var_names of 'S': 'TP53', 'MYC'"):
        find_gene_columns(table, ["TP53", "MYC"], "var_names of 'S'")
    with pytest.raises(KeyError, match="1 of 2 genes are not in var_names"):
        find_gene_columns(var(SYMBOLS), ["FASN", "TP53"])
    with pytest.raises(ValueError, match="gene list is empty"):
        find_gene_columns(table, [])
    assert has_all_genes(table, ["FASN"])
    assert not has_all_genes(table, ["FASN", "TP53"])
    assert has_any_gene(table, ["FASN", "TP53"])
    assert has_any_gene(table, ["TP53", VERSIONED[0]])
    assert not has_any_gene(table, ["TP53"])


def test_counts_of_a_table_with_ensembl_ids():
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    adata = ad.AnnData(values, var=var(VERSIONED, gene_symbols=SYMBOLS))
    np.testing.assert_array_equal(read_panel_counts(adata, ["GNAS", "ERBB2"]), values[:, [3, 0]])
    assert explain_missing_counts(adata, SYMBOLS) == ""
    assert explain_missing_counts(adata, ["TP53", "TP63"]).startswith("2 of the panel's 2 genes are not in var_names")
    assert explain_missing_counts(adata, ["TP53", "FASN"]) == "1 of the panel's 2 genes are not in var_names ('TP53')"
