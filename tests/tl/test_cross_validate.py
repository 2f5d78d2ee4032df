"""Held-out patients and sections: training sections, scores, refusals, and folders of finished folds."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from sthggep import datasets, pp, tl
from sthggep._encoders import _registry
from sthggep._encoders._sweep import PatchEncoding
from sthggep._inputs import _windows as _windowed
from sthggep._keys import feature_key
from sthggep._slides import _fingerprint
from sthggep._slides._fingerprint import section_fingerprint
from sthggep._slides._resolve import resolve
from sthggep._table._counts import log10_cp10k, read_panel_counts
from sthggep._training import _presets
from sthggep.tl._cross_validation import _baselines, _run_fold
from sthggep.tl._cross_validation._baselines import BaselineSample, FeatureView
from sthggep.tl._cross_validation._folds import Fold, shared_patients
from sthggep.tl._cross_validation._leaks import what_is_shared

QUICK = {"obsm": "X_mine", "n_members": 1, "max_epochs": 1, "device": "cpu", "show_progress_bar": False}
COLUMNS = ["fold", "group", "section", "method", "gene", "metric", "value", "leak"]


def toy(seed: int, patient: str | None = None, size: float = 900.0, **options) -> AnnData:
    """A small section whose spots lie off the exact grid, as under a microscope."""
    slide = datasets.toy(seed=seed, patient=patient, size_um=(size, size), mpp=4.0, n_genes=8, **options)
    slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    slide.obsm["spatial"] = slide.obsm["spatial"] + np.random.default_rng(seed).normal(0, 0.5, (slide.n_obs, 2))
    return slide


@pytest.fixture(scope="module")
def all_sections() -> list[AnnData]:
    return [toy(0, "P"), toy(1, "P"), toy(2, "Q"), toy(3, "R")]


@pytest.fixture
def four(all_sections) -> list[AnnData]:
    """Two sections of patient P, one of Q, one of R."""
    return [slide.copy() for slide in all_sections]


@pytest.fixture
def genes(four) -> list[str]:
    return list(four[0].var_names)


@pytest.fixture
def predictions(monkeypatch) -> list[dict[str, np.ndarray]]:
    """Predictions of each held-out section by each method, in the order of the scores."""
    records, score = [], _run_fold.score_section

    def spy(predicted, *rest):
        records.append(dict(predicted))
        return score(predicted, *rest)

    monkeypatch.setattr(_run_fold, "score_section", spy)
    return records


@pytest.fixture
def trainings(monkeypatch) -> list[tuple[list[str], list[str]]]:
    """Sections and genes of each training."""
    records, train = [], _run_fold.train

    def spy(task, prepared):
        records.append(([slide.name for slide in task.slides], list(task.genes)))
        return train(task, prepared)

    monkeypatch.setattr(_run_fold, "train", spy)
    return records


def values(results: pd.DataFrame, method: str, metric: str, section: str) -> pd.Series:
    at = (results["method"] == method) & (results["metric"] == metric) & (results["section"] == section)
    return results[at].set_index("gene")["value"]


def measured(slide: AnnData, panel: list[str]) -> np.ndarray:
    return log10_cp10k(read_panel_counts(slide, panel))


# ---------------------------------------------------------------- folds


def test_patients_are_held_out_as_a_whole(four, genes, trainings):
    results = tl.cross_validate(four, genes=genes, **QUICK)
    assert list(results.columns) == COLUMNS
    assert [sections for sections, _ in trainings] == [
        ["toy3", "toy4"],
        ["toy1", "toy2", "toy4"],
        ["toy1", "toy2", "toy3"],
    ]
    folds = results[["fold", "group", "section"]].drop_duplicates().to_numpy().tolist()
    assert folds == [[0, "P", "toy1"], [0, "P", "toy2"], [1, "Q", "toy3"], [2, "R", "toy4"]]
    assert (results["leak"] == "").all()
    n_rows = results.groupby(["section", "method", "metric"]).size()
    assert (n_rows == len(genes)).all()
    assert len(n_rows) == 4 * (4 * 3 + 1)
    records = results.attrs["folds"]
    assert [(r["group"], r["sections"], r["n_train"], r["n_genes"]) for r in records] == [
        ("P", ["toy1", "toy2"], 2, 8),
        ("Q", ["toy3"], 3, 8),
        ("R", ["toy4"], 3, 8),
    ]
    assert all(r["seconds"] > 0 for r in records)
    assert results.attrs["parameters"]["group_key"] == "patient"
    json.dumps(results.attrs)


def test_scores_are_those_of_fit_predict_evaluate(four, genes):
    results = tl.cross_validate(four[1:], genes=genes, **QUICK)
    model = tl.fit(four[2:], genes=genes, **QUICK)
    tl.predict(four[1], model, show_progress_bar=False)
    scores = tl.evaluate(four[1])
    for metric in ("pearson", "spearman", "rmse"):
        scores_of_fold = values(results, "hggep", metric, "toy2")
        np.testing.assert_allclose(scores_of_fold, scores.loc[genes, metric], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values(results, "ceiling", "ceiling", "toy2"), scores.loc[genes, "ceiling"])


def test_intervals_are_scored(four, genes, tmp_path):
    results = tl.cross_validate(four[1:], genes=genes, baselines=["mean"], interval=[0.8, 0.5], out=tmp_path, **QUICK)
    tl.predict(four[1], tl.fit(four[2:], genes=genes, **QUICK), interval=0.8, show_progress_bar=False)
    lower, upper = four[1].obsm["hggep_lower"], four[1].obsm["hggep_upper"]
    y = measured(four[1], genes)
    inside = (y >= lower) & (y <= upper)
    at = results[results["level"] == 0.8]
    np.testing.assert_allclose(values(at, "hggep", "coverage", "toy2"), inside.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(values(at, "hggep", "width", "toy2"), (upper - lower).mean(axis=0), atol=1e-5)
    penalty = np.where(inside, 0, np.minimum(np.abs(y - lower), np.abs(y - upper))) * 10
    expected = (upper - lower + penalty).mean(axis=0)
    np.testing.assert_allclose(values(at, "hggep", "interval_score", "toy2"), expected, atol=1e-4)
    assert set(results.loc[results["metric"] == "coverage", "method"]) == {"hggep"}
    assert results.groupby("level").size().to_dict() == {0.5: 9 * len(genes), 0.8: 9 * len(genes)}
    assert results.loc[results["metric"] == "pearson", "level"].isna().all()
    again = tl.cross_validate(four[1:], genes=genes, baselines=["mean"], interval=[0.5, 0.8], out=tmp_path, **QUICK)
    pd.testing.assert_frame_equal(again, results)
    with pytest.raises(ValueError, match=r"from 0\.5 to 0\.99, found 80"):
        tl.cross_validate(four[1:], genes=genes, interval=80, **QUICK)
    with pytest.raises(ValueError, match="`interval` is empty"):
        tl.cross_validate(four[1:], genes=genes, interval=[], **QUICK)
    with pytest.raises(ValueError, match=r"`validation` is None. Pass `validation='auto'`"):
        tl.cross_validate(four[1:], genes=genes, interval=0.8, validation=None, **QUICK)


def test_sections_of_one_object_are_split_too(four, genes):
    of_objects = tl.cross_validate(four, genes=genes, **QUICK)
    adata = anndata.concat(four, label="which", keys=[f"toy{i}" for i in range(1, 5)], index_unique="-")
    of_one_object = tl.cross_validate(adata, genes=genes, library_key="which", **QUICK)
    pd.testing.assert_frame_equal(of_one_object, of_objects)


def test_sections_by_name_warn_of_their_patient(four, genes, trainings):
    with pytest.warns(UserWarning, match=r"2 of 4 sections .*'toy1 \(patient P\)', 'toy2 \(patient P\)'.*easier"):
        results = tl.cross_validate(four, group_key="section", genes=genes, baselines=(), **QUICK)
    assert [len(sections) for sections, _ in trainings] == [3, 3, 3, 3]
    assert results.groupby("section")["leak"].first().to_dict() == {
        "toy1": "same patient",
        "toy2": "same patient",
        "toy3": "",
        "toy4": "",
    }
    assert results.attrs["leaks"] == {"toy1": ["toy2"], "toy2": ["toy1"]}
    assert set(results["method"]) == {"hggep", "ceiling"}


def test_sections_need_no_column(four, genes, recwarn):
    for slide in four[:2]:
        del slide.obs["patient"]
    results = tl.cross_validate(four[:2], group_key="section", genes=genes, baselines="mean", **QUICK)
    assert list(results["group"].unique()) == ["toy1", "toy2"]
    assert not [w for w in recwarn if "patient" in str(w.message)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s[:2], r"two groups or more.*obs\['patient'\] holds only 'P' over 2 sections.*'section'.*easier"),
        (lambda s: s[:1], r"Found 1 section \('toy1'\).*library_key="),
    ],
)
def test_too_few_groups(four, genes, change, words):
    with pytest.raises(ValueError, match=words):
        tl.cross_validate(change(four), genes=genes, **QUICK)


def test_groups_that_are_not_one_value_a_section(four, genes):
    with pytest.raises(KeyError, match=r"'donor' is not in obs of section 'toy1'.*group_key='section'"):
        tl.cross_validate(four, group_key="donor", genes=genes, **QUICK)
    patients = four[3].obs["patient"].astype(str)
    patients.iloc[0] = "Z"
    four[3].obs["patient"] = patients
    with pytest.raises(ValueError, match=r"'toy4' holds several values of obs\['patient'\]: 'Z', 'R'.*library_key="):
        tl.cross_validate(four, genes=genes, **QUICK)
    four[3].obs["patient"] = patients.where(patients != "Z")
    with pytest.raises(ValueError, match=r"'toy4': obs\['patient'\] is missing for 1 of"):
        tl.cross_validate(four, genes=genes, **QUICK)


def test_patients_are_distinguished_in_any_column():
    first, second, third = (resolve(toy(i, "P" if i < 2 else "Q"))[0] for i in range(3))
    folds = [Fold(0, "a", (1, 2), (0,)), Fold(1, "b", (0,), (1, 2))]
    assert shared_patients([first, second, third], folds) == {"toy1": ["toy2"], "toy2": ["toy1"]}


# ---------------------------------------------------------------- held-out counts stay unknown


def test_held_out_counts_change_no_prediction(four, predictions, trainings):
    """Panel, model and baselines do not depend on them."""
    slides = four[1:]
    tl.cross_validate(slides, **QUICK)
    (clean, of_training, _), panels = tuple(predictions), trainings[0]
    predictions.clear()
    trainings.clear()
    garbage = np.random.default_rng(0).negative_binomial(1, 0.001, slides[0].shape)
    garbage[:, 2:] = 0
    slides[0].X = sparse.csr_matrix(garbage.astype(np.float32))
    tl.cross_validate(slides, **QUICK)
    assert trainings[0] == panels
    for method, prediction in predictions[0].items():
        np.testing.assert_array_equal(prediction, clean[method], err_msg=method)
    # Folds that train on this section differ
    assert not np.array_equal(predictions[1]["ridge"][:, :1], of_training["ridge"][:, :1])


def test_panel_is_chosen_on_the_training_sections(four, genes, trainings):
    """A gene that only one section expresses is in the panel unless that section is held out."""
    slides = four[1:]
    for i, slide in enumerate(slides):
        raw = slide.X.toarray()
        raw[:, [j for j in range(3) if j != i]] = 0
        slide.X = sparse.csr_matrix(raw)
    tl.cross_validate(slides, baselines=(), **QUICK)
    for (_, panel), i in zip(trainings, range(3), strict=True):
        assert panel == pp.gene_panel([slide for j, slide in enumerate(slides) if j != i])
        assert [gene in panel for gene in genes[:3]] == [j != i for j in range(3)]


def test_genes_that_the_held_out_section_does_not_list(four, trainings):
    four[1] = four[1][:, 2:].copy()
    results = tl.cross_validate(four[1:], baselines=(), **QUICK)
    names = set(four[1].var_names)
    assert all(set(panel) <= names for _, panel in trainings)
    assert set(results["gene"]) <= names
    with pytest.raises(KeyError, match="2 of 8 genes are not in var_names"):
        tl.cross_validate(four[1:], genes=list(four[2].var_names), **QUICK)


def test_features_are_computed_once_and_objects_do_not_change(four, genes, monkeypatch):
    from sthggep._inputs import _stages as _data

    encoded_names, encode = [], _data.encode
    monkeypatch.setattr(
        _data, "encode", lambda slide, *rest, **o: encoded_names.append(slide.name) or encode(slide, *rest, **o)
    )
    default = _presets.PRESETS["default"]
    short = replace(default, inputs=replace(default.inputs, sizes_um=(320.0, 640.0)))
    monkeypatch.setitem(_presets.PRESETS, "default", short)
    before = [slide.copy() for slide in four[1:]]
    tl.cross_validate(four[1:], genes=genes, weights="random", **{**QUICK, "obsm": None})
    assert sorted(encoded_names) == ["toy2", "toy3", "toy4"]
    for slide, old in zip(four[1:], before, strict=True):
        pd.testing.assert_frame_equal(slide.obs, old.obs)
        pd.testing.assert_frame_equal(slide.var, old.var)
        assert (slide.X != old.X).nnz == 0
        assert list(slide.obsm) == list(old.obsm)
        for key in old.obsm:
            np.testing.assert_array_equal(slide.obsm[key], old.obsm[key])
        assert list(slide.uns) == list(old.uns)
        (library,), (old_library,) = slide.uns["spatial"].values(), old.uns["spatial"].values()
        np.testing.assert_array_equal(library["images"]["hires"], old_library["images"]["hires"])


@pytest.mark.usefixtures("networks")
def test_sections_in_windows_are_treated_as_by_fit_and_predict(four, genes, predictions, monkeypatch):
    """Features are encoded once; training uses windows, which do not change predictions and baselines."""
    monkeypatch.setattr(_windowed, "WINDOW", 5)
    sizes, run = [], PatchEncoding.run
    monkeypatch.setattr(PatchEncoding, "run", lambda self, rows, *a: sizes.append(len(rows)) or run(self, rows, *a))
    options = {
        **QUICK,
        "obsm": None,
        "size_um": 320.0,
        "weights": "random",
        "encoder": "shufflenet",
        "encoding": "patches",
    }
    in_windows = tl.cross_validate(four[1:], genes=genes, baselines=("ridge",), **options)
    assert sum(sizes) == sum(slide.n_obs for slide in four[1:])

    model = tl.fit(four[2:], genes=genes, **options)
    assert model.training.sections == ["toy3", "toy4"]
    tl.predict(four[1], model, show_progress_bar=False)
    np.testing.assert_allclose(predictions[0]["hggep"], four[1].obsm["hggep"], atol=1e-5)

    whole = tl.cross_validate(four[1:], genes=genes, baselines=("ridge",), window=None, **options)
    assert in_windows.attrs["parameters"]["window"] == "auto"
    np.testing.assert_allclose(predictions[0]["ridge"], predictions[3]["ridge"], atol=1e-4)
    assert abs(predictions[0]["hggep"] - predictions[3]["hggep"]).max() > 1e-4
    pd.testing.assert_index_equal(in_windows.index, whole.index)


def test_invalid_windows_are_refused_before_training(four, genes, trainings):
    with pytest.raises(ValueError, match="window"):
        tl.cross_validate(four[1:], genes=genes, window=0, **QUICK)
    assert trainings == []


# ---------------------------------------------------------------- leaks


def with_name(slide: AnnData, name: str, patient: str) -> AnnData:
    """Return the section under another name, of another patient."""
    copy = slide.copy()
    copy.uns["spatial"] = {name: next(iter(slide.uns["spatial"].values()))}
    copy.obs["patient"] = patient
    return copy


def shared_mark(a: AnnData, b: AnnData) -> str:
    marks = []
    for data in (a, b):
        (slide,) = resolve(data)
        marks.append(section_fingerprint(slide, slide.name, None))
    return what_is_shared(*marks)


def test_the_same_section_of_two_patients_is_refused(four, genes, trainings):
    double = with_name(four[2], "other", "X")
    words = r"section 'toy3' \(patient 'Q'\) and section 'other' \(patient 'X'\) share the counts, the spot positions"
    with pytest.raises(ValueError, match=words):
        tl.cross_validate([*four, double], genes=genes, **QUICK)
    with pytest.raises(ValueError, match="the image, the counts, the spot positions"):
        tl.cross_validate([*four, double], genes=genes, weights="random", **{**QUICK, "obsm": None})
    assert trainings == []


def test_the_same_section_within_a_patient_is_allowed(four, genes):
    """The section is on one side of every fold."""
    double = with_name(four[2], "other", "Q")
    results = tl.cross_validate([*four, double], genes=genes, baselines=(), **QUICK)
    assert results.groupby("fold")["section"].unique().map(list).tolist()[1] == ["toy3", "other"]


def test_each_mark_identifies_a_section():
    a = toy(0, size=1400.0)
    assert shared_mark(a, toy(1, size=1400.0)) == ""
    assert shared_mark(a, toy(1, size=1400.0, section="toy1")) == "the name 'toy1'"
    other = with_name(toy(1, size=1400.0), "B", "Q")
    other.uns["spatial"]["B"]["images"] = a.uns["spatial"]["toy1"]["images"]
    assert shared_mark(a, other) == "the image"
    variant = with_name(a, "B", "Q")
    variant.obsm["spatial"] = variant.obsm["spatial"] + 0.25
    variant.uns["spatial"]["B"] = toy(1, size=1400.0).uns["spatial"]["toy2"]
    assert shared_mark(a, variant) == "the counts"
    # Rows and genes in another order, without some rows
    rng = np.random.default_rng(0)
    part = variant[rng.permutation(variant.n_obs)[: variant.n_obs * 2 // 3], rng.permutation(variant.n_vars)].copy()
    assert shared_mark(a, part) == "the counts"
    variant.X = sparse.csr_matrix(rng.poisson(20, variant.shape).astype(np.float32))
    variant.obsm["spatial"] = a.obsm["spatial"][::-1].copy()
    assert shared_mark(a, variant) == "the spot positions"


def test_marks_that_do_not_identify_tissue():
    """Default names of readers, exact grids, blank images, sections without counts."""
    a, b = (datasets.toy(seed=i, size_um=(900.0, 900.0), mpp=4.0, n_genes=8, section="section") for i in (0, 1))
    y, x = np.divmod(np.arange(9), 3)
    for slide in (a, b):
        for image in slide.uns["spatial"]["section"]["images"].values():
            image[:] = 255
    a, b = a[:9].copy(), b[:9].copy()
    for slide in (a, b):
        slide.obsm["spatial"] = np.column_stack([x, y]) * 50.0 + 60
        slide.obs[["array_x", "array_y"]] = np.column_stack([x, y])
        slide.X = sparse.csr_matrix(slide.shape, dtype=np.float32)
    assert shared_mark(a, b) == ""


@pytest.mark.parametrize(("columns", "rows"), [(24, 12), (40, 30)])
def test_a_hexagonal_array_under_part_of_the_tissue_identifies_nothing(columns, rows):
    row, column = np.divmod(np.arange(columns * rows), columns)
    xy = np.column_stack([2 * column + row % 2, row * 3**0.5]) * 100.0
    under = np.hypot(*(xy - xy.mean(axis=0)).T) < 0.9 * np.abs(xy - xy.mean(axis=0)).max(axis=0).min()
    assert len(_fingerprint._positions(xy)) == len(_fingerprint._positions(xy[under])) == 0
    scattered = np.random.default_rng(0).uniform(0, 5000, (60, 2))
    assert len(_fingerprint._positions(scattered)) == 60


def test_pieces_of_tissue_on_one_scan():
    """Distant spots are other tissue; halves of one section are not."""
    whole = toy(0, size=3000.0)
    x = whole.obsm["spatial"][:, 0]
    low, high = x.min(), x.max()
    third = (high - low) / 3
    first, middle, last = (
        whole[x < low + third].copy(),
        whole[(x >= low + third) & (x < high - third)].copy(),
        whole[x >= high - third].copy(),
    )
    middle, last = with_name(middle, "M", "M"), with_name(last, "R", "R")
    assert shared_mark(first, last) == ""
    assert shared_mark(first, middle) == "the image"


# ---------------------------------------------------------------- extra sections


@pytest.fixture
def extra_names(monkeypatch) -> list[list[str]]:
    """Names of the extra sections that each training used."""
    records, train = [], _run_fold.train

    def spy(task, prepared):
        records.append([slide.name for slide in task.extra_sections])
        return train(task, prepared)

    monkeypatch.setattr(_run_fold, "train", spy)
    return records


@pytest.fixture
def two_programs(monkeypatch) -> None:
    """Use fewer programs than genes, so that extra sections have an effect."""
    default = _presets.PRESETS["default"]
    monkeypatch.setitem(_presets.PRESETS, "default", replace(default, net={**default.net, "rank": 2}))


def without_image(slide: AnnData) -> AnnData:
    del slide.uns["spatial"]
    slide.uns["spatial"] = {slide.obs["section"].iloc[0]: {}}
    return slide


def test_extra_sections_of_the_held_out_patient_are_left_out(four, genes, extra_names, predictions, two_programs):
    extra = [without_image(toy(4, "P")), without_image(toy(5, "S"))]
    options = {"genes": genes, "baselines": (), "expression": extra, **QUICK}
    results = tl.cross_validate(four, **options)
    assert extra_names == [["toy6"], ["toy5", "toy6"], ["toy5", "toy6"]]
    assert [record["n_expression"] for record in results.attrs["folds"]] == [1, 2, 2]
    assert results.attrs["leaks"] == {}
    clean = [by_method["hggep"] for by_method in predictions]
    predictions.clear()
    extra[0].X = sparse.csr_matrix(np.random.default_rng(0).poisson(50, extra[0].shape).astype(np.float32))
    tl.cross_validate(four, **options)
    unchanged = [np.array_equal(by_method["hggep"], old) for by_method, old in zip(predictions, clean, strict=True)]
    assert unchanged == [True, True, False, False]  # both sections of P, then Q and R, whose training uses P


def test_extra_sections_by_name_and_their_patient(four, genes, extra_names):
    extra = [four[2].copy(), toy(4, "P")]
    with pytest.warns(UserWarning, match=r"1 of 3 sections .*'toy2 \(patient P\)'"):
        results = tl.cross_validate(four[1:], group_key="section", genes=genes, baselines=(), expression=extra, **QUICK)
    assert extra_names == [["toy3", "toy5"], ["toy5"], ["toy3", "toy5"]]
    assert results.attrs["leaks"] == {"toy2": ["toy5"]}
    assert results.groupby("section")["leak"].first().to_dict() == {"toy2": "same patient", "toy3": "", "toy4": ""}


def test_the_held_out_section_among_extra_ones_is_refused(four, genes, trainings):
    words = r"section 'toy3' \(patient 'Q'\) and, in `expression`, section 'other' \(patient 'X'\) share .*the counts"
    with pytest.raises(ValueError, match=words):
        tl.cross_validate(four, genes=genes, expression=with_name(four[2], "other", "X"), **QUICK)
    nameless = toy(4, "P")
    del nameless.obs["patient"]
    with pytest.raises(KeyError, match="'patient' is not in obs of section 'toy5'"):
        tl.cross_validate(four, genes=genes, expression=[nameless], **QUICK)
    with pytest.raises(KeyError, match="1 of 8 genes are not in"):
        tl.cross_validate(four, genes=genes, expression=toy(4, "S")[:, 1:].copy(), **QUICK)
    with pytest.raises(ValueError, match="only a new model of `preset='default'`"):
        tl.cross_validate(four, genes=genes, expression=toy(4, "S"), **{**QUICK, "obsm": None, "preset": "paper"})
    assert trainings == []


# ---------------------------------------------------------------- baselines


def test_mean_baseline_is_numpys(four, genes):
    results = tl.cross_validate(four, genes=genes, baselines=["mean"], **QUICK)
    train = np.vstack([measured(slide, genes) for slide in four[2:]])
    for slide, section in zip(four[:2], ("toy1", "toy2"), strict=True):
        error = np.sqrt(np.mean((measured(slide, genes) - train.mean(axis=0)) ** 2, axis=0))
        np.testing.assert_allclose(values(results, "mean", "rmse", section), error, rtol=1e-5)
    # A constant prediction has no correlation: 0 by convention
    assert (results[(results["method"] == "mean") & (results["metric"] != "rmse")]["value"] == 0).all()


def test_constant_measurements_have_no_correlation(four, genes):
    raw = four[3].X.toarray()
    raw[:, 5] = 0
    four[3].X = sparse.csr_matrix(raw)
    results = tl.cross_validate(four[1:], genes=genes, baselines=["mean"], **QUICK)
    for method in ("mean", "hggep"):
        scores = values(results, method, "pearson", "toy4")
        assert scores.index[scores.isna()].tolist() == [genes[5]]


def test_nearest_patch_is_the_spot_with_the_most_similar_features(four, genes, predictions):
    tl.cross_validate(four[1:], genes=genes, baselines=["nearest_patch"], **QUICK)

    def standardize(slide):
        features = slide.obsm["X_mine"]
        return (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)

    training_features = np.vstack([standardize(slide) for slide in four[2:]])
    expression = np.vstack([measured(slide, genes) for slide in four[2:]])
    distance = np.linalg.norm(standardize(four[1])[:, None] - training_features[None], axis=2)
    np.testing.assert_array_equal(predictions[0]["nearest_patch"], expression[distance.argmin(axis=1)])


@pytest.mark.parametrize(("size_um", "sizes_um"), [(None, [100.0, 250.0]), (400.0, [400.0])])
def test_baselines_use_the_encoder_of_the_model(four, genes, predictions, monkeypatch, size_um, sizes_um):
    class Moments(torch.nn.Module):
        def forward(self, images):
            return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)

    monkeypatch.setitem(_registry.ENCODERS, "moments", None)  # removed after the test
    pp.register_encoder("moments", Moments(), size_px=16, dim=6, size_um=[100.0, 250.0], overwrite=True)
    options = {**QUICK, "obsm": None, "encoder": "moments", "size_um": size_um, "baselines": ["nearest_patch"]}
    results = tl.cross_validate(four[1:], genes=genes, **options)
    inputs = results.attrs["parameters"]["inputs"]
    assert (inputs["encoder"], inputs["sizes_um"]) == ("moments", sizes_um)

    def standardize(slide):
        pp.features(slide, "moments", size_um=sizes_um, show_progress_bar=False)
        features = np.hstack([slide.obsm[feature_key("moments", size)] for size in sizes_um])
        return (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)

    training_features = np.vstack([standardize(slide) for slide in four[2:]])
    expression = np.vstack([measured(slide, genes) for slide in four[2:]])
    distance = np.linalg.norm(standardize(four[1])[:, None] - training_features[None], axis=2)
    np.testing.assert_array_equal(predictions[0]["nearest_patch"], expression[distance.argmin(axis=1)])


def linear(n: int, seed: int, noise: float = 0.05) -> tuple[BaselineSample, np.ndarray]:
    """Make a section whose expression is linear in its features, around its own mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    true = (x @ np.random.default_rng(99).normal(size=(6, 4)) + 3).astype(np.float32)
    y = true + rng.normal(scale=noise, size=true.shape).astype(np.float32)
    stain = 5 * seed + (1 + seed) * x  # another laboratory, the same tissue
    return BaselineSample(
        FeatureView(n, [stain.astype(np.float32)]), y, np.ones(n, bool), rng.uniform(0, 1000, (n, 2))
    ), true


@pytest.mark.parametrize("n_train", [1, 3])
def test_ridge_recovers_a_linear_relation(n_train):
    train = [linear(120, seed)[0] for seed in range(n_train)]
    test, true = linear(80, 7)
    (prediction,) = _baselines.ridge(train, [test.section])
    assert np.abs(prediction - true).max() < 0.15
    assert [np.corrcoef(prediction[:, g], true[:, g])[0, 1] > 0.99 for g in range(4)] == [True] * 4


def test_ridge_chooses_a_strong_penalty_where_features_are_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 200)).astype(np.float32)
    signal = x[:, :1] @ np.ones((1, 5), np.float32)
    parts = np.repeat(np.arange(3), 30)
    noisy = signal + rng.normal(scale=6, size=(90, 5)).astype(np.float32)
    assert _baselines.choose_penalty(x[:, :3], signal, parts) <= 10
    assert _baselines.choose_penalty(x, noisy, parts) >= 100


def test_spots_without_counts_do_not_influence_baselines():
    train, _ = linear(120, 0)
    expression = train.expression.copy()
    expression[::3] = 0
    has_counts = np.ones(120, bool)
    has_counts[::3] = False
    samples = [BaselineSample(train.section, expression, has_counts, train.xy)]
    test = [linear(50, 7)[0].section]
    for baseline in _baselines.BASELINES.values():
        (prediction,) = baseline(samples, test)
        assert prediction.shape == (50, 4)
        assert prediction.min() > train.expression[has_counts].min() - 1
    np.testing.assert_allclose(
        _baselines.mean(samples, test)[0][0], train.expression[has_counts].mean(axis=0), rtol=1e-5
    )


def test_unknown_options(four, genes):
    with pytest.raises(ValueError, match=r"Unknown baseline 'rigde'\. Did you mean 'ridge'"):
        tl.cross_validate(four, genes=genes, baselines=["rigde"], **QUICK)
    with pytest.raises(ValueError, match="There is: 'auto', 'sections', 'patients', 'blocks'"):
        tl.cross_validate(four, genes=genes, validation="toy1", **QUICK)


def test_features_of_another_width_are_refused_before_training(four, genes, trainings):
    four[3].obsm["X_mine"] = four[3].obsm["X_mine"][:, 1:]
    with pytest.raises(ValueError, match="same features in every section"):
        tl.cross_validate(four, genes=genes, **QUICK)
    assert trainings == []


def test_microns_for_the_baselines_of_the_paper_preset(four, genes, monkeypatch):
    monkeypatch.setattr("sthggep._slides._resolve._find_mpp", lambda *_: (None, ""))
    options = {**QUICK, "obsm": None, "preset": "paper", "weights": "random"}
    with pytest.raises(
        ValueError, match=r"'nearest_patch', 'ridge' read features of .* microns. Pass `mpp=`.*baselines=\['mean'\]"
    ):
        tl.cross_validate(four, genes=genes, **options)


# ---------------------------------------------------------------- resuming


def test_finished_folds_are_read_back(four, genes, tmp_path, monkeypatch):
    genes = ["NA", *genes[1:]]  # pandas reads this name as a missing value
    for slide in four:
        slide.var_names = genes
    options = {"genes": genes, "out": tmp_path / "cv", **QUICK}
    first = tl.cross_validate(four, **options)
    files = sorted(p.name for p in (tmp_path / "cv").iterdir())
    assert files == ["cross_validation.json"] + [f"fold-00{i}{end}" for i in range(3) for end in (".csv.gz", ".json")]
    monkeypatch.setattr(_run_fold, "train", None)
    repeat = tl.cross_validate(four, **options)
    pd.testing.assert_frame_equal(repeat, first)
    assert repeat.attrs == first.attrs
    assert set(repeat["gene"]) == set(genes)


def test_an_interruption_costs_one_fold(four, genes, tmp_path, trainings, monkeypatch, caplog):
    options = {"genes": genes, "out": tmp_path, **QUICK}
    whole = tl.cross_validate(four, **{**options, "out": None})
    train = _run_fold.train

    def fails(task, prepared):
        if [slide.name for slide in task.slides] == ["toy1", "toy2", "toy4"]:
            raise KeyboardInterrupt
        return train(task, prepared)

    monkeypatch.setattr(_run_fold, "train", fails)
    with pytest.raises(KeyboardInterrupt):
        tl.cross_validate(four, **options)
    (tmp_path / "fold-001.csv.gz").write_bytes(b"half")  # its record is missing: the fold is unfinished
    monkeypatch.setattr(_run_fold, "train", train)
    trainings.clear()
    with caplog.at_level(logging.INFO, logger="sthggep"):
        resumed = tl.cross_validate(four, **options)
    assert "1 of 3 folds are finished already" in caplog.text
    assert len(trainings) == 2
    pd.testing.assert_frame_equal(resumed, whole)


def test_other_data_or_parameters_are_refused(four, genes, tmp_path):
    options = {"genes": genes, "out": tmp_path / "cv", "baselines": ["mean"], **QUICK}
    tl.cross_validate(four[1:], **options)
    with pytest.raises(ValueError, match="other data or parameters; these differ: 'seed'"):
        tl.cross_validate(four[1:], **options, seed=1)
    with pytest.raises(ValueError, match="these differ: 'n_members'"):
        tl.cross_validate(four[1:], **{**options, "n_members": 2})
    with pytest.raises(ValueError, match="these differ: 'toy1'"):
        tl.cross_validate(four, **options)
    raw = four[2].X.toarray()
    raw[[0, 1]] = raw[[1, 0]]  # the same counts at other spots
    variant = four[2].copy()
    variant.X = sparse.csr_matrix(raw)
    with pytest.raises(ValueError, match="these differ: 'toy3'"):
        tl.cross_validate([four[1], variant, four[3]], **options)
    variant = four[2].copy()
    variant.obsm["X_mine"] = variant.obsm["X_mine"] + 1
    with pytest.raises(ValueError, match="these differ: 'toy3'"):
        tl.cross_validate([four[1], variant, four[3]], **options)
    with pytest.raises(ValueError, match="these differ: 'expression'"):
        tl.cross_validate(four[1:], **options, expression=toy(4, "S"))


def test_folders_of_other_content_are_refused(four, genes, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files and no cross-validation"):
        tl.cross_validate(four, genes=genes, out=tmp_path, **QUICK)
    with pytest.raises(FileExistsError, match="must be a folder, found the file"):
        tl.cross_validate(four, genes=genes, out=tmp_path / "thesis.txt", **QUICK)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
