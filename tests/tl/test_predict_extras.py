"""Further output of `tl.predict`: some genes only, the latent embedding, expected counts."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from sthggep import HGGEP, datasets, tl
from sthggep._inputs._inputs import Inputs
from sthggep.nn import FeatureHGGEPNet, HGGEPNet, Output, nb_nll

QUIET = {"show_progress_bar": False}
GENES = ["A", "B", "C", "D"]


@pytest.fixture(scope="module")
def section():
    slide = datasets.toy(seed=2, size_um=(1000.0, 1000.0), mpp=4.0, n_genes=4)
    slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    slide.var_names = GENES
    return slide


@pytest.fixture
def slide(section):
    return section.copy()


def on_features(count_head=None, n_members: int = 2) -> HGGEP:
    torch.manual_seed(0)
    nets = [FeatureHGGEPNet([6], 4, dim=16, heads=2, count_head=count_head) for _ in range(n_members)]
    return HGGEP(nets, GENES, Inputs("obsm", obsm=("X_mine",)), preset="default")


def prediction_keys(slide) -> set[str]:
    return {name for name in slide.obsm if "hggep" in name}


# ---------------------------------------------------------------- some genes


def test_some_genes_in_their_order(slide):
    model = on_features()
    tl.predict(slide, model, **QUIET)
    tl.predict(slide, model, genes=pd.Index(["D", "A"]), key_added="some", **QUIET)
    np.testing.assert_array_equal(slide.obsm["some"], slide.obsm["hggep"][:, [3, 0]])
    record = slide.uns["some"]
    assert (list(record["genes"]), list(record["panel"])) == (["D", "A"], GENES)
    # Scores stay on the scale of the whole panel
    scores, scores_of_some = tl.evaluate(slide), tl.evaluate(slide, "some")
    pd.testing.assert_frame_equal(scores_of_some, scores.loc[["D", "A"]], check_exact=False, rtol=1e-5)
    assert list(tl.to_adata(slide, "some").var_names) == ["D", "A"]


@pytest.mark.parametrize(
    ("genes", "error", "words"),
    [
        (["A", "ACTB", "ACTB"], KeyError, "Not among the .* genes of the model .*: 'ACTB'. A model .*include="),
        (["A", "A"], ValueError, "more than once: 'A'"),
        ([], ValueError, "`genes` is empty"),
        ("A", TypeError, r"`genes=\['A'\]`"),
    ],
)
def test_unknown_genes_are_refused(slide, genes, error, words):
    with pytest.raises(error, match=words):
        tl.predict(slide, on_features(), genes=genes, **QUIET)
    assert prediction_keys(slide) == set()


# ---------------------------------------------------------------- latent embedding


def test_embedding_of_all_networks(slide):
    model = on_features()
    tl.predict(slide, model, latent=True, **QUIET)
    embedding = slide.obsm["X_hggep"]
    assert (embedding.dtype, embedding.shape) == (np.float32, (slide.n_obs, 2 * 16))
    assert np.isfinite(embedding).all()
    for i, member in enumerate(model.members):
        single = HGGEP([member], GENES, model.inputs)
        tl.predict(slide, single, key_added="alone", latent=True, **QUIET)
        np.testing.assert_allclose(slide.obsm["X_alone"], embedding[:, 16 * i : 16 * (i + 1)], rtol=1e-5, atol=1e-6)
    assert list(slide.uns["hggep"]["obsm"]) == ["X_hggep"]
    out = tl.to_adata(slide)
    np.testing.assert_array_equal(out.obsm["X_hggep"], embedding)
    assert not np.shares_memory(out.obsm["X_hggep"], embedding)


def test_embedding_is_removed_with_its_prediction(slide, tmp_path):
    model = on_features()
    tl.predict(slide, model, latent=True, **QUIET)
    tl.predict(slide, model, latent=True, **QUIET)  # the call may replace its own prediction
    slide.write_h5ad(tmp_path / "slide.h5ad")
    slide.write_zarr(tmp_path / "slide.zarr")
    for back in (anndata.read_h5ad(tmp_path / "slide.h5ad"), anndata.read_zarr(tmp_path / "slide.zarr"), slide):
        np.testing.assert_array_equal(back.obsm["X_hggep"], slide.obsm["X_hggep"])
        tl.predict(back, model, latent=True, **QUIET)
        tl.predict(back, model, **QUIET)
        assert prediction_keys(back) == {"hggep"}
        assert list(back.uns["hggep"]["obsm"]) == []


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_arrays_go_into_a_file_by_keys_without_slashes(slide, tmp_path, ending, monkeypatch):
    """Newer versions of anndata refuse a key such as ``layers/counts``; this test does so for all versions."""
    write_elem, keys = anndata.io.write_elem, []

    def refuse_slashes(group, key, *args, **options):
        assert "/" not in key
        keys.append(key)
        return write_elem(group, key, *args, **options)

    monkeypatch.setattr(anndata.io, "write_elem", refuse_slashes)
    model, out = on_features("zinb"), tmp_path / f"out{ending}"
    tl.predict(slide, model, latent=True, counts=True, key_added="inside", **QUIET)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*onsolidated", category=UserWarning)
        tl.predict(slide, model, latent=True, counts=True, out=out, **QUIET)
    assert keys[-4:] == ["X", "X_hggep", "counts", "hggep_novelty"]
    back = anndata.read_h5ad(out) if ending == ".h5ad" else anndata.read_zarr(out)
    np.testing.assert_array_equal(back.X, slide.obsm["inside"])
    np.testing.assert_array_equal(back.obsm["X_hggep"], slide.obsm["X_inside"])
    np.testing.assert_array_equal(back.layers["counts"], slide.obsm["inside_counts"])
    assert back.obs["hggep_novelty"].dtype == np.float32
    assert [name for name in back.layers if name is not None] == ["counts"]  # anndata 0.13 holds X as layers[None]
    lazy = tl.to_adata(slide)
    np.testing.assert_array_equal(np.asarray(lazy.layers["counts"]), slide.obsm["inside_counts"])


@pytest.mark.parametrize(("option", "name"), [("latent", "X_hggep"), ("counts", "hggep_counts")])
def test_arrays_of_others_are_not_replaced(slide, option, name):
    model = on_features("zinb")
    array = np.ones((slide.n_obs, 2))
    slide.obsm[name] = array
    with pytest.raises(ValueError, match=f"'{name}' exists already and sthggep did not write it"):
        tl.predict(slide, model, **{option: True}, **QUIET)
    assert prediction_keys(slide) == {name}
    tl.predict(slide, model, **QUIET)  # the call does not write this array
    with pytest.raises(ValueError, match=f"'{name}' exists already"):
        tl.predict(slide, model, **{option: True}, **QUIET)
    np.testing.assert_array_equal(slide.obsm[name], array)
    assert "hggep" in slide.obsm


def test_copy_leaves_the_slide(slide):
    out = tl.predict(slide, on_features("nb"), latent=True, counts=True, copy=True, **QUIET)
    assert prediction_keys(slide) == set()
    assert prediction_keys(out) == {"hggep", "X_hggep", "hggep_counts"}


def test_sections_of_one_object(slide):
    model = on_features("zinb")
    other = slide.copy()
    other.obsm["X_mine"] = other.obsm["X_mine"][::-1].copy()
    joined = anndata.concat([slide, other], label="which", keys=["one", "two"], index_unique="-", uns_merge="unique")
    tl.predict(joined, model, library_key="which", latent=True, counts=True, **QUIET)
    tl.predict(slide, model, latent=True, counts=True, **QUIET)
    for name in prediction_keys(slide):
        assert np.isfinite(joined.obsm[name]).all()
        np.testing.assert_allclose(joined.obsm[name][: slide.n_obs], slide.obsm[name], rtol=1e-4, atol=1e-5)


def test_spots_of_other_regions_are_nan(slide, monkeypatch):
    from sthggep.tl import _request

    other = slide.copy()
    joined = anndata.concat([slide, other], label="which", keys=["one", "two"], index_unique="-", uns_merge="unique")
    resolve = _request.resolve
    monkeypatch.setattr(_request, "resolve", lambda *a, **k: resolve(*a, **k)[1:])
    tl.predict(joined, on_features("zinb"), library_key="which", latent=True, counts=True, **QUIET)
    for name in ("hggep", "X_hggep", "hggep_counts"):
        assert np.isnan(joined.obsm[name][: slide.n_obs]).all()
        assert np.isfinite(joined.obsm[name][slide.n_obs :]).all()


# ---------------------------------------------------------------- counts


def test_means_of_the_distributions():
    torch.manual_seed(0)
    r, p = torch.randn(1, 3), torch.randn(1, 3)
    means = Output(r, r, r=r, p=p).expected_counts()
    expected = stats.nbinom(r.exp().numpy(), 1 - torch.sigmoid(p).numpy()).mean()
    np.testing.assert_allclose(means, expected, rtol=1e-5)
    # The same convention as in the loss: the loss is lowest at the distribution's own mean
    x = torch.from_numpy(np.random.default_rng(0).negative_binomial(5.0, 0.4, (4000, 1)).astype(np.float32))
    fit = [
        nb_nll(x, torch.tensor([[5.0]]).log(), torch.tensor([[shift]]) + np.log(0.6 / 0.4))
        for shift in (-0.3, 0.0, 0.3)
    ]
    assert fit[1] < min(fit[0], fit[2])
    mean = Output(r, r, r=torch.tensor([[5.0]]).log(), p=torch.tensor([[np.log(0.6 / 0.4)]])).expected_counts()
    assert mean.item() == pytest.approx(x.mean().item(), rel=0.05)
    pi, mu = torch.sigmoid(p), r.exp()
    torch.testing.assert_close(Output(r, r, mean=mu, dispersion=mu, dropout=pi).expected_counts(), (1 - pi) * mu)
    assert Output(r, r).expected_counts() is None


def test_counts_of_the_published_network(slide):
    torch.manual_seed(0)
    net = HGGEPNet(4, dim=32, depth=1, heads=2, hypergraph_dim=16, fusion_layers=1)
    model = HGGEP([net], GENES, Inputs("patches"), preset="paper")
    assert model.has_counts
    tl.predict(slide, model, counts=True, latent=True, **QUIET)
    counts = slide.obsm["hggep_counts"]
    assert (counts.dtype, counts.shape) == (np.float32, (slide.n_obs, 4))
    assert (counts > 0).all()
    assert slide.obsm["X_hggep"].shape == (slide.n_obs, 32)
    np.testing.assert_array_equal(tl.to_adata(slide).layers["counts"], counts)
    slide.obs["depth"] = np.linspace(0.5, 2, slide.n_obs)
    tl.predict(slide, model, counts="depth", genes=["C"], key_added="deep", **QUIET)
    expected = counts[:, [2]] * slide.obs["depth"].to_numpy()[:, None]
    np.testing.assert_allclose(slide.obsm["deep_counts"], expected, rtol=1e-5)
    assert slide.uns["deep"]["params"]["counts"] == "depth"


def test_models_without_a_count_head_are_refused(slide):
    with pytest.raises(ValueError, match=r"\(default\) has no head for counts.*mean of a logarithm.*'paper'"):
        tl.predict(slide, on_features(), counts=True, **QUIET)
    with pytest.raises(KeyError, match="'depth' is not in obs"):
        tl.predict(slide, on_features("nb"), counts="depth", **QUIET)
    slide.obs["depth"] = np.nan
    with pytest.raises(ValueError, match="size factor for each spot"):
        tl.predict(slide, on_features("nb"), counts="depth", **QUIET)
    assert prediction_keys(slide) == set()
