"""Hyperedges of nearby and of similar spots, as a sparse incidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from sthggep._arguments import checked
from sthggep._checks import counted, has_key, may_write, positive
from sthggep._docs import document_places
from sthggep._encoders._freshness import refuse_stale
from sthggep._keys import TOOL
from sthggep._slides._anndata import copy_data, table_of
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep._slides._results import write_results

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData
    from torch_geometric.data.hypergraph_data import HyperGraphData

    from sthggep._slides._slide import Slide


@checked
@document_places
def hypergraph(
    data: AnnData | SpatialData,
    *,
    n_spatial: int = 6,
    features: str | None = None,
    n_similar: int = 4,
    n_candidates: int = 24,
    key_added: str = "hypergraph",
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    library_key: str | None = None,
    copy: bool = False,
    as_pyg: bool = False,
) -> AnnData | SpatialData | HyperGraphData | None:
    """Join spots by hyperedges: each spot with its nearest, and with the most similar of those nearby.

    The published rule joins a spot to the most *dissimilar* of its spatial neighbors and leaves the spot itself out;
    here a hyperedge holds its spot, and the nearest or the most similar ones.

    Parameters
    ----------
    data
        One or several sections; no hyperedge crosses from one to another.
    n_spatial
        Nearest spots in a spatial hyperedge, the spot itself not counted. 0 for no spatial hyperedges.
    features
        Key in ``obsm`` of features for hyperedges of similar spots, such as ``"X_shufflenet_160"``. Default: no such
        hyperedges.
    n_similar
        Spots in a hyperedge of similar spots, the spot itself not counted.
    n_candidates
        Nearest spots among which the similar ones are chosen, so that a hyperedge stays local.
    key_added
        Name of the result.
    {places}
    copy
        Return a changed copy and leave ``data`` unchanged.
    as_pyg
        Return the hypergraph for models of PyTorch Geometric and leave ``data`` unchanged.

    Returns
    -------
    ``None``, the copy, or with ``as_pyg`` a ``torch_geometric.data.hypergraph_data.HyperGraphData`` with

    - ``edge_index``, int64 ``(2, nnz)``: the spot (row of the table), and the hyperedge that holds it. PyTorch
      Geometric's convolutions call this argument ``hyperedge_index``;
    - ``x``, float32 ``(n_obs, n_features)``: the features of ``obsm[features]``, or ``None``;
    - ``pos``, float32 ``(n_obs, 2)``: x and y in pixels of the full-resolution image; NaN for a spot of no section;
    - ``num_nodes``: ``n_obs``.

    Without ``as_pyg`` the function writes to the table:

    ``obsm[key_added]`` : sparse bool (n_obs, n_hyperedges)
        The incidence: which spots each hyperedge holds. Hyperedges of regions that were not selected stay.
    ``uns[key_added]`` : dict
        ``params``; ``spot``, the spot (row) that each hyperedge was drawn around; ``kind``, ``"spatial"`` or
        ``"similar"``.

    Raises
    ------
    KeyError
        The features are not there.
    ValueError
        No hyperedges were asked for, the key is not sthggep's, or ``copy`` and ``as_pyg`` were both passed.

    Examples
    --------
    >>> import sthggep
    >>> from torch_geometric.nn import HypergraphConv
    >>> slide = sthggep.datasets.toy(size_um=(1200.0, 1200.0), mpp=2.0, n_genes=4)
    >>> sthggep.pp.features(slide, size_um=160)
    >>> graph = sthggep.pp.hypergraph(slide, features="X_shufflenet_he_160", as_pyg=True)
    >>> out = HypergraphConv(graph.x.shape[1], 16)(graph.x, graph.edge_index)
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    if n_spatial < 0 or (n_spatial == 0 and features is None):
        msg = f"No hyperedges were asked for (`n_spatial={n_spatial}`, `features={features!r}`). Pass one of them."
        raise ValueError(msg)
    if copy and as_pyg:
        msg = "`copy=True` and `as_pyg=True` were both passed. `as_pyg` leaves the data alone: leave `copy` out."
        raise ValueError(msg)
    positive(n_similar, "`n_similar`")
    positive(n_candidates, "`n_candidates`")
    data = copy_data(data) if copy else data
    table = table_of(data, table_key)
    if not as_pyg:
        may_write(table, key_added)
    if features is not None:
        has_key(table.obsm, features, "obsm", "Call `sthggep.pp.features(data, size_um=...)` first.")
    slides = resolve(data, places, need_image=False)
    if features is not None:
        _check_features(slides, features)
        refuse_stale(data, places, [features])
    incidences, spots, kinds = [], [], []
    for slide in slides:
        for kind, (held, edges) in _hyperedges(slide, n_spatial, features, n_similar, n_candidates).items():
            shape = (table.n_obs, slide.n_spots)
            incidences.append(sparse.csr_matrix((np.ones(len(held), bool), (slide.rows[held], edges)), shape=shape))
            spots.append(slide.rows)
            kinds += [kind] * slide.n_spots
    incidence = sparse.hstack(incidences, format="csr")
    if as_pyg:
        return _as_pyg(table, slides, incidence, features)
    params = {
        "n_spatial": n_spatial,
        # None cannot be written everywhere
        **({} if features is None else {"features": features}),
        "n_similar": n_similar,
        "n_candidates": n_candidates,
    }
    result = _Hyperedges(incidence, np.concatenate(spots), kinds)
    if other := _of_other_sections(table, key_added, params, np.concatenate([slide.rows for slide in slides])):
        result = other.beside(result)
    record = {"tool": TOOL, "spot": result.spot, "kind": np.array(result.kind, dtype=object), "params": params}
    write_results(table, obsm={key_added: result.incidence}, uns={key_added: record})
    return data if copy else None


class _Hyperedges(NamedTuple):
    """Hyperedges with the spot and the kind of each."""

    incidence: sparse.csr_matrix
    spot: NDArray[np.int64]
    kind: list[str]

    def beside(self, new: _Hyperedges) -> _Hyperedges:
        """These hyperedges and those of other sections."""
        incidence = sparse.hstack([self.incidence, new.incidence], format="csr")
        return _Hyperedges(incidence, np.concatenate([self.spot, new.spot]), [*self.kind, *new.kind])


def _of_other_sections(
    table: AnnData, key: str, params: Mapping[str, object], rows: NDArray[np.intp]
) -> _Hyperedges | None:
    """Earlier hyperedges of sections without these rows; refuse to erase those of other options."""
    record, incidence = table.uns.get(key, {}), table.obsm.get(key)
    spot = np.asarray(record.get("spot", ()), dtype=np.int64)
    if incidence is None or not len(spot) or incidence.shape[1] != len(spot) or spot.max() >= table.n_obs:
        return None
    incidence = sparse.csc_matrix(incidence)
    # A spot is in its own hyperedge, unless rows were dropped or sorted since
    other = np.flatnonzero(~np.isin(spot, rows))
    if not len(other) or not np.asarray(incidence[spot[other], other]).all():
        return None
    if dict(record.get("params", {})) != dict(params):
        msg = (
            f"{key!r} holds {counted(len(other), 'hyperedge')} of other sections with the options {record.get('params')}, and this "
            "call would erase them. Pass another `key_added=`, or call once for all sections."
        )
        raise ValueError(msg)
    return _Hyperedges(incidence[:, other].tocsr(), spot[other], [str(kind) for kind in record["kind"][other]])


def _as_pyg(
    table: AnnData, slides: Sequence[Slide], incidence: sparse.csr_matrix, features: str | None
) -> HyperGraphData:
    """The hypergraph as PyTorch Geometric has it."""
    import torch
    from torch_geometric.data.hypergraph_data import HyperGraphData

    xy = np.full((table.n_obs, 2), np.nan, dtype=np.float32)
    for slide in slides:
        xy[slide.rows] = slide.xy
    pairs = np.stack(incidence.nonzero()).astype(np.int64)
    x = None if features is None else torch.from_numpy(np.array(table.obsm[features], dtype=np.float32))
    return HyperGraphData(x=x, edge_index=torch.from_numpy(pairs), pos=torch.from_numpy(xy), num_nodes=table.n_obs)


def _check_features(slides: Sequence[Slide], key: str) -> None:
    """Features are numbers, one row a spot."""
    values = np.concatenate([np.asarray(s.adata.obsm[key][s.rows], dtype=np.float64) for s in slides])
    missing = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).sum())
    if missing:
        msg = f"obsm[{key!r}] holds NaN for {counted(missing, 'spot')}. Call `sthggep.pp.features` for all sections first."
        raise ValueError(msg)


def _hyperedges(
    slide: Slide, n_spatial: int, features: str | None, n_similar: int, n_candidates: int
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs (spot, hyperedge) of one section, by kind; one hyperedge a spot."""
    import torch

    from sthggep.nn import similar_incidence, spatial_incidence, spatial_neighbors

    incidences = {}
    if n_spatial:
        near = spatial_neighbors(slide.xy / slide.pitch(), n_spatial + 1).rows
        incidences["spatial"] = spatial_incidence(near)
    if features is not None:
        values = torch.from_numpy(np.asarray(slide.adata.obsm[features][slide.rows], dtype=np.float32))
        among = spatial_neighbors(slide.xy / slide.pitch(), n_candidates + 1).rows
        incidences["similar"] = similar_incidence(values, among, n_selected=n_similar)
    return {kind: (pairs[0].numpy(), pairs[1].numpy()) for kind, pairs in incidences.items()}
