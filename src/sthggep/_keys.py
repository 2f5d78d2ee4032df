"""Every name that sthggep writes into an AnnData, in one place."""

from __future__ import annotations

from dataclasses import dataclass

TOOL = "sthggep"
UNITS = "log10(1 + counts per 10,000 of the panel)"
ARRAY_COLUMNS = (("array_x", "array_y"), ("array_col", "array_row"))


@dataclass(frozen=True)
class PredictionKeys:
    """Where one prediction lives."""

    obsm: str
    uns: str
    scores: str
    latent: str
    clusters: str
    clusters_observed: str
    agreement: str


def prediction_keys(key_added: str = "hggep") -> PredictionKeys:
    """Names of one prediction: the array, its record, its scores, the embedding behind it, its clusters and theirs."""
    return PredictionKeys(
        obsm=key_added,
        uns=key_added,
        scores=f"{key_added}_scores",
        latent=f"X_{key_added}",
        clusters=f"{key_added}_clusters",
        clusters_observed=f"{key_added}_clusters_observed",
        agreement=f"{key_added}_agreement",
    )


def feature_key(encoder: str, size: float, unit: str = "um") -> str:
    """Name of a feature array: ``X_<encoder>_<µm>``, or ``X_<encoder>_<px>px`` where the patch was asked for in pixels."""
    return f"X_{encoder}_{size:g}" + ("" if unit == "um" else "px")
