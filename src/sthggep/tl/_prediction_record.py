"""The record of a prediction in ``uns``, and the mark of its rows in ``obs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sthggep._checks import written_beside
from sthggep._keys import TOOL
from sthggep._slides._results import write_results
from sthggep._table._prediction_rows import MEASURED, TRAINED_ON, source_id

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from sthggep._keys import PredictionKeys
    from sthggep.model import HGGEP
    from sthggep.model._calibration import HeldOutEvidence
    from sthggep.tl._earlier import EarlierPrediction
    from sthggep.tl._outputs import Outputs
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
    record["n_training_sections"] = len(training.all_sections)
    for name, values in (("training_ceiling", training.ceiling), ("held_out_pearson", training.held_out_pearson)):
        if values is not None:
            by_gene = dict(zip(model.genes, values, strict=True))
            record[name] = np.array([by_gene[gene] for gene in request.genes], dtype=np.float64)
    for name, numbers in (("n_sections", training.gene_n_sections), ("n_spots", training.gene_n_spots)):
        if numbers:
            of_gene = dict(zip(model.genes, numbers, strict=True))
            record[name] = np.array([of_gene[gene] for gene in request.genes], dtype=np.int64)
    if model.calibration is not None:
        record |= _held_out_record(model, model.calibration.held_out, request)
    return record | {"obsm": np.array(request.arrays, dtype=object)}


def _held_out_record(model: HGGEP, held_out: HeldOutEvidence, request: Request) -> dict[str, Any]:
    """What the model knows of held-out tissue: of the predicted genes, of gene sets that consist of these, of programs."""
    record: dict[str, Any] = {}
    if held_out.evidence is not None:
        record["evidence"] = held_out.evidence.take(request.quantities.columns).to_arrays()
    if held_out.program_evidence is not None:
        record["program_evidence"] = held_out.program_evidence.to_arrays()
    if held_out.set_evidence is not None:
        genes, sets = set(request.genes), model.training.gene_sets
        names = [name for name, members in sets.items() if genes.issuperset(members)]
        if names:
            columns = np.array([list(sets).index(name) for name in names], dtype=np.intp)
            record["gene_sets"] = np.array(names, dtype=object)
            record["set_evidence"] = held_out.set_evidence.take(columns).to_arrays()
    return record


def write_prediction(
    table: AnnData, keys: PredictionKeys, outputs: Outputs, record: dict[str, Any], columns: dict[str, object]
) -> None:
    """Write arrays, record and columns of ``obs`` to the table, in place of those of an earlier prediction."""
    names = outputs.names(keys)
    arrays = {names[kind]: values for kind, values in outputs.arrays.items()}
    earlier = [*written_beside(table.uns.get(keys.uns)), keys.obsm]
    write_results(table, obsm=arrays, uns={keys.uns: record}, obs=columns, without=earlier)


def versions() -> dict[str, str]:
    """Versions of the packages that a prediction depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("sthggep", "torch", "anndata")}
