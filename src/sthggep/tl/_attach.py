"""Links from slides to predictions stored in files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from sthggep._arguments import checked
from sthggep._checks import listing, may_write
from sthggep._keys import prediction_keys
from sthggep._slides._anndata import table_of
from sthggep._slides._results import write_results
from sthggep._table._prediction import is_prediction, open_group
from sthggep._table._prediction_rows import rows_in_file

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked
def attach(data: AnnData | SpatialData, path: str | Path, *, key: str = "hggep", table_key: str = "table") -> None:
    """Link a slide to predictions stored in a file.

    :func:`sthggep.tl.evaluate` and the figures then read the predictions from the file, as if they were in ``obsm``.
    Files of :func:`sthggep.tl.predict_cohort`, of ``sthggep predict --workers`` and of ``tl.predict(out=...)`` hold
    such predictions. The file stays where it is.

    Parameters
    ----------
    data
        The slide that the model predicted.
    path
        The file: ``.h5ad`` or ``.zarr``.
    key
        Name of the prediction, in the file and in ``data``.
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None``. Writes ``uns[key]``, the record of the prediction with the ``path`` of the file, and
    ``obs["<key>_source"]``, the mark of its rows, and ``obs["<key>_novelty"]``.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    ValueError
        The file holds no prediction of that name, or one of other spots; or ``data`` holds something else under
        ``key``.

    Examples
    --------
    >>> sthggep.tl.predict_cohort(["a.h5ad"], out="predicted")
    >>> slide = anndata.read_h5ad("a.h5ad")
    >>> sthggep.tl.attach(slide, "predicted/a.h5ad")
    >>> scores = sthggep.tl.evaluate(slide)
    """
    from anndata.io import read_elem

    table, path = table_of(data, table_key), Path(path).resolve()
    if not path.exists():
        msg = f"{path} does not exist. Expected the file that `sthggep.tl.predict_cohort` or `tl.predict(out=)` wrote."
        raise FileNotFoundError(msg)
    keys = prediction_keys(key)
    may_write(table, keys.obsm)
    try:
        file = open_group(str(path))
        uns, obs = read_elem(file["uns"]), read_elem(file["obs"])
        spots = obs.index.astype(str)
        stored = AnnData(X=np.empty((0, len(read_elem(file["var"])))), var=read_elem(file["var"]), uns=uns)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as reason:
        msg = f"`path`: {path} cannot be read as a file of predictions ({type(reason).__name__}: {reason})."
        raise ValueError(msg) from reason
    if not is_prediction(stored, key):
        msg = f"{path} holds no prediction {key!r} by itself. Expected a file of `sthggep.tl.predict_cohort` or `tl.predict(out=)`."
        raise ValueError(msg)
    if spots.tolist() != table.obs_names.astype(str).tolist():
        msg = (
            f"{path} holds a prediction of other spots ({len(spots)}, such as {listing(spots, 2)}) than those of this slide "
            f"({table.n_obs}, such as {listing(table.obs_names, 2)}), or the spots are in another order."
        )
        raise ValueError(msg)
    rows_in_file(table, file, key, str(path))
    record = {name: value for name, value in uns[keys.uns].items() if name != "in_x"}
    columns = {name: obs[name].to_numpy() for name in (keys.source, keys.novelty) if name in obs}
    write_results(table, uns={keys.uns: {**record, "path": str(path)}}, obs=columns, without=[keys.obsm])
