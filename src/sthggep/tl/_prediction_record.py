"""The record of a prediction in ``uns``, and the mark of its rows in ``obs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sthggep._keys import TOOL
from sthggep._table._prediction_rows import MEASURED, TRAINED_ON, source_id

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sthggep.model import HGGEP
    from sthggep.tl._earlier import EarlierPrediction
    from sthggep.tl._request import Request


def mark_rows(
    request: Request,
    record: Mapping[str, Any],
    earlier: EarlierPrediction | None,
    measured: Mapping[str, NDArray[np.bool_]],
) -> pd.Series:
    """For each row of the table, the id of its prediction, and whether the model was trained on its section or on the spot."""
    import pandas as pd

    sources = np.full(request.table.n_obs, None, dtype=object)
    if earlier is not None and earlier.sources is not None:
        sources[earlier.rows] = earlier.sources.to_numpy()[earlier.rows]
    for slide in request.slides:
        trained_on = slide.name in set(record["params"]["learned_from"])
        sources[slide.rows] = record["source"] + TRAINED_ON * trained_on
        used = measured.get(slide.name)
        if used is not None and not trained_on:
            sources[slide.rows[used]] = record["source"] + MEASURED
    return pd.Series(sources, index=request.table.obs_names, dtype="category")


def prediction_record(
    model: HGGEP, request: Request, counts: bool | str, sections_trained_on: Sequence[str], spatial_key: str
) -> dict[str, Any]:
    """The record of a prediction: genes, scale, model, sections, options."""
    slides = request.slides
    record: dict[str, Any] = {
        "tool": TOOL,
        "genes": np.array(request.genes, dtype=object),
        "panel": np.array(model.genes, dtype=object),
        "units": model.units,
        "model": model.id,
        "source": source_id(model.id, model.units, request.genes),
        "versions": versions(),
        "params": {
            "preset": model.preset,
            "stain": model.inputs.stain or "none",
            "counts": counts if isinstance(counts, str) else bool(counts),
            "sections": np.array([slide.name for slide in slides], dtype=object),
            "learned_from": np.array(sections_trained_on, dtype=object),
            "spatial_key": spatial_key,
            "mpp": np.array([slide.mpp or np.nan for slide in slides]),
            "mpp_source": np.array([slide.mpp_source for slide in slides], dtype=object),
        },
    }
    if request.interval is not None:
        record["interval"] = request.interval._asdict()
    if model.targets is not None:
        record["targets"] = model.targets.to_dict()
    training = model.training
    for name, values in (("training_ceiling", training.ceiling), ("held_out_pearson", training.held_out_pearson)):
        if values is not None:
            by_gene = dict(zip(model.genes, values, strict=True))
            record[name] = np.array([by_gene[gene] for gene in request.genes], dtype=np.float64)
    if model.calibration is not None and model.calibration.evidence is not None:
        record["evidence"] = model.calibration.evidence.take(request.quantities.columns).to_arrays()
    return record | {"obsm": np.array(request.arrays, dtype=object)}


def versions() -> dict[str, str]:
    """Versions of the packages that a prediction depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("sthggep", "torch", "anndata")}
