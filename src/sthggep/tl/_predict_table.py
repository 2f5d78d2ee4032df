"""Prediction of the sections of a table, and what is written of it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sthggep._log import on_interrupt
from sthggep.tl._earlier import find_earlier
from sthggep.tl._outputs import Outputs, describe_blocks, open_store
from sthggep.tl._prediction_record import mark_rows, prediction_record, write_prediction

if TYPE_CHECKING:
    from sthggep._inputs._compute import Compute
    from sthggep.model import HGGEP
    from sthggep.tl._request import PredictionOptions, Request


class PredictionFiles(NamedTuple):
    """Files of a prediction."""

    out: Path | None
    """File for the prediction; ``None`` writes it to the table."""
    blocks: Path | None
    """Folder for finished blocks of features; ``None`` does not store them."""


def predict_table(
    model: HGGEP,
    request: Request,
    compute: Compute,
    files: PredictionFiles,
    options: PredictionOptions,
    spatial_key: str,
) -> None:
    """Predict the sections of a table, and write arrays, record and marks of the rows."""
    from sthggep.tl._doubts import measured_spots, warn_of_doubts, warn_of_unlike_tissue

    sections_trained_on = warn_of_doubts(model, request.slides, request.table)
    record = prediction_record(model, request, options.counts, sections_trained_on, spatial_key)
    earlier = find_earlier(request, record)
    if earlier is not None:
        record["params"] = earlier.merged_params(record["params"])
    sources = mark_rows(request, record, earlier, measured_spots(model, request.slides))
    with nullcontext() if files.out is None else open_store(files.out, request, record, sources) as store:
        outputs = Outputs(request.table.n_obs, request.size_factors, None if store is None else store.folder)
        if earlier is not None:
            outputs.keep(earlier, request.keys)
        with on_interrupt(lambda: describe_blocks(files.blocks)):
            _predict_sections(model, request, outputs, compute, window=options.window, block_folder=files.blocks)
        known = None if earlier is None else request.table.obs.get(request.keys.novelty)
        novelty = outputs.take_novelty(known)
        if store is not None:
            store.write(outputs, novelty)
            record = record | {"path": str(files.out), "obsm": np.array([], dtype=object)}
    columns = {request.keys.source: sources, request.keys.novelty: novelty}
    write_prediction(request.table, request.keys, outputs, record, columns)
    warn_of_unlike_tissue(request.slides, novelty, model.training.all_sections)


def _predict_sections(
    model: HGGEP,
    request: Request,
    outputs: Outputs,
    compute: Compute,
    *,
    window: int | str | None,
    block_folder: Path | None,
) -> None:
    """Predict all sections of a request, window by window."""
    from sthggep.model._calibration import add_interval
    from sthggep.model._forward import predict_windows

    encoder = model.encoder(device=str(compute.device))
    for slide in request.slides:
        parts = predict_windows(
            model.ensemble,
            slide,
            encoder=encoder,
            compute=compute,
            quantities=request.quantities,
            window=window,
            block_folder=block_folder,
        )
        for rows, part in parts:
            columns, of_counts = request.quantities.columns, model.targets is None
            part = add_interval(part, model.calibration, request.interval, columns, of_counts=of_counts)
            outputs.add(slide.rows[rows], part)
