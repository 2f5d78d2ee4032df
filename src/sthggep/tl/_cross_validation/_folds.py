"""Which sections are held out together: one group (patient, section …) a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sthggep._checks import counted, has_key, listing

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide

BY_SECTION = "section"
PATIENT = "patient"


@dataclass(frozen=True)
class Fold:
    """One group held out: positions of the sections trained on, of those predicted, and of further ones whose counts help."""

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
    hint = f"Pass the column of obs that tells what to hold out together, or `group_key={BY_SECTION!r}`."
    column = has_key(slide.adata.obs, group_key, f"obs of section {slide.name!r}", hint).iloc[slide.rows]
    if column.isna().any():
        msg = (
            f"Section {slide.name!r}: obs[{group_key!r}] is missing for {int(column.isna().sum())} of {slide.n_spots} "
            "spots; one value for the whole section was expected. Fill it in first."
        )
        raise ValueError(msg)
    found: list[str] = list(dict.fromkeys(column.astype(str)))
    if len(found) != 1:
        msg = (
            f"Section {slide.name!r} holds several values of obs[{group_key!r}]: {listing(found)}. A section is held out "
            "as a whole, so one was expected. Where these are several sections in one object, pass `library_key=`."
        )
        raise ValueError(msg)
    return found[0]


def patient_of(slide: Slide) -> str | None:
    """The one value of ``obs["patient"]``; ``None`` where it does not say."""
    if PATIENT not in slide.adata.obs:
        return None
    found = slide.adata.obs[PATIENT].iloc[slide.rows].dropna().astype(str).unique()
    return str(found[0]) if len(found) == 1 else None


def plan_folds(slides: Sequence[Slide], groups: Sequence[str], group_key: str) -> list[Fold]:
    """One fold a group, in the order in which the groups are met."""
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
    """Each fold with the further sections that are not of its held-out group.

    ``slides`` bear the names that the user gave them: two of one name are both meant by a further section of that name.
    """
    found = []
    for fold in folds:
        held_out = {slides[i].name for i in fold.test} if group_key == BY_SECTION else {fold.group}
        found.append(replace(fold, extra=tuple(i for i, group in enumerate(groups) if group not in held_out)))
    return found


def _too_few(slides: Sequence[Slide], found: Sequence[str], group_key: str) -> str:
    sections = listing(slide.name for slide in slides)
    start = "Cross-validation needs two groups or more: one is held out, the others are trained on. "
    if len(slides) < 2 or group_key == BY_SECTION:
        return (
            f"{start}Found {counted(slides, 'section')} ({sections}). Pass more slides; where one object holds several sections, "
            "pass `library_key=`."
        )
    return (
        f"{start}obs[{group_key!r}] holds only {listing(found)} over {counted(slides, 'section')} ({sections}). "
        f"`group_key={BY_SECTION!r}` leaves out section by section. That is the easier question: with tissue of the same "
        "patient in training, scores do not tell of a new patient."
    )


def shared_patients(
    slides: Sequence[Slide], folds: Sequence[Fold], extra: Sequence[Slide] = ()
) -> dict[str, list[str]]:
    """Sections that are predicted after training on others of their patient, and the names of those others."""
    patients = [patient_of(slide) for slide in slides]
    counted = [patient_of(slide) for slide in extra]
    found = {}
    for fold in folds:
        for i in fold.test:
            if patients[i] is None:
                continue
            same = [slides[j].name for j in fold.train if patients[j] == patients[i]]
            same += [extra[j].name for j in fold.extra if counted[j] == patients[i]]
            if same:
                found[slides[i].name] = list(dict.fromkeys(same))
    return found
