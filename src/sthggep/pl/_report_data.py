"""What the report page shows, in plain types: pictures, maps as bytes, scores, the model's record."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._keys import prediction_keys
from sthggep._log import log
from sthggep._table._counts import read_panel_counts
from sthggep._table._prediction import read_prediction
from sthggep._table._scores import noise_ceiling
from sthggep.pl._maps import GeneMaps, color_scale, pcc, read_maps

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP

MOST_BYTES = 20_000_000
MISSING = 255  # of a byte: no value


@dataclass(frozen=True)
class Included:
    """Genes whose maps are in the page: those asked for, or as many as fit."""

    genes: Sequence[str] | None

    def choose(self, predicted: Sequence[str], known: Sequence[float | None], n_values: int) -> list[str]:
        """Of the predicted genes, those that are asked for; or the best known that fit, ``n_values`` bytes each."""
        if self.genes is not None:
            return [str(gene) for gene in self.genes]
        fit = max(1, MOST_BYTES // max(1, n_values))
        if len(predicted) <= fit:
            return list(predicted)
        rank = sorted(range(len(predicted)), key=lambda i: -(known[i] if known[i] is not None else -2.0))  # type: ignore[operator]
        log.warning("The report holds the maps of %d of %d genes; pass `genes=` to choose them.", fit, len(predicted))
        return [predicted[i] for i in sorted(rank[:fit])]


def page_data(found: Sequence[tuple[str, Slide]], *, key: str, layer: str | None, included: Included) -> dict[str, Any]:
    """Sections, genes and maps."""
    if not found:
        return {"sections": [], "genes": [], "units": "", "colors": [], "learnedFrom": []}
    first = found[0][1].adata
    prediction = read_prediction(first, key)
    known = _noted(first, key, "held_out_pearson", prediction.genes)
    n_spots = sum(slide.n_spots for _, slide in found)
    genes = included.choose(prediction.genes, [known.get(gene) for gene in prediction.genes], 3 * n_spots)
    maps = [read_maps(slide, genes, key, layer=layer, observed=True, spot_size=None) for _, slide in found]
    ends = [_ends(maps, at) for at in range(len(genes))]
    sections = [
        _section(name, slide, drawn, ends, _spread(slide, key, genes), _ceilings(slide, drawn, key, genes, layer))
        for (name, slide), drawn in zip(found, maps, strict=True)
    ]
    return {
        "sections": sections,
        "genes": genes,
        "units": prediction.units,
        "heldOut": [known.get(gene) for gene in genes],
        "ends": ends,
        "colors": _colors(),
        "predictedBy": str(first.uns[prediction_keys(key).uns].get("model", "")),
        "learnedFrom": [name for (name, _), drawn in zip(found, maps, strict=True) if drawn.learned_from],
    }


def model_notes(model: HGGEP) -> dict[str, Any]:
    """The model's record, its curves as a drawing, and how each gene fared on held-out tissue."""
    training = model.training
    rows = [
        ("name", model.id),
        ("preset", model.preset),
        ("genes", f"{len(model.genes)}, {model.units}"),
        ("looks at", str(model.inputs)),
        ("networks", str(len(model.members))),
        ("trained on", ", ".join(training.sections) or "not noted"),
        ("spots", str(sum(training.n_spots)) if training.n_spots else "not noted"),
        ("held out to stop", "; ".join(training.validation) or "nothing"),
        ("seed", "not noted" if training.seed is None else str(training.seed)),
    ]
    nothing: list[float | None] = [None] * len(model.genes)
    held_out = training.held_out_pearson or nothing
    ceiling = training.ceiling or nothing
    return {"rows": rows, "curves": _curves(model), "genes": model.genes, "heldOut": held_out, "ceiling": ceiling}


def _curves(model: HGGEP) -> str | None:
    if model.history.empty:
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
    slide: Slide,
    drawn: GeneMaps,
    ends: Sequence[tuple[float, float]],
    spread: NDArray[np.float32] | None,
    ceilings: list[float | None],
) -> dict[str, Any]:
    """One section: its picture, where the spots are in it, its maps and scores."""
    view = drawn.view
    # Without an image (features of the user's own) the spots stand on white
    pixels = np.full((600, 600, 3), 255, dtype=np.uint8) if view.image is None else view.image
    scale = np.array(pixels.shape[1::-1]) / (view.width, view.height)
    places = (slide.xy - (view.left, view.top)) * scale
    out: dict[str, Any] = {
        "name": name,
        "picture": _picture(pixels),
        "x": _floats(places[:, 0]),
        "y": _floats(places[:, 1]),
        "radius": round(0.5 * drawn.diameter * float(scale[0]), 3),
        "n": slide.n_spots,
        "predicted": _bytes(drawn.predicted, ends),
        "observed": None,
        "spread": None,
        "pearson": [None] * len(ends),
        "ceiling": ceilings,
    }
    if drawn.observed is not None:
        out["observed"] = _bytes(drawn.observed, ends)
        found = [pcc(drawn.observed[:, at], drawn.predicted[:, at]) for at in range(len(ends))]
        out["pearson"] = [_number(value) for value in found]
    if spread is not None:
        of_spread = [(0.0, float(max(np.nanpercentile(column, 98), 1e-6))) for column in spread.T]
        out["spread"], out["spreadEnds"] = _bytes(spread, of_spread), [round(high, 4) for _, high in of_spread]
    return out


def _picture(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _ends(maps: list[GeneMaps], gene: int) -> tuple[float, float]:
    norm, _ = color_scale(maps, gene, None, None)
    return round(float(norm.vmin), 5), round(float(norm.vmax), 5)


def _spread(slide: Slide, key: str, genes: Sequence[str]) -> NDArray[np.float32] | None:
    """How far the networks differ, where that was written."""
    name = prediction_keys(key).std
    if name not in slide.adata.obsm:
        return None
    columns = read_prediction(slide.adata, key).columns(genes)
    return np.asarray(slide.adata.obsm[name][slide.rows][:, columns], dtype=np.float32)


def _ceilings(slide: Slide, drawn: GeneMaps, key: str, genes: Sequence[str], layer: str | None) -> list[float | None]:
    """Noise ceiling of each gene on this section, where counts were measured."""
    if drawn.observed is None:
        return [None] * len(genes)
    prediction = read_prediction(slide.adata, key)
    if prediction.targets is not None:
        return [None] * len(genes)
    raw = read_panel_counts(slide.adata, prediction.panel, layer=layer, rows=slide.rows)
    at = [prediction.panel.index(gene) for gene in genes]
    return [_number(value) for value in noise_ceiling(raw, np.random.default_rng(0))[at]]


def _noted(table: Any, key: str, name: str, genes: Sequence[str]) -> dict[str, float]:
    values = table.uns[prediction_keys(key).uns].get(name)
    if values is None or len(values) != len(genes):
        return {}
    return {gene: float(value) for gene, value in zip(genes, values, strict=True) if np.isfinite(value)}


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _floats(values: NDArray[np.float64]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _bytes(values: NDArray[np.float32], ends: Sequence[tuple[float, float]]) -> str:
    """A byte a value, gene after gene: 0 to 254 between the ends of the gene's color scale, 255 where there is none."""
    low, high = np.array(ends, dtype=np.float64).T
    scaled = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1) * (MISSING - 1)
    out = np.where(np.isfinite(values), np.rint(np.nan_to_num(scaled)), MISSING).astype(np.uint8)
    return base64.b64encode(np.ascontiguousarray(out.T).tobytes()).decode()


def _colors() -> list[list[int]]:
    import matplotlib as mpl

    table = mpl.colormaps["viridis"](np.linspace(0, 1, MISSING))[:, :3]
    return [[int(v) for v in row] for row in np.rint(255 * table)]
