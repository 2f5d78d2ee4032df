"""Predictions as a separate AnnData."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from sthggep import datasets, tl


@pytest.fixture
def slide() -> ad.AnnData:
    adata = datasets.toy(size_um=(1500.0, 1500.0), mpp=4.0, n_genes=12)
    adata.obsm["hggep"] = np.random.default_rng(0).normal(3, 1, (adata.n_obs, 5)).astype(np.float32)
    genes = np.array(adata.var_names[[4, 0, 2, 9, 7]], dtype=object)
    adata.uns["hggep"] = {"tool": "sthggep", "genes": genes, "units": "log", "params": {"preset": "default"}}
    return adata


def test_values_genes_and_spots(slide):
    out = tl.to_adata(slide)
    np.testing.assert_array_equal(out.X, slide.obsm["hggep"])
    assert out.X.dtype == np.float32
    assert list(out.var_names) == list(slide.var_names[[4, 0, 2, 9, 7]])
    assert list(out.obs_names) == list(slide.obs_names)
    assert list(out.obs.columns) == list(slide.obs.columns)
    np.testing.assert_array_equal(out.obsm["spatial"], slide.obsm["spatial"])
    assert out.uns["hggep"]["units"] == "log"
    assert [name for name in out.layers if name is not None] == []  # anndata 0.13 holds X as layers[None]


def test_only_the_image_is_shared(slide):
    out = tl.to_adata(slide)
    (name,) = slide.uns["spatial"]
    library, source_library = out.uns["spatial"][name], slide.uns["spatial"][name]
    assert library["images"]["hires"] is source_library["images"]["hires"]
    out.X[:] = 0
    out.obs["new"] = 1
    out.obsm["spatial"][:] = 0
    out.uns["hggep"]["params"]["preset"] = "changed"
    library["scalefactors"]["tissue_hires_scalef"] = 99.0
    assert slide.obsm["hggep"].any()
    assert "new" not in slide.obs
    assert slide.obsm["spatial"].any()
    assert slide.uns["hggep"]["params"]["preset"] == "default"
    assert source_library["scalefactors"]["tissue_hires_scalef"] != 99.0


def test_scanpy_works_on_the_result_and_the_source_does_not_change(slide, tmp_path: Path):
    keys = set(slide.uns), set(slide.obsm), set(slide.varm)
    out = tl.to_adata(slide)
    sc.pp.pca(out, n_comps=3)
    out.obs["half"] = np.where(np.arange(out.n_obs) % 2, "odd", "even")
    out.obs["half"] = out.obs["half"].astype("category")
    sc.tl.rank_genes_groups(out, "half", method="t-test")
    assert out.obsm["X_pca"].shape == (slide.n_obs, 3)
    assert set(out.uns["rank_genes_groups"]["names"]["odd"]) == set(out.var_names)
    assert (set(slide.uns), set(slide.obsm), set(slide.varm)) == keys
    out.write_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "out.h5ad").X, slide.obsm["hggep"])


def test_decoupler_accepts_the_result(slide):
    """Its mean of a gene set equals the mean of the predicted genes."""
    dc = pytest.importorskip("decoupler")
    out = tl.to_adata(slide)
    sets = pd.DataFrame({"source": "set", "target": list(out.var_names[[0, 2, 3]]), "weight": 1.0})
    dc.mt.waggr(out, sets, tmin=2, fun="wmean", times=0)
    expected = slide.obsm["hggep"][:, [0, 2, 3]].mean(axis=1)
    np.testing.assert_allclose(out.obsm["score_waggr"]["set"], expected, rtol=1e-5)
    assert set(slide.obsm) == {"spatial", "morphology", "hggep"}


def test_another_key_and_a_slide_without_coordinates(slide):
    slide.obsm["mine"], slide.uns["mine"] = slide.obsm.pop("hggep") * 2, slide.uns.pop("hggep")
    del slide.obsm["spatial"]
    out = tl.to_adata(slide, "mine")
    np.testing.assert_array_equal(out.X, slide.obsm["mine"])
    assert set(out.uns) == {"spatial", "mine"}
    assert list(out.obsm) == []
    with pytest.raises(KeyError, match=r"'hggep' is not in obsm.*Predictions: \['mine'\]"):
        tl.to_adata(slide)


def test_spatialdata(slide):
    sdata = datasets.toy(size_um=(1500.0, 1500.0), mpp=4.0, n_genes=12, as_spatialdata=True)
    table = sdata.tables["table"]
    table.obsm["hggep"], table.uns["hggep"] = slide.obsm["hggep"], slide.uns["hggep"]
    np.testing.assert_array_equal(tl.to_adata(sdata).X, slide.obsm["hggep"])
    with pytest.raises(KeyError, match="'cells' is not in the tables"):
        tl.to_adata(sdata, table_key="cells")
    with pytest.raises(TypeError, match="must be an AnnData or a SpatialData"):
        tl.to_adata("slide.h5ad")
