"""Means of regions and their intervals."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from sthggep import tl
from sthggep._table._evidence import REGION_LEVELS, REGION_SPOTS, SCALES_UM, Evidence
from sthggep.tl._region_means import corrected_mean

SIDE, N_GENES = 12, 3
GENES = ["g0", "g1", "g2"]


def evidence(n_sections: int = 5, within: float = 0.1, offset: float = 0.3, n_patients: int = 0) -> Evidence:
    rows = np.zeros((n_sections, N_GENES), np.float32)
    scales = np.zeros((len(SCALES_UM), N_GENES), np.float32)
    spread = within / np.sqrt(np.array(REGION_SPOTS, np.float32))[:, None] * np.ones(N_GENES, np.float32)
    patients = np.zeros((n_patients, N_GENES), np.float32)
    scores = norm.ppf((1 + np.array(REGION_LEVELS)) / 2).astype(np.float32)
    ones = np.ones(N_GENES, np.float32)
    of_patients = 2 * ones if n_patients else ones[:0]
    return Evidence(
        rows, rows, patients, patients, ones, ones, scales, scales, spread, scores, offset * ones, of_patients
    )


def table(held_out: Evidence | None = None, novelty: float = 0.5) -> ad.AnnData:
    """A square array; the prediction of gene j is the column's number plus j."""
    y, x = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE])
    adata = ad.AnnData(
        np.random.default_rng(0).poisson(40, (SIDE**2, N_GENES)).astype(np.float32),
        obs=pd.DataFrame({"side": np.where(x < SIDE / 2, "left", "right")}, index=[f"s{i}" for i in range(SIDE**2)]),
        var=pd.DataFrame(index=GENES),
    )
    adata.obs["array_x"], adata.obs["array_y"] = x, y
    adata.obsm["spatial"] = np.column_stack([x, y]) * 100.0
    adata.obsm["hggep"] = (x[:, None] + np.arange(N_GENES)).astype(np.float32)
    adata.obs["hggep_novelty"] = np.float32(novelty)
    adata.uns["hggep"] = {"tool": "sthggep", "genes": np.array(GENES, dtype=object), "units": "log"}
    adata.uns["hggep"]["evidence"] = (evidence() if held_out is None else held_out).to_arrays()
    return adata


def wide(means: pd.DataFrame, what: str) -> pd.DataFrame:
    return means.pivot(index="region", columns="gene", values=what)


def test_means_spots_and_measurements():
    adata = table()
    means = tl.regions(adata, "side")
    assert means[["region", "gene"]].drop_duplicates().shape == (6, 2)
    assert wide(means, "mean").loc["left"].tolist() == [2.5, 3.5, 4.5]
    assert wide(means, "mean").loc["right", "g0"] == 8.5
    assert set(means["n_spots"]) == {SIDE**2 / 2}
    raw = adata.X
    measured = np.log10(1 + 1e4 * raw / raw.sum(axis=1, keepdims=True))
    left = (adata.obs["side"] == "left").to_numpy()
    np.testing.assert_allclose(wide(means, "observed").loc["left"], measured[left].mean(axis=0), rtol=1e-5)
    assert set(means["interval_from"]) == {"held-out tissue"}


def test_width_comes_from_held_out_regions_and_sections():
    from scipy.stats import t

    adata = table()
    half = lambda means: ((means["upper"] - means["lower"]) / 2).unique()
    quantile = t.ppf(0.95, 5 - 1 + 4)
    # 72 spots: between regions of 36 and of 81, on the scale of their logarithms
    share = np.log(72 / 36) / np.log(81 / 36)
    within = 0.1 * ((1 - share) / 6 + share / 9)
    np.testing.assert_allclose(half(tl.regions(adata, "side")), quantile * np.hypot(within, 0.3), rtol=1e-5)
    np.testing.assert_allclose(half(tl.regions(adata, "side", relative=True)), quantile * within * 0.5**0.5, rtol=1e-5)
    narrower = tl.regions(adata, "side", level=0.5)
    assert (half(narrower) < half(tl.regions(adata, "side")).min()).all()


def test_relative_means_and_differences():
    adata = table()
    relative = wide(tl.regions(adata, "side", relative=True), "mean")
    np.testing.assert_allclose(relative.loc["left"], -3)
    both = tl.regions(adata, "side", difference=("right", "left"))
    row = both[both["region"] == "right - left"]
    np.testing.assert_allclose(row["mean"], 6)
    single = tl.regions(adata, "side", relative=True).query("region == 'left'")
    width = (row["upper"] - row["lower"]).to_numpy()
    np.testing.assert_allclose(width, 2 * (single["upper"] - single["lower"]).to_numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="'top' is no region of section"):
        tl.regions(adata, "side", difference=("top", "left"))
    for wrong in (("left",), ("left", "left")):
        with pytest.raises((ValueError, TypeError), match="two regions"):
            tl.regions(adata, "side", difference=wrong)


def test_a_difference_is_the_same_of_relative_means():
    adata = table()
    for options in ({}, {"measured": np.random.default_rng(1).permutation(adata.n_obs) < 60}):
        rows = [
            tl.regions(adata, "side", difference=("right", "left"), relative=relative, **options).tail(N_GENES)
            for relative in (False, True)
        ]
        pd.testing.assert_frame_equal(*rows)


def test_squares_and_genes():
    means = tl.regions(table(), scale_um=400.0, mpp=1.0, genes=["g2"])
    assert means["region"].nunique() == 9
    assert set(means["gene"]) == {"g2"}
    assert means.loc[means["region"] == "0,0", "mean"].tolist() == [3.5]
    assert set(means["n_spots"]) == {16}
    for wrong in ({}, {"groupby": "side", "scale_um": 3.0}):
        with pytest.raises(ValueError, match="either `groupby`"):
            tl.regions(table(), **wrong)
    with pytest.raises(KeyError, match="is not in obs"):
        tl.regions(table(), "label")


def test_no_interval_where_nobody_knows():
    with pytest.warns(UserWarning, match="one section was held out"):
        one = tl.regions(table(evidence(1)), "side")
    assert one["lower"].isna().all()
    assert one["mean"].notna().all()
    assert set(one["interval_from"]) == {"none"}
    assert tl.regions(table(evidence(1)), "side", relative=True)["lower"].notna().all()
    with warnings.catch_warnings():
        # The difference that was asked for has its interval. Deprecations are others'
        warnings.simplefilter("error", UserWarning)
        pair = tl.regions(table(evidence(1)), "side", difference=("left", "right"))
    assert pair["lower"].notna().tolist() == [False] * 2 * N_GENES + [True] * N_GENES
    with pytest.warns(UserWarning, match="unlike the training tissue"):
        unlike = tl.regions(table(novelty=0.9), "side", relative=True, difference=("left", "right"))
    assert unlike["lower"].isna().all()
    # Three held-out patients say how far a new one may be off
    patients = tl.regions(table(evidence(n_patients=3), novelty=0.9), "side")
    known = tl.regions(table(evidence(n_patients=3)), "side")
    assert ((patients["upper"] - patients["lower"]) > 3 * (known["upper"] - known["lower"])).all()


def test_measured_spots_correct_the_mean():
    adata = table(novelty=0.9)
    rng = np.random.default_rng(3)
    counts = 200 * np.exp(0.05 * adata.obsm["hggep"])
    counts[:, 2] = 200
    adata.X = rng.poisson(counts).astype(np.float32)
    mask = np.zeros(adata.n_obs, dtype=bool)
    mask[rng.permutation(adata.n_obs)[:60]] = True
    adata.obs["known"] = mask
    means = tl.regions(adata, "side", measured="known", level=0.99)
    whole = tl.regions(adata, "side", measured=np.ones(adata.n_obs, dtype=bool))
    assert set(means["interval_from"]) == {"measured spots"}
    assert means.groupby("region", sort=False)["n_measured"].first().sum() == 60
    inside = (means["lower"] <= whole["observed"]) & (whole["observed"] <= means["upper"])
    assert inside.all()
    np.testing.assert_allclose(whole["upper"] - whole["lower"], 0, atol=1e-6)
    np.testing.assert_allclose(whole["mean"], whole["observed"], atol=1e-5)
    # Counts of the other spots are not read
    adata.X[~mask] = 0
    pd.testing.assert_frame_equal(tl.regions(adata, "side", measured=mask, level=0.99), means)


def test_correction_covers_and_is_narrower_where_predictions_help():
    rng, covered, ratio = np.random.default_rng(0), [], []
    for _ in range(400):
        predicted = rng.standard_normal((80, 2)).astype(np.float32)
        noise = rng.standard_normal((80, 2)).astype(np.float32)
        truth = np.column_stack([predicted[:, 0] + 0.5 * noise[:, 0], noise[:, 1]]).astype(np.float32)
        rows = rng.permutation(80)[:25]
        prior = np.array([0.3, 1.0])
        mean, half = corrected_mean(predicted, predicted[rows], truth[rows], 0.9, prior)
        _, alone = corrected_mean(0 * predicted, 0 * predicted[rows], truth[rows], 0.9, prior)
        covered.append(np.abs(mean - truth.mean(axis=0)) <= half)
        ratio.append(half / alone)
    assert ((np.mean(covered, axis=0) > 0.86) & (np.mean(covered, axis=0) < 0.97)).all()
    assert np.mean(ratio, axis=0)[0] < 0.6
    assert np.max(ratio) <= 1


def test_relative_means_are_those_of_a_region_and_the_rest():
    adata = table()
    adata.obs["all"] = "all"
    mask = np.random.default_rng(1).permutation(adata.n_obs) < adata.n_obs // 2
    for options in ({}, {"measured": mask}):
        whole = tl.regions(adata, "all", relative=True, **options)
        np.testing.assert_allclose(whole[["mean", "lower", "upper"]], 0, atol=1e-5)
    # The two halves of a section lie on both sides of its mean, as far as their difference says
    both = tl.regions(adata, "side", relative=True, measured=mask)
    pair = tl.regions(adata, "side", measured=mask, difference=("right", "left")).query("region == 'right - left'")
    right = both.query("region == 'right'")
    for end in ("mean", "lower", "upper"):
        np.testing.assert_allclose(right[end], pair[end].to_numpy() / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(right["observed"], -both.query("region == 'left'")["observed"].to_numpy(), atol=0.05)


def test_relative_intervals_of_measured_spots_cover():
    rng, inside = np.random.default_rng(0), []
    adata = table()
    counts = 300 * np.exp(0.04 * adata.obsm["hggep"])
    counts[:, 2] = 300
    adata.X = rng.poisson(counts).astype(np.float32)
    truth = wide(tl.regions(adata, "side", relative=True, measured=np.ones(adata.n_obs, bool)), "mean").loc["right"]
    for _ in range(60):
        means = tl.regions(adata, "side", relative=True, measured=rng.permutation(adata.n_obs) < 50).query(
            "region == 'right'"
        )
        inside.append((means["lower"].to_numpy() <= truth.to_numpy()) & (truth.to_numpy() <= means["upper"].to_numpy()))
    assert 0.8 <= np.mean(inside) <= 0.99


def test_masks_are_aligned_and_complete_regions_are_known():
    adata = table()
    mask = np.random.default_rng(1).permutation(adata.n_obs) < 60
    expected = tl.regions(adata, "side", measured=mask)
    shuffled = pd.Series(mask, adata.obs_names).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(tl.regions(adata, "side", measured=shuffled), expected)
    adata.obs["gaps"] = pd.array(np.where(np.arange(adata.n_obs) == 3, None, mask), dtype="boolean")
    with pytest.raises(
        ValueError, match=r"obs\['gaps'\] must be true or false for each of the 144 spots, without gaps"
    ):
        tl.regions(adata, "side", measured="gaps")
    adata.obs["pair"] = np.where(np.arange(adata.n_obs) < 2, "two", "rest")
    two = tl.regions(adata, "pair", measured=np.ones(adata.n_obs, bool)).query("region == 'two'")
    np.testing.assert_allclose(two["mean"], two["observed"])
    np.testing.assert_allclose(two["upper"] - two["lower"], 0)


def test_columns_levels_and_counts_that_do_not_serve(caplog):
    adata = table()
    adata.obs["depth"] = np.linspace(0.1, 0.9, adata.n_obs)
    with pytest.raises(ValueError, match="numbers with decimals"):
        tl.regions(adata, "depth")
    for level in (0, 1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            tl.regions(adata, "side", level=level)
    adata.X = np.log1p(adata.X)
    with caplog.at_level("INFO"):
        means = tl.regions(adata, "side")
    assert means["observed"].isna().all()
    assert means["mean"].notna().all()
    assert "no `observed`" in caplog.text
    with pytest.raises(ValueError, match="raw counts"):
        tl.regions(adata, "side", measured=np.ones(adata.n_obs, bool))


@pytest.mark.parametrize("wrong", [[True], np.arange(SIDE**2), ["yes"] * SIDE**2])
def test_masks_that_are_none(wrong):
    with pytest.raises((ValueError, TypeError), match="measured"):
        tl.regions(table(), "side", measured=wrong)


def test_polygons_of_a_spatialdata():
    import shapely
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Scale

    adata = table()
    adata.obs["region"], adata.obs["instance"] = pd.Categorical(["spots"] * adata.n_obs), np.arange(adata.n_obs)
    # The polygons are drawn at half the scale of the spots
    polygons = GeoDataFrame(
        geometry=[shapely.box(-10, -10, 275, 1000), shapely.box(275, -10, 700, 200)], index=["west", "north east"]
    )
    sdata = SpatialData(
        tables={"table": TableModel.parse(adata, region="spots", region_key="region", instance_key="instance")},
        shapes={
            "spots": ShapesModel.parse(adata.obsm["spatial"], geometry=0, radius=30),
            "areas": ShapesModel.parse(polygons, transformations={"global": Scale([2, 2], ("x", "y"))}),
        },
    )
    means = tl.regions(sdata, "areas")
    assert wide(means, "mean").loc["west", "g0"] == 2.5
    assert wide(means, "n_spots").loc["north east", "g0"] == 6 * 4  # a spot on the border lies outside
    with pytest.raises(KeyError, match="neither a column of obs"):
        tl.regions(sdata, "tumors")
    with pytest.raises(ValueError, match="must hold polygons"):
        tl.regions(sdata, "spots")
