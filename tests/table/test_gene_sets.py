"""Gene sets from dicts and GMT files, and their genes among a panel."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sthggep._table._gene_sets import read_gene_sets, set_weights, sets_of_panel

GMT = "collagens\thttps://example.org\tCOL1A1\tCOL1A2\tCOL1A1\t\nkeratins\t\tKRT5\tKRT8\n\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_gmt_file_says_what_a_dict_says(tmp_path: Path, encoding: str):
    path = tmp_path / "sets.gmt"
    path.write_bytes(GMT.replace("\n", "\r\n").encode(encoding))
    expected = {"collagens": ["COL1A1", "COL1A2"], "keratins": ["KRT5", "KRT8"]}
    assert read_gene_sets(path) == read_gene_sets(str(path)) == expected
    assert read_gene_sets({"collagens": ("COL1A1", "COL1A2"), "keratins": np.array(["KRT5", "KRT8"])}) == expected


def test_what_is_no_gene_sets_is_refused(tmp_path: Path):
    path = tmp_path / "sets.gmt"
    with pytest.raises(FileNotFoundError, match=r"no file .*sets\.gmt"):
        read_gene_sets(path)
    path.write_bytes(gzip.compress(GMT.encode()))
    with pytest.raises(ValueError, match="compressed, not a text with one gene set a line"):
        read_gene_sets(path)
    path.write_text("GNAS\nFASN\n")
    with pytest.raises(ValueError, match=r"is no GMT file: .* found only 'GNAS', 'FASN'"):
        read_gene_sets(path)
    path.write_text(GMT + GMT)
    with pytest.raises(ValueError, match=r"names of `gene_sets` must be unique.*'collagens'"):
        read_gene_sets(path)
    path.write_text("\n")
    for nothing in (path, {}):
        with pytest.raises(ValueError, match="path of a GMT file, found none"):
            read_gene_sets(nothing)
    with pytest.raises(ValueError, match="no genes, or no name, in 'empty', ' '"):
        read_gene_sets({"empty": [], " ": ["GNAS"]})
    with pytest.raises(TypeError, match="must be a list of genes, found 'GNAS'"):
        read_gene_sets({"one": "GNAS"})


def test_a_panel_keeps_its_genes_of_each_set():
    panel = ["A", "B", "ENSG00000000003.1"]
    sets = {"all": ["B", "C", "A"], "version": ["A", "ENSG00000000003.15"], "small": ["A", "C"]}
    with pytest.warns(UserWarning, match="1 of 3 sets are left out.*fewer than 2.*'small'"):
        kept = sets_of_panel(sets, panel)
    assert kept == {"all": ["B", "A"], "version": ["A", "ENSG00000000003.1"]}
    with pytest.raises(
        ValueError, match=r"Of no set in `gene_sets` \('small'\).*panel has 3 genes.*first set 'A', 'C'"
    ):
        sets_of_panel({"small": ["A", "C"]}, panel)


def test_the_score_of_a_set_is_the_mean_of_its_genes():
    values = np.array([[1.0, 2.0, 6.0], [0.0, 4.0, 2.0]], np.float32)
    weights = set_weights({"ends": ["c", "a"], "all": ["a", "b", "c"]}, ["a", "b", "c"])
    np.testing.assert_allclose(values @ weights, [[3.5, 3.0], [1.0, 2.0]])
