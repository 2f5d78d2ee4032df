"""Refuse the same tissue on both sides of a fold, or among training and held-out sections."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from sthggep._slides._array_places import same_places
from sthggep._slides._fingerprint import section_fingerprint
from sthggep._slides._overlay import best_overlay, correlation
from sthggep._slides._patients import PATIENT, patient_of
from sthggep._slides._picture import same_picture

if TYPE_CHECKING:
    from sthggep._slides._fingerprint import SectionFingerprint, SpotCodes
    from sthggep._slides._slide import Slide

SAME_SPOTS = 0.5  # fraction of the smaller section's spots with an equal in the other
APART = 4.0  # pitches between two pieces of tissue on one image
# Total counts of a copy, perhaps of a later release, correlate so over at least so many spots; toy sections up to .66
SAME_DEPTH, FEWEST_SPOTS = 0.95, 30


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
        msg = (
            f"The model would be trained on the tissue that it predicts: {_first(leaks)}. "
            "Drop one section of each pair, give both the same group, or correct names, images or counts that were mixed up."
        )
        raise ValueError(msg)


def refuse_copies(
    slides: Sequence[Slide], validation: str | Sequence[str] | None, layer: str | None, extra: Sequence[Slide] = ()
) -> None:
    """Refuse copies of a section in a training that holds out tissue: one would be learned, the other held out."""
    if validation is None or len(slides) + len(extra) < 2:
        return
    prints = [section_fingerprint(slide, slide.name, layer) for slide in (*slides, *extra)]
    names = {validation} if isinstance(validation, str) else set(validation)
    sides = [slide.name in names for slide in slides]
    copies = []
    for i, j in combinations(range(len(prints)), 2):
        if i >= len(slides) or (j < len(slides) and any(sides) and sides[i] == sides[j]):
            continue
        if same := what_is_shared(prints[i], prints[j], copies=True):
            other = f"{slides[j].name!r}" if j < len(slides) else f"{extra[j - len(slides)].name!r} of `expression`"
            copies.append(f"sections {slides[i].name!r} and {other} share {same}")
    if copies:
        msg = (
            f"Validation would hold out tissue that the model is trained on: {_first(copies)}. Drop one section of each "
            "pair, correct images or counts that were mixed up, or pass `validation=None` to hold out nothing."
        )
        raise ValueError(msg)


def _first(pairs: Sequence[str]) -> str:
    """The first few pairs, and the number of the others."""
    return "; ".join(pairs[:5]) + (f" … and {len(pairs) - 5} more pairs" if len(pairs) > 5 else "")


def describe_section(slide: Slide, group: str) -> str:
    """A section with its patient and its group, in words."""
    patient = patient_of(slide)
    of_patient = "" if patient is None else f" ({PATIENT} {patient!r})"
    return f"section {slide.name!r}{of_patient}" + ("" if group in (slide.name, patient) else f" of group {group!r}")


def what_is_shared(a: SectionFingerprint, b: SectionFingerprint, *, copies: bool = False) -> str:
    """What two sections have in common, in words; empty for different tissue.

    With ``copies``, neither a common name nor neighboring tissue on one image counts, but the same spots.
    """
    same_image = a.image is not None and a.image == b.image
    on_image = _same_spots(a, b) if copies else _same_piece(a, b)
    features = {
        f"the name {a.name!r}": not copies and a.name is not None and a.name == b.name,
        "the image": on_image if same_image else same_picture(a.picture, b.picture),
        "the counts": _same_codes(a.counts, b.counts) or _same_codes(a.sizes, b.sizes) or _same_depth(a, b),
        "the spot positions": _same_positions(a, b),
        "the occupied places of the array": same_places(a.places, b.places),
    }
    return ", ".join(feature for feature, shared in features.items() if shared)


def _same_piece(a: SectionFingerprint, b: SectionFingerprint) -> bool:
    """Whether the spots of two sections on one image do not lie on distant pieces of tissue."""
    gap = np.maximum(a.xy.min(axis=0) - b.xy.max(axis=0), b.xy.min(axis=0) - a.xy.max(axis=0)).max()
    return bool(gap <= APART * max(a.pitch, b.pitch))


def _same_spots(a: SectionFingerprint, b: SectionFingerprint) -> bool:
    """Whether most spots of the smaller of two sections on one image lie on spots of the other."""
    from scipy.spatial import cKDTree

    fewer, more = sorted((a, b), key=lambda each: len(each.xy))
    distances = cKDTree(more.xy).query(fewer.xy)[0]
    return bool((distances < 0.5 * min(a.pitch, b.pitch)).mean() > SAME_SPOTS)


def _same_codes(a: SpotCodes, b: SpotCodes) -> bool:
    """Whether all spots have the same counts in any order, or most of those with enough counts to identify them."""
    if len(a.codes) == len(b.codes) and a.codes.any() and np.array_equal(np.sort(a.codes), np.sort(b.codes)):
        return True
    fewer = min(len(a.rich), len(b.rich))
    return bool(fewer and len(np.intersect1d(a.rich, b.rich)) > SAME_SPOTS * fewer)


def _same_depth(a: SectionFingerprint, b: SectionFingerprint) -> bool:
    """Whether the total counts vary alike over the array, as those of other genes or of a later release do."""
    if a.depth is None or b.depth is None:
        return False
    overlay = best_overlay(a.depth, b.depth)
    common = (overlay.a != 0) & (overlay.b != 0)
    enough = common.sum() >= max(FEWEST_SPOTS, SAME_SPOTS * min((a.depth != 0).sum(), (b.depth != 0).sum()))
    return bool(enough and correlation(overlay.a[common], overlay.b[common]) > SAME_DEPTH)


def _same_positions(a: SectionFingerprint, b: SectionFingerprint) -> bool:
    """Whether most irregular positions of the smaller section are those of the other, too."""
    both = np.concatenate([a.positions, b.positions])
    fewer = min(len(a.positions), len(b.positions))
    return bool(fewer and len(both) - len(np.unique(both, axis=0)) > SAME_SPOTS * fewer)
