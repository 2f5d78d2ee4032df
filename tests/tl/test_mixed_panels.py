"""Slides of different panels: each teaches the genes that it holds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from sthggep import HGGEP, datasets, tl
from sthggep._table._verdicts import NOT_MEASURED

QUIET = {"device": "cpu", "show_progress_bar": False}
OPTIONS = {"n_members": 0, "obsm": "X_mine", **QUIET}
N_GENES = 24
FIRST, SECOND = slice(0, 6), slice(6, 12)  # genes that slides 0 and 1 lack, and slides 2 and 3


def toy(seed: int):
    """A section with features of its own, so that nothing is encoded."""
    slide = datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=8.0, n_genes=N_GENES)
    slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    slide.obs["patient"] = "AB"[seed % 2]
    return slide


def without(slide, genes: slice):
    absent = set(slide.var_names[genes])
    return slide[:, [gene for gene in slide.var_names if gene not in absent]].copy()


@pytest.fixture(scope="module")
def full():
    return [toy(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def mixed(full):
    return [without(slide, genes) for slide, genes in zip(full, (FIRST, FIRST, SECOND, SECOND), strict=True)]


@pytest.fixture(scope="module")
def model(full, mixed) -> HGGEP:
    sets = {"known": list(full[0].var_names[12:16]), "partly": list(full[0].var_names[4:8])}
    return tl.fit(mixed, genes=list(full[0].var_names), absent="mask", gene_sets=sets, **OPTIONS)


@pytest.fixture(scope="module")
def apart(full) -> HGGEP:
    """A model of two slides, each of which has genes of its own."""
    return tl.fit([without(full[0], FIRST), without(full[2], SECOND)], genes="union", **OPTIONS)


def scores(slide, model, **options):
    slide = slide.copy()
    tl.predict(slide, model, **{**QUIET, **options})
    return tl.evaluate(slide)["pearson"]


def test_genes_that_some_slides_lack_are_predicted_as_by_all_slides(full, mixed, model):
    genes = list(full[0].var_names)
    test = toy(9)
    of_all, of_mixed = (scores(test, each) for each in (tl.fit(full, genes=genes, **OPTIONS), model))
    assert model.genes == genes
    for part in (FIRST, SECOND, slice(12, None)):
        assert of_mixed[genes[part]].mean() > of_all[genes[part]].mean() - 0.05
    # Better than by the two slides that hold them
    alone = tl.fit(mixed[:2], genes=list(mixed[0].var_names), **OPTIONS)
    informative = [gene for gene in genes[SECOND] if not gene.startswith(("NOISE", "RARE"))]
    assert of_mixed[informative].mean() > scores(test, alone)[informative].mean() - 0.02


def test_slides_of_all_genes_give_the_same_model(full):
    genes = list(full[0].var_names)
    one = tl.fit(full[:2], genes=genes, **OPTIONS)
    other = tl.fit(full[:2], genes=genes, absent="mask", **OPTIONS)
    for name, value in one.members[0].state_dict().items():
        assert value.equal(other.members[0].state_dict()[name]), name
    assert one.training.held_out_pearson == other.training.held_out_pearson
    assert one.training.ceiling == other.training.ceiling
    np.testing.assert_array_equal(one.calibration.quantiles, other.calibration.quantiles)
    assert not one.training.gene_n_sections
    assert other.training.gene_n_sections == [2] * N_GENES


def test_counts_of_genes_that_a_slide_lacks_are_as_if_never_measured(full, mixed, model):
    """The model depends on what each slide holds alone, not on how its table orders or names it."""
    turned = [slide[:, ::-1].copy() for slide in mixed]
    again = tl.fit(turned, genes=model.genes, absent="mask", gene_sets=model.training.gene_sets, **OPTIONS)
    assert again.id == model.id
    by_id = mixed[3].copy()
    by_id.var["symbol"] = list(by_id.var_names)
    by_id.var_names = [f"ENSG{number:011d}" for number in range(by_id.n_vars)]
    union = tl.fit([*mixed[:3], by_id], genes="union", **OPTIONS)
    assert union.genes == tl.fit(mixed, genes="union", **OPTIONS).genes
    assert union.training.gene_n_sections == tl.fit(mixed, genes="union", **OPTIONS).training.gene_n_sections


def test_record_says_on_how_many_slides_and_spots(full, mixed, model, tmp_path):
    n_spots = [slide.n_obs for slide in mixed]
    record = model.training
    assert record.gene_n_sections == [2] * 12 + [4] * 12
    expected = [n_spots[2] + n_spots[3]] * 6 + [n_spots[0] + n_spots[1]] * 6 + [sum(n_spots)] * 12
    assert record.gene_n_spots == expected
    model.save(tmp_path / "model")
    loaded = HGGEP.load(tmp_path / "model")
    assert loaded.training == record
    assert loaded.id == model.id
    slide = full[0].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tl.predict(slide, loaded, genes=loaded.genes[4:14], **QUIET)
    trust = tl.trust(slide)
    assert trust["n_sections"].tolist() == [2] * 8 + [4] * 2
    assert trust["n_spots"].tolist() == expected[4:14]
    assert "12 of 24 genes on all sections, the others on 2 or more" in loaded._repr_html_()


def test_held_out_results_are_over_the_sections_that_hold_a_gene(model):
    known = np.isfinite(model.calibration.evidence.pearson)
    assert known.sum(axis=0).tolist() == [2] * 12 + [4] * 12
    assert known[:2, FIRST].sum() == known[2:, SECOND].sum() == 0
    assert np.isfinite(model.calibration.quantiles).all()
    assert all(value is not None for value in model.training.held_out_pearson)
    means = np.nanmean(model.calibration.evidence.pearson, axis=0)
    np.testing.assert_allclose(means, model.training.held_out_pearson, atol=2e-3)
    ceilings = dict(zip(model.genes, model.training.ceiling, strict=True))
    assert min(value for gene, value in ceilings.items() if not gene.startswith(("NOISE", "RARE"))) > 0.7
    # A set is judged by the genes that a section holds
    assert np.isfinite(model.calibration.held_out.set_evidence.pearson).all()
    assert np.isfinite(model.calibration.held_out.program_evidence.pearson).all()


def test_a_gene_of_one_slide_cannot_be_judged(full, apart, tmp_path):
    single = [number == 1 for number in apart.training.gene_n_sections]
    assert sum(single) >= 8
    assert [value is None for value in apart.training.held_out_pearson] == single
    apart.save(tmp_path / "model")
    slide = toy(9)
    tl.predict(slide, HGGEP.load(tmp_path / "model"), interval=0.9, **QUIET)
    assert np.isfinite(slide.obsm["hggep"]).all()
    assert np.isnan(slide.obsm["hggep_lower"]).any(axis=0).tolist() == single
    trust = tl.trust(slide)
    assert (trust["verdict"][single] == "cannot be judged").all()
    assert trust["reason"][single].str.startswith("measured on no tissue that was held out").all()
    assert trust["q_value"].isna().tolist() == single
    table = tl.evaluate(slide)
    assert table["coverage"].isna().tolist() == single
    assert table["pearson"][single].mean() > 0.2
    assert tl.regions(slide, scale_um=500.0)["lower"].isna().any()
    # Blocks of tissue hold out a part of each slide
    blocks = tl.fit([without(full[0], FIRST), without(full[2], SECOND)], genes="union", validation="blocks", **OPTIONS)
    assert np.isfinite(blocks.calibration.quantiles).all()


def test_a_slide_of_one_panel_is_predicted_and_scored_on_its_genes(mixed, model):
    slide = without(toy(9), FIRST)
    tl.predict(slide, model, **QUIET)
    with pytest.warns(UserWarning, match=r"6 of the 24 genes of the panel"):
        table = tl.evaluate(slide)
    assert list(table.index) == model.genes[6:]
    assert table["pearson"].notna().all()
    # A small panel beside a large one
    few = slide[:, model.genes[6:14]].copy()
    with pytest.warns(UserWarning, match=r"16 of the 24 genes of the panel"):
        small = tl.evaluate(few)
    assert list(small.index) == model.genes[6:14]
    informative = [gene for gene in small.index if not gene.startswith(("NOISE", "RARE"))]
    np.testing.assert_allclose(small["pearson"][informative], table["pearson"][informative], atol=0.25)
    assert small["pearson"][informative].mean() > 0.5


def test_networks_learn_from_the_genes_that_a_slide_holds(mixed):
    """Losses are finite, and the share of the networks is chosen; both count heads leave unknown genes out."""
    options = {**OPTIONS, "n_members": 1, "max_epochs": 2}
    model = tl.fit(mixed, genes="union", **options)
    assert np.isfinite(model.history.select_dtypes("number").to_numpy()).all()


def test_extra_counts_may_lack_genes(full, mixed):
    extra = without(toy(7), SECOND)
    with_extra, plain = (tl.fit(mixed, genes="union", expression=each, **OPTIONS) for each in (extra, None))
    assert with_extra.id != plain.id
    assert np.isfinite(scores(toy(9), with_extra)).all()


def test_genes_that_no_slide_holds_are_predicted_by_the_programs_of_extra_counts(full, tmp_path, caplog):
    genes, test = list(full[0].var_names), toy(9)
    slides, counts = [without(slide, FIRST) for slide in full], toy(7)
    del counts.uns["spatial"]
    with caplog.at_level("INFO", logger="sthggep"):
        model = tl.fit(slides, genes=genes, absent="mask", expression=counts, **OPTIONS)
    assert "Not measured with images: 6 genes ('NUCL1', 'PLEO1', " in caplog.text
    # Nearly as well as by slides that measured them, and on their scale
    of_all = tl.fit(full, genes=genes, expression=counts, **OPTIONS)
    informative = [gene for gene in genes[FIRST] if not gene.startswith(("NOISE", "RARE"))]
    found, known = (scores(test, each)[informative] for each in (model, of_all))
    assert known.mean() > 0.7
    assert found.mean() > known.mean() - 0.1
    tl.predict(test, model, interval=0.9, **QUIET)
    predicted = test.obsm["hggep"][:, FIRST]
    measured = tl.evaluate(test)["mean_observed"][genes[FIRST]]
    np.testing.assert_allclose(predicted.mean(axis=0), measured, atol=0.25)
    # Nothing judges them, and they say why
    assert model.training.gene_n_sections == [0] * 6 + [4] * 18
    trust = tl.trust(test)
    assert set(trust["verdict"][FIRST]) == {"cannot be judged"}
    assert set(trust["reason"][FIRST]) == {NOT_MEASURED}
    assert NOT_MEASURED not in set(trust["reason"][6:])
    assert np.isnan(test.obsm["hggep_lower"][:, FIRST]).all()
    assert np.isfinite(test.obsm["hggep_lower"][:, 6:]).all()
    assert tl.to_adata(test).var["n_sections"].tolist() == [0] * 6 + [4] * 18
    model.save(tmp_path / "model")
    again = test.copy()
    tl.predict(again, HGGEP.load(tmp_path / "model"), **QUIET)
    np.testing.assert_array_equal(again.obsm["hggep"], test.obsm["hggep"])
    # Without the counts they are still refused; slides without such genes do not depend on the new scale
    with pytest.raises(KeyError, match="6 genes of the panel of 24 are in no slide"):
        tl.fit(slides, genes=genes, absent="mask", **OPTIONS)


def test_refusals(full, mixed):
    genes = list(full[0].var_names)
    with pytest.raises(
        KeyError,
        match=r"6 of 24 genes are not in .*'toy1'.* 4 sections of 4 lack genes.*`genes='union'`.*`absent='mask'`",
    ):
        tl.fit(mixed, genes=genes, **OPTIONS)
    with pytest.raises(KeyError, match=r"1 gene of the panel of 25 are in no slide: 'NOWHERE'"):
        tl.fit(mixed, genes=[*genes, "NOWHERE"], absent="mask", **OPTIONS)
    with pytest.raises(
        TypeError, match=r"`genes` must be a list of genes or 'union', found 'GENE'. Pass `genes=\['GENE'\]`"
    ):
        tl.fit(mixed, genes="GENE", **OPTIONS)
    with pytest.raises(ValueError, match=r"`absent='mask'` is for a list of genes.*`genes='union'`"):
        tl.fit(mixed, absent="mask", **OPTIONS)
    with pytest.raises(ValueError, match=r"`absent`.*'refuse', 'mask'"):
        tl.fit(mixed, genes=genes, absent="drop", **OPTIONS)
    with pytest.raises(ValueError, match=r"'toy3', 'toy4' share no gene of the panel with 'toy1'"):
        tl.fit(
            [full[0][:, :9].copy(), full[1][:, :9].copy(), full[2][:, 9:].copy(), full[3][:, 9:].copy()],
            genes=genes,
            absent="mask",
            **OPTIONS,
        )
    with pytest.raises(ValueError, match=r"share no genes with the others"):
        tl.fit([full[0][:, :9].copy(), full[1][:, 9:].copy()], genes="union", **OPTIONS)
    parent = tl.fit(full[:2], genes=genes, **OPTIONS)
    with pytest.raises(ValueError, match="Fine-tuning needs slides that hold all genes"):
        tl.fit(mixed[0], model=parent, genes="union", **QUIET)


def test_cross_validation_scores_each_section_on_its_genes(full, mixed):
    genes = list(full[0].var_names)
    options = {"genes": genes, "absent": "mask", "interval": 0.9, "trust": True, "group_key": "section", **OPTIONS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = tl.cross_validate(mixed, **options)
    found = table[(table["metric"] == "pearson") & (table["method"] == "hggep")].groupby("section")["gene"].agg(list)
    assert found["toy1"] == genes[6:]
    assert found["toy3"] == genes[:6] + genes[12:]
    assert table.attrs["parameters"]["absent"] == "mask"
    assert [fold["n_genes"] for fold in table.attrs["folds"]] == [24] * 4
    means = table[table["metric"] == "pearson"].groupby("method")["value"].mean()
    assert means["hggep"] > 0.3
    assert means["ridge"] > 0.3
    coverage = table[table["metric"] == "coverage"]["value"]
    assert 0.7 < coverage.mean() <= 1
    # In the fold without `toy3`, `toy4` alone teaches the first genes
    assert (
        table[table["metric"] == "coverage"].set_index(["section", "gene"])["value"].loc["toy3"][genes[:6]].isna().all()
    )


def test_cross_validation_of_the_union_by_patient(mixed):
    table = tl.cross_validate(mixed, genes="union", baselines=["mean", "nearest_patch"], **OPTIONS)
    assert table.attrs["parameters"]["genes"] == "union"
    assert table["value"].notna().mean() > 0.9
    with pytest.raises(KeyError, match="`genes='union'`"):
        tl.cross_validate(mixed, genes=list(mixed[0].var_names), **OPTIONS)
