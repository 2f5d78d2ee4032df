"""Data of the report page about one section: tiles of its H&E, spots, maps, scores and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._keys import prediction_keys
from sthggep._table._all_counts import read_scaled_counts
from sthggep._table._counts import find_measured_genes
from sthggep._table._prediction import open_stored_arrays, read_prediction
from sthggep._table._scores import noise_ceiling
from sthggep._table._verdicts import set_verdicts_of, verdicts_of
from sthggep.pl._report_tiles import Tiles, tiles_in_folder, tiles_in_page
from sthggep.pl._report_values import Packed, Values, pack, pack_end, pack_observed, pack_predicted, pack_words

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide
    from sthggep._table._prediction import Prediction
    from sthggep.pl._maps import GeneMaps
    from sthggep.pl._tissue import View


class SetData(TypedDict):
    """A gene set or program, and its verdict."""

    name: str
    kind: str
    verdict: str
    heldOut: float | None
    reliableAt: float | None
    """Side of squares in microns."""
    reason: str


class SectionData(TypedDict):
    """One section; lengths are in full-resolution pixels, and a packed array has a value a spot."""

    name: str
    n: int
    mpp: float | None
    left: float
    top: float
    width: float
    height: float
    tiles: Tiles | None
    spots: str
    x: str
    y: str
    radius: float
    unlike: str | None
    """1 for spots whose image is unlike the training tissue."""
    used: str | None
    """1 for spots whose counts the model was trained on."""
    predicted: Packed
    observed: Packed | None
    lower: Packed | None
    upper: Packed | None
    interval: str
    """What the ends of intervals are of."""
    verdict: list[str] | None
    reason: list[str] | None
    sets: list[SetData]
    pearson: list[float | None]
    ceiling: list[float | None]
    trainedOn: bool


class Wanted(NamedTuple):
    """What the page is to show of each section."""

    key: str
    layer: str | None
    genes: list[str]
    tile_bytes: int
    folder: Path | None
    """For tiles; ``None`` for tiles within the page."""
    address: str
    """Of this folder, as seen from the page."""


def section_data(name: str, maps: GeneMaps, wanted: Wanted) -> SectionData:
    """Spots, tiles, maps, scores and verdicts of a section."""
    view, slide = maps.view, maps.slide
    prediction = read_prediction(slide.adata, wanted.key)
    counts = _PanelCounts.read(maps, prediction, wanted)
    interval = _interval(slide, prediction, wanted.genes)
    judged = verdicts_of(slide, wanted.key, prediction.genes)
    judged = None if judged is None else judged.iloc[prediction.columns(wanted.genes)]
    none: list[float | None] = [None] * len(wanted.genes)
    return {
        "name": name,
        "n": slide.n_spots,
        "mpp": slide.mpp,
        "left": float(view.left),
        "top": float(view.top),
        "width": float(view.width),
        "height": float(view.height),
        "tiles": _tiles(slide, view, wanted),
        "spots": pack_words([str(spot) for spot in slide.adata.obs_names[slide.rows]]),
        "x": pack(slide.xy[:, 0], "<f4"),
        "y": pack(slide.xy[:, 1], "<f4"),
        "radius": 0.5 * maps.diameter,
        "unlike": _marks(maps.novel),
        "used": _marks(maps.used),
        "predicted": pack_predicted(maps.predicted),
        "observed": None if maps.observed is None else pack_observed(maps.observed, counts.of_genes, counts.totals),
        "lower": None if interval is None else pack_end(interval[0], maps.predicted),
        "upper": None if interval is None else pack_end(interval[1], maps.predicted),
        "interval": _name_interval(slide.adata, wanted.key),
        "verdict": None if judged is None else judged["verdict"].astype(str).tolist(),
        "reason": None if judged is None else judged["reason"].astype(str).tolist(),
        "sets": _sets(slide, wanted.key),
        "pearson": none if maps.observed is None else [_number(maps.pearson(i)) for i in range(len(none))],
        "ceiling": counts.ceilings or none,
        "trainedOn": maps.learned_from,
    }


class _PanelCounts(NamedTuple):
    """Raw counts of a section; nothing where it has none."""

    of_genes: Values | None = None
    """(n_spots, n_genes): of the genes of the page, if the section measured all of them."""
    totals: NDArray[np.floating] | None = None
    """(n_spots,): of the panel, or of all genes where these are the scale."""
    ceilings: list[float | None] | None = None
    """Noise ceiling of each gene of the page."""

    @classmethod
    def read(cls, maps: GeneMaps, prediction: Prediction, wanted: Wanted) -> _PanelCounts:
        if maps.observed is None or prediction.targets is not None:
            return cls()
        adata = maps.slide.adata
        panel = find_measured_genes(adata, prediction.panel, wanted.layer)
        rows, all_counts = maps.slide.rows, prediction.all_counts
        raw = read_scaled_counts(adata, panel, layer=wanted.layer, rows=rows, all_counts=all_counts)
        # The spots of the correlations: those that the model was not trained on
        scored = raw if maps.used is None or maps.used.all() else raw[~maps.used]
        # Where all counts are the scale, the last column holds those of the other genes
        known = dict(zip(panel, noise_ceiling(scored, np.random.default_rng(0)).tolist(), strict=False))
        names = [prediction.genes[column] for column in prediction.columns(wanted.genes)]
        whole = all(name in known for name in names)
        return cls(
            raw[:, [panel.index(name) for name in names]] if whole else None,
            raw.sum(axis=1, dtype=np.float64),
            [_number(known.get(name, np.nan)) for name in names],
        )


def _tiles(slide: Slide, view: View, wanted: Wanted) -> Tiles | None:
    if not slide.levels:  # features of the user
        return None
    if wanted.folder is not None:
        return tiles_in_folder(slide, view, wanted.folder, wanted.address)
    return tiles_in_page(slide, view, wanted.tile_bytes)


def _interval(slide: Slide, prediction: Prediction, genes: Sequence[str]) -> tuple[Values, Values] | None:
    """Ends of the intervals, if the prediction has them."""
    names, path = prediction_keys(prediction.key), prediction.path
    arrays = slide.adata.obsm if path is None else open_stored_arrays(path, prediction.key, slide.adata)
    if not {names.lower, names.upper} <= set(arrays):
        return None
    columns = prediction.columns(genes)
    lower, upper = (
        np.asarray(arrays[name][slide.rows][:, columns], dtype=np.float32) for name in (names.lower, names.upper)
    )
    return lower, upper


def _name_interval(adata: AnnData, key: str) -> str:
    record = adata.uns[prediction_keys(key).uns].get("interval")
    if not isinstance(record, Mapping) or "level" not in record:
        return "interval"
    of = "of the expression without counting noise" if record.get("of") == "expression" else "of a measurement"
    return f"{100 * float(record['level']):g} % interval {of}"


def _sets(slide: Slide, key: str) -> list[SetData]:
    """Verdicts of the gene sets and programs that the model knows."""
    return [
        {
            "name": str(name),
            "kind": kind,
            "verdict": str(row["verdict"]),
            "heldOut": _number(row["held_out_pearson"]),
            "reliableAt": _number(row["reliable_at_um"]),
            "reason": str(row["reason"]),
        }
        for kind, verdicts in set_verdicts_of(slide, key).items()
        for name, row in verdicts.iterrows()
    ]


def _marks(spots: NDArray[np.bool_] | None) -> str | None:
    return pack(spots, "u1") if spots is not None and spots.any() else None


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
