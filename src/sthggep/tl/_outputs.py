"""Arrays of a prediction, filled block by block: in memory, or in a file that holds an AnnData."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._disk._lock import locked
from sthggep._disk._rows import RowFile, row_steps
from sthggep._disk._run_folder import LONGEST_NAME, check_writable
from sthggep._disk._whole import whole_file, whole_folder
from sthggep.tl._frame import write_frame

if TYPE_CHECKING:
    import dask.array as da
    import h5py
    import pandas as pd
    import zarr

    from sthggep._keys import PredictionKeys
    from sthggep.model._forward import Predictions
    from sthggep.tl._earlier import EarlierPrediction
    from sthggep.tl._request import Request

Floats = NDArray[np.float32]
ENDINGS = (".zarr", ".h5ad")


def check_out(out: str | Path) -> Path:
    """The absolute path of the file to write, checked before work starts."""
    path = Path(out).expanduser().absolute()
    if path.suffix not in ENDINGS:
        msg = f"`out` must end in {' or '.join(ENDINGS)} (`predict` writes an AnnData to it), found {path.name!r}."
        if path.suffix.lower() in (".csv", ".tsv", ".parquet"):
            call = "to_parquet" if path.suffix.lower() == ".parquet" else "to_csv"
            msg += (
                " For a table of spots and genes, predict without `out`, and call "
                f"`sthggep.tl.to_adata(data).to_df().{call}({path.name!r})`."
            )
        raise ValueError(msg)
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        msg = f"`out`: names of files have {LONGEST_NAME} bytes at most, found {len(os.fsencode(path.name))}."
        raise ValueError(msg)
    if path.exists():
        msg = f"{path} exists already and is left alone. Delete it, or pass another `out`."
        raise FileExistsError(msg)
    if not path.parent.is_dir():
        msg = f"`out` must be in a folder that exists, but there is no folder {path.parent}. Make it first."
        raise FileNotFoundError(msg)
    check_writable(path.parent, "out")
    return path


class Outputs:
    """Predictions on the rows of the table, filled block by block: in memory, or in ``folder``.

    Parameters
    ----------
    n_obs
        Rows of the table.
    size_factors
        Factor for the expected counts of each row; ``None`` leaves counts as they are.
    folder
        Folder for arrays on disk; ``None`` holds arrays in memory.
    """

    def __init__(self, n_obs: int, size_factors: Floats | None = None, folder: Path | None = None) -> None:
        self.n_obs, self.size_factors, self.folder = n_obs, size_factors, folder
        self.arrays: dict[str, Floats | RowFile] = {}

    def add(self, rows: NDArray[np.intp], part: Predictions) -> None:
        """Write a block to its rows of the table."""
        for name, values in part._asdict().items():
            if values is None:
                continue
            if name == "counts" and self.size_factors is not None:
                values = values * self.size_factors[rows, None]
            if name not in self.arrays:
                self.arrays[name] = self._empty(name, values.shape[1])
            self.arrays[name][rows] = values

    def take_novelty(self, earlier: pd.Series | None) -> Floats:
        """Take out the novelty of each row of the table, NaN where it is not known; rows not predicted keep ``earlier``."""
        novelty = np.full(self.n_obs, np.nan, dtype=np.float32)
        if earlier is not None:
            novelty = np.array(earlier, dtype=np.float32)
        array = self.arrays.pop("novelty", None)
        if array is not None:
            values = np.array(array[: self.n_obs], dtype=np.float32)[:, 0]
            novelty = np.where(np.isnan(values), novelty, values)
            _remove(array)
        return novelty

    def keep(self, earlier: EarlierPrediction, keys: PredictionKeys) -> None:
        """Take over rows of an earlier prediction."""
        kinds = {name: kind for kind, name in self.all_names(keys).items()}
        for name, values in earlier.parts():
            array = self.arrays[kinds[name]] = self._empty(kinds[name], values.shape[1])
            array[earlier.rows] = values

    @staticmethod
    def all_names(keys: PredictionKeys) -> dict[str, str]:
        """Keys of ``obsm`` by the kind of array."""
        return {
            "expression": keys.obsm,
            "latent": keys.latent,
            "counts": keys.counts,
            "lower": keys.lower,
            "upper": keys.upper,
        }

    def names(self, keys: PredictionKeys) -> dict[str, str]:
        """Keys of ``obsm`` of the arrays that were filled."""
        return {kind: name for kind, name in self.all_names(keys).items() if kind in self.arrays}

    def _empty(self, name: str, width: int) -> Floats | RowFile:
        """An array of NaN, which rows of other regions keep."""
        if self.folder is None:
            return np.full((self.n_obs, width), np.nan, dtype=np.float32)
        file = RowFile.create(self.folder / f"{name}.npy", self.n_obs, width)
        for step in file.steps():
            file[step] = np.full((1, width), np.nan, dtype=np.float32)
        return file


@contextmanager
def open_store(out: Path, request: Request, record: Mapping[str, object], sources: pd.Series) -> Iterator[Store]:
    """Begin an AnnData with the prediction as ``X``, as `tl.to_adata` makes it; ``out`` appears once it is complete.

    All but the prediction is written and read back before work starts, so that nothing in the table can fail later.
    """
    whole = whole_folder if out.suffix == ".zarr" else whole_file
    with locked(out, "a prediction"), whole(out) as part:
        write_frame(part, request, record, sources)
        yield Store(part, request.keys)


@dataclass(frozen=True)
class Store:
    """The file of a prediction, without the prediction."""

    path: Path
    keys: PredictionKeys

    @property
    def folder(self) -> Path:
        """Folder for arrays on the disk of the file."""
        return self.path.parent

    def write(self, outputs: Outputs, novelty: Floats) -> None:
        """Write the predicted arrays, and close them."""
        elements = {
            "expression": "X",
            "latent": f"obsm/{self.keys.latent}",
            "counts": "layers/counts",
            "lower": "layers/lower",
            "upper": "layers/upper",
        }
        with _opened(self.path) as file:
            for kind, element in elements.items():
                if kind in outputs.arrays:
                    _write_element(file, element, _as_dask(outputs.arrays[kind]))
            _write_element(file, f"obs/{self.keys.novelty}", novelty)
        for array in outputs.arrays.values():
            _remove(array)
        outputs.arrays.clear()


def _remove(array: Floats | RowFile) -> None:
    """Delete an array that lies on disk."""
    if isinstance(array, RowFile):
        array.close()
        array.path.unlink()


@contextmanager
def _opened(path: Path) -> Iterator[zarr.Group | h5py.File]:
    """The file of an AnnData, open for further elements."""
    if path.suffix == ".zarr":
        import zarr

        yield zarr.open_group(path, mode="a", use_consolidated=False)
        with warnings.catch_warnings():
            # Of zarr 3: as anndata does, and as its readers expect
            warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
            zarr.consolidate_metadata(path)
        return
    import h5py

    with h5py.File(path, "a") as file:
        yield file


def _write_element(file: zarr.Group | h5py.File, place: str, values: da.Array | Floats) -> None:
    """Write an element into its group, which anndata 0.13 wants to be given: its keys have no slashes."""
    from anndata.io import write_elem

    parent, _, name = place.rpartition("/")
    write_elem(file.require_group(parent) if parent else file, name, values)


def _as_dask(array: Floats | RowFile) -> da.Array:
    """Rows on disk as a dask array whose chunks have a bounded size."""
    import dask.array as da

    n, width = array.shape
    step = next(row_steps((n, width))).stop
    lazy: da.Array = da.from_array(_Rows(array), chunks=(step, width), meta=np.empty((0, 0), np.float32))
    return lazy


class _Rows:
    """Rows on disk with the indexing that dask needs."""

    ndim = 2

    def __init__(self, rows: Floats | RowFile) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, np.dtype(np.float32)

    def __getitem__(self, index: tuple[slice, slice]) -> Floats:
        part: Floats = self.rows[index[0]][:, index[1]]
        return part


def describe_blocks(checkpoint_dir: str | Path | None) -> str:
    """What an interrupted prediction leaves, in words."""
    if checkpoint_dir is None:
        return "Nothing is stored: with `checkpoint_dir=` the same call would resume after the finished blocks."
    return f"The finished blocks are in {str(checkpoint_dir)!r}; the same call resumes there."
