"""Where predictions go, block by block: arrays of the table, or a file that holds an AnnData of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._disk._rows import RowFile, row_steps
from sthggep._disk._whole import whole_file, whole_folder

if TYPE_CHECKING:
    from sthggep._keys import PredictionKeys
    from sthggep.model._forward import Predictions

ENDINGS = (".zarr", ".h5ad")


def check_out(out: str | Path) -> Path:
    """The file to be written, or an error before work starts."""
    path = Path(out).expanduser().absolute()
    if path.suffix not in ENDINGS:
        msg = f"`out` must end in {' or '.join(ENDINGS)} (an AnnData is written to it), found {path.name!r}."
        raise ValueError(msg)
    if path.exists():
        msg = f"{path} exists already and is left alone. Delete it, or pass another `out`."
        raise FileExistsError(msg)
    if not path.parent.is_dir():
        msg = f"`out` is to be written to {path.parent}, but there is no such folder. Make it first."
        raise FileNotFoundError(msg)
    return path


class Outputs:
    """Blocks of predictions, gathered on the rows of the table: in memory, or in ``folder``.

    Parameters
    ----------
    n_obs
        Rows of the table.
    depth
        What counts of each row are multiplied by; ``None`` leaves them.
    folder
        Where arrays are written that memory need not hold.
    """

    def __init__(self, n_obs: int, depth: NDArray[np.float32] | None = None, folder: Path | None = None) -> None:
        self.n_obs, self.depth, self.folder = n_obs, depth, folder
        self.arrays: dict[str, NDArray[np.float32] | RowFile] = {}

    def add(self, rows: NDArray[np.intp], part: Predictions) -> None:
        """Put a block on its rows of the table."""
        for name, values in part._asdict().items():
            if values is None:
                continue
            if name == "counts" and self.depth is not None:
                values = values * self.depth[rows, None]
            if name not in self.arrays:
                self.arrays[name] = self._empty(name, values.shape[1])
            self.arrays[name][rows] = values

    def _empty(self, name: str, width: int) -> NDArray[np.float32] | RowFile:
        """NaN throughout: rows of regions that were not asked for keep it."""
        if self.folder is None:
            return np.full((self.n_obs, width), np.nan, dtype=np.float32)
        file = RowFile.create(self.folder / f"{name}.npy", self.n_obs, width)
        for step in file.steps():
            file[step] = np.full((1, width), np.nan, dtype=np.float32)
        return file


def write_store(
    out: Path, outputs: Outputs, table: AnnData, key: PredictionKeys, genes: Sequence[str], record: Mapping[str, Any]
) -> None:
    """An AnnData with the prediction as ``X``, as `tl.to_adata` makes it; the file appears when it is whole."""
    from anndata.io import write_elem

    uns: dict[str, Any] = {key.uns: dict(record)}
    uns |= {name: _without_images(table.uns[name]) for name in ("spatial", "spatialdata_attrs") if name in table.uns}
    frame = AnnData(
        obs=table.obs.copy(),
        var=pd.DataFrame(index=pd.Index(list(genes))),
        obsm={"spatial": np.asarray(table.obsm["spatial"])} if "spatial" in table.obsm else None,
        uns=uns,
    )
    whole = whole_folder if out.suffix == ".zarr" else whole_file
    with whole(out) as part, _opened(frame, part) as group:
        write_elem(group, "X", _lazy(outputs.arrays["expression"]))
        if "latent" in outputs.arrays:
            write_elem(group, f"obsm/{key.latent}", _lazy(outputs.arrays["latent"]))
        if "counts" in outputs.arrays:
            write_elem(group, "layers/counts", _lazy(outputs.arrays["counts"]))
        if "spread" in outputs.arrays:
            write_elem(group, "layers/std", _lazy(outputs.arrays["spread"]))


@contextmanager
def _opened(frame: AnnData, path: Path) -> Iterator[Any]:
    if path.suffix == ".zarr":
        import zarr

        frame.write_zarr(path)
        yield zarr.open_group(path, mode="a", use_consolidated=False)
        zarr.consolidate_metadata(path)
        return
    import h5py

    frame.write_h5ad(path)
    with h5py.File(path, "a") as file:
        yield file


def _lazy(array: Any) -> Any:
    """An array of rows on disk as a dask array, a bounded part of it at a time."""
    import dask.array as da

    step = next(row_steps(array.shape)).stop
    return da.from_array(_Cut(array), chunks=(step, array.shape[1]), meta=np.empty((0, 0), np.float32))


class _Cut:
    """Rows on disk, indexed as dask does."""

    ndim = 2

    def __init__(self, rows: Any) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, np.dtype(np.float32)

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.rows[index[0]][:, index[1]]
        return found


def _without_images(value: Any) -> Any:
    """The same record without pictures, which may be large, and stay with the slide."""
    if not isinstance(value, Mapping):
        return value
    return {k: _without_images(v) for k, v in value.items() if k != "images"}
