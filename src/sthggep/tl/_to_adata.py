"""A prediction as an AnnData with the predicted genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import has_key, written_beside
from sthggep._keys import prediction_keys
from sthggep._log import log
from sthggep._slides._anndata import read_coordinates, table_of
from sthggep._slides._values import as_mapping
from sthggep._table._prediction import open_stored_arrays, read_prediction

if TYPE_CHECKING:
    from spatialdata import SpatialData

LINK = "spatialdata_attrs"  # names the shapes of each row of a table of a SpatialData


@checked
def to_adata(
    data: AnnData | SpatialData, key: str = "hggep", *, table_key: str = "table", spatial_key: str = "spatial"
) -> AnnData:
    """Make an AnnData with the prediction as ``X``, for scanpy and squidpy.

    Parameters
    ----------
    data
        Slide with a prediction. The function does not change it.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    table_key
        Table of a SpatialData.
    spatial_key
        Key in ``obsm`` of coordinates to take along, beside ``"spatial"`` and those that the slide was predicted with.

    Returns
    -------
    A new AnnData (spots × predicted genes), without the spots that have no prediction:

    ``X``
        A copy of the prediction, on the scale ``uns[key]["units"]``. It is logarithmic: do not normalize it again.
        After ``tl.predict(out=...)`` it is a dask array; ``.to_memory()`` reads it.
    ``obs``, ``obsm["spatial"]``, ``obsm[spatial_key]``, ``uns["spatial"]``, ``uns[key]``
        As in the table; coordinates as an array.
    ``obsm["X_<key>"]``, ``layers["counts"]``, ``layers["lower"]``, ``layers["upper"]``
        Latent embedding, expected counts and ends of intervals, if they were predicted.
    ``var["held_out_pearson"]``, ``var["training_ceiling"]``
        Held-out correlation and noise ceiling of each gene in the training, if the model records them.
    ``var["n_sections"]``, ``var["n_spots"]``
        On how many training slides and spots each gene was measured, if slides lacked genes; 0 for *not measured with
        images*.
    ``uns["spatialdata_attrs"]``
        The link to the shapes of a SpatialData, so that ``sdata["predicted"] = sthggep.tl.to_adata(sdata)`` adds a
        table by which ``spatialdata-plot`` colors the shapes.

    Raises
    ------
    KeyError
        There is no such prediction.

    Examples
    --------
    >>> sthggep.tl.predict(slide, model, latent=True)
    >>> predicted = sthggep.tl.to_adata(slide)
    >>> scanpy.pp.neighbors(predicted, use_rep="X_hggep")
    >>> # A table of spots and genes, for pandas and R
    >>> predicted.to_df().to_parquet("predicted.parquet")
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
        obsm={name: values[rows] for name, values in coordinates(table, table.uns[key], spatial_key).items()},
    )
    for name in ("held_out_pearson", "training_ceiling", "n_sections", "n_spots"):
        if name in table.uns[key]:
            out.var[name] = table.uns[key][name]
    names = prediction_keys(key)
    arrays = {name: table.obsm[name] for name in written_beside(table.uns[key]) if name in table.obsm}
    if prediction.path is not None:
        arrays = open_stored_arrays(prediction.path, key, table)
    if names.latent in arrays:
        out.obsm[names.latent] = arrays[names.latent][rows]
    if names.counts in arrays:
        out.layers["counts"] = arrays[names.counts][rows]
    for layer, name in (("lower", names.lower), ("upper", names.upper)):
        if name in arrays:
            out.layers[layer] = arrays[name][rows]
    out.uns = {name: _copied_dicts(table.uns[name]) for name in ("spatial", LINK, key) if name in table.uns}
    out.uns[key] = {name: value for name, value in out.uns[key].items() if name != "path"} | {"in_x": True}
    if LINK in out.uns:
        attrs = out.uns[LINK]
        remaining = set(out.obs[attrs["region_key"]].astype(str))
        regions = [str(region) for region in np.atleast_1d(attrs["region"]) if str(region) in remaining]
        attrs["region"] = regions[0] if len(regions) == 1 else regions
    return out


def coordinates(table: AnnData, record: Mapping[str, Any], spatial_key: str) -> dict[str, NDArray[np.number]]:
    """Coordinates of all spots by their keys in ``obsm``: the usual one, that of the prediction, and one more."""
    if spatial_key != "spatial":
        has_key(table.obsm, spatial_key, "obsm", "Pass the key of the coordinates as `spatial_key=`.")
    recorded = str(as_mapping(record.get("params")).get("spatial_key", "spatial"))
    names = [name for name in dict.fromkeys(["spatial", recorded, spatial_key]) if name in table.obsm]
    tables = [name for name in names if isinstance(table.obsm[name], pd.DataFrame)]
    return {name: read_coordinates(table, name) if name in tables else np.asarray(table.obsm[name]) for name in names}


def _copied_dicts(value: object) -> object:
    """A copy of nested dicts that shares their arrays, since images are large."""
    return {k: _copied_dicts(v) for k, v in value.items()} if isinstance(value, Mapping) else value
