"""A prediction that was written to a file meets the slide that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from sthggep._checks import listing, may_write
from sthggep._keys import prediction_keys
from sthggep._slides._anndata import table_of
from sthggep._table._prediction import is_prediction, open_file

if TYPE_CHECKING:
    from spatialdata import SpatialData


def attach(data: AnnData | SpatialData, path: str | Path, *, key: str = "hggep", table_key: str = "table") -> None:
    """Tell a slide of its prediction in a file, which then is scored and drawn like one in ``obsm``.

    Files of :func:`sthggep.tl.predict_cohort`, of ``sthggep predict --workers``, or of ``tl.predict(out=)`` hold predictions
    alone. They stay where they are, and are read when they are asked for.

    Parameters
    ----------
    data
        The slide that was predicted.
    path
        The file: ``.h5ad`` or ``.zarr``.
    key
        Name of the prediction, there and here. Its record is written to ``uns[key]``, with the ``path``.
    table_key
        Table of a SpatialData.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It holds no prediction of that name, or one of other spots; or ``key`` is taken by something else.
    """
    from anndata.io import read_elem

    table, path = table_of(data, table_key), Path(path).resolve()
    if not path.exists():
        msg = f"{path} is not there. Expected the file that `sthggep.tl.predict_cohort` or `tl.predict(out=)` wrote."
        raise FileNotFoundError(msg)
    keys = prediction_keys(key)
    may_write(table, keys.obsm)
    file = open_file(str(path))
    uns, spots = read_elem(file["uns"]), read_elem(file["obs"]).index.astype(str)
    alone = AnnData(X=np.empty((0, len(read_elem(file["var"])))), var=read_elem(file["var"]), uns=uns)
    if not is_prediction(alone, key):
        msg = f"{path} holds no prediction {key!r} by itself. Expected a file of `sthggep.tl.predict_cohort` or `tl.predict(out=)`."
        raise ValueError(msg)
    if spots.tolist() != table.obs_names.astype(str).tolist():
        msg = (
            f"{path} is a prediction of other spots ({len(spots)}, such as {listing(spots, 2)}) than those of this slide "
            f"({table.n_obs}, such as {listing(table.obs_names, 2)}), or they are in another order."
        )
        raise ValueError(msg)
    table.obsm.pop(keys.obsm, None)
    table.uns[keys.uns] = {**uns[keys.uns], "path": str(path)}
