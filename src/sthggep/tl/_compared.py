"""Sections with a prediction and what was measured there, on one scale."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import genes_present, listing
from sthggep._slides._anndata import table_of
from sthggep._slides._resolve import resolve
from sthggep._table._counts import log10_cp10k, read_panel_counts
from sthggep._table._prediction import Prediction, find_measured_panel, is_prediction, read_prediction

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide


@dataclass(frozen=True)
class Compared:
    """One section: ``predicted`` and ``measured`` are (n_spots, n_genes), ``raw`` holds the counts of the whole panel.

    Targets that are no genes have no counts: ``raw`` is ``None``.
    """

    slide: Slide
    genes: list[str]
    predicted: NDArray[np.float32]
    measured: NDArray[np.float32]
    raw: NDArray[np.float32] | None
    at: NDArray[np.intp]  # columns of `raw` that are `genes`
    learned_from: bool = False
    """Whether the model was trained on this tissue."""

    @property
    def name(self) -> str:
        """Of the section."""
        return self.slide.name


def compared(
    data: AnnData | SpatialData, places: Places, key: str, genes: Sequence[str] | None, *, layer: str | None
) -> tuple[list[Compared], int]:
    """The sections that the prediction covers, and how many there are in all."""
    table = table_of(data, places.table_key)
    slides = resolve(data, places, need_image=False)
    prediction = read_prediction(table, key)
    _refuse_prediction_alone(table, key)
    panel = find_measured_panel(table, prediction, layer)
    asked = [prediction.genes[i] for i in prediction.columns(genes)]
    known = set(panel)
    names = [gene for gene in asked if gene in known]
    # Of genes that are all absent the error says where they were looked for
    at = genes_present(names or asked, panel, "var_names")
    columns = prediction.columns(names)
    out = []
    for slide in _predicted(slides, prediction):
        predicted, seen = prediction.take(slide.rows, columns), slide.name in prediction.learned_from
        if prediction.targets is None:
            raw = read_panel_counts(table, panel, layer=layer, rows=slide.rows)
            out.append(Compared(slide, names, predicted, log10_cp10k(raw)[:, at], raw, at, seen))
        else:
            out.append(Compared(slide, names, predicted, prediction.targets.read(slide)[:, at], None, at, seen))
    return out, len(slides)


def _refuse_prediction_alone(table: AnnData, key: str) -> None:
    """Say how a prediction that was written to a file of its own meets the counts of its slide."""
    if is_prediction(table, key):
        msg = (
            f"This is the prediction {key!r} by itself, without counts to score it by: they are in the slide that it was made "
            f"of. Read that slide, and tell it of the prediction by `sthggep.tl.attach(slide, 'the prediction.h5ad', key={key!r})`; "
            "in the shell, `sthggep evaluate slides/*.h5ad --predicted predicted/`."
        )
        raise ValueError(msg)


def _predicted(slides: list[Slide], prediction: Prediction) -> list[Slide]:
    """Sections that the prediction covers; one that was not asked for holds NaN."""
    empty = {slide.name for slide in slides if np.isnan(prediction.take(slide.rows, [0])).all()}
    there = [slide for slide in slides if slide.name not in empty]
    left_out = [slide.name for slide in slides if slide.name in empty]
    if not there:
        msg = (
            f"The prediction {prediction.key!r} is NaN throughout {listing(left_out)}. Call `sthggep.tl.predict` first."
        )
        raise ValueError(msg)
    if left_out:
        msg = f"Not scored, since they hold no prediction {prediction.key!r}: {listing(left_out)}."
        warnings.warn(msg, UserWarning, stacklevel=4)
    return there
