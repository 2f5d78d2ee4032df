from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
from anndata import AnnData
from matplotlib.collections import EllipseCollection, LineCollection
from scipy import sparse

from sthggep import pl

Make = Callable[..., AnnData]
N = 24  # 6 × 4 spots, row by row


def record(*kinds: str) -> dict[str, object]:
    """A record as `pp.hypergraph` writes it: one hyperedge for each spot and kind."""
    return {"tool": "sthggep", "spot": np.tile(np.arange(N), len(kinds)), "kind": np.repeat(kinds, N), "params": {}}


def incidence(members: dict[int, list[int]], n_edges: int) -> sparse.csr_matrix:
    """Make hyperedges by number; the others hold their own spot only."""
    pairs = [(spot, edge) for edge in range(n_edges) for spot in members.get(edge, [edge % N])]
    rows, columns = np.array(pairs).T
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(N, n_edges))


def segments_of_hyperedges(ax) -> list[np.ndarray]:
    """Segments of each hyperedge drawn."""
    return [np.array(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection)]


def test_lines_lead_to_the_members_of_the_hyperedge_of_the_spot(section: Make):
    adata = section()
    # Hyperedges of other spots hold spot 7 ("1x1"), too; they are not drawn
    adata.obsm["hypergraph"] = incidence({7: [7, 1, 6, 8], 8: [8, 7, 9]}, N)
    adata.uns["hypergraph"] = record("spatial")
    figure = pl.hypergraph(adata, spots=["1x1"])
    (segments,) = segments_of_hyperedges(figure.axes[0])
    xy = adata.obsm["spatial"]
    np.testing.assert_array_equal(segments[:, 0], np.tile(xy[7], (4, 1)))
    np.testing.assert_array_equal(segments[:, 1], xy[[1, 6, 7, 8]])
    everyone, members, center = (c for c in figure.axes[0].collections if isinstance(c, EllipseCollection))
    np.testing.assert_array_equal(everyone.get_offsets(), xy)
    np.testing.assert_array_equal(members.get_offsets(), xy[[1, 6, 7, 8]])
    np.testing.assert_array_equal(center.get_offsets(), xy[[7]])
    np.testing.assert_array_equal(everyone.get_widths(), np.full(N, 50.0))
    assert figure.axes[0].get_title() == "S1: hyperedges of 1 of 24 spots\n4 spots each"


def test_two_kinds_in_two_line_styles(section: Make):
    adata = section()
    adata.obsm["hypergraph"] = incidence({7: [7, 8], N + 7: [7, 23, 0]}, 2 * N)
    adata.uns["hypergraph"] = record("spatial", "similar")
    figure = pl.hypergraph(adata, spots=["1x1"])
    near, alike = segments_of_hyperedges(figure.axes[0])
    np.testing.assert_array_equal(near[:, 1], adata.obsm["spatial"][[7, 8]])
    np.testing.assert_array_equal(alike[:, 1], adata.obsm["spatial"][[0, 7, 23]])
    first, second = (c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    assert first.get_linestyle() != second.get_linestyle()
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["spatial", "similar"]
    assert "2–3 spots each" in figure.axes[0].get_title()


def test_outdated_records_are_not_used(section: Make):
    """If rows were dropped, the figure shows all hyperedges that hold the spot."""
    adata = section()
    adata.obsm["hypergraph"] = incidence({7: [7, 8], 8: [8, 7, 9]}, N)
    adata.uns["hypergraph"] = record("spatial")
    rest = adata[1:].copy()
    (segments,) = segments_of_hyperedges(pl.hypergraph(rest, spots=["1x1"]).axes[0])
    np.testing.assert_array_equal(segments[:, 1], adata.obsm["spatial"][[7, 8, 9]])


def test_hyperedges_written_by_pp(section: Make):
    from sthggep import pp

    adata = section()
    pp.hypergraph(adata, n_spatial=2)
    (segments,) = segments_of_hyperedges(pl.hypergraph(adata, spots=["0x0"]).axes[0])
    np.testing.assert_array_equal(segments[:, 1], adata.obsm["spatial"][[0, 1, 6]])


def test_any_other_incidence_draws_all_that_hold_the_spot(section: Make):
    adata = section()
    adata.obsm["hypergraph"] = incidence({0: [1, 7], 1: [7, 13], 2: [20, 21]}, 3)
    (segments,) = segments_of_hyperedges(pl.hypergraph(adata, spots=["1x1"]).axes[0])
    np.testing.assert_array_equal(segments[:, 1], adata.obsm["spatial"][[1, 7, 13]])


def test_one_section_of_several(section: Make):
    first, second = section("A"), section("B", 1)
    joined = ad.concat([first, second], index_unique="-")
    joined.uns["spatial"] = first.uns["spatial"] | second.uns["spatial"]
    joined.uns["hypergraph"] = {"spot": np.arange(2 * N), "kind": ["spatial"] * 2 * N}
    joined.obsm["hypergraph"] = sparse.block_diag([incidence({}, N), incidence({7: [7, 8]}, N)], format="csr")
    with pytest.raises(ValueError, match=r"'A', 'B'.*section="):
        pl.hypergraph(joined, library_key="section")
    (segments,) = segments_of_hyperedges(
        pl.hypergraph(joined, library_key="section", section="B", spots=["1x1-1"]).axes[0]
    )
    np.testing.assert_array_equal(segments[:, 1], second.obsm["spatial"][[7, 8]])


def test_own_axes_and_no_image(section: Make, tmp_path):
    adata = section()
    adata.obsm["hypergraph"] = incidence({}, N)
    del adata.uns["spatial"]
    _, ax = plt.subplots()
    assert pl.hypergraph(adata, image=False, n=3, ax=ax, save=tmp_path / "h.png") is ax
    assert len(segments_of_hyperedges(ax)) == 3
    assert not ax.images


def test_isolated_spot(section: Make):
    adata = section()
    adata.obsm["hypergraph"] = sparse.csr_matrix((N, 2), dtype=np.float32)
    figure = pl.hypergraph(adata, spots=["0x0"])
    figure.canvas.draw()
    assert "0 spots each" in figure.axes[0].get_title()


def test_errors(section: Make):
    adata = section()
    with pytest.raises(KeyError, match=r"pp\.hypergraph"):
        pl.hypergraph(adata)
    adata.obsm["hypergraph"] = np.ones((N, 3))
    with pytest.raises(ValueError, match="sparse incidence"):
        pl.hypergraph(adata)
