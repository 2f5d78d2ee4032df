"""What is held out of training to stop early: sections or blocks of tissue, never single spots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sthggep._checks import listing
from sthggep._log import log
from sthggep._slides._lattice import spatial_blocks

if TYPE_CHECKING:
    from sthggep._inputs._section import Section
    from sthggep._slides._slide import Slide

FOLDS = 5
MIN_SPOTS_FOR_BLOCKS = 20
# One member's share: names of sections, ("block", fold), or nothing
HeldOut = tuple[str, ...] | int | None


def plan_validation(slides: Sequence[Slide], validation: str | Sequence[str] | None, n_members: int) -> list[HeldOut]:
    """What each member of an ensemble holds out: section names, the fold of spatial blocks, or ``None``."""
    names = [slide.name for slide in slides]
    if validation is None:
        return [None] * n_members
    if not isinstance(validation, str):
        return [_named(tuple(validation), names)] * n_members
    if validation == "auto":
        validation = "sections" if len(names) > 1 else "blocks"
    if validation == "sections":
        if len(names) < 2:
            msg = f"`validation='sections'` needs two sections or more, found {listing(names)}. Use 'blocks' or None."
            raise ValueError(msg)
        return [(names[member % len(names)],) for member in range(n_members)]
    if validation == "blocks":
        enough = max(slide.n_spots for slide in slides) >= MIN_SPOTS_FOR_BLOCKS
        if not enough:
            log.info("Fewer than %d spots: nothing is held out.", MIN_SPOTS_FOR_BLOCKS)
        return [member % FOLDS if enough else None for member in range(n_members)]
    if validation in names:
        return [_named((validation,), names)] * n_members
    msg = (
        f"Unknown `validation` {validation!r}. There is: 'auto', 'sections', 'blocks', None, or names of sections: "
        f"{listing(names)}."
    )
    raise ValueError(msg)


def plan_choices(slides: Sequence[Slide], validation: str | Sequence[str] | None, n_members: int) -> list[HeldOut]:
    """What is held out to choose on, which takes several parts of the tissue however few members there are."""
    plan = plan_validation(slides, validation, max(n_members, FOLDS))
    return plan if len(set(plan)) > 1 else plan[:1]


def _named(wanted: tuple[str, ...], names: Sequence[str]) -> tuple[str, ...]:
    absent = [name for name in wanted if name not in names]
    if absent or not wanted or set(names) <= set(wanted):
        msg = (
            f"`validation` must name some of the sections and leave others to train on: {listing(names)}; "
            f"found {listing(wanted)}."
        )
        raise ValueError(msg)
    return wanted


def apply_plan(sections: Sequence[Section], slides: Sequence[Slide], held_out: HeldOut) -> list[Section]:
    """Sections with one member's masks."""
    if held_out is None:
        return list(sections)
    if isinstance(held_out, int):
        split = hold_out_blocks(sections, [slide.xy for slide in slides], held_out, FOLDS)
    else:
        split = hold_out(sections, held_out)
    if not any(section.train.any() for section in split):
        log.info("All spots with counts are in what was to be held out (%s): nothing is held out.", held_out)
        return list(sections)
    return split


def hold_out(sections: Sequence[Section], names: Sequence[str]) -> list[Section]:
    """Sections named are validated on, the others trained on."""
    none = [torch.zeros_like(section.train) for section in sections]
    return [
        section._replace(train=empty, validate=section.train) if section.name in names else section
        for section, empty in zip(sections, none, strict=True)
    ]


def hold_out_blocks(
    sections: Sequence[Section], xy: Sequence[NDArray[np.float64]], fold: int, n_folds: int
) -> list[Section]:
    """Blocks of each section are validated on, the rest trained on."""
    out = []
    for section, where in zip(sections, xy, strict=True):
        block = torch.from_numpy(spatial_blocks(where, fold, n_folds))
        out.append(section._replace(train=section.train & ~block, validate=section.train & block))
    return out
