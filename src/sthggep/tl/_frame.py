"""The table of a slide in a file of predictions, written before there are any: what cannot be written is left out."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from sthggep._checks import counted, listing, warn_user
from sthggep._names import is_storable
from sthggep.tl._to_adata import coordinates

if TYPE_CHECKING:
    from sthggep.tl._request import Request

LONGEST = 255  # bytes of the name of a folder, which a group is in a .zarr
CARRIED = ("spatial", "spatialdata_attrs")


def write_frame(path: Path, request: Request, record: Mapping[str, object], sources: pd.Series) -> None:
    """Write spots, genes and records to a new file, and read them back.

    Raises
    ------
    ValueError
        The file would hold the sections under other names.
    """
    table = request.table
    uns = {name: _without_images(table.uns[name]) for name in CARRIED if name in table.uns}
    _refuse_renamed(uns.get("spatial"))
    records, left_out = _writable(uns, "uns")
    bad_columns = [name for name in table.obs if table.obs[name].dtype == object and not _can_write(table.obs[[name]])]
    frame = AnnData(
        # How unlike the training tissue each spot is, is filled in beside the prediction
        obs=table.obs.drop(columns=bad_columns).assign(
            **{request.keys.source: sources, request.keys.novelty: np.full(table.n_obs, np.nan, dtype=np.float32)}
        ),
        var=pd.DataFrame(index=pd.Index(request.genes)),
        obsm=coordinates(table, record, "spatial"),
        uns={request.keys.uns: {**record, "in_x": True}, **records},
    )
    try:
        _write(frame, path)
    except Exception:  # noqa: BLE001  # anndata, h5py, zarr and pandas raise many
        more = [name for name in frame.obs if not _can_write(frame.obs[[name]])]
        frame.obs = frame.obs.drop(columns=more)
        bad_columns += more
        _write(frame, path)
    left_out = [*(f"obs[{name!r}]" for name in bad_columns), *left_out]
    if left_out:
        msg = (
            f"{path.name} leaves out {counted(left_out, 'value')} of a type that files cannot hold: {listing(left_out, 5)}. Your "
            "data are unchanged."
        )
        warn_user(msg)


def _refuse_renamed(libraries: object) -> None:
    """Refuse a section whose name no group of a file can have, or would become a path in the file."""
    names = list(libraries) if isinstance(libraries, Mapping) else []
    if renamed := [name for name in names if not _is_one_group(name)]:
        msg = (
            "`out` holds each section under its name, but files split names at slashes, and hold only text of 1 to "
            f"{LONGEST} bytes, found {', '.join(map(reprlib.repr, renamed))}. Rename the section in `uns['spatial']` and in "
            "the column of obs that names it."
        )
        raise ValueError(msg)


def _is_one_group(name: object) -> bool:
    legal = isinstance(name, str) and "/" not in name and name not in ("", ".", "..") and is_storable(name)
    return legal and len(str(name).encode()) <= LONGEST


def _writable(mapping: Mapping[Any, object], where: str) -> tuple[dict[str, object], list[str]]:
    """The part of a nested record that a file can hold, and the places of the rest."""
    part: dict[str, object] = {}
    left_out: list[str] = []
    for key, value in mapping.items():
        place = f"{where}[{key!r}]"
        if not _is_one_group(key):
            left_out.append(place)
        elif isinstance(value, Mapping):
            part[key], rest = _writable(value, place)
            left_out += rest
        elif _can_write(value):
            part[key] = value
        else:
            left_out.append(place)
    return part, left_out


def _can_write(value: object) -> bool:
    """Whether a file can hold a value, tried in memory."""
    import h5py
    from anndata.io import read_elem, write_elem

    with h5py.File("trial", "w", driver="core", backing_store=False) as file:
        try:
            write_elem(file, "value", value)
            read_elem(file["value"])
        except Exception:  # noqa: BLE001  # anndata, h5py and pandas raise many
            return False
    return True


def _write(frame: AnnData, path: Path) -> None:
    if path.suffix == ".zarr":
        frame.write_zarr(path)
    else:
        frame.write_h5ad(path)


def _without_images(value: object) -> object:
    """The same record without its images, which stay with the slide."""
    if not isinstance(value, Mapping):
        return value
    return {key: _without_images(item) for key, item in value.items() if key != "images"}
