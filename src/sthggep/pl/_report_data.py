"""Data of the report page, in plain types: images, maps as bytes, scores, the model's record."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from sthggep._keys import prediction_keys
from sthggep._log import log
from sthggep._table._all_counts import read_scaled_counts
from sthggep._table._prediction import read_prediction
from sthggep._table._scores import noise_ceiling
from sthggep.pl._maps import GeneMaps, color_scale, read_maps

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP

MOST_BYTES = 20_000_000
MISSING = 255  # the byte of a missing value


class PageData(TypedDict):
    """Sections, genes and maps of the page, under the names that its script reads."""

    sections: list[SectionData]
    genes: list[str]
    units: str
    heldOut: list[float | None]
    ends: list[tuple[float, float]]
    colors: list[list[int]]
    predictedBy: str
    learnedFrom: list[str]


class SectionData(TypedDict):
    """One section: its image, its spots in pixels of the image, its maps (a byte a value) and its scores."""

    name: str
    picture: str
    x: str
    y: str
    radius: float
    n: int
    predicted: str
    observed: str | None
    lower: str | None
    upper: str | None
    intervalEnds: list[tuple[float, float]]
    verdict: list[str] | None
    pearson: list[float | None]
    ceiling: list[float | None]


class ModelData(TypedDict):
    """The model's record, its training curves, and the held-out correlation and noise ceiling of each gene."""

    rows: list[tuple[str, str]]
    curves: str | None
    genes: list[str]
    heldOut: Sequence[float | None]
    ceiling: Sequence[float | None]


def choose_genes(
    genes: Sequence[str] | None, predicted: Sequence[str], held_out: Sequence[float | None], n_values: int
) -> list[str]:
    """Choose ``genes``, or those with the best held-out correlation that fit into the page at ``n_values`` bytes each."""
    if genes is not None:
        return [str(gene) for gene in genes]
    fit = max(1, MOST_BYTES // max(1, n_values))
    if len(predicted) <= fit:
        return list(predicted)
    scores = [-2.0 if score is None else score for score in held_out]
    rank = sorted(range(len(predicted)), key=lambda i: -scores[i])
    log.warning("The report holds the maps of %d of %d genes; pass `genes=` to choose them.", fit, len(predicted))
    return [predicted[i] for i in sorted(rank[:fit])]


def page_data(
    named: Sequence[tuple[str, Slide]], *, key: str, layer: str | None, genes: Sequence[str] | None
) -> PageData:
    """Sections, genes and maps of the sections with their names."""
    if not named:
        return {
            "sections": [],
            "genes": [],
            "units": "",
            "heldOut": [],
            "ends": [],
            "colors": [],
            "predictedBy": "",
            "learnedFrom": [],
        }
    first = named[0][1].adata
    prediction = read_prediction(first, key)
    held_out = _held_out_pearson(first, key, prediction.genes)
    n_spots = sum(slide.n_spots for _, slide in named)
    genes = choose_genes(genes, prediction.genes, [held_out.get(gene) for gene in prediction.genes], 3 * n_spots)
    maps = [read_maps(slide, genes, key, layer=layer, observed=True, spot_size=None) for _, slide in named]
    ends = [_ends(maps, i) for i in range(len(genes))]
    ceilings = [_ceilings(item, key, genes, layer) for item in maps]
    return {
        "sections": [
            _section(name, item, ends, _interval(item.slide, key, genes), ceiling)
            for (name, _), item, ceiling in zip(named, maps, ceilings, strict=True)
        ],
        "genes": genes,
        "units": prediction.units,
        "heldOut": [held_out.get(gene) for gene in genes],
        "ends": ends,
        "colors": _colors(),
        "predictedBy": str(first.uns[prediction_keys(key).uns].get("model", "")),
        "learnedFrom": [name for (name, _), item in zip(named, maps, strict=True) if item.learned_from],
    }


def describe_model(model: HGGEP) -> ModelData:
    """The model's record, its training curves as an image, and each gene's held-out correlation and noise ceiling."""
    training = model.training
    rows = [
        ("name", model.id),
        ("preset", model.preset),
        ("genes", f"{len(model.genes)}, {model.units}"),
        ("inputs", str(model.inputs)),
        ("predicts by", model.architecture),
        ("trained on", ", ".join(training.sections) or "not recorded"),
        ("spots", str(sum(training.n_spots)) if training.n_spots else "not recorded"),
        ("held out for choices", "; ".join(training.validation) or "nothing"),
        ("seed", "not recorded" if training.seed is None else str(training.seed)),
    ]
    missing: list[float | None] = [None] * len(model.genes)
    held_out = training.held_out_pearson or missing
    ceiling = training.ceiling or missing
    return {"rows": rows, "curves": _curves(model), "genes": model.genes, "heldOut": held_out, "ceiling": ceiling}


def _curves(model: HGGEP) -> str | None:
    # The curves of a network that earned no share would pass for those of the model
    if model.history.empty or model.is_closed_form:
        return None
    import matplotlib.pyplot as plt

    from sthggep.pl._history import history

    figure = history(model)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _section(
    name: str,
    maps: GeneMaps,
    ends: Sequence[tuple[float, float]],
    interval: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    ceiling: list[float | None],
) -> SectionData:
    """One section: its image, its spots, its maps and scores."""
    view, slide = maps.view, maps.slide
    # Without an image (features of the user) the background is white
    pixels = np.full((600, 600, 3), 255, dtype=np.uint8) if view.image is None else view.image
    scale = np.array(pixels.shape[1::-1]) / (view.width, view.height)
    xy = (slide.xy - (view.left, view.top)) * scale
    section: SectionData = {
        "name": name,
        "picture": _picture(pixels),
        "x": _floats(xy[:, 0]),
        "y": _floats(xy[:, 1]),
        "radius": round(0.5 * maps.diameter * float(scale[0]), 3),
        "n": slide.n_spots,
        "predicted": _bytes(maps.predicted, ends),
        "observed": None,
        "lower": None,
        "upper": None,
        "intervalEnds": [],
        "verdict": list(maps.verdicts) or None,
        "pearson": [None] * len(ends),
        "ceiling": ceiling,
    }
    if maps.observed is not None:
        section["observed"] = _bytes(maps.observed, ends)
        correlations = [maps.pearson(i) for i in range(len(ends))]
        section["pearson"] = [_number(value) for value in correlations]
    if interval is not None:
        limits = np.nanmin(interval[0], axis=0), np.nanmax(interval[1], axis=0)
        interval_ends = [(round(float(low), 4), round(float(high), 4)) for low, high in zip(*limits, strict=True)]
        section["lower"], section["upper"] = (_bytes(values, interval_ends) for values in interval)
        section["intervalEnds"] = interval_ends
    return section


def _picture(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _ends(maps: list[GeneMaps], gene: int) -> tuple[float, float]:
    scale = color_scale(maps, gene, None, None)
    return round(scale.low, 5), round(scale.high, 5)


def _interval(slide: Slide, key: str, genes: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Ends of the intervals, if the prediction has them."""
    names = prediction_keys(key)
    if not {names.lower, names.upper} <= set(slide.adata.obsm):
        return None
    columns = read_prediction(slide.adata, key).columns(genes)
    lower, upper = (
        np.asarray(slide.adata.obsm[name][slide.rows][:, columns], dtype=np.float32)
        for name in (names.lower, names.upper)
    )
    return lower, upper


def _ceilings(maps: GeneMaps, key: str, genes: Sequence[str], layer: str | None) -> list[float | None]:
    """Noise ceiling of each gene on this section, if the section has counts."""
    if maps.observed is None:
        return [None] * len(genes)
    slide = maps.slide
    prediction = read_prediction(slide.adata, key)
    if prediction.targets is not None:
        return [None] * len(genes)
    raw = read_scaled_counts(
        slide.adata, prediction.panel, layer=layer, rows=slide.rows, all_counts=prediction.all_counts
    )
    columns = [prediction.panel.index(gene) for gene in genes]
    return [_number(value) for value in noise_ceiling(raw, np.random.default_rng(0))[columns]]


def _held_out_pearson(adata: AnnData, key: str, genes: Sequence[str]) -> dict[str, float]:
    """Held-out correlation of the genes that have one, from the record of the prediction."""
    values = adata.uns[prediction_keys(key).uns].get("held_out_pearson")
    if values is None or len(values) != len(genes):
        return {}
    return {gene: float(value) for gene, value in zip(genes, values, strict=True) if np.isfinite(value)}


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _floats(values: NDArray[np.float64]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _bytes(values: NDArray[np.float32], ends: Sequence[tuple[float, float]]) -> str:
    """Values as bytes, gene after gene: 0 to 254 between the ends of the gene's color scale, 255 for a missing value."""
    low, high = np.array(ends, dtype=np.float64).T
    scaled = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1) * (MISSING - 1)
    coded = np.where(np.isfinite(values), np.rint(np.nan_to_num(scaled)), MISSING).astype(np.uint8)
    return base64.b64encode(np.ascontiguousarray(coded.T).tobytes()).decode()


def _colors() -> list[list[int]]:
    import matplotlib as mpl

    table = mpl.colormaps["viridis"](np.linspace(0, 1, MISSING))[:, :3]
    return [[int(v) for v in row] for row in np.rint(255 * table)]
