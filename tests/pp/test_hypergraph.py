"""Hyperedges: their spots, checked by hand, and what is written."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from sthggep import datasets, pp


def members(adata: ad.AnnData, spot: int, kind: str = "spatial", key: str = "hypergraph") -> set[int]:
    """Spots of the hyperedge that belongs to one spot."""
    record = adata.uns[key]
    (edge,) = np.flatnonzero((record["spot"] == spot) & (record["kind"] == kind))
    return set(adata.obsm[key].tocsc()[:, edge].indices.tolist())


def test_nearby_spots_on_a_grid_by_hand(section, state):
    adata = section()  # 0 1 2 / 3 4 5 / 6 7 8
    before = state(adata)
    assert pp.hypergraph(adata, n_spatial=4) is None
    incidence = adata.obsm["hypergraph"]
    assert sparse.issparse(incidence)
    assert (incidence.shape, incidence.dtype) == ((9, 9), bool)
    assert members(adata, 4) == {1, 3, 4, 5, 7}
    # the two beside a corner, the diagonal one, then a tie at two pitches: lower y first
    assert members(adata, 0) == {0, 1, 3, 4, 2}
    assert members(adata, 5) == {5, 2, 4, 8, 1}
    assert incidence.sum(axis=0).tolist() == [[5] * 9]
    record = adata.uns["hypergraph"]
    assert record["spot"].tolist() == list(range(9))
    assert record["params"] == {"n_spatial": 4, "n_similar": 4, "n_candidates": 24}
    del adata.obsm["hypergraph"], adata.uns["hypergraph"]
    assert state(adata) == before


def test_similar_spots_are_among_the_nearest(section):
    adata = section()
    # spot 8 has the features of spot 0, but is not near it
    adata.obsm["X_f"] = np.array([0.0, 5, 9, 1, 7, 20, 30, 40, 0.0])[:, None]
    pp.hypergraph(adata, n_spatial=0, features="X_f", n_similar=2, n_candidates=3)
    assert adata.obsm["hypergraph"].shape == (9, 9)
    assert set(adata.uns["hypergraph"]["kind"]) == {"similar"}
    # candidates of 0 are 1, 3 (beside) and 4 (diagonal): values 5, 1, 7
    assert members(adata, 0, "similar") == {0, 3, 1}
    pp.hypergraph(adata, n_spatial=0, features="X_f", n_similar=2, n_candidates=8)
    assert members(adata, 0, "similar") == {0, 8, 3}
    assert adata.uns["hypergraph"]["params"]["features"] == "X_f"


def test_both_kinds_side_by_side(section):
    adata = section()
    adata.obsm["X_f"] = np.random.default_rng(0).normal(size=(9, 5))
    pp.hypergraph(adata, n_spatial=2, features="X_f", n_similar=1, n_candidates=4, key_added="mine")
    assert adata.obsm["mine"].shape == (9, 18)
    assert adata.uns["mine"]["kind"].tolist() == ["spatial"] * 9 + ["similar"] * 9
    assert adata.obsm["mine"].sum(axis=0).tolist() == [[3] * 9 + [2] * 9]
    for spot in range(9):
        assert spot in members(adata, spot, "spatial", "mine") & members(adata, spot, "similar", "mine")


def test_no_hyperedge_between_sections(two_sections):
    # both sections have the same coordinates
    two_sections.obsm["X_f"] = np.ones((18, 2))
    pp.hypergraph(two_sections, library_key="section", features="X_f")
    section_of = two_sections.obs["section"].to_numpy()
    incidence = two_sections.obsm["hypergraph"].tocsc()
    assert incidence.shape == (18, 36)
    record = two_sections.uns["hypergraph"]
    for edge, (spot, kind) in enumerate(zip(record["spot"], record["kind"], strict=True)):
        spots = incidence[:, edge].indices
        assert spot in spots
        assert len(spots) == {"spatial": 7, "similar": 5}[kind]
        assert set(section_of[spots]) == {section_of[spot]}


def test_order_of_the_rows_does_not_matter(section):
    adata = section(side=4)
    order = np.random.default_rng(1).permutation(16)
    permuted = adata[order].copy()
    pp.hypergraph(adata)
    pp.hypergraph(permuted)
    for row, spot in enumerate(order):
        assert {int(order[i]) for i in members(permuted, row)} == members(adata, int(spot))


@pytest.mark.parametrize("n_spots", [1, 2])
def test_fewer_spots_than_neighbors(section, n_spots: int):
    adata = section()[:n_spots].copy()
    adata.obsm["X_f"] = np.ones((n_spots, 3))
    pp.hypergraph(adata, features="X_f")
    assert adata.obsm["hypergraph"].toarray().all()
    assert adata.obsm["hypergraph"].shape == (n_spots, 2 * n_spots)


def test_isolated_and_coinciding_spots(section):
    adata = section()
    adata.obsm["spatial"][8] = [1e5, 1e5]
    adata.obsm["spatial"][7] = adata.obsm["spatial"][6]
    pp.hypergraph(adata, n_spatial=2)
    assert 8 in members(adata, 8)
    assert not any(8 in members(adata, spot) for spot in range(8))
    assert {6, 7} <= members(adata, 6)
    assert {6, 7} <= members(adata, 7)


@pytest.mark.parametrize("features", [None, "X_f"])
def test_round_trip(section, state, tmp_path: Path, features: str | None):
    adata = section()
    adata.obsm["X_f"] = np.random.default_rng(0).normal(size=(9, 3))
    pp.hypergraph(adata, features=features)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for copy in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        assert copy.obsm["hypergraph"].dtype == bool
        np.testing.assert_array_equal(copy.obsm["hypergraph"].toarray(), adata.obsm["hypergraph"].toarray())
        record = copy.uns["hypergraph"]
        assert record["tool"] == "sthggep"
        assert record["params"] == adata.uns["hypergraph"]["params"]
        assert members(copy, 4) == members(adata, 4)
        pp.hypergraph(copy, n_spatial=2)  # sthggep wrote it, so sthggep may replace it
        assert len(members(copy, 4)) == 3


def test_spatialdata_and_copy(state):
    options = {"size_um": (1200.0, 1200.0), "mpp": 4.0, "n_genes": 4}
    adata, sdata = datasets.toy(**options), datasets.toy(**options, as_spatialdata=True)
    before = state(adata)
    copy = pp.hypergraph(adata, copy=True)
    assert state(adata) == before
    pp.hypergraph(sdata)
    np.testing.assert_array_equal(sdata.tables["table"].obsm["hypergraph"].toarray(), copy.obsm["hypergraph"].toarray())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_spatial": 0}, ValueError, "No hyperedges were asked for"),
        ({"n_spatial": -1, "features": "X_f"}, ValueError, "`n_spatial` must be a whole number of 0 or more"),
        ({"features": "X_g"}, KeyError, r"'X_g' is not in obsm.*pp\.features"),
        ({"features": "X_nan"}, ValueError, "'X_nan'. holds NaN for 1 spot\\."),
        ({"features": "X_f", "n_similar": 0}, ValueError, "`n_similar` must be a positive"),
        ({"features": "X_f", "n_candidates": 0}, ValueError, "`n_candidates` must be a positive"),
        ({"key_added": "X_f"}, ValueError, "'X_f' exists already and sthggep did not write it"),
    ],
    ids=str,
)
def test_refused(section, state, options, error, words):
    adata = section()
    adata.obsm["X_f"] = np.ones((9, 2))
    adata.obsm["X_nan"] = np.ones((9, 2))
    adata.obsm["X_nan"][3, 1] = np.nan
    before = state(adata)
    with pytest.raises(error, match=words):
        pp.hypergraph(adata, **options)
    assert state(adata) == before


# ---------------------------------------------------------------- PyTorch Geometric


def test_convolution_of_torch_geometric_takes_the_hypergraph(two_sections, state):
    import torch
    from torch_geometric.nn import HypergraphConv

    two_sections.obsm["X_f"] = np.random.default_rng(0).normal(size=(18, 5))
    options = {"n_spatial": 3, "features": "X_f", "n_similar": 2, "library_key": "section"}
    before = state(two_sections)
    graph = pp.hypergraph(two_sections, **options, as_pyg=True)
    assert state(two_sections) == before
    pp.hypergraph(two_sections, **options)
    dense = torch.from_numpy(two_sections.obsm["hypergraph"].toarray().astype(np.float32))
    torch.manual_seed(0)
    conv = HypergraphConv(5, 4)
    torch.nn.init.normal_(conv.bias)
    means = torch.diag(1 / dense.sum(0)) @ dense.T @ graph.x @ conv.lin.weight.T
    expected = torch.diag(1 / dense.sum(1)) @ dense @ means + conv.bias
    torch.testing.assert_close(conv(graph.x, graph.edge_index), expected)
    assert graph.validate()
    assert (graph.num_nodes, int(graph.num_edges)) == (18, 36)
    assert (graph.x.dtype, graph.edge_index.dtype, graph.pos.dtype) == (torch.float32, torch.int64, torch.float32)
    np.testing.assert_array_equal(graph.pos, two_sections.obsm["spatial"])
    np.testing.assert_allclose(graph.x, two_sections.obsm["X_f"], rtol=1e-6)


def test_hypergraphs_of_several_sections_in_one_batch(section):
    from torch_geometric.data import Batch

    graphs = [pp.hypergraph(section(name, side), as_pyg=True) for name, side in (("A", 3), ("B", 4))]
    assert graphs[0].x is None
    batch = Batch.from_data_list(graphs)
    second = batch.edge_index[:, graphs[0].edge_index.shape[1] :]
    assert (batch.num_nodes, second.min(dim=1).values.tolist()) == (25, [9, 9])


def test_copy_and_as_pyg_exclude_each_other(section):
    with pytest.raises(ValueError, match="`as_pyg` leaves the data alone"):
        pp.hypergraph(section(), copy=True, as_pyg=True)
