"""Folds of a cross-validation: each holds out the sections of one group (patient, section …)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sthggep._checks import counted, has_key, listing
from sthggep._slides._patients import patient_of

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

BY_SECTION = "section"
# Words before or after the number of a patient
PATIENT_WORDS = {
    "p",
    "pt",
    "pat",
    "patient",
    "patients",
    "subject",
    "subj",
    "donor",
    "case",
    "id",
    "no",
    "nr",
    "number",
}


@dataclass(frozen=True)
class Fold:
    """A held-out group: indices of training sections, of predicted ones, and of extra ones (counts only)."""

    number: int
    group: str
    train: tuple[int, ...]
    test: tuple[int, ...]
    extra: tuple[int, ...] = ()


def groups_of(slides: Sequence[Slide], group_key: str) -> list[str]:
    """Group of each section: its name, or the one value of ``obs[group_key]`` over its spots."""
    if group_key == BY_SECTION:
        return [slide.name for slide in slides]
    return [_group(slide, group_key) for slide in slides]


def _group(slide: Slide, group_key: str) -> str:
    hint = f"Pass the column of obs with the groups to hold out, or `group_key={BY_SECTION!r}`."
    column = has_key(slide.adata.obs, group_key, f"obs of section {slide.name!r}", hint).iloc[slide.rows]
    if column.isna().any():
        msg = (
            f"Section {slide.name!r}: obs[{group_key!r}] is missing for {int(column.isna().sum())} of {slide.n_spots} "
            "spots; one value for the whole section was expected. Fill it in first."
        )
        raise ValueError(msg)
    groups: list[str] = list(dict.fromkeys(column.astype(str)))
    if len(groups) != 1:
        msg = (
            f"Section {slide.name!r} holds several values of obs[{group_key!r}]: {listing(groups)}. One was expected, "
            "since a section is held out as a whole. If these are several sections in one object, pass `library_key=`."
        )
        raise ValueError(msg)
    return groups[0]


def spelling_key(name: str) -> str:
    """The same text for all spellings of a group: ``"P1"``, ``"p1 "``, ``"P-01"``, ``"patient 1"`` and ``"1.0"``.

    Case, accents, spaces, punctuation, leading zeros and words such as "patient" beside a number do not count.
    """
    plain = unicodedata.normalize("NFKD", name).casefold().strip()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    parts = re.findall(r"\d+|[^\W\d_]+", re.sub(r"(?<=\d)\.0+$", "", plain))
    if any(part.isdecimal() for part in parts):
        parts = [part for part in parts if part not in PATIENT_WORDS]
    return "-".join(str(int(part)) if part.isdecimal() else part for part in parts) or plain


def refuse_spellings(groups: Sequence[str], group_key: str) -> None:
    """Refuse a group in two spellings: a fold would train on one and predict the other."""
    if group_key == BY_SECTION:
        return
    spellings: dict[str, list[str]] = {}
    for group in dict.fromkeys(groups):
        spellings.setdefault(spelling_key(group), []).append(group)
    several = [listing(names, 5) for names in spellings.values() if len(names) > 1]
    if several:
        msg = (
            f"obs[{group_key!r}] seems to spell one {group_key} in several ways: {'; '.join(several[:5])}. Folds would train on "
            f"one and predict the other. Spell each {group_key} in one way. If they are different, name them so that they "
            "differ in more than case, spaces, punctuation, leading zeros and words such as 'patient'."
        )
        raise ValueError(msg)


def _patient_key(slide: Slide) -> str | None:
    patient = patient_of(slide)
    return None if patient is None else spelling_key(patient)


def plan_folds(slides: Sequence[Slide], groups: Sequence[str], group_key: str) -> list[Fold]:
    """One fold for each group, in the order of their first sections."""
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise ValueError(_too_few(slides, names, group_key))
    folds = []
    for number, name in enumerate(names):
        test = tuple(i for i, group in enumerate(groups) if group == name)
        train = tuple(i for i, group in enumerate(groups) if group != name)
        folds.append(Fold(number, name, train, test))
    return folds


def add_extra(
    folds: Sequence[Fold], slides: Sequence[Slide], extra: Sequence[Slide], groups: Sequence[str], group_key: str
) -> list[Fold]:
    """Each fold with the extra sections that are not of its held-out group.

    ``slides`` have the user's names: an extra section is left out with every section of its name.
    """
    completed = []
    for fold in folds:
        held_out = {slides[i].name for i in fold.test} if group_key == BY_SECTION else {fold.group}
        completed.append(replace(fold, extra=tuple(i for i, group in enumerate(groups) if group not in held_out)))
    return completed


def _too_few(slides: Sequence[Slide], groups: Sequence[str], group_key: str) -> str:
    """The error message for fewer than two groups."""
    sections = listing(slide.name for slide in slides)
    start = "Cross-validation needs two groups or more: one is held out, the others are trained on. "
    if len(slides) < 2 or group_key == BY_SECTION:
        return (
            f"{start}Found {counted(slides, 'section')} ({sections}). Pass more slides, or `library_key=` if one object holds "
            "several sections."
        )
    return (
        f"{start}obs[{group_key!r}] holds only {listing(groups)} over {counted(slides, 'section')} ({sections}). "
        f"`group_key={BY_SECTION!r}` holds out section by section. That is an easier task: scores of a model that was trained on "
        "the same patient do not hold for a new patient."
    )


def shared_patients(
    slides: Sequence[Slide], folds: Sequence[Fold], extra: Sequence[Slide] = ()
) -> dict[str, list[str]]:
    """Sections that are predicted after training on other sections of their patient, with the names of these."""
    patients, extra_patients = ([_patient_key(slide) for slide in some] for some in (slides, extra))
    shared = {}
    for fold in folds:
        for i in fold.test:
            if patients[i] is None:
                continue
            same = [slides[j].name for j in fold.train if patients[j] == patients[i]]
            same += [extra[j].name for j in fold.extra if extra_patients[j] == patients[i]]
            if same:
                shared[slides[i].name] = list(dict.fromkeys(same))
    return shared
