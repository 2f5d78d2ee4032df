"""What is known of a leak: whether a method was trained on the tissue that it is scored on, or on its patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData

from sthggep._checks import listing, one_of, warn_user
from sthggep._slides._anndata import is_spatialdata
from sthggep._slides._fingerprint import section_fingerprint
from sthggep._slides._patients import patient_of
from sthggep._slides._resolve import extra_sections_of
from sthggep.tl._cross_validation._folds import spelling_key
from sthggep.tl._cross_validation._leaks import what_is_shared
from sthggep.tl._doubts import warn_of_training_tissue

if TYPE_CHECKING:
    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide

TISSUE, PATIENT, UNKNOWN, NONE = "training tissue", "same patient", "not known", ""
LEAKS = (TISSUE, PATIENT, UNKNOWN, NONE)
"""The worst first."""
TOO_GOOD = 10  # genes from which a mean above the ceiling is no chance


def read_training(training: Mapping[str, object], methods: Sequence[str], places: Places) -> dict[str, list[Slide]]:
    """Read the sections on which methods were trained."""
    sections = {}
    for method, value in training.items():
        one_of(method, methods, "method in `training`")
        objects = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(each, AnnData) or is_spatialdata(each) for each in objects):
            kinds = listing(type(each).__name__ for each in objects)
            msg = f"`training[{method!r}]` must be an AnnData or SpatialData with counts, or a list of them; found {kinds}."
            raise TypeError(msg)
        sections[method] = extra_sections_of(objects, places)
    return sections


def find_leaks(slides: Sequence[Slide], training: Sequence[Slide], layer: str | None) -> dict[str, str]:
    """The leak of each section: the same tissue by name, counts, positions and places of the array, or the same patient."""
    prints = [section_fingerprint(slide, slide.name, layer) for slide in training]
    patients = {spelling_key(patient) for slide in training if (patient := patient_of(slide)) is not None}
    leaks = {}
    for slide in slides:
        own, patient = section_fingerprint(slide, slide.name, layer), patient_of(slide)
        if any(what_is_shared(own, other) for other in prints):
            leaks[slide.name] = TISSUE
        else:
            leaks[slide.name] = PATIENT if patient is not None and spelling_key(patient) in patients else NONE
    return leaks


def leak_of(trained_on: bool | None) -> str:
    """The leak that a record of sthggep states."""
    return UNKNOWN if trained_on is None else TISSUE if trained_on else NONE


def warn_of_leaks(scores: pd.DataFrame, copies: Mapping[str, Sequence[str]]) -> None:
    """Warn of each method that was trained on the tissue, or on another section of the patient, or read the counts.

    ``copies`` names, for each section, the methods whose values are the counts themselves.
    """
    for method, own in scores.groupby("method", sort=False):
        leak = own.drop_duplicates("section").set_index("section")["leak"]
        warn_of_training_tissue({f"{section} ({method})": True for section in leak.index[leak == TISSUE]})
        if len(names := leak.index[leak == PATIENT]):
            warn_user(
                f"{method!r} was trained on other sections of the patients of {listing(names)}. A new patient is harder to predict: "
                "the column `leak` marks these scores. Do not compare them with those of a method that had not seen the patients."
            )
        _warn_of_too_good(str(method), own, [section for section, names in copies.items() if method in names])


def _warn_of_too_good(method: str, scores: pd.DataFrame, copies: Sequence[str]) -> None:
    """Warn where the mean correlation exceeds the ceiling, which only a method that read these counts can."""
    judged = scores[scores["pearson"].notna() & scores["ceiling"].notna()]
    means = judged.groupby("section", sort=False)[["pearson", "ceiling"]].mean()
    enough = judged.groupby("section", sort=False).size() >= TOO_GOOD
    too_good = means.index[(means["pearson"] > means["ceiling"]) & enough]
    if names := list(dict.fromkeys([*copies, *too_good])):
        warn_user(
            f"{method!r} agrees with the counts of {listing(names)} better than their noise allows. It has read these counts, or "
            "holds them. Pass predictions that were made without them."
        )
