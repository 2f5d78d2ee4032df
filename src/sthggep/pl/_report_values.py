"""Values of the report page, packed small: counts as they are, predictions by their factors, others in a byte each."""

from __future__ import annotations

import base64
import zlib
from typing import Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sthggep._table._counts import log10_cp10k

Values: TypeAlias = NDArray[np.float32]
STEPS = 254  # of a byte; the next byte is a missing value
MISSING = 255
MOST_FACTORS = 128
LARGEST_COUNT = 2**16 - 1
CLOSE = 1e-4  # on the scale of predictions


class Factors(TypedDict):
    """Value of a spot and gene: the gene's mean, and its width times the sum over factors of weight, spot and gene."""

    kind: Literal["factors"]
    spots: str
    """(factors, n_spots), whole numbers of 16 bits."""
    genes: str
    """(factors, n_genes), likewise."""
    weights: list[float]
    """(factors,)."""
    means: str
    widths: str


class Counts(TypedDict):
    """Raw counts, gene after gene, and the counts of the panel in each spot; the page computes the values."""

    kind: Literal["counts"]
    low: str
    high: str | None
    """The upper bytes of the counts; ``None`` where all counts are below 256."""
    totals: str


class Bytes(TypedDict):
    """A byte a value, gene after gene: 0 to 254 between the ends of the gene, 255 for a missing value."""

    kind: Literal["bytes"]
    data: str
    ends: list[tuple[float, float]]


class Shift(TypedDict):
    """Distance of the end of an interval from the prediction, and the least end, of each gene."""

    kind: Literal["shift"]
    by: str
    least: str


Packed: TypeAlias = Factors | Counts | Bytes | Shift


def pack(values: ArrayLike, kind: str) -> str:
    """Compress an array of a type such as ``"<f4"``, and write it as text."""
    data = np.ascontiguousarray(values, dtype=kind).tobytes()
    return base64.b64encode(zlib.compress(data, 9)).decode()


def pack_words(words: list[str]) -> str:
    """Compress names without line breaks, one a line."""
    text = "\n".join(" ".join(word.splitlines()) for word in words)
    return base64.b64encode(zlib.compress(text.encode(errors="replace"), 9)).decode()


def pack_predicted(values: Values) -> Factors | Bytes:
    """Pack a prediction (n_spots, n_genes): few factors make up most of them, as exactly as a byte a value."""
    factors = _factors(values) if np.isfinite(values).all() else None
    return pack_bytes(values) if factors is None else factors


def _factors(values: Values) -> Factors | None:
    """Factorize a prediction; ``None`` if that takes as much space as a byte a value, or is not exact."""
    from sklearn.utils.extmath import randomized_svd

    n_spots, n_genes = values.shape
    # Two bytes a number; those of a byte a value are compressed to three quarters
    most = min(MOST_FACTORS, int(0.75 * n_spots * n_genes / (2 * n_spots + 2 * n_genes)))
    if most < 1:
        return None
    means, widths = values.mean(axis=0), np.maximum(np.ptp(values, axis=0), CLOSE)
    rest = (values - means) / widths
    spots, sizes, genes = randomized_svd(rest, min(most, n_spots, n_genes), random_state=0)
    n = _n_needed(rest, spots * sizes, genes)
    if n is None:
        return None
    scaled, steps = _whole_numbers(spots.T[:n] * sizes[:n, None])
    loadings, gene_steps = _whole_numbers(genes[:n])
    return {
        "kind": "factors",
        "spots": pack(scaled, "<i2"),
        "genes": pack(loadings, "<i2"),
        "weights": (steps * gene_steps).tolist(),
        "means": pack(means, "<f4"),
        "widths": pack(widths, "<f4"),
    }


def _n_needed(rest: Values, spots: NDArray[np.floating], genes: NDArray[np.floating]) -> int | None:
    """How many factors it takes until no value is off by more than half a step of a byte; ``None`` if all are too few."""
    for n in range(len(genes)):
        rest = rest - np.outer(spots[:, n], genes[n])
        if np.abs(rest).max() <= 0.5 / STEPS:
            return n + 1
    return None


def _whole_numbers(values: NDArray[np.floating]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Round each row to whole numbers of 16 bits, and return their steps."""
    steps = np.maximum(np.abs(values).max(axis=1), 1e-12).astype(np.float64) / (2**15 - 1)
    return np.rint(values / steps[:, None]).astype(np.int16), steps


def pack_observed(values: Values, counts: Values | None, totals: NDArray[np.floating] | None) -> Counts | Bytes:
    """Pack measured values (n_spots, n_genes): by the counts that they come from, where these are known.

    Parameters
    ----------
    values
        On the scale of the prediction.
    counts
        Raw counts of the same spots and genes; ``None`` for targets, which have none.
    totals
        Counts of the panel in each spot.
    """
    if counts is None or totals is None or counts.max(initial=0) > LARGEST_COUNT:
        return pack_bytes(values)
    rest = np.maximum(totals - counts.sum(axis=1), 0)
    again = log10_cp10k(np.column_stack([counts, rest]).astype(np.float32))[:, :-1]
    if not np.allclose(again, values, atol=CLOSE):
        return pack_bytes(values)
    whole = np.rint(counts.T).astype(np.uint16)
    high = pack(whole >> 8, "u1") if (whole > 255).any() else None
    return {"kind": "counts", "low": pack(whole & 255, "u1"), "high": high, "totals": pack(totals, "<f4")}


def pack_end(values: Values, predicted: Values) -> Shift | Bytes:
    """Pack an end of intervals, which mostly lies at one distance from the predictions of a gene, and at some value at least."""
    if np.isfinite(values).all() and np.isfinite(predicted).all():
        by, least = (values - predicted).min(axis=0), values.min(axis=0)
        if np.allclose(np.maximum(predicted + by, least), values, atol=CLOSE):
            return {"kind": "shift", "by": pack(by, "<f4"), "least": pack(least, "<f4")}
    return pack_bytes(values)


def pack_bytes(values: Values) -> Bytes:
    """Pack any values (n_spots, n_genes) in a byte each, between the lowest and the highest of each gene."""
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    low, high = np.where(known.any(axis=0), low, 0.0), np.where(known.any(axis=0), high, 0.0)
    scaled = np.rint((np.where(known, values, low) - low) / np.maximum(high - low, 1e-9) * STEPS)
    coded = np.where(known, scaled, MISSING).astype(np.uint8)
    ends = [(round(float(a), 5), round(float(b), 5)) for a, b in zip(low, high, strict=True)]
    return {"kind": "bytes", "data": pack(coded.T, "u1"), "ends": ends}
