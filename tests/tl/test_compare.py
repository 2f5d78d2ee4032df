"""Predictions of several methods: one truth, the same spots and genes, paired intervals, leaks, what is refused."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from sthggep import datasets, tl
from sthggep._keys import UNITS
from sthggep._table._counts import log10_cp10k
from sthggep.tl._comparison._paired import paired_differences
from sthggep.tl._comparison._scored import Compared

N_GENES = 20


def dense(values) -> np.ndarray:
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


@cache
def toy(seed: int, patient: str | None) -> ad.AnnData:
    return datasets.toy(seed=seed, size_um=(2600.0, 2600.0), mpp=6.0, n_genes=24, patient=patient)


def section(seed: int = 0, patient: str | None = None) -> ad.AnnData:
    """Toy tissue with two predictions: ``"a"`` is the truth, ``"b"`` the truth and noise; 20 of 24 genes."""
    adata = toy(seed, patient).copy()
    adata.obs_names = [f"{seed}-{name}" for name in adata.obs_names]
    truth = np.log10(1 + dense(adata.layers["true_rate"])[:, :N_GENES]).astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, 0.3, truth.shape).astype(np.float32)
    record = {"tool": "sthggep", "genes": np.array(adata.var_names[:N_GENES], dtype=object), "units": UNITS}
    for key, values in {"a": truth, "b": truth + noise}.items():
        adata.obsm[key], adata.uns[key] = values, {**record, "params": {}}
    return adata


def theirs(adata: ad.AnnData, noise: float = 0.5, genes: slice = slice(2, N_GENES)) -> ad.AnnData:
    """Predicted expression as another tool writes it: no record, another scale, spots in another order."""
    values = adata.obsm["a"] + np.random.default_rng(9).normal(0, noise, adata.obsm["a"].shape)
    out = ad.AnnData(
        (7 * values[:, genes] - 3).astype(np.float32),
        obs=pd.DataFrame(index=adata.obs_names),
        var=pd.DataFrame(index=adata.var_names[:N_GENES][genes]),
        obsm={"spatial": adata.obsm["spatial"][:, ::-1] / 4},
    )
    return out[np.random.default_rng(1).permutation(out.n_obs)].copy()


@pytest.fixture
def slide() -> ad.AnnData:
    return section()


@pytest.fixture(scope="module")
def three() -> list[ad.AnnData]:
    return [section(seed) for seed in range(3)]


def of(result: tl.Comparison, method: str) -> pd.DataFrame:
    return result.scores[result.scores["method"] == method].set_index("gene")


# ---------------------------------------------------------------- scores


def test_scores_are_those_of_evaluate(slide):
    result = tl.compare({"a": "a", "b": "b"}, slide)
    for key in ("a", "b"):
        expected = tl.evaluate(slide, key)
        for column in ("pearson", "spearman", "rmse"):
            np.testing.assert_allclose(of(result, key)[column], expected[column], rtol=1e-6)
        np.testing.assert_allclose(of(result, key)["ceiling"], expected["ceiling"], atol=0.05)
    assert list(result.summary.index) == ["a", "b", "mean"]
    assert result.summary.loc["a", "pearson"] == pytest.approx(of(result, "a")["pearson"].mean())
    ceiling = of(result, "a")["ceiling"].mean()
    assert result.summary.loc["a", "of_ceiling"] == pytest.approx(of(result, "a")["pearson"].mean() / ceiling)
    assert (of(result, "mean")["pearson"] == 0).all()
    measured = log10_cp10k(dense(slide.X)[:, :N_GENES].astype(np.float32))
    np.testing.assert_allclose(of(result, "mean")["rmse"], measured.std(axis=0), rtol=1e-5)
    assert list(result.scores.columns) == [
        *("section", "group", "method", "gene", "pearson", "spearman", "rmse", "ceiling", "verdict", "leak")
    ]


def test_other_tools_are_aligned_by_names(slide):
    foreign = theirs(slide)
    result = tl.compare({"a": "a", "theirs": foreign}, slide)
    genes = list(slide.var_names[2:N_GENES])
    assert list(of(result, "theirs").index) == list(of(result, "a").index) == genes
    measured = log10_cp10k(dense(slide.X)[:, :N_GENES].astype(np.float32))[:, 2:]
    ordered = dense(foreign[slide.obs_names].X)
    expected = [stats.pearsonr(x, y).statistic for x, y in zip(ordered.T, measured.T, strict=True)]
    np.testing.assert_allclose(of(result, "theirs")["pearson"], expected, rtol=1e-5)
    assert of(result, "theirs")["rmse"].isna().all(), "their scale is not known"
    assert of(result, "a")["rmse"].notna().all()
    assert result.left_out.values.tolist() == [
        ["toy1", gene, "not predicted by theirs"] for gene in slide.var_names[:2]
    ]


def forms(slide: ad.AnnData, folder: Path) -> dict[str, object]:
    foreign = theirs(slide)
    frame = foreign.to_df()
    path = folder / "theirs.h5ad"
    foreign.write_h5ad(path)
    sparse_form = foreign.copy()
    sparse_form.X = sparse.csr_matrix(foreign.X)
    own = foreign[slide.obs_names]
    return {
        "AnnData": foreign,
        "sparse": sparse_form,
        "frame": frame,
        "path": path,
        "text": str(path),
        "array": (own.X, list(own.var_names)),
        "list": [foreign],
    }


def test_all_forms_of_a_prediction_give_the_same_scores(slide, tmp_path):
    result = tl.compare(forms(slide, tmp_path), slide, n_boot=0)
    first, *others = (of(result, name)["pearson"] for name in result.summary.index if name != "mean")
    assert len(others) == 6
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5)


def test_predictions_by_sthggep_in_any_object(slide, tmp_path):
    alone = tl.to_adata(slide, "a")
    carrier = slide.copy()
    for key in ("b",):
        del carrier.obsm[key], carrier.uns[key]
    carrier.write_h5ad(tmp_path / "carrier.h5ad")
    result = tl.compare(
        {"carrier": carrier, "key": "a", "alone": alone, "file": tmp_path / "carrier.h5ad"}, slide, n_boot=0
    )
    for name in ("key", "alone", "file"):
        np.testing.assert_allclose(of(result, name)["pearson"], of(result, "carrier")["pearson"])
        assert of(result, name)["rmse"].notna().all()
    without = tl.compare({"alone": alone, "carrier": carrier}, n_boot=0)
    pd.testing.assert_series_equal(of(without, "carrier")["pearson"], of(result, "carrier")["pearson"])


def test_tables_of_spatialdata():
    sdata = datasets.toy(size_um=(2600.0, 2600.0), mpp=6.0, n_genes=12, as_spatialdata=True)
    table = sdata["table"]
    values = np.log10(1 + dense(table.layers["true_rate"])).astype(np.float32)
    frame = pd.DataFrame(values, index=table.obs_names, columns=table.var_names)
    result = tl.compare({"truth": frame, "half": frame.iloc[:, :6]}, sdata, n_boot=20)
    assert result.scores["gene"].nunique() == 6
    assert set(result.left_out["reason"]) == {"not predicted by half"}
    assert result.summary.loc["half", "difference"] == pytest.approx(0, abs=1e-9)


def test_genes_by_other_names(slide):
    slide.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
    foreign = theirs(slide)
    plain = tl.compare({"a": "a", "theirs": foreign}, slide, n_boot=0)
    foreign.var_names = [f"{slide.var.loc[gene, 'gene_ids']}.3" for gene in foreign.var_names]
    result = tl.compare({"a": "a", "theirs": foreign}, slide, n_boot=0)
    pd.testing.assert_frame_equal(result.scores, plain.scores)
    assert result.left_out["gene"].tolist() == list(slide.var_names[:2])


def test_scale_is_that_of_the_panel(slide):
    frame = theirs(slide).to_df()
    whole = tl.compare({"theirs": frame}, slide, n_boot=0)
    assert whole.parameters["n_panel"] == [24]
    all_genes = log10_cp10k(dense(slide.X).astype(np.float32))[:, 2:N_GENES]
    expected = [
        stats.pearsonr(x, y).statistic
        for x, y in zip(frame.loc[slide.obs_names].to_numpy().T, all_genes.T, strict=True)
    ]
    np.testing.assert_allclose(of(whole, "theirs")["pearson"], expected, rtol=1e-4)
    with_record = tl.compare({"theirs": frame, "a": "a"}, slide, n_boot=0)
    assert with_record.parameters["n_panel"] == [N_GENES]
    chosen = tl.compare({"theirs": frame, "a": "a"}, slide, panel=slide.var_names[:10], n_boot=0)
    assert list(of(chosen, "a").index) == list(slide.var_names[2:10])
    assert set(chosen.left_out["reason"]) == {"not in the panel", "not predicted by theirs"}
    assert chosen.scores.query("method == 'a'")["rmse"].isna().all(), "the scale is another one"


def test_chosen_genes_and_genes_that_were_not_measured(slide):
    foreign = theirs(slide).to_df().assign(UNMEASURED=1.0)
    genes = list(slide.var_names[5:8])
    result = tl.compare({"theirs": foreign}, slide, genes=genes, n_boot=0)
    assert list(of(result, "theirs").index) == genes
    assert len(result.left_out) == 0
    whole = tl.compare({"theirs": foreign}, slide, n_boot=0)
    assert whole.left_out[["gene", "reason"]].values.tolist() == [["UNMEASURED", "not in the counts"]]


def test_constant_predictions_count_zero_and_constant_counts_nothing(slide):
    frame = theirs(slide).to_df()
    frame.iloc[:, 0] = 3.0
    counts = dense(slide.X).copy()
    counts[:, 3] = 0
    slide.X = counts
    result = tl.compare({"theirs": frame, "again": frame}, slide)
    first, second = slide.var_names[2], slide.var_names[3]
    assert of(result, "theirs").loc[first, "pearson"] == 0
    assert np.isnan(of(result, "theirs").loc[second, "pearson"])
    assert np.isnan(of(result, "mean").loc[second, "pearson"])
    assert result.summary.loc["theirs", "pearson"] == pytest.approx(of(result, "theirs")["pearson"].mean())
    assert result.summary.loc["theirs", "n_constant"] == 1
    assert (result.differences.query("method == 'again'")["difference"] == 0).all()


def test_user_data_do_not_change(slide):
    copy, foreign = slide.copy(), theirs(slide)
    before = foreign.copy()
    tl.compare({"a": "a", "theirs": foreign}, slide)
    assert set(slide.uns) == set(copy.uns)
    assert set(slide.obsm) == set(copy.obsm)
    np.testing.assert_array_equal(foreign.X, before.X)


# ---------------------------------------------------------------- intervals


def table_of_differences(sections: dict[str, str | None], shifts: dict[str, float], n: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for name, patient in sections.items():
        base = rng.uniform(0, 0.5, n)
        for method, values in {"first": base, "second": base + shifts[name] + rng.normal(0, 0.02, n)}.items():
            columns = {"section": name, "group": patient, "method": method, "gene": [f"g{i}" for i in range(n)]}
            rows.append(pd.DataFrame({**columns, "pearson": values}))
    return pd.concat(rows, ignore_index=True)


def none_sampled(names) -> dict[str, Compared]:
    return {name: Compared(pd.DataFrame(), {}, {}) for name in names}


def test_intervals_by_hand():
    shifts = {"S1": 0.1, "S2": 0.02, "S3": 0.05, "S4": -0.01}
    scores = table_of_differences({"S1": "P1", "S2": "P1", "S3": "P2", "S4": "P3"}, shifts)
    table = paired_differences(none_sampled(shifts), scores, 0.9).set_index(["section", "unit"])
    wide = scores.pivot(index="gene", columns=["method", "section"], values="pearson")
    differences = wide["second"] - wide["first"]
    one = differences["S1"]
    low, high = stats.t.interval(0.9, 7, one.mean(), stats.sem(one))
    np.testing.assert_allclose(
        table.loc[("S1", "genes"), ["difference", "low", "high"]].astype(float), [one.mean(), low, high]
    )
    means = differences.mean()
    low, high = stats.t.interval(0.9, 3, means.mean(), stats.sem(means))
    row = table.loc[("all sections", "sections")]
    np.testing.assert_allclose(row[["difference", "low", "high"]].astype(float), [means.mean(), low, high])
    assert row["better"] == 0.75
    # patients: deviations of P1's two sections add up before they are squared
    away = means - means.mean()
    sums = np.array([away["S1"] + away["S2"], away["S3"], away["S4"]])
    step = stats.t.ppf(0.95, 2) * np.sqrt(3 / 2 * (sums**2).sum()) / 4
    row = table.loc[("all sections", "patients")]
    np.testing.assert_allclose(row[["low", "high"]].astype(float), [means.mean() - step, means.mean() + step])
    assert row["n"] == 3
    assert table.loc[("all sections", "genes"), "difference"] == pytest.approx(means.mean())
    scores.loc[scores["section"] == "S2", "group"] = None
    assert "patients" not in set(paired_differences(none_sampled(shifts), scores, 0.9)["unit"]), "one is unknown"


@pytest.mark.parametrize(
    ("patients", "unit"),
    [
        pytest.param(("P1", "P2", "P3"), "patients", id="three patients"),
        pytest.param(("P1", "P1", "P2"), "sections", id="two patients"),
        pytest.param((None, "P1", "P2"), "sections", id="an unknown patient"),
        pytest.param(("P1", "P2"), "spots", id="two sections"),
    ],
)
def test_the_summary_makes_the_widest_claim(three, patients, unit):
    slides = []
    for data, patient in zip(three, patients, strict=False):
        data = data.copy()
        data.obs["patient"] = patient
        slides.append(data)
    result = tl.compare({"a": "a", "b": "b"}, slides, n_boot=50)
    row = result.summary.loc["b"]
    assert row["unit"] == unit
    assert row["low"] < row["difference"] < row["high"] < 0
    by_section = result.scores.groupby(["method", "section"])["pearson"].mean()
    assert row["difference"] == pytest.approx(by_section["b"].mean() - by_section["a"].mean())


def test_without_blocks_the_interval_is_over_genes(slide):
    result = tl.compare({"a": "a", "b": "b"}, slide, n_boot=0)
    assert result.summary.loc["b", "unit"] == "genes"
    assert set(result.differences["unit"]) == {"genes"}
    few = slide[:7].copy()
    assert set(tl.compare({"a": "a", "b": "b"}, few).differences["unit"]) == {"genes"}


def test_samples_of_spots_are_paired(slide):
    """A method against itself on another scale differs by nothing, in every sample."""
    slide.obsm["b"] = 3 * slide.obsm["a"] + 1
    rows = tl.compare({"a": "a", "b": "b"}, slide).differences.query("method == 'b'")
    np.testing.assert_allclose(rows[["difference", "low", "high"]], 0, atol=1e-6)
    apart = tl.compare({"a": "a", "b": theirs(slide)}, slide, level=0.5).differences.query("unit == 'spots'")
    wide = tl.compare({"a": "a", "b": theirs(slide)}, slide, level=0.99).differences.query("unit == 'spots'")
    assert (wide["low"] < apart["low"]).all()
    assert (wide["high"] > apart["high"]).all()


def test_the_seed_determines_the_result(slide):
    one, two = (tl.compare({"a": "a", "b": "b"}, slide, n_boot=20, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(one.differences, two.differences)
    pd.testing.assert_frame_equal(one.scores, two.scores)


# ---------------------------------------------------------------- sections


def test_sections_of_one_object_and_of_many(three):
    together = ad.concat(three)
    genes = np.array(three[0].var_names[:N_GENES], dtype=object)
    for key in ("a", "b"):
        together.uns[key] = {"tool": "sthggep", "genes": genes, "units": UNITS, "params": {}}
    one = tl.compare({"a": "a", "b": "b"}, together, library_key="section", n_boot=20)
    many = tl.compare({"a": "a", "b": "b"}, three, n_boot=20)
    pd.testing.assert_frame_equal(one.scores.drop(columns="ceiling"), many.scores.drop(columns="ceiling"))
    foreign = ad.concat([theirs(data) for data in three])
    parts = [theirs(data) for data in three]
    by_name = tl.compare({"a": "a", "whole": foreign, "list": parts}, three, n_boot=0)
    np.testing.assert_allclose(of(by_name, "whole")["pearson"], of(by_name, "list")["pearson"], rtol=1e-5)


def test_sections_without_a_prediction_are_left_out(three):
    slides = [data.copy() for data in three[:2]]
    slides[1].obsm["b"][:] = np.nan
    with pytest.warns(UserWarning, match="'toy2' is not compared: 'b' did not predict it"):
        result = tl.compare({"a": "a", "b": "b"}, slides, n_boot=0)
    assert set(result.scores["section"]) == {"toy1"}
    with (
        pytest.warns(UserWarning, match="not compared"),
        pytest.raises(ValueError, match="No section is predicted by all methods"),
    ):
        tl.compare({"a": "a", "b": "b"}, slides[1], n_boot=0)


# ---------------------------------------------------------------- leaks and verdicts


def test_training_tissue_is_warned_of(slide):
    slide.uns["a"]["params"] = {"learned_from": ["toy1"]}
    with pytest.warns(UserWarning, match=r"trained on \('toy1 \(a\)'\)"):
        result = tl.compare({"a": "a", "b": "b"}, slide, n_boot=0)
    assert set(of(result, "a")["leak"]) == {"training tissue"}
    assert set(of(result, "mean")["leak"]) == {""}
    assert result.summary["leak"].tolist() == ["training tissue", "", ""]
    assert tl.compare({"b": "b", "theirs": theirs(slide)}, slide, n_boot=0).summary.loc["theirs", "leak"] == "not known"


def test_training_sections_of_other_tools(three):
    slide, other, foreign = three[0], three[1].copy(), theirs(three[0])
    renamed = slide.copy()
    renamed.uns["spatial"] = {"other name": renamed.uns["spatial"]["toy1"]}
    with pytest.warns(UserWarning, match=r"trained on \('toy1 \(theirs\)'\)"):
        result = tl.compare({"theirs": foreign}, slide, training={"theirs": renamed}, n_boot=0)
    assert set(of(result, "theirs")["leak"]) == {"training tissue"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        clean = tl.compare({"theirs": foreign}, slide, training={"theirs": [other]}, n_boot=0)
    assert set(of(clean, "theirs")["leak"]) == {""}
    other.obs["patient"] = "Toy-1"
    with pytest.warns(UserWarning, match="other sections of the patients of 'toy1'"):
        result = tl.compare({"theirs": foreign}, slide, training={"theirs": [other]}, n_boot=0)
    assert set(of(result, "theirs")["leak"]) == {"same patient"}


def test_the_summary_shows_the_worst_leak(three):
    slides = [data.copy() for data in three[:2]]
    slides[1].obs["patient"] = "another"
    with pytest.warns(UserWarning, match="trained on"):
        result = tl.compare({"a": "a", "b": "b"}, slides, training={"b": three[1]}, n_boot=0)
    assert result.scores.query("method == 'b'").groupby("section")["leak"].first().tolist() == ["", "training tissue"]
    assert result.summary["leak"].tolist() == ["", "training tissue", ""]


def test_the_counts_themselves_are_no_prediction(slide):
    copied = slide[:, :N_GENES].copy()
    copied.uns = {}
    with pytest.warns(UserWarning, match="'copied' agrees with the counts of 'toy1' better than their noise allows"):
        tl.compare({"a": "a", "copied": copied}, slide, n_boot=0)
    measured = log10_cp10k(dense(copied.X).astype(np.float32))
    copied.X = measured + np.random.default_rng(0).normal(0, 0.2 * measured.std(axis=0), measured.shape)
    with pytest.warns(UserWarning, match="'noisy copy' agrees with"):
        tl.compare({"a": "a", "noisy copy": copied}, slide, n_boot=0)


def test_verdicts_are_counted(slide, monkeypatch):
    verdicts = ["spot"] * 5 + ["region"] * 3 + ["not predicted"] * 12
    table = pd.DataFrame({"verdict": pd.Categorical(verdicts)}, index=slide.var_names[:N_GENES])
    of_key = {"a": table, "b": None}
    monkeypatch.setattr("sthggep.tl._comparison._scored.verdicts_of", lambda _, key, genes: of_key[key])
    result = tl.compare({"a": "a", "b": "b", "theirs": theirs(slide)}, slide, n_boot=0)
    assert of(result, "a")["verdict"].tolist() == verdicts[2:]
    assert result.summary.loc["a", "n_trusted"] == 6
    assert result.summary.loc[["b", "theirs", "mean"], "n_trusted"].isna().all()


# ---------------------------------------------------------------- refused


def test_absent_spots_are_refused(slide):
    foreign = theirs(slide)
    with pytest.raises(ValueError, match=r"'theirs' lacks 3 spots of the \d+ of section 'toy1'"):
        tl.compare({"a": "a", "theirs": foreign[:-3].copy()}, slide)
    foreign.obs_names = [f"{name}-1" for name in foreign.obs_names]
    with pytest.raises(ValueError, match="rename its spots to the obs_names"):
        tl.compare({"a": "a", "theirs": foreign}, slide)


def test_more_spots_than_the_slide_are_fine(slide):
    some = slide[: slide.n_obs // 2].copy()
    result = tl.compare({"a": "a", "theirs": theirs(slide)}, some, n_boot=0)
    assert of(result, "theirs")["pearson"].notna().all()


def test_spots_of_the_same_names_elsewhere_are_refused(slide):
    foreign = theirs(slide)
    foreign.obs_names = np.random.default_rng(2).permutation(foreign.obs_names)
    with pytest.raises(ValueError, match="at other places"):
        tl.compare({"theirs": foreign}, slide)


def test_names_that_occur_twice_are_refused(three):
    slide = three[0]
    frame = theirs(slide).to_df()
    with pytest.raises(ValueError, match=r"Genes of the prediction 'x' must be unique"):
        tl.compare({"x": pd.concat([frame, frame.iloc[:, :1]], axis=1)}, slide)
    with pytest.raises(ValueError, match=r"Spots of the prediction 'x' must be unique"):
        tl.compare({"x": pd.concat([frame, frame.iloc[:1]])}, slide)
    twins = [three[0], three[1].copy()]
    twins[1].obs_names = [*three[0].obs_names, *three[1].obs_names][: twins[1].n_obs]
    with pytest.raises(ValueError, match="Pass a list with one prediction for each slide"):
        tl.compare({"x": frame}, twins)


def test_one_gene_by_two_names_is_refused(slide):
    frame = theirs(slide).to_df()
    slide.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
    frame.columns = list(slide.var.loc[frame.columns, "gene_ids"])
    frame[slide.var_names[5]] = 1.0
    with pytest.raises(
        ValueError, match="'x' has two columns for the gene 'NICH1' of the slide: 'ENSG00000000005', 'NICH1'"
    ):
        tl.compare({"x": frame}, slide)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(slide, wrong):
    frame = theirs(slide).to_df()
    frame.iloc[3, 4] = wrong
    with pytest.raises(ValueError, match=r"'x' holds 1 value NaN or infinite in section 'toy1', in 1 gene: 'NOISE1'"):
        tl.compare({"x": frame}, slide)
    tl.compare({"x": frame}, slide, genes=list(slide.var_names[10:14]), n_boot=0)


def test_wrong_arguments(slide):
    foreign = theirs(slide)
    with pytest.raises(ValueError, match="'mean' is the name of the baseline"):
        tl.compare({"mean": "a"}, slide)
    with pytest.raises(ValueError, match="must map names to predictions"):
        tl.compare({}, slide)
    with pytest.raises(ValueError, match="No prediction carries counts"):
        tl.compare({"theirs": foreign})
    with pytest.raises(KeyError, match="Predictions: "):
        tl.compare({"x": "absent"}, slide)
    with pytest.raises(TypeError, match="must be the key of a prediction"):
        tl.compare({"x": 3}, slide)
    with pytest.raises(TypeError, match="a list with one prediction for each slide"):
        tl.compare({"x": (foreign, foreign)}, slide)
    with pytest.raises(ValueError, match="found the shape"):
        tl.compare({"x": (foreign.X[:4], list(foreign.var_names))}, slide)
    with pytest.raises(ValueError, match="is a list of 2, but there are 1 slide"):
        tl.compare({"x": [foreign, foreign]}, slide)
    with pytest.raises(ValueError, match="carries several predictions: 'a', 'b'"):
        tl.compare({"x": slide}, slide)
    with pytest.raises(ValueError, match="No gene is predicted by all 2 methods"):
        tl.compare({"a": "a", "x": foreign.to_df().add_prefix("no-")}, slide)
    with pytest.raises(ValueError, match="Unknown method in `training`"):
        tl.compare({"a": "a"}, slide, training={"b": slide})
    with pytest.raises(TypeError, match="with counts, or a list"):
        tl.compare({"a": "a"}, slide, training={"a": "b.h5ad"})
    with pytest.raises(ValueError, match="level"):
        tl.compare({"a": "a"}, slide, level=1.0)


# ---------------------------------------------------------------- folds


def test_folds_are_those_of_the_cross_validation():
    slides = [section(seed, patient) for seed, patient in enumerate(("P1", "P1", "P2"))]
    folds = tl.folds(slides)
    assert folds.query("role == 'test'")[["fold", "section", "slide"]].values.tolist() == [
        [0, "toy1", 0],
        [0, "toy2", 1],
        [1, "toy3", 2],
    ]
    assert folds.query("role == 'train'")[["fold", "section"]].values.tolist() == [
        [0, "toy3"],
        [1, "toy1"],
        [1, "toy2"],
    ]
    by_section = tl.folds(slides, group_key="section").query("role == 'test'")
    assert by_section["leak"].tolist() == ["same patient", "same patient", ""]
    results = tl.cross_validate(
        slides,
        genes=list(slides[0].var_names[:4]),
        obsm="morphology",
        n_members=0,
        baselines=["mean"],
        show_progress_bar=False,
    )
    assert [record["sections"] for record in results.attrs["folds"]] == [["toy1", "toy2"], ["toy3"]]


def test_folds_refuse_leaks():
    slides = [section(0, "P1"), section(0, "P2")]
    slides[1].uns["spatial"] = {"copy": slides[1].uns["spatial"]["toy1"]}
    with pytest.raises(ValueError, match="trained on the tissue that it predicts"):
        tl.folds(slides)
    slides = [section(0, "P1"), section(1, "p-01")]
    with pytest.raises(ValueError, match="spell one patient in several ways"):
        tl.folds(slides)


def test_spots_whose_counts_a_method_used_are_left_out():
    slides = [datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=8.0, n_genes=16) for seed in range(2)]
    for slide in slides:
        slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    quiet = {"show_progress_bar": False, "device": "cpu"}
    genes = list(slides[0].var_names)
    model = tl.fit(slides[0], genes=genes, n_members=0, obsm="X_mine", **quiet)
    slide, mask = slides[1], np.arange(slides[1].n_obs) % 3 == 0
    tl.predict(slide, model, key_added="before", **quiet)
    tl.predict(slide, model, measured=mask, key_added="after", **quiet)
    scores = tl.compare({"before": "before", "after": "after"}, slide, n_boot=0).scores
    alone = tl.evaluate(slide[~mask].copy(), "before")["pearson"]
    found = scores[scores["method"] == "before"].set_index("gene")["pearson"]
    np.testing.assert_allclose(found[alone.index], alone, atol=1e-6)
