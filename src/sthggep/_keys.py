"""Every name that sthggep writes into an AnnData, in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass

TOOL = "sthggep"
GRID = "tissue_grid"  # the record of a grid of pseudo-spots
UNITS = "log10(1 + counts per 10,000 of the panel)"
UNITS_OF_ALL = "log10(1 + counts per 10,000 of all genes)"
ARRAY_COLUMNS = (("array_x", "array_y"), ("array_col", "array_row"))


@dataclass(frozen=True)
class PredictionKeys:
    """Keys of one prediction."""

    obsm: str
    uns: str
    scores: str
    latent: str
    counts: str
    lower: str
    upper: str
    clusters: str
    clusters_observed: str
    agreement: str
    source: str
    novelty: str
    trust: str


def prediction_keys(key_added: str = "hggep") -> PredictionKeys:
    """Names of one prediction: its array, record and scores, embedding and counts, the ends of its intervals, its clusters and their agreement."""
    return PredictionKeys(
        obsm=key_added,
        uns=key_added,
        scores=f"{key_added}_scores",
        latent=f"X_{key_added}",
        counts=f"{key_added}_counts",
        lower=f"{key_added}_lower",
        upper=f"{key_added}_upper",
        clusters=f"{key_added}_clusters",
        clusters_observed=f"{key_added}_clusters_observed",
        agreement=f"{key_added}_agreement",
        source=f"{key_added}_source",
        novelty=f"{key_added}_novelty",
        trust=f"{key_added}_trust",
    )


def feature_key(encoder: str, size: float, unit: str = "um") -> str:
    """Name of a feature array: ``X_<encoder>_<µm>``, or ``X_<encoder>_<px>px`` where the patch has a size in pixels.

    Of a longer name (``"transformers:owner/model"``) the last part is taken: a slash would make a group of it on disk.
    """
    short = re.sub(r"[^\w.-]+", "-", re.split(r"[:/\\]", encoder.rstrip("/\\"))[-1])
    return f"X_{short}_{size:g}" + ("" if unit == "um" else "px")
