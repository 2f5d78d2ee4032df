"""Rows of a prediction: which prediction each belongs to, whether the model was trained on it, and its row in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, listing
from sthggep._disk._digest import digest
from sthggep._keys import prediction_keys

if TYPE_CHECKING:
    import h5py
    import zarr
    from anndata import AnnData

TRAINED_ON, MEASURED = " (trained on)", " (measured)"
SOURCE = re.compile(rf"[0-9a-f]{{16}}({re.escape(TRAINED_ON)}|{re.escape(MEASURED)})?")


def source_id(model_id: str, units: str, genes: Sequence[str]) -> str:
    """Short hash of all that says what the columns of a prediction are."""
    return digest("\n".join([model_id, units, *genes]))


def read_sources(adata: AnnData, column: str) -> pd.Series | None:
    """The column of ``obs`` that names the prediction of each row; ``None`` if there is none, or one of the user."""
    if column not in adata.obs:
        return None
    sources = adata.obs[column].astype(object)
    is_own = all(isinstance(each, str) and SOURCE.fullmatch(each) for each in sources.dropna().unique())
    return sources.where(sources.notna(), None) if is_own else None


def source_ids(sources: pd.Series) -> pd.Series:
    """Return the hash of each row without the mark of its training; rows without one are left out."""
    return sources.dropna().str.slice(stop=16)


def is_measured(sources: pd.Series) -> NDArray[np.bool_]:
    """Mark rows whose counts the model was trained on, while others of the section were left out."""
    return sources.astype("string").str.endswith(MEASURED).fillna(False).to_numpy(dtype=bool)


def trained_on(sources: Sequence[str | None]) -> bool | None:
    """Whether the model was trained on some of these rows; ``None`` if the column does not say so for all of them."""
    if any(source is not None and source.endswith(TRAINED_ON) for source in sources):
        return True
    return None if any(source is None for source in sources) else False


def refuse_mixed(key: str, record: Mapping[str, object], sources: pd.Series | None) -> None:
    """Refuse rows of another prediction than that of the record, as concatenation may leave them."""
    source = record.get("source")
    if source is None or sources is None:
        return
    others = int((~source_ids(sources).eq(str(source))).sum())
    if others:
        msg = (
            f"{counted(others, 'row')} of the prediction {key!r} are of another model or of other genes than uns[{key!r}] says. "
            "Were predictions of several models concatenated? Predict all rows by one model, or keep them under different "
            "`key_added`."
        )
        raise ValueError(msg)


def rows_in_file(adata: AnnData, file: h5py.File | zarr.Group, key: str, path: str) -> NDArray[np.intp] | None:
    """Row in the file of each spot, by their names; ``None`` if all rows are the same. Other spots are refused."""
    from anndata.io import read_elem

    obs = read_elem(file["obs"])
    names = pd.Index(obs.index.astype(str))
    rows = names.get_indexer(pd.Index(adata.obs_names.astype(str))) if names.is_unique else np.arange(len(names))
    if (rows < 0).any() or len(rows) != adata.n_obs:
        absent = adata.obs_names[rows < 0] if len(rows) == adata.n_obs else adata.obs_names
        msg = (
            f"The prediction {key!r} in {path} must have one row a spot, found {len(names)} rows and {adata.n_obs} spots. Not "
            f"in the file: {listing(absent, 3)}; it holds {listing(names, 3)}. Were spots renamed or added since? Predict "
            "again for these spots, or work with the AnnData in that file."
        )
        raise ValueError(msg)
    if moved := _moved(adata, file, obs, rows):
        msg = (
            f"The prediction {key!r} in {path} is of other places: {counted(moved, 'spot')} of {adata.n_obs} have other "
            "coordinates or instances than in the file. Were spots moved, or renamed in another order? Predict again for these spots."
        )
        raise ValueError(msg)
    return None if np.array_equal(rows, np.arange(len(names))) else rows.astype(np.intp)


def _moved(adata: AnnData, file: h5py.File | zarr.Group, obs: pd.DataFrame, rows: NDArray[np.intp]) -> int:
    """Number of spots whose coordinates, or instances of a SpatialData, are not those of their rows in the file."""
    from anndata.io import read_elem

    differ = np.zeros(adata.n_obs, dtype=bool)
    if "spatial" in adata.obsm and "obsm/spatial" in file:
        here, stored = np.asarray(adata.obsm["spatial"]), np.asarray(read_elem(file["obsm/spatial"]))[rows]
        same_shape = here.shape == stored.shape
        differ |= ~np.isclose(here, stored, atol=1e-3).all(axis=1) if same_shape else True
    link = adata.uns.get("spatialdata_attrs", {})
    for column in (link.get("region_key"), link.get("instance_key")):
        if column in adata.obs and column in obs:
            differ |= adata.obs[column].astype(str).to_numpy() != obs[column].astype(str).to_numpy()[rows]
    return int(differ.sum())


def on_training_tissue(adata: AnnData, key: str) -> bool:
    """Whether the model was trained on some section of a table, as far as obs or the record says so."""
    sources = read_sources(adata, prediction_keys(key).source)
    if sources is not None:
        return bool(sources.dropna().str.endswith(TRAINED_ON).any())
    record = adata.uns.get(prediction_keys(key).uns)
    params = record.get("params", {}) if isinstance(record, Mapping) else {}
    return len(params.get("learned_from", ())) > 0
