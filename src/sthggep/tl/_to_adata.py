"""Predictions as an AnnData of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import AnnData

from sthggep._checks import written_beside
from sthggep._keys import prediction_keys
from sthggep._prediction import read_prediction
from sthggep._slide import table_of

if TYPE_CHECKING:
    from spatialdata import SpatialData


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
    A new AnnData (n_obs × predicted genes): ``X`` holds the prediction, a copy, on the scale ``uns[key]["units"]``,
    which is a logarithm already and must not be normalised again; ``obs``, ``obsm["spatial"]``, ``uns["spatial"]`` and
    the prediction's record come along; so do ``obsm["X_<key>"]``, the latent embedding, and ``layers["counts"]``, expected
    counts, where they were predicted; and ``var["held_out_pearson"]`` and ``var["training_ceiling"]``, where the model knows
    them. ``data`` is not changed.

    Raises
    ------
    KeyError
        There is no such prediction.
    """
    table = table_of(data, table_key)
    prediction = read_prediction(table, key)
    out = AnnData(
        X=prediction.values.copy(),
        obs=table.obs.copy(),
        var=pd.DataFrame(index=pd.Index(prediction.genes)),
        obsm={"spatial": table.obsm["spatial"].copy()} if "spatial" in table.obsm else None,
    )
    for name in ("held_out_pearson", "training_ceiling"):
        if name in table.uns[key]:
            out.var[name] = table.uns[key][name]
    names = prediction_keys(key)
    beside = [name for name in written_beside(table.uns[key]) if name in table.obsm]
    if names.latent in beside:
        out.obsm[names.latent] = table.obsm[names.latent].copy()
    if names.counts in beside:
        out.layers["counts"] = table.obsm[names.counts].copy()
    out.uns = {name: _own_dicts(table.uns[name]) for name in ("spatial", key) if name in table.uns}
    return out


def _own_dicts(value: Any) -> Any:
    """The same record in dicts of its own; arrays are shared, since the image is large."""
    return {k: _own_dicts(v) for k, v in value.items()} if isinstance(value, Mapping) else value
