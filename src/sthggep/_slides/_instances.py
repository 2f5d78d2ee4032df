"""Ids of spots in the table of a SpatialData, matched with those of its shapes or labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import listing
from sthggep._log import ONCE, log
from sthggep._slides._values import id_texts


def match_instances(instances: pd.Series, ids: pd.Index) -> NDArray[np.intp]:
    """Return the position in ``ids`` of each instance, -1 for none; numbers match numbers written as text."""
    wanted = pd.Index(np.asarray(instances))
    positions = ids.get_indexer(wanted)
    if (positions >= 0).all():
        return np.asarray(positions, dtype=np.intp)
    texts = pd.Index(id_texts(ids))
    by_text = texts.get_indexer(pd.Index(id_texts(wanted))) if texts.is_unique else positions
    if (by_text >= 0).all():
        text = "Matching ids of the table (%s) with those of the element (%s) as text."
        log.info(text, type_of(wanted), type_of(ids), extra=ONCE)
    return np.asarray(by_text, dtype=np.intp)


def describe_absent(instances: pd.Series, positions: NDArray[np.intp], ids: pd.Index) -> str:
    """Name the instances that the element lacks, and what its ids look like."""
    absent = instances[positions < 0]
    return (
        f"it lacks {len(absent)} of them: {listing(absent, 5)} ({type_of(pd.Index(np.asarray(instances)))}). "
        f"Its ids are such as {listing(ids, 3)} ({type_of(ids)})."
    )


def type_of(ids: pd.Index) -> str:
    """Name the type of ids in plain words."""
    kind = ids.dtype.kind if ids.dtype != object else "O"
    return (
        "numbers" if kind in "uif" else "text" if len(ids) and all(isinstance(i, str) for i in ids) else str(ids.dtype)
    )
