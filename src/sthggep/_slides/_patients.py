"""The patient of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

PATIENT = "patient"


def patient_of(slide: Slide) -> str | None:
    """Return the patient of a section; ``None`` unless ``obs["patient"]`` has exactly one value."""
    if PATIENT not in slide.adata.obs:
        return None
    patients = slide.adata.obs[PATIENT].iloc[slide.rows].dropna().astype(str).unique()
    return str(patients[0]) if len(patients) == 1 else None
