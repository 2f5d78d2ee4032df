"""Sections with predicted and measured expression on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import genes_present, listing, warn_user
from sthggep._log import ONCE, log
from sthggep._slides._anndata import table_of
from sthggep._slides._resolve import resolve
from sthggep._table._all_counts import read_scaled_counts
from sthggep._table._counts import log10_cp10k
from sthggep._table._prediction import (
    Prediction,
    find_measured_panel,
    is_prediction,
    read_measurement_ends,
    read_prediction,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from dask.array import Array
    from spatialdata import SpatialData

    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide


Values = NDArray[np.float32]


@dataclass(frozen=True)
class ScoredSection:
    """One section with its predicted and its measured values, both (n_spots, n_genes)."""

    slide: Slide
    genes: list[str]
    predicted: Values
    measured: Values
    raw: Values | None
    """Counts of the whole panel, and in a last column of all other genes if these are part of the scale; ``None`` for targets."""
    columns: NDArray[np.intp]
    """Columns of ``raw`` with ``genes``."""
    ends: tuple[Values, Values] | None = None
    """Ends of the intervals of measurements, both (n_spots, n_genes); ``None`` where there are none."""
    trained_on: bool | None = False
    """Whether the model was trained on this tissue; ``None`` if that is not known."""

    @property
    def name(self) -> str:
        """Name of the section."""
        return self.slide.name


def scored_sections(
    data: AnnData | SpatialData,
    places: Places,
    key: str,
    genes: Sequence[str] | None,
    *,
    layer: str | None,
    include_measured: bool = False,
) -> tuple[list[ScoredSection], int]:
    """The sections with a prediction, and the number of all sections.

    Spots whose counts the model was trained on are left out, unless ``include_measured``.
    """
    table = table_of(data, places.table_key)
    slides = resolve(data, places, need_image=False)
    prediction = read_prediction(table, key)
    _refuse_prediction_alone(table, key)
    panel = find_measured_panel(table, prediction, layer)
    requested = [prediction.genes[i] for i in prediction.columns(genes)]
    measured_genes = set(panel)
    names = [gene for gene in requested if gene in measured_genes]
    # If all genes are absent, the error names them
    columns = genes_present(names or requested, panel, "var_names")
    predicted_columns = prediction.columns(names)
    ends = read_measurement_ends(table, prediction)
    sections = []
    for whole in slides_with_prediction(slides, prediction):
        slide = whole if include_measured else _without_measured(whole, prediction)
        predicted = prediction.take(slide.rows, predicted_columns)
        trained_on = prediction.trained_on(slide)
        raw: Values | None = None
        if prediction.targets is not None:
            measured = prediction.targets.read(slide)
        else:
            raw = read_scaled_counts(table, panel, layer=layer, rows=slide.rows, all_counts=prediction.all_counts)
            measured = log10_cp10k(raw)
        own_ends = None if ends is None else _take_ends(ends, slide.rows, predicted_columns)
        section = ScoredSection(slide, names, predicted, measured[:, columns], raw, columns, own_ends, trained_on)
        sections.append(section)
    return sections, len(slides)


def _without_measured(slide: Slide, prediction: Prediction) -> Slide:
    """Leave out the spots of a section that the model was trained on."""
    used = prediction.measured(slide)
    if not used.any():
        return slide
    if used.all():
        msg = (
            f"Section {slide.name!r}: the model was trained on the counts of all {slide.n_spots} spots, so none is left to score. "
            "Measure fewer spots, or pass `include_measured=True`."
        )
        raise ValueError(msg)
    log.info(
        "Section %s: not scored are the %d spots of %d that the model was trained on.",
        slide.name,
        used.sum(),
        len(used),
        extra=ONCE,
    )
    return replace(slide, rows=slide.rows[~used], xy=slide.xy[~used])


def _take_ends(
    ends: tuple[Values | Array, Values | Array], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[Values, Values] | None:
    """Read the ends of some spots and genes into memory; ``None`` for a section that was predicted without."""
    lower, upper = (np.asarray(values[rows][:, columns], dtype=np.float32) for values in ends)
    # A gene that no held-out tissue measured has no interval at any spot
    return None if np.isnan(lower).all(axis=1).any() else (lower, upper)


def _refuse_prediction_alone(table: AnnData, key: str) -> None:
    """Refuse a file of predictions, which holds no counts, and name the call that links it to its slide."""
    if is_prediction(table, key):
        msg = (
            f"This is the prediction {key!r} by itself, without counts. Read the slide that the model predicted, and link it to "
            f"this file by `sthggep.tl.attach(slide, 'the prediction.h5ad', key={key!r})`."
        )
        raise ValueError(msg)


def slides_with_prediction(slides: list[Slide], prediction: Prediction) -> list[Slide]:
    """Sections with predicted values; the others hold NaN throughout."""
    empty = {slide.name for slide in slides if np.isnan(prediction.take(slide.rows, [0])).all()}
    predicted = [slide for slide in slides if slide.name not in empty]
    left_out = [slide.name for slide in slides if slide.name in empty]
    if not predicted:
        msg = (
            f"The prediction {prediction.key!r} is NaN throughout {listing(left_out)}. Call `sthggep.tl.predict` first."
        )
        raise ValueError(msg)
    if left_out:
        msg = f"Sections without the prediction {prediction.key!r} are not scored: {listing(left_out)}."
        warn_user(msg)
    return predicted
