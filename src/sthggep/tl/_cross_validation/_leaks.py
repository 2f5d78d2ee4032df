"""Refuse the same tissue on both sides of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthggep.tl._cross_validation._folds import PATIENT, patient_of

if TYPE_CHECKING:
    from sthggep._slides._fingerprint import SectionFingerprint
    from sthggep._slides._slide import Slide

SAME_SPOTS = 0.5  # fraction of the smaller section's spots with an equal in the other
APART = 4.0  # pitches between two pieces of tissue on one image


def refuse_leaks(slides: Sequence[Slide], fingerprints: Sequence[SectionFingerprint], groups: Sequence[str]) -> None:
    """Refuse sections of different groups that are the same tissue: a fold would train on one and predict the other."""
    leaks = []
    for j in range(len(slides)):
        for i in range(j):
            if groups[i] != groups[j] and (same := what_is_shared(fingerprints[i], fingerprints[j])):
                leaks.append(
                    f"{describe_section(slides[i], groups[i])} and {describe_section(slides[j], groups[j])} share {same}"
                )
    refuse_shared(leaks)


def refuse_shared(leaks: Sequence[str]) -> None:
    """Raise an error that lists pairs of sections with the same tissue, if there are any."""
    if leaks:
        more = f" … and {len(leaks) - 5} more pairs" if len(leaks) > 5 else ""
        msg = (
            f"The model would be trained on the tissue that it predicts: {'; '.join(leaks[:5])}{more}. "
            "Drop one section of each pair, give both the same group, or correct names, images or counts that were mixed up."
        )
        raise ValueError(msg)


def describe_section(slide: Slide, group: str) -> str:
    """A section with its patient and its group, in words."""
    patient = patient_of(slide)
    of_patient = "" if patient is None else f" ({PATIENT} {patient!r})"
    return f"section {slide.name!r}{of_patient}" + ("" if group in (slide.name, patient) else f" of group {group!r}")


def what_is_shared(a: SectionFingerprint, b: SectionFingerprint) -> str:
    """What two sections have in common, in words; empty for different tissue."""
    features = {
        f"the name {a.name!r}": a.name is not None and a.name == b.name,
        "the image": _same_piece(a, b),
        "the counts": _same_counts(a, b),
        "the spot positions": a.positions is not None and a.positions == b.positions,
    }
    return ", ".join(feature for feature, shared in features.items() if shared)


def _same_piece(a: SectionFingerprint, b: SectionFingerprint) -> bool:
    """Whether two sections have the same image, and their spots do not lie on distant pieces of tissue on it."""
    if a.image is None or a.image != b.image:
        return False
    gap = np.maximum(a.low - b.high, b.low - a.high).max()
    return bool(gap <= APART * max(a.pitch, b.pitch))


def _same_counts(a: SectionFingerprint, b: SectionFingerprint) -> bool:
    """Whether all spots have the same counts in any order, or most of those with enough counts to identify them."""
    if len(a.codes) == len(b.codes) and a.codes.any() and np.array_equal(np.sort(a.codes), np.sort(b.codes)):
        return True
    fewer = min(len(a.rich), len(b.rich))
    return bool(fewer and len(np.intersect1d(a.rich, b.rich)) > SAME_SPOTS * fewer)
