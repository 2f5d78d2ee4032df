"""Refuse the same tissue on both sides of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthggep.tl._cross_validation._folds import PATIENT, patient_of

if TYPE_CHECKING:
    from sthggep._slides._fingerprint import SectionFingerprint
    from sthggep._slides._slide import Slide

SAME_SPOTS = 0.5  # share of the smaller section's spots that have a double in the other
APART = 4.0  # pitches between two pieces of tissue on one scan


def refuse_leaks(slides: Sequence[Slide], fingerprints: Sequence[SectionFingerprint], groups: Sequence[str]) -> None:
    """Refuse sections of different groups that are the same tissue: one would be trained on, the other predicted."""
    found = []
    for j in range(len(slides)):
        for i in range(j):
            if groups[i] != groups[j] and (same := what_is_shared(fingerprints[i], fingerprints[j])):
                found.append(
                    f"{describe_section(slides[i], groups[i])} and {describe_section(slides[j], groups[j])} share {same}"
                )
    refuse_shared(found)


def refuse_shared(found: Sequence[str]) -> None:
    if found:
        more = f" … and {len(found) - 5} more pairs" if len(found) > 5 else ""
        msg = (
            f"The same tissue would be trained on and predicted: {'; '.join(found[:5])}{more}. "
            "Drop one of them, give both the same group, or name and mend what was mixed up."
        )
        raise ValueError(msg)


def describe_section(slide: Slide, group: str) -> str:
    patient = patient_of(slide)
    of_patient = "" if patient is None else f" ({PATIENT} {patient!r})"
    return f"section {slide.name!r}{of_patient}" + ("" if group in (slide.name, patient) else f" of group {group!r}")


def what_is_shared(a: SectionFingerprint, b: SectionFingerprint) -> str:
    """ModelFingerprint that two sections have in common, in words; empty where they are different tissue."""
    marks = {
        f"the name {a.name!r}": a.name is not None and a.name == b.name,
        "the image": _same_piece(a, b),
        "the counts": _same_counts(a, b),
        "the spot positions": a.positions is not None and a.positions == b.positions,
    }
    return ", ".join(mark for mark, shared in marks.items() if shared)


def _same_piece(a: SectionFingerprint, b: SectionFingerprint) -> bool:
    """The same pixels, unless the spots lie on pieces of tissue that are well apart, as those of an array may."""
    if a.image is None or a.image != b.image:
        return False
    gap = np.maximum(a.low - b.high, b.low - a.high).max()
    return bool(gap <= APART * max(a.pitch, b.pitch))


def _same_counts(a: SectionFingerprint, b: SectionFingerprint) -> bool:
    """All spots alike in any order, or most of those that have counts enough not to be alike by chance."""
    if len(a.codes) == len(b.codes) and a.codes.any() and np.array_equal(np.sort(a.codes), np.sort(b.codes)):
        return True
    fewer = min(len(a.rich), len(b.rich))
    return bool(fewer and len(np.intersect1d(a.rich, b.rich)) > SAME_SPOTS * fewer)
