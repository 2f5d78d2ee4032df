"""Data of a gene map: values, their color scale and their correlation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._keys import prediction_keys
from sthggep._log import log
from sthggep._table._prediction import Prediction, explain_missing_values, read_measured, read_prediction
from sthggep._table._verdicts import verdicts_of
from sthggep.pl._crop import WHOLE, Crop
from sthggep.pl._tissue import View, outline_of, spot_diameter

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

NOVEL = 0.95
"""Novelty of a spot above which it is marked."""
REACH = 0.8  # of an outline, in pitches: no holes between the spots of a square array
Limit = float | str | None


@dataclass(frozen=True)
class GeneMaps:
    """Data of one section's maps: values are (n_spots, n_genes); ``observed`` is None without measured values."""

    slide: Slide
    view: View
    diameter: float
    predicted: NDArray[np.float32]
    observed: NDArray[np.float32] | None
    units: str
    learned_from: bool
    """Whether the model was trained on this tissue."""
    verdicts: tuple[str, ...] = ()
    """Verdict of each gene; empty where nothing is known of held-out tissue."""
    novel: NDArray[np.bool_] | None = None
    """Spots whose image is unlike the training tissue; ``None`` where that is not known."""
    used: NDArray[np.bool_] | None = None
    """Spots whose counts the model was trained on, while it was not trained on the others; ``None`` for none."""
    shown: NDArray[np.bool_] | None = None
    """Spots that are drawn, and that the color scale is of; ``None`` for all."""

    def drawn(self, values: NDArray[Any]) -> NDArray[Any]:
        """Rows of the spots that are drawn."""
        return values if self.shown is None else values[self.shown]

    @cached_property
    def outline(self) -> list[NDArray[np.float64]]:
        """Lines around the spots whose counts the model was trained on; none if these are all."""
        if self.used is None or not self.used.any() or self.used.all():
            return []
        return outline_of(self.slide.xy[self.used], REACH * self.slide.pitch())

    def pearson(self, i: int) -> float:
        """Correlation of predicted and observed values of a gene over the spots that the model was not trained on."""
        if self.observed is None:
            return float("nan")
        rows = slice(None) if self.used is None else ~self.used
        return pcc(self.observed[rows, i], self.predicted[rows, i])


@dataclass(frozen=True)
class ColorScale:
    """Ends of the color scale of a gene, and the ends of the color bar beyond which there are values."""

    low: float
    high: float
    extend: str


def read_maps(
    slide: Slide,
    genes: list[str],
    key: str,
    *,
    layer: str | None,
    observed: bool,
    spot_size: float | None,
    size: float = 1.0,
    crop: Crop = WHOLE,
) -> GeneMaps:
    """Predicted and observed values of some genes of one section, and the image of the part that is shown."""
    prediction = read_prediction(slide.adata, key)
    columns = prediction.columns(genes)
    measured = read_observed(slide, prediction, layer) if observed else None
    verdicts = verdicts_of(slide, key, prediction.genes)
    novelty = slide.adata.obs.get(prediction_keys(key).novelty)
    diameter = size * spot_diameter(slide, spot_size)
    return GeneMaps(
        slide=slide,
        view=crop.view(slide, diameter),
        diameter=diameter,
        predicted=prediction.take(slide.rows, columns),
        observed=None if measured is None else measured[:, columns],
        units=prediction.units,
        learned_from=bool(prediction.trained_on(slide)),
        verdicts=() if verdicts is None else tuple(verdicts["verdict"].astype(str).iloc[columns]),
        used=prediction.measured(slide) if prediction.sources is not None else None,
        novel=None if novelty is None else np.asarray(novelty, dtype=np.float64)[slide.rows] > NOVEL,
        shown=crop.spots,
    )


def read_observed(slide: Slide, prediction: Prediction, layer: str | None) -> NDArray[np.float32] | None:
    """Observed expression, or None if the slide holds no counts of the panel."""
    if reason := explain_missing_values(slide, prediction, layer=layer):
        log.info("Section %s: no observed map, since %s.", slide.name, reason)
        return None
    try:
        return read_measured(slide, prediction, layer=layer)
    except ValueError as error:
        msg = f"Section {slide.name!r}, observed expression: {error} To draw predictions only, pass `observed=False`."
        raise ValueError(msg) from error


def color_scale(maps: list[GeneMaps], gene: int, vmin: Limit, vmax: Limit) -> ColorScale:
    """One color scale of a gene for the observed and predicted values that are drawn, of all sections."""
    parts = [m.drawn(values[:, gene]) for m in maps for values in (m.observed, m.predicted) if values is not None]
    pooled = np.concatenate(parts)
    pooled = pooled[np.isfinite(pooled)]
    low, high = _limit(vmin, pooled, "p2", "vmin"), _limit(vmax, pooled, "p98", "vmax")
    if low == high:  # a constant gene, or one with few counts
        low, high = (low, float(pooled.max())) if pooled.max() > low else (low - 0.5, low + 0.5)
    if low > high:
        msg = f"`vmin` must be below `vmax`, found `vmin` {low:g} and `vmax` {high:g}."
        raise ValueError(msg)
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    return ColorScale(low, high, ends[bool(pooled.min() < low), bool(pooled.max() > high)])


def _limit(value: Limit, pooled: NDArray[np.float32], default: str, what: str) -> float:
    limit = default if value is None else value
    if not isinstance(limit, str):
        return float(limit)
    percent = limit.removeprefix("p")
    if not percent.replace(".", "", 1).isdecimal() or float(percent) > 100:
        msg = f'`{what}` must be a number or a percentile such as "p98", found {limit!r}.'
        raise ValueError(msg)
    return float(np.percentile(pooled, float(percent)))


def pcc(observed: NDArray[np.float32], predicted: NDArray[np.float32]) -> float:
    """Pearson correlation; NaN if one of the two is constant (the title then shows n/a)."""
    a, b = observed.astype(np.float64), predicted.astype(np.float64)
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")
