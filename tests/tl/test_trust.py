"""Verdicts: which genes can be trusted, and why."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sthggep import HGGEP, tl
from sthggep._table._evidence import REGION_LEVELS, REGION_SPOTS, SCALES_UM, Evidence
from sthggep._table._verdicts import Thresholds, judge

CASES = ("spot", "region", "weak", "noise", "rare", "hidden")


def evidence_of(n_sections: int = 4, n_patients: int = 0) -> Evidence:
    """Six genes, each with another reason."""
    #                      spot  region weak  noise rare  hidden
    pearson = np.array([0.50, 0.15, 0.12, 0.01, 0.30, 0.30], np.float32)
    z = np.array([5.0, 4.0, 2.1, 0.1, 5.0, 5.0], np.float32)
    wobble = np.linspace(-0.5, 0.5, n_sections, dtype=np.float32)[:, None] if n_sections > 1 else np.zeros((1, 1))
    scale = np.zeros((len(SCALES_UM), 6), np.float32)
    scale[:, [0, 4, 5]] = 0.9
    scale[4:, 1:3] = 0.6
    return Evidence(
        pearson=np.tile(pearson, (n_sections, 1)),
        z=(z + wobble).astype(np.float32),
        patient_pearson=np.tile(pearson[::-1].copy(), (n_patients, 1)),
        patient_z=np.tile(z[::-1].copy(), (n_patients, 1)),
        ceiling=np.array([0.8, 0.8, 0.8, 0.8, 0.8, 0.2], np.float32),
        detected=np.array([1, 1, 1, 1, 0.01, 1], np.float32),
        scale_pearson=scale,
        scale_ceiling=np.ones_like(scale),
        region_spread=np.ones((len(REGION_SPOTS), 6), np.float32),
        region_scores=np.ones(len(REGION_LEVELS), np.float32),
        offset_spread=np.ones(6, np.float32),
        patient_offset_spread=np.ones(6 if n_patients else 0, np.float32),
    )


def table(evidence: Evidence | None, novelty: float = 0.5) -> ad.AnnData:
    adata = ad.AnnData(obs=pd.DataFrame(index=[f"s{i}" for i in range(9)]))
    y, x = np.mgrid[:3, :3]
    adata.obsm["spatial"] = np.column_stack([x.ravel(), y.ravel()]) * 100.0
    adata.obsm["hggep"] = np.ones((9, 6), np.float32)
    adata.obs["hggep_novelty"] = np.float32(novelty)
    adata.uns["hggep"] = {"tool": "sthggep", "genes": np.array(CASES, dtype=object), "units": "log"}
    adata.uns["hggep"]["held_out_pearson"] = np.array([0.5, 0.15, 0.12, 0.01, 0.3, 0.3])
    if evidence is not None:
        adata.uns["hggep"]["evidence"] = evidence.to_arrays()
    return adata


def test_each_verdict_has_its_reason():
    adata = table(evidence_of())
    found = tl.trust(adata)
    assert found.index.tolist() == list(CASES)
    assert found["verdict"].tolist() == ["spot", "region", "not predicted", "not predicted", *["cannot be judged"] * 2]
    reasons = dict(zip(CASES, found["reason"], strict=True))
    assert "spot by spot" in reasons["spot"]
    assert "regions" in reasons["region"]
    assert "too weakly" in reasons["weak"]
    assert "not correlated" in reasons["noise"]
    assert "few spots" in reasons["rare"]
    assert "noise" in reasons["hidden"]
    assert found["reliable_at_um"].tolist()[:2] == [55.0, SCALES_UM[4]]
    assert found.loc[["weak", "noise", "rare"], "reliable_at_um"].isna().all()
    assert found.loc["spot", "q_value"] < 1e-4 < 0.05 < found.loc["noise", "q_value"]
    assert (found["pearson_low"] < found["held_out_pearson"]).all()
    assert (found["held_out_pearson"] < found["pearson_high"]).all()
    pd.testing.assert_frame_equal(adata.uns["hggep_trust"], found)


def test_verdicts_of_one_section_come_with_a_caution(caplog):
    adata = table(evidence_of())
    for n_sections, said in ((2, False), (1, True)):
        adata.uns["hggep"]["n_training_sections"] = n_sections
        with caplog.at_level("INFO", logger="sthggep"):
            tl.trust(adata)
        assert ("verdicts may not hold there" in caplog.text) == said


def test_thresholds_move_the_verdicts():
    adata = table(evidence_of())
    assert tl.trust(adata, confidence=0.5)["verdict"]["weak"] == "region"
    assert tl.trust(adata, share=0.1)["verdict"]["region"] == "spot"
    assert tl.trust(adata, region_share=0.7)["verdict"]["region"] == "not predicted"
    assert tl.trust(adata, ceiling=0.1)["verdict"]["hidden"] == "spot"
    assert tl.trust(adata, detected=0.0)["verdict"]["rare"] == "spot"
    assert tl.trust(adata, fdr=0.0)["verdict"]["spot"] == "not predicted"


def test_sections_that_differ_give_less_confidence():
    steady, shaky = evidence_of(), evidence_of()
    shaky.z[:, 0] += np.array([-6, 6, -6, 6], np.float32)
    verdicts = [judge(each, list(CASES), Thresholds(), unlike=False)["verdict"]["spot"] for each in (steady, shaky)]
    assert verdicts == ["spot", "not predicted"]
    one = judge(evidence_of(1), list(CASES), Thresholds(), unlike=False)["verdict"]
    assert one["spot"] == "spot"


def test_unlike_tissue_is_judged_by_held_out_patients_only():
    found = tl.trust(table(evidence_of(), novelty=0.9))
    assert (found["verdict"] == "cannot be judged").all()
    assert found["reason"].str.contains("unlike the training tissue").all()
    assert tl.trust(table(evidence_of(), novelty=0.9), unlike=0.95)["verdict"]["spot"] == "spot"
    two = tl.trust(table(evidence_of(n_patients=2), novelty=0.9))
    assert (two["verdict"] == "cannot be judged").all()
    # Three patients, for whom the genes follow in the reverse order
    three = tl.trust(table(evidence_of(n_patients=3), novelty=0.9))
    assert three["verdict"]["spot"] == "not predicted" or three["held_out_pearson"]["spot"] == pytest.approx(0.3)
    assert three["held_out_pearson"]["noise"] == pytest.approx(0.12)
    assert three["held_out_pearson"]["hidden"] == pytest.approx(0.5)


def test_top_genes_are_those_that_can_be_trusted(caplog):
    adata = table(evidence_of())
    with caplog.at_level("INFO"):
        assert tl.top_genes(adata, 5) == ["spot", "region"]
    assert "can be trusted" in caplog.text
    with pytest.warns(UserWarning, match="No gene of this prediction can be trusted"):
        assert tl.top_genes(table(evidence_of(), novelty=0.9), 2) == ["spot", "rare"]
    assert tl.top_genes(table(None), 1) == ["spot"]


def test_top_genes_of_several_sections(tmp_path):
    both = ad.concat(
        {"a": table(evidence_of()), "b": table(evidence_of(), novelty=0.9)},
        label="name",
        index_unique="-",
        uns_merge="same",
    )
    both.obsm["spatial"] = both.obsm["spatial"] + (both.obs["name"] == "b").to_numpy()[:, None] * 1000
    assert tl.top_genes(both, 2, library_key="name") == ["spot", "region"]
    found = tl.trust(both, library_key="name")
    assert found.groupby("section")["verdict"].apply(lambda v: (v == "cannot be judged").all()).to_dict() == {
        "a": False,
        "b": True,
    }


def test_a_model_that_held_nothing_out_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="held out of its training"):
        tl.trust(table(None))
    adata = table(evidence_of())
    adata.uns["hggep_trust"] = "mine"
    with pytest.raises(ValueError, match="left alone"):
        tl.trust(adata)


def test_verdicts_survive_a_file(tmp_path):
    adata = table(evidence_of(n_patients=0))
    expected = tl.trust(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(tl.trust(again), expected, check_dtype=False)


def test_real_fit_calls_noise_noise(slides, fit_options):
    model = tl.fit(slides[:2], **fit_options | {"n_members": 0})
    tl.predict(slides[2], model, genes=model.genes[:9], show_progress_bar=False)
    found = tl.trust(slides[2])
    assert found.index.tolist() == model.genes[:9]
    noise = [gene for gene in found.index if gene.startswith("NOISE")]
    assert noise
    assert not set(found.loc[noise, "verdict"]) & {"spot", "region"}
    assert (found["verdict"] == "spot").sum() >= 3
    scores = tl.evaluate(slides[2])["pearson"]
    assert scores[found["verdict"] == "spot"].min() > 0.1


@pytest.fixture(scope="module")
def with_sets(_sections, fit_options) -> HGGEP:
    panel = list(_sections[0].var_names)
    sets = {"nuclei": [g for g in panel if g.startswith("NUCL")], "noise": [g for g in panel if g.startswith("NOISE")]}
    assert all(len(genes) > 1 for genes in sets.values())
    return tl.fit(_sections[:2], **fit_options | {"n_members": 0, "genes": panel, "gene_sets": sets})


def test_gene_sets_and_programs_are_judged_like_genes(with_sets, slides, tmp_path):
    slide = slides[2]
    tl.predict(slide, with_sets, latent=True, show_progress_bar=False)
    alone = tl.trust(slide)
    found = tl.trust(slide, gene_sets=True, programs=True)
    assert found["kind"].value_counts().to_dict() == {
        "gene": len(with_sets.genes),
        "gene set": 2,
        "program": slide.obsm["X_hggep"].shape[1],
    }
    pd.testing.assert_frame_equal(
        found[found["kind"] == "gene"].drop(columns="kind"), alone, check_names=False, check_like=True
    )
    sets = found[found["kind"] == "gene set"]
    assert sets.index.tolist() == ["nuclei", "noise"]
    assert sets.loc["nuclei", "verdict"] == "spot"
    assert sets.loc["noise", "verdict"] not in ("spot", "region")
    # The mean of genes that follow one tissue is less noisy than each of them
    members = alone.loc[with_sets.training.gene_sets["nuclei"]]
    assert sets.loc["nuclei", "held_out_pearson"] > members["held_out_pearson"].mean()
    assert sets.loc["nuclei", "ceiling"] > members["ceiling"].mean()
    assert sets.loc["nuclei", "detected"] >= members["detected"].max()
    assert found.loc["program 0", "verdict"] == "spot"
    slide.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(tl.trust(again, gene_sets=True, programs=True), found, check_dtype=False)
    with_sets.save(tmp_path / "model")
    assert HGGEP.load(tmp_path / "model").id == with_sets.id
    assert HGGEP.load(tmp_path / "model").training.gene_sets == with_sets.training.gene_sets


def test_gene_sets_by_name_and_where_none_are_known(with_sets, slides):
    slide = slides[2]
    tl.predict(slide, with_sets, show_progress_bar=False)
    assert tl.trust(slide, gene_sets=["noise"]).query("kind == 'gene set'").index.tolist() == ["noise"]
    with pytest.raises(
        KeyError, match=r"'other' is not in the gene sets .*'nuclei', 'noise'.*tl\.fit\(slides, gene_sets"
    ):
        tl.trust(slide, gene_sets=["other"])
    with pytest.raises(TypeError, match="`gene_sets` must be True or False or a list of names"):
        tl.trust(slide, gene_sets={"noise": ["NOISE1"]})
    # Sets of which the prediction holds all genes
    noise = with_sets.training.gene_sets["noise"]
    tl.predict(slide, with_sets, genes=[*noise, with_sets.genes[0]], show_progress_bar=False)
    assert tl.trust(slide, gene_sets=True).query("kind == 'gene set'").index.tolist() == ["noise"]
    tl.predict(slide, with_sets, genes=noise[:1], show_progress_bar=False)
    with pytest.raises(ValueError, match=r"nothing about gene sets.*tl\.fit\(slides, gene_sets="):
        tl.trust(slide, gene_sets=True)
    with pytest.raises(ValueError, match="nothing about gene programs"):
        tl.trust(table(evidence_of()), programs=True)


def test_gene_sets_are_refused_before_training(slides, fit_options):
    options = fit_options | {"n_members": 0}
    sets = {"noise": ["NOISE1", "NOISE2"]}
    with pytest.raises(ValueError, match="`validation=None` holds out none"):
        tl.fit(slides[:2], **options, gene_sets=sets, validation=None)
    with pytest.raises(ValueError, match="Of no set in `gene_sets`"):
        tl.fit(slides[:2], **options, gene_sets={"other": ["A", "B"]})
    with pytest.raises(FileNotFoundError, match=r"no file 'sets\.gmt'"):
        tl.fit(slides[:2], **options, gene_sets="sets.gmt")
    slides[0].obs["score"] = slides[1].obs["score"] = 1.0
    with pytest.raises(ValueError, match="`targets` replaces genes and their counts, but you passed `gene_sets`"):
        tl.fit(slides[:2], **options, gene_sets=sets, targets=["score"])


def test_a_saved_model_with_other_gene_sets_is_refused(with_sets, tmp_path):
    with_sets.save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    sets = config["training"]["gene_sets"]
    for other, words in (
        ({**sets, "noise": ["ELSEWHERE"]}, "the set 'noise' must hold genes of the model"),
        ({"noise": sets["noise"]}, "do not belong together"),
    ):
        config["training"]["gene_sets"] = other
        path.write_text(json.dumps(config))
        with pytest.raises(ValueError, match=words):
            HGGEP.load(tmp_path / "model")


def test_fine_tuning_keeps_the_gene_sets(with_sets, slides):
    noise = with_sets.training.gene_sets["noise"]
    with pytest.warns(UserWarning, match="was trained on 'toy2' before"):
        tuned = tl.fit(slides[1:], model=with_sets, genes=[*noise, *with_sets.genes[:2]], show_progress_bar=False)
    assert list(tuned.training.gene_sets) == ["noise"]
    assert tuned.calibration.held_out.set_evidence.ceiling.shape == (1,)
    assert tuned.calibration.held_out.program_evidence is not None


def test_cross_validation_compares_verdicts_with_the_held_out_sections(slides, fit_options):
    options = {name: value for name, value in fit_options.items() if name != "genes"} | {"n_members": 0}
    results = tl.cross_validate(slides, group_key="section", trust=True, baselines=(), **options)
    wide = results[results["method"] == "hggep"].pivot_table(
        index=["section", "gene"], columns="metric", values="value"
    )
    assert {"trusted", "correlated", "novelty"} <= set(wide)
    assert set(wide["trusted"].dropna()) == {0.0, 1.0}
    assert wide.loc[wide["trusted"] == 1, "correlated"].mean() >= 0.8
    assert wide.loc[wide["pearson"] > 0.6, "correlated"].mean() >= 0.9
    assert (wide.groupby("section")["novelty"].nunique() == 1).all()
    assert wide["novelty"].between(0, 1).all()
    plain = tl.cross_validate(slides, group_key="section", baselines=(), **options)
    assert not {"trusted", "correlated", "novelty"} & set(plain["metric"])
    with pytest.raises(ValueError, match="`trust` needs tissue"):
        tl.cross_validate(slides, group_key="section", trust=True, **options | {"validation": None})
