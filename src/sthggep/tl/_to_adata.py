"""Predictions as an AnnData of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from sthggep._checks import written_beside
from sthggep._keys import prediction_keys
from sthggep._log import log
from sthggep._slides._anndata import table_of
from sthggep._table._prediction import open_stored_arrays, read_prediction

if TYPE_CHECKING:
    from spatialdata import SpatialData

LINK = "spatialdata_attrs"  # how SpatialData knows which shapes a table's rows are


def to_adata(data: AnnData | SpatialData, key: str = "hggep", *, table_key: str = "table") -> AnnData:
    """Predictions as ``X``, so that every scanpy and squidpy call works on them.

    Parameters
    ----------
    data
        Slide with a prediction.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    table_key
        Table of a SpatialData.

    Returns
    -------
    A new AnnData (spots × predicted genes): ``X`` holds the prediction, a copy (a dask array, read when it is asked for,
    where it was written to a file by ``out=``; ``.to_memory()`` reads all), on the scale ``uns[key]["units"]``,
    which is a logarithm already and must not be normalized again; ``obs``, ``obsm["spatial"]``, ``uns["spatial"]`` and
    the prediction's record come along; so do ``obsm["X_<key>"]``, the latent embedding, and ``layers["counts"]``, expected
    counts, where they were predicted; and ``var["held_out_pearson"]`` and ``var["training_ceiling"]``, where the model knows
    them. Spots without a prediction (off the tissue, or of sections that were not asked for) are left out. ``data`` is
    not changed.

    The link to the shapes of a SpatialData comes along, too: ``sdata["predicted"] = sthggep.tl.to_adata(sdata)`` puts a
    table beside the others that ``spatialdata-plot`` colors shapes by.

    Raises
    ------
    KeyError
        There is no such prediction.
    """
    table = table_of(data, table_key)
    prediction = read_prediction(table, key)
    rows = np.flatnonzero(np.asarray(~np.isnan(prediction.values).all(axis=1)))
    if len(rows) < table.n_obs:
        log.info("%d of %d spots have no prediction and are left out.", table.n_obs - len(rows), table.n_obs)
    out = AnnData(
        X=prediction.values[rows],
        obs=table.obs.iloc[rows].copy(),
        var=pd.DataFrame(index=pd.Index(prediction.genes)),
        obsm={"spatial": table.obsm["spatial"][rows]} if "spatial" in table.obsm else None,
    )
    for name in ("held_out_pearson", "training_ceiling"):
        if name in table.uns[key]:
            out.var[name] = table.uns[key][name]
    names = prediction_keys(key)
    beside = {name: table.obsm[name] for name in written_beside(table.uns[key]) if name in table.obsm}
    if prediction.path is not None:
        beside = open_stored_arrays(prediction.path, key)
    if names.latent in beside:
        out.obsm[names.latent] = beside[names.latent][rows]
    if names.counts in beside:
        out.layers["counts"] = beside[names.counts][rows]
    if names.std in beside:
        out.layers["std"] = beside[names.std][rows]
    out.uns = {name: _own_dicts(table.uns[name]) for name in ("spatial", LINK, key) if name in table.uns}
    if LINK in out.uns:
        attrs = out.uns[LINK]
        left = set(out.obs[attrs["region_key"]].astype(str))
        regions = [str(region) for region in np.atleast_1d(attrs["region"]) if str(region) in left]
        attrs["region"] = regions[0] if len(regions) == 1 else regions
    return out


def _own_dicts(value: Any) -> Any:
    """The same record in dicts of its own; arrays are shared, since the image is large."""
    return {k: _own_dicts(v) for k, v in value.items()} if isinstance(value, Mapping) else value
