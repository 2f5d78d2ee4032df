"""Genes whose names differ between slides."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sthggep import datasets, pp, tl
from sthggep._table._gene_names import as_named, find_gene_columns, find_genes, shared_genes

IDS = [f"ENSG{number:011d}" for number in range(12)]
SYMBOLS = [f"SYM{number}" for number in range(12)]
QUIET = {"show_progress_bar": False}
FIT = {"obsm": "morphology", "max_epochs": 1, "n_members": 1, "validation": None, **QUIET}
Named = Callable[[ad.AnnData], None]


@pytest.fixture(scope="module")
def _slides() -> list[ad.AnnData]:
    return [datasets.toy(seed=seed, size_um=(1200.0, 1200.0), mpp=2.0, n_genes=12) for seed in (0, 1, 2)]


@pytest.fixture
def slides(_slides: list[ad.AnnData]) -> list[ad.AnnData]:
    return [slide.copy() for slide in _slides]


def versions(first: int, every: int = 1) -> Named:
    def name(slide: ad.AnnData) -> None:
        slide.var_names = [f"{gene}.{first + number // every}" for number, gene in enumerate(IDS)]

    return name


def plain(slide: ad.AnnData) -> None:
    slide.var_names = IDS


def symbols(slide: ad.AnnData) -> None:
    slide.var_names = SYMBOLS


def symbols_and_ids(slide: ad.AnnData) -> None:
    slide.var_names = SYMBOLS
    slide.var["gene_ids"] = [f"{gene}.9" for gene in IDS]


def ids_and_symbols(slide: ad.AnnData) -> None:
    slide.var_names = IDS
    slide.var["gene_symbols"] = pd.Categorical(SYMBOLS)
    slide.var["genome"] = "GRCh38"


NAMINGS = [
    pytest.param(versions(5), versions(6), id="Ensembl ids of two releases"),
    pytest.param(versions(5, 4), versions(5, 3), id="ids of which some have the same version"),
    pytest.param(versions(5), plain, id="ids with versions against ids without"),
    pytest.param(plain, versions(5), id="ids without versions against ids with"),
    pytest.param(symbols, ids_and_symbols, id="symbols against ids with a column of symbols"),
    pytest.param(ids_and_symbols, symbols, id="ids with a column of symbols against symbols"),
    pytest.param(symbols_and_ids, versions(3), id="symbols with a column of ids against ids"),
]


@pytest.mark.handles("sthggep matches the genes. Their names and their order are those of the first slide.")
@pytest.mark.parametrize(("first", "second"), NAMINGS)
def test_slides_that_name_genes_differently(slides: list[ad.AnnData], first: Named, second: Named):
    expected = tl.fit(slides[:2], genes=list(slides[0].var_names), **FIT)
    panel = [list(slides[0].var_names).index(gene) for gene in pp.gene_panel(slides[:2])]
    first(slides[0])
    second(slides[1])
    chosen = pp.gene_panel(slides[:2])
    columns = find_gene_columns(slides[0].var, chosen)
    np.testing.assert_array_equal(columns, panel)
    model = tl.fit(slides[:2], genes=None, **FIT)
    assert list(model.genes) == chosen
    by_hand = tl.fit(slides[:2], genes=[shared_genes([s.var for s in slides[:2]])[i] for i in range(12)], **FIT)
    first(slides[2])
    plain_slide = slides[2].copy()
    for trained, slide in ((by_hand, slides[2]), (expected, plain_slide)):
        tl.predict(slide, trained, **QUIET)
    np.testing.assert_allclose(slides[2].obsm["hggep"], plain_slide.obsm["hggep"], atol=1e-5)


@pytest.mark.handles("The folds share all genes.")
@pytest.mark.parametrize(
    "third",
    [
        pytest.param(versions(6), id="a held-out slide of another Ensembl release"),
        pytest.param(plain, id="a held-out slide without versions"),
    ],
)
def test_cross_validation(slides: list[ad.AnnData], third: Named):
    versions(5)(slides[0])
    versions(5)(slides[1])
    third(slides[2])
    for number, slide in enumerate(slides):
        slide.obs["patient"] = f"P{number}"
    results = tl.cross_validate(slides, baselines=["mean"], **{k: v for k, v in FIT.items() if k != "validation"})
    for number, name in enumerate(slide.obs["section"].iloc[0] for slide in slides):
        training = [slide for other, slide in enumerate(slides) if other != number]
        assert results[results["section"] == name]["gene"].nunique() == len(pp.gene_panel(training)) > 8


@pytest.mark.handles("sthggep predicts the gene of the model, under the name that the model uses.")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(lambda gene: f"{gene}.99", id="a gene with another version than the model's"),
        pytest.param(lambda gene: gene, id="a gene without a version"),
    ],
)
def test_genes_by_another_version(slides: list[ad.AnnData], name: Callable[[str], str]):
    versions(5)(slides[0])
    versions(7)(slides[1])
    model = tl.fit(slides[0], genes=list(slides[0].var_names), **FIT)
    wanted, named = [name(IDS[3]), name(IDS[1])], [slides[0].var_names[3], slides[0].var_names[1]]
    tl.predict(slides[1], model, genes=wanted, **QUIET)
    assert list(slides[1].uns["hggep"]["genes"]) == named
    tl.predict(slides[1], model, **QUIET)
    scores = tl.evaluate(slides[1], genes=wanted)
    assert list(scores.index) == named
    pd.testing.assert_frame_equal(scores, tl.evaluate(slides[1]).loc[named])
    assert tl.fit(slides[1], model=model, genes=wanted, max_epochs=1, validation=None, **QUIET).genes == named
    assert named[0] in pp.gene_panel(slides[0], max_genes=3, include=wanted[:1])


# --- one gene twice -----------------------------------------------------------------------------------------------


def var(*names: str, **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=list(names))


def test_both_columns_of_a_gene_are_shared_only_where_all_tables_have_both():
    pair = (f"{IDS[0]}.5", f"{IDS[0]}.5_PAR_Y")
    assert shared_genes([var(*pair, IDS[1]), var(*pair, IDS[1])]) == [*pair, IDS[1]]
    assert shared_genes([var(*pair, IDS[1]), var(f"{IDS[0]}.6", IDS[1])]) == [pair[0], IDS[1]]
    assert find_genes(var(IDS[0], IDS[1]), [*pair, IDS[1]]) == [pair[0], IDS[1]]
    with pytest.raises(ValueError, match=f"'{pair[0]}', '{pair[1]}' are versions of one gene"):
        find_gene_columns(var(IDS[0], IDS[1]), pair)


def test_exact_names_come_first():
    names = [f"{IDS[0]}.5", f"{IDS[0]}.6", "FASN"]
    assert as_named([f"{IDS[0]}.6", f"{IDS[0]}.7", "GNAS", "FASN"], names) == [names[1], names[0], "GNAS", "FASN"]


@pytest.mark.handles("sthggep rejects the slides: they share no genes.")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(symbols, plain, id="symbols against ids without a column of names"),
        pytest.param(
            lambda s: (plain(s), s.var.insert(0, "genome", "GRCh38")),
            lambda s: (symbols(s), s.var.insert(0, "genome", "GRCh38")),
            id="a column that names all genes alike",
        ),
    ],
)
def test_nothing_in_common(slides: list[ad.AnnData], first: Named, second: Named):
    first(slides[0])
    second(slides[1])
    for call in (pp.gene_panel, tl.fit):
        with pytest.raises(ValueError, match="The slides share no genes"):
            call(slides[:2])


@pytest.mark.handles("sthggep rejects the table. The message names the call that makes gene names unique.")
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["A"] * 12, id="twelve genes of one name"),
        pytest.param([*SYMBOLS[:11], "SYM0"], id="two genes of one name"),
    ],
)
def test_repeated_var_names(slides: list[ad.AnnData], names: list[str]):
    slides[0].var_names = names
    for call in (pp.gene_panel, tl.fit, lambda data: pp.patches(data, size_um=80)):
        with pytest.raises(ValueError, match=r"Gene names .* must be unique.*var_names_make_unique"):
            call(slides[0])


@pytest.mark.filterwarnings("ignore:.*not unique")
def test_repeated_columns_of_var_mean_nothing(slides: list[ad.AnnData]):
    ids_and_symbols(slides[0])
    twice = pd.concat([slides[0].var, slides[0].var[["gene_symbols"]]], axis=1)
    np.testing.assert_array_equal(find_gene_columns(twice, IDS[:2]), [0, 1])
    with pytest.raises(KeyError, match="2 of 2 genes are not in var_names"):
        find_gene_columns(twice, SYMBOLS[:2])


@pytest.mark.parametrize("genes", [5, None])
def test_no_list_of_genes(slides: list[ad.AnnData], genes: object):
    from sthggep._checks import gene_list

    with pytest.raises(TypeError, match="`genes` must be a list of genes, found"):
        gene_list(genes)
