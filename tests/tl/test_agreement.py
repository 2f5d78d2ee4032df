"""Clusters against labels: tissue with known domains, noise, the choice of clusters, written fields."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from sthggep import datasets, tl
from sthggep.tl._clusters import cluster

COLUMNS = ["ari", "nmi", "n_clusters", "chosen", "silhouette", "n_spots"]
RECORD = {"tool": "sthggep", "units": "log"}


@pytest.fixture
def domains(lattice) -> ad.AnnData:
    """Stripes of four kinds of tissue, each with its own genes; coordinates alone do not separate them."""
    rng = np.random.default_rng(0)
    xy = lattice.square() / 290
    truth = (xy[:, 0] // 2 % 4).astype(int)
    rate = np.full((lattice.n_spots, 20), 20.0)
    for domain in range(4):
        rate[truth == domain, 5 * domain : 5 * domain + 5] *= 4
    genes = [f"g{i}" for i in range(20)]
    adata = ad.AnnData(rng.poisson(rate).astype(np.float32), var=pd.DataFrame(index=genes))
    adata.obs_names = [f"s{i}" for i in range(adata.n_obs)]
    adata.obs["domain"] = pd.Categorical(np.array(["tumor", "stroma", "immune", "fat"])[truth])
    adata.obsm["spatial"] = lattice.square()
    adata.obsm["hggep"] = np.log10(rate).astype(np.float32) + rng.normal(0, 0.02, rate.shape).astype(np.float32)
    adata.uns["hggep"] = RECORD | {"genes": np.array(genes, dtype=object)}
    return adata


def noise(adata: ad.AnnData) -> ad.AnnData:
    values = np.random.default_rng(5).normal(size=(adata.n_obs, 20))
    adata.obsm["hggep"] = values.astype(np.float32)
    return adata


@pytest.mark.parametrize("method", ["kmeans", "leiden"])
def test_known_domains(domains: ad.AnnData, method: str):
    if method == "leiden":
        pytest.importorskip("igraph")
    table = tl.agreement(domains, labels_key="domain", method=method)
    assert list(table.columns) == COLUMNS
    assert table.index.tolist() == ["predicted", "observed", "coordinates"]
    assert (table.loc[["predicted", "observed"], ["ari", "nmi"]] > 0.95).all(axis=None)
    assert (table.loc[["predicted", "observed"], "n_clusters"] == 4).all()
    assert table.loc["coordinates", "ari"] < 0.1
    assert (table["n_spots"] == domains.n_obs).all()
    table_of_noise = tl.agreement(noise(domains), labels_key="domain", method=method)
    assert abs(table_of_noise.loc["predicted", "ari"]) < 0.05
    assert table_of_noise.loc["observed", "ari"] > 0.95


def test_scores_are_those_of_the_written_columns(domains: ad.AnnData):
    domains.obs.loc[domains.obs_names[:100], "domain"] = np.nan
    table = tl.agreement(domains, labels_key="domain")
    has_label = domains.obs["domain"].notna()
    assert (table["n_spots"] == has_label.sum()).all()
    for row, column in (("predicted", "hggep_clusters"), ("observed", "hggep_clusters_observed")):
        clusters = domains.obs[column]
        assert isinstance(clusters.dtype, pd.CategoricalDtype)
        assert clusters.notna().all()
        sizes = clusters.value_counts()[[str(i) for i in range(clusters.nunique())]]
        assert sizes.is_monotonic_decreasing
        expected = adjusted_rand_score(domains.obs["domain"][has_label].astype(str), clusters[has_label].astype(str))
        assert table.loc[row, "ari"] == pytest.approx(expected)


def test_labels_do_not_influence_the_clusters(domains: ad.AnnData):
    noise(domains)
    first = tl.agreement(domains, labels_key="domain")
    clusters = domains.obs["hggep_clusters"].copy()
    domains.obs["shuffled"] = np.random.default_rng(1).permutation(domains.obs["domain"].astype(str))
    second = tl.agreement(domains, labels_key="shuffled")
    assert (domains.obs["hggep_clusters"] == clusters).all()
    pd.testing.assert_frame_equal(first[["chosen", "silhouette"]], second[["chosen", "silhouette"]])
    assert second["ari"].abs().max() < 0.05


@pytest.mark.parametrize("n", [3, 5])
def test_the_silhouette_chooses_the_number_of_clusters(n: int):
    points, truth = make_blobs(200, 3, centers=n, cluster_std=0.4, random_state=2)
    clusters = cluster(points, "kmeans", None, 0)
    assert (clusters.n, clusters.chosen) == (n, n)
    assert adjusted_rand_score(truth, clusters.labels) > 0.95


def test_a_single_candidate_is_used(domains: ad.AnnData):
    table = tl.agreement(domains, labels_key="domain", candidates=[7])
    assert (table["n_clusters"] == 7).all()
    assert (table["chosen"] == 7).all()
    one_cluster = tl.agreement(domains, labels_key="domain", candidates=[1]).loc["predicted"]
    assert (one_cluster["n_clusters"], one_cluster["ari"]) == (1, 0)
    assert np.isnan(one_cluster["silhouette"])
    for wrong in ([], [0], [-1.0]):
        with pytest.raises(ValueError, match="`candidates` must be positive"):
            tl.agreement(domains, labels_key="domain", candidates=wrong)


def test_true_rates_of_toy_tissue():
    adata = datasets.toy(size_um=(2400.0, 2400.0), mpp=8.0, n_genes=32)
    truth = adata.layers["true_rate"]
    truth = truth.toarray() if hasattr(truth, "toarray") else np.asarray(truth)
    adata.obsm["hggep"] = np.log10(1 + truth).astype(np.float32)
    adata.uns["hggep"] = RECORD | {"genes": np.array(adata.var_names, dtype=object)}
    good = tl.agreement(adata, labels_key="domain").loc["predicted", "ari"]
    adata.obsm["hggep"] = np.random.default_rng(0).normal(size=adata.shape).astype(np.float32)
    bad = tl.agreement(adata, labels_key="domain").loc["predicted", "ari"]
    assert good > 0.3
    assert abs(bad) < 0.1


def test_results_survive_a_file(domains: ad.AnnData, tmp_path: Path):
    counts = domains.X.copy()
    table = tl.agreement(domains, labels_key="domain", seed=3)
    np.testing.assert_array_equal(domains.X, counts)
    domains.write_h5ad(tmp_path / "a.h5ad")
    copy = ad.read_h5ad(tmp_path / "a.h5ad")
    record = copy.uns["hggep_agreement"]
    assert (record["labels_key"], record["method"], record["n_pcs"], record["seed"]) == ("domain", "kmeans", 10, 3)
    np.testing.assert_allclose(record["scores"][COLUMNS], table[COLUMNS])
    tl.agreement(copy, labels_key="domain")  # sthggep wrote it, so sthggep may replace it


@pytest.mark.parametrize("foreign", ["hggep_clusters", "hggep_clusters_observed"])
def test_columns_that_sthggep_did_not_write_stay(domains: ad.AnnData, foreign: str):
    domains.obs[foreign] = "mine"
    with pytest.raises(ValueError, match=rf"obs\['{foreign}'\] exists already and sthggep did not write it"):
        tl.agreement(domains, labels_key="domain")
    assert (domains.obs[foreign] == "mine").all()
    assert "hggep_agreement" not in domains.uns


def test_a_record_that_sthggep_did_not_write_stays(domains: ad.AnnData):
    domains.uns["hggep_agreement"] = "mine"
    with pytest.raises(ValueError, match=r"uns\['hggep_agreement'\] exists already"):
        tl.agreement(domains, labels_key="domain")
    assert domains.uns["hggep_agreement"] == "mine"


def test_without_counts_there_is_no_observed_row(domains: ad.AnnData):
    bare = domains[:, :0].copy()
    table = tl.agreement(bare, labels_key="domain")
    assert table.index.tolist() == ["predicted", "coordinates"]
    assert "hggep_clusters_observed" not in bare.obs


def test_bad_arguments_are_refused(domains: ad.AnnData, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(KeyError, match=r"'nothing' is not in obs, which holds 'domain'"):
        tl.agreement(domains, labels_key="nothing")
    domains.obs["empty"] = np.nan
    with pytest.raises(ValueError, match=r"holds no label"):
        tl.agreement(domains, labels_key="empty")
    with pytest.raises(ValueError, match=r"Unknown method 'kmean'. Did you mean 'kmeans'"):
        tl.agreement(domains, labels_key="domain", method="kmean")
    monkeypatch.setattr("sthggep.tl._clusters.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"sthggep\[leiden\]"):
        tl.agreement(domains, labels_key="domain", method="leiden")
    with pytest.raises(ValueError, match="at least 4 spots"):
        tl.agreement(domains[:3].copy(), labels_key="domain")
    domains.obsm["hggep"][:5] = np.nan
    with pytest.raises(ValueError, match=r"NaN in 5 of 576 spots.*tl\.predict"):
        tl.agreement(domains, labels_key="domain")


def test_clusters_are_not_compared_with_themselves(domains: ad.AnnData):
    tl.agreement(domains, labels_key="domain")
    with pytest.raises(ValueError, match="labels of another origin"):
        tl.agreement(domains, labels_key="hggep_clusters")


def test_published_clusters_of_real_tissue(data_root: Path):
    adata = datasets.her2st("C2", root=data_root / "her2st", image=False)
    genes = adata.var_names[np.argsort(-np.asarray(adata.X.sum(axis=0)).ravel())[:300]].tolist()
    from sthggep._table._counts import log10_cp10k, read_panel_counts

    # the measurement as prediction: its clusters agree with the published ones in part
    adata.obsm["hggep"] = log10_cp10k(read_panel_counts(adata, genes))
    adata.uns["hggep"] = RECORD | {"genes": np.array(genes, dtype=object)}
    table = tl.agreement(adata, labels_key="cluster")
    assert table.loc["predicted", "ari"] == table.loc["observed", "ari"] > 0.1
