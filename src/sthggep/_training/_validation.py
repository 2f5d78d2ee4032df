"""Held-out tissue of each network: sections or blocks of tissue, never single spots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from sthggep._checks import listing
from sthggep._log import log
from sthggep._slides._lattice import spatial_blocks
from sthggep._slides._patients import patient_of
from sthggep._slides._values import id_text, id_texts

if TYPE_CHECKING:
    from sthggep._inputs._section import Section
    from sthggep._slides._slide import Slide

FOLDS = 5
MIN_SPOTS_FOR_BLOCKS = 20
MOST_PATIENTS = 10
# Held-out tissue of one member: names of sections, the fold of spatial blocks, or nothing
HeldOut = tuple[str, ...] | int | None


def plan_validation(slides: Sequence[Slide], validation: str | Sequence[str] | None, n_members: int) -> list[HeldOut]:
    """Plan the held-out tissue of each member: section names, the fold of spatial blocks, or ``None``."""
    names = [slide.name for slide in slides]
    if validation is None:
        return [None] * n_members
    if not isinstance(validation, str):
        return [_check_names(tuple(id_texts(validation)), names)] * n_members
    if validation == "auto":
        validation = "sections" if len(names) > 1 else "blocks"
    if validation == "sections":
        if len(names) < 2:
            msg = f"`validation='sections'` needs two sections or more, found {listing(names)}. Pass `validation='blocks'` or `validation=None`."
            raise ValueError(msg)
        return [(names[member % len(names)],) for member in range(n_members)]
    if validation == "patients":
        patients = plan_patients(slides) or _refuse_patients(slides)
        return [patients[member % len(patients)] for member in range(n_members)]
    if validation == "blocks":
        has_blocks = max(slide.n_spots for slide in slides) >= MIN_SPOTS_FOR_BLOCKS
        if not has_blocks:
            log.info("Fewer than %d spots: nothing is held out.", MIN_SPOTS_FOR_BLOCKS)
        return [member % FOLDS if has_blocks else None for member in range(n_members)]
    if id_text(validation) in names:
        return [_check_names((id_text(validation),), names)] * n_members
    msg = (
        f"Unknown `validation` {validation!r}. There is: 'auto', 'sections', 'patients', 'blocks', None, or names of sections: "
        f"{listing(names)}."
    )
    raise ValueError(msg)


def plan_choices(slides: Sequence[Slide], validation: str | Sequence[str] | None, n_members: int) -> list[HeldOut]:
    """Plan the held-out tissue of the choices: several parts of the tissue, also for an ensemble of one."""
    plan = plan_validation(slides, validation, max(n_members, FOLDS))
    return plan if len(set(plan)) > 1 else plan[:1]


def plan_patients(slides: Sequence[Slide]) -> list[HeldOut]:
    """Plan to hold out all sections of each patient; nothing if a patient is not known, or there is one only."""
    patients = [patient_of(slide) for slide in slides]
    names = list(dict.fromkeys(patients))
    if None in names or len(names) < 2:
        return []
    return [
        tuple(slide.name for slide, patient in zip(slides, patients, strict=True) if patient == name)
        for name in names[:MOST_PATIENTS]
    ]


def _refuse_patients(slides: Sequence[Slide]) -> NoReturn:
    """Refuse slides that do not name two patients or more."""
    found = listing(f"{slide.name}: {patient_of(slide) or 'none'}" for slide in slides)
    msg = (
        "`validation='patients'` needs sections of two patients or more, with the patient in obs['patient'], one to a "
        f"section. Found {found}. Name the patients, or pass `validation='sections'`."
    )
    raise ValueError(msg)


def _check_names(held_out: tuple[str, ...], names: Sequence[str]) -> tuple[str, ...]:
    """Check that the names are sections, and that other sections are left to train on."""
    absent = [name for name in held_out if name not in names]
    if absent or not held_out or set(names) <= set(held_out):
        msg = (
            f"`validation` must name some of the sections and leave others to train on: {listing(names)}; "
            f"found {listing(held_out)}."
        )
        raise ValueError(msg)
    return held_out


def apply_plan(sections: Sequence[Section], slides: Sequence[Slide], held_out: HeldOut) -> list[Section]:
    """Give the sections the masks of one member."""
    if held_out is None:
        return list(sections)
    if isinstance(held_out, int):
        split = hold_out_blocks(sections, [slide.xy for slide in slides], held_out, FOLDS)
    else:
        split = hold_out(sections, held_out)
    if not any(section.train.any() for section in split):
        log.info("All spots with counts are in the tissue to hold out (%s): nothing is held out.", held_out)
        return list(sections)
    return split


def hold_out(sections: Sequence[Section], names: Sequence[str]) -> list[Section]:
    """Hold out the named sections."""
    empty_masks = [torch.zeros_like(section.train) for section in sections]
    return [
        section._replace(train=empty, validate=section.train) if section.name in names else section
        for section, empty in zip(sections, empty_masks, strict=True)
    ]


def hold_out_blocks(
    sections: Sequence[Section], xy: Sequence[NDArray[np.float64]], fold: int, n_folds: int
) -> list[Section]:
    """Hold out one fold of the spatial blocks of each section."""
    masked = []
    for section, positions in zip(sections, xy, strict=True):
        block = torch.from_numpy(spatial_blocks(positions, fold, n_folds))
        masked.append(section._replace(train=section.train & ~block, validate=section.train & block))
    return masked
