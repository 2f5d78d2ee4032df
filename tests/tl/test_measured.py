"""Partly measured slides: the model learns from the measured spots, predicts all, and the others are scored."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sthggep import HGGEP, datasets, pl, pp, tl
from sthggep._inputs._inputs import Inputs
from sthggep._slides._measured import codes_of, has_code
from sthggep.nn import HGGEPNet

QUIET = {"device": "cpu", "show_progress_bar": False}


def toy(seed: int, **options):
    """A section with features of its own, so that nothing is encoded."""
    slide = datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=8.0, n_genes=16, **options)
    slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    return slide


@pytest.fixture(scope="module")
def parent() -> HGGEP:
    slides = [toy(seed) for seed in (0, 5)]
    return tl.fit(slides, genes=list(slides[0].var_names), n_members=0, obsm="X_mine", **QUIET)


@pytest.fixture
def half():
    """A section of which every second spot is measured; genes swap roles, so that the model has to learn."""
    slide = toy(2)
    slide.X = slide.X[:, np.roll(np.arange(16), 2)].copy()
    slide.obs["measured"] = np.arange(slide.n_obs) % 2 == 0
    return SimpleNamespace(slide=slide, mask=slide.obs["measured"].to_numpy())


def test_counts_of_other_spots_are_not_read(parent, half):
    options = {"model": parent, "measured": "measured", **QUIET}
    model = tl.fit(half.slide, **options)
    other = half.slide.copy()
    other.X = other.X.toarray() if hasattr(other.X, "toarray") else other.X.copy()
    other.X[~half.mask] = np.nan
    assert tl.fit(other, **options).id == model.id
    other.X[half.mask] += 1
    assert tl.fit(other, **options).id != model.id


def test_new_model_of_measured_spots_alone(half):
    genes = list(half.slide.var_names)
    options = {"n_members": 0, "obsm": "X_mine", **QUIET}
    model = tl.fit(half.slide, genes=genes, measured=half.mask, **options)
    other = half.slide.copy()
    other.X = other.X.toarray() if hasattr(other.X, "toarray") else other.X.copy()
    other.X[~half.mask] = 0
    assert tl.fit(other, genes=genes, measured=half.mask, **options).id == model.id
    # The panel is chosen by the measured spots, too
    assert (
        tl.fit(half.slide, measured="measured", **options).genes == tl.fit(other, measured="measured", **options).genes
    )


def test_prediction_learns_first(parent, half):
    tl.predict(half.slide, parent, key_added="before", **QUIET)
    tl.predict(half.slide, parent, measured="measured", **QUIET)
    adapted = tl.fit(half.slide, model=parent, measured="measured", **QUIET)
    assert half.slide.uns["hggep"]["model"] == adapted.id != parent.id
    unseen = half.slide[~half.mask].copy()
    before, after = (tl.evaluate(unseen, key)["pearson"].mean() for key in ("before", "hggep"))
    assert after > before + 0.05
    # In two steps it is the same
    tl.predict(half.slide, adapted, key_added="again", **QUIET)
    np.testing.assert_array_equal(half.slide.obsm["again"], half.slide.obsm["hggep"])


def test_used_spots_are_marked_and_left_out_of_scores(parent, half, caplog):
    tl.predict(half.slide, parent, measured="measured", **QUIET)
    marks = half.slide.obs["hggep_source"].astype(str).str.endswith(" (measured)")
    np.testing.assert_array_equal(marks, half.mask)
    scores = tl.evaluate(half.slide)
    alone = tl.evaluate(half.slide[~half.mask].copy())
    pd.testing.assert_series_equal(scores["pearson"], alone["pearson"])
    pd.testing.assert_series_equal(scores["rmse"], alone["rmse"])
    everything = tl.evaluate(half.slide, include_measured=True)
    assert (everything["rmse"] != scores["rmse"]).all()
    assert int(tl.summary(half.slide)["n_spots"].iloc[0]) == (~half.mask).sum()
    with pytest.raises(ValueError, match="trained on the counts of all"):
        tl.evaluate(half.slide[half.mask].copy())


def test_titles_of_maps_leave_used_spots_out(parent, half):
    tl.predict(half.slide, parent, measured="measured", **QUIET)
    gene = half.slide.var_names[0]
    expected = tl.evaluate(half.slide)["pearson"][gene]
    assert abs(tl.evaluate(half.slide, include_measured=True)["pearson"][gene] - expected) > 0.01
    pl.gene_map(half.slide, [gene])
    titles = [ax.get_title() for ax in plt.gcf().axes]
    assert any(f"PCC {expected:.2f}" in title for title in titles), titles


def test_section_is_no_training_tissue_beyond_its_measured_spots(parent, half, recwarn):
    model = tl.fit(half.slide, model=parent, measured="measured", **QUIET)
    tl.predict(half.slide, model, **QUIET)
    assert not [w for w in recwarn if "was trained on" in str(w.message)]
    assert model.training.n_spots == [int(half.mask.sum())]
    whole = tl.fit(half.slide, model=parent, **QUIET)
    assert whole.training.n_spots == [half.slide.n_obs]
    with pytest.warns(UserWarning, match="tissue that the model was trained on"):
        tl.predict(half.slide, whole, key_added="whole", **QUIET)


def test_marks_survive_disk_and_a_further_update(parent, half, tmp_path):
    model = tl.fit(half.slide, model=parent, measured="measured", **QUIET)
    model.save(tmp_path / "model")
    back = HGGEP.load(tmp_path / "model")
    assert back.id == model.id
    third = tl.fit(toy(3), model=back, **QUIET)
    tl.predict(half.slide, third, **QUIET)
    marks = half.slide.obs["hggep_source"].astype(str).str.endswith(" (measured)")
    np.testing.assert_array_equal(marks, half.mask)


@pytest.mark.parametrize(
    "measured",
    [
        lambda half: half.mask,
        lambda half: list(half.mask),
        lambda half: half.slide.obs["measured"][::-1],
        lambda half: half.slide[half.mask].copy(),
    ],
    ids=["mask", "list", "series in another order", "another table"],
)
def test_ways_to_name_the_spots(parent, half, measured, request):
    tl.predict(half.slide, parent, measured="measured", key_added="column", **QUIET)
    tl.predict(half.slide, parent, measured=measured(half), **QUIET)
    other = request.node.callspec.id == "another table"
    alike = np.corrcoef(half.slide.obsm["hggep"].ravel(), half.slide.obsm["column"].ravel())[0, 1]
    # Features of one's own are centered over the spots of a table; a table by itself has others
    assert alike > (0.98 if other else 0.99999)
    marks = half.slide.obs["hggep_source"].astype(str).str.endswith(" (measured)")
    # Without an image, a part of the spots does not identify the section
    np.testing.assert_array_equal(marks, np.zeros_like(half.mask) if other else half.mask)


def test_capture_area_and_grid_as_two_tables():
    options = {"size_um": (1500.0, 1500.0), "mpp": 4.0, "n_genes": 16}
    quiet = {"show_progress_bar": False}
    model = tl.fit(datasets.toy(seed=1, **options), n_members=0, size_um=320.0, weights="random", **quiet)
    sdata = datasets.toy(seed=2, as_spatialdata=True, **options)
    pp.tissue_grid(sdata, spacing_um=150.0)
    tl.predict(sdata, model, table_key="tissue_grid", key_added="before", **quiet)
    tl.predict(sdata, model, table_key="tissue_grid", measured="table", **quiet)
    grid = sdata.tables["tissue_grid"]
    assert np.isfinite(grid.obsm["hggep"]).all()
    assert not np.allclose(grid.obsm["hggep"], grid.obsm["before"])
    # The grid has no counts: none of its spots is measured, whatever they are called
    assert not grid.obs["hggep_source"].astype(str).str.contains("measured").any()
    tl.predict(
        sdata, tl.fit(sdata, model=model, measured=np.ones(sdata.tables["table"].n_obs, dtype=bool), **quiet), **quiet
    )
    assert sdata.tables["table"].obs["hggep_source"].astype(str).str.endswith("(measured)").all()


def test_failed_spots(parent, half):
    half.slide.X = half.slide.X.toarray() if hasattr(half.slide.X, "toarray") else half.slide.X.copy()
    half.slide.X[:10] = 0
    half.slide.X[:10, 0] = 3
    tl.predict(half.slide, parent, measured=True, min_counts=4, **QUIET)
    marks = half.slide.obs["hggep_source"].astype(str).str.endswith(" (measured)")
    np.testing.assert_array_equal(~marks, np.arange(half.slide.n_obs) < 10)
    assert np.isfinite(half.slide.obsm["hggep"]).all()


def test_several_slides(parent, half):
    other = toy(3)
    other.obs["measured"] = True
    masks = [half.mask, np.ones(other.n_obs, dtype=bool)]
    by_column = tl.fit([half.slide, other], model=parent, measured="measured", **QUIET)
    assert tl.fit([half.slide, other], model=parent, measured=masks, **QUIET).id == by_column.id
    with pytest.raises(ValueError, match="a mask for each of the 2 slides; found 1 values"):
        tl.fit([half.slide, other], model=parent, measured=masks[:1], **QUIET)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"measured": "absent"}, KeyError, "'absent'"),
        ({"measured": [True, False]}, ValueError, "true or false for each of the .* spots"),
        ({"measured": "domain"}, ValueError, r"obs\['domain'\] must be true or false"),
        ({"measured": np.zeros(75, dtype=bool)}, ValueError, "at least two spots with counts"),
        ({"measured": "measured", "min_counts": 10**9}, ValueError, "1000000000 counts or more"),
        ({"measured": "measured", "min_counts": -1}, ValueError, "min_counts"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(parent, half, options, error, words):
    if not isinstance(options["measured"], str) and len(options["measured"]) > 2:
        options = options | {"measured": np.zeros(half.slide.n_obs, dtype=bool)}
    for call in (
        lambda: tl.predict(half.slide, parent, **options, **QUIET),
        lambda: tl.fit(half.slide, model=parent, **options, **QUIET),
    ):
        with pytest.raises(error, match=words):
            call()
    assert "hggep" not in half.slide.obsm


def test_no_measured_spot_at_all_and_no_model(half):
    none = np.zeros(half.slide.n_obs, dtype=bool)
    with pytest.raises(ValueError, match="at least two spots with counts, but `measured` names no spot"):
        tl.fit(half.slide, measured=none, n_members=0, obsm="X_mine", **QUIET)  # without `genes`: the panel is chosen
    half.slide.var_names = [f"Mouse{i}" for i in range(half.slide.n_vars)]
    with pytest.raises(ValueError, match=r"Train a model: `sthggep.tl.fit\(slide, measured=...\)`"):
        tl.predict(half.slide, measured="measured", **QUIET)


def test_a_slide_without_measured_spots_does_not_choose_the_panel(half):
    other, options = toy(5), {"n_members": 0, "obsm": "X_mine", **QUIET}
    none = np.zeros(other.n_obs, dtype=bool)
    both = tl.fit([half.slide, other], measured=[half.mask, none], **options)
    assert both.genes == tl.fit(half.slide, measured=half.mask, **options).genes


def test_the_report_scores_and_bounds_the_spots_that_were_not_used(parent, half, tmp_path):
    tl.predict(half.slide, parent, measured="measured", **QUIET)
    scores, everything = tl.evaluate(half.slide), tl.evaluate(half.slide, include_measured=True)
    text = pl.report(half.slide, tmp_path / "page.html").read_text()
    (section,) = json.loads(re.search(r"^const DATA = (.*);$", text, re.MULTILINE).group(1))["sections"]
    np.testing.assert_allclose(section["pearson"], scores["pearson"], atol=1e-4)
    np.testing.assert_allclose(section["ceiling"], scores["ceiling"], atol=1e-3)
    assert np.abs(scores["ceiling"] - everything["ceiling"]).max() > 0.01


def test_the_log_counts_the_measured_spots(half, caplog):
    tl.fit(half.slide, measured="measured", n_members=0, obsm="X_mine", **QUIET)
    assert f"({half.mask.sum()} spots)" in caplog.text


def test_targets_have_no_measured_spots(half):
    with pytest.raises(ValueError, match="`targets` reads no counts"):
        tl.fit(half.slide, targets="morphology", obsm="X_mine", measured="measured", **QUIET)


def test_codes_of_names():
    names = ["AAAC-1", "AAAG-1", "3x5"]
    codes = codes_of(names)
    assert len(codes) == 24
    np.testing.assert_array_equal(has_code(["3x5", "other", "AAAC-1"], codes), [True, False, True])
    np.testing.assert_array_equal(has_code(names, ""), [False] * 3)


def test_networks_without_a_closed_form_are_refused():
    slide = datasets.toy(seed=0, size_um=(900.0, 900.0), mpp=2.0, n_genes=6)
    net = HGGEPNet(6, dim=16, depth=1, heads=2, hypergraph_dim=8, fusion_layers=1)
    model = HGGEP([net], list(slide.var_names), Inputs("patches"), preset="paper")
    with pytest.raises(ValueError, match="choose the epochs"):
        tl.predict(slide, model, measured=True, **QUIET)
