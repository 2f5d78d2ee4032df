"""The ridge penalty of the closed form: what held-out tissue says of it, before any network is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sthggep._log import log

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sthggep._data import Section
    from sthggep._presets import Preset

# Against features whose squares add up to one a spot: from hardly any to so much that little but the strongest is left
PENALTIES = tuple(float(penalty) for penalty in np.geomspace(0.1, 100, 13).round(3))

MOST_SPOTS = 3000


def with_penalty(
    preset: Preset, splits: Sequence[Sequence[Section]], begin: Callable[[int, Sequence[Section]], nn.Module]
) -> Preset:
    """The preset with the penalty that predicts held-out tissue best, one for all members.

    What is right depends on the tissue: more where counts are low and sections differ, less where features tell much. All
    members' held-out tissue together is all training tissue. Where nothing is held out the preset's own stays.
    """
    import torch

    if preset.network != "FeatureHGGEPNet":
        return preset
    errors = torch.zeros(len(PENALTIES), dtype=torch.float64)
    for member, split in enumerate(splits):
        if any(section.validate.any() for section in split):
            errors += _errors(begin(member, split), split)
    if not errors.any():
        return preset
    chosen = PENALTIES[int(errors.argmin())]
    log.info("Ridge penalty, by held-out tissue: %g.", chosen)
    return replace(preset, net={**preset.net, "penalty": chosen})


def solve_on_all(members: Sequence[Any], splits: Sequence[Sequence[Section]]) -> None:
    """Solve each member's closed form anew with the tissue that it held out, of which nothing is left to be asked.

    The programmes stay: the member's network speaks in them, too.
    """
    for member, split in zip(members, splits, strict=True):
        if getattr(member, "shortcut", None) is not None and any(section.validate.any() for section in split):
            both = [section for section in split if (section.train | section.validate).any()]
            scored = _scored(member, both, [section.train | section.validate for section in both])
            member.shortcut.start(scored.features, scored.scores, scored.weights)


class _Scored(NamedTuple):
    """Some spots of sections, in the order of the sections."""

    features: Iterator[Tensor]
    """Of each section, or of each window of one."""
    scores: list[Tensor]
    """Measured programme scores of each section."""
    weights: list[Tensor]


def _errors(net: Any, split: Sequence[Section]) -> Tensor:
    """Squared error of the scores of held-out spots, each worth what its counts are, for each penalty."""
    import torch

    learnt, asked = ([s for s in split if getattr(s, part).any()] for part in ("train", "validate"))
    known = _scored(net, learnt, thinned([section.train for section in learnt]))
    paths = net.shortcut.path(*known, PENALTIES)
    held_out = _scored(net, asked, thinned([section.validate for section in asked]))
    x = torch.split(torch.cat(list(held_out.features)), [len(scores) for scores in held_out.scores])
    found = torch.zeros(len(PENALTIES), dtype=torch.float64)
    for features, scores, weight in zip(x, held_out.scores, held_out.weights, strict=True):
        for i, path in enumerate(paths):
            # Only what differs between spots of a section is predicted
            off = (features @ path - scores) * net.programmes.damp
            off = off - (weight @ off) / weight.sum()
            found[i] += float(weight @ off.square().sum(dim=1))
    return found


def _scored(net: Any, sections: Sequence[Section], masks: Sequence[Tensor]) -> _Scored:
    """What the closed form is solved on, or asked of."""
    from sthggep.nn._programmes import spot_weights
    from sthggep.nn._stages import by_section
    from sthggep.tl._networks import statistics_of

    statistics = [statistics_of(section) for section in sections]
    inputs = [section.inputs for section in sections]
    features = net.spread([fed[0] for fed in inputs], [fed[3] for fed in inputs], masks, statistics)
    weights = [spot_weights(section.library_sizes[at]) for section, at in zip(sections, masks, strict=True)]
    targets = [section.target[at] for section, at in zip(sections, masks, strict=True)]
    weights, targets = by_section(weights, statistics), by_section(targets, statistics)
    return _Scored(features, net.programmes.adapt(targets, weights, 0.0), weights)


def thinned(masks: Sequence[Tensor]) -> list[Tensor]:
    """Every second of the spots, third and so on, so that no more than ``MOST_SPOTS`` are left: they say the same of a penalty."""
    import torch

    step = -(-sum(int(mask.sum()) for mask in masks) // MOST_SPOTS)
    out = []
    for mask in masks:
        kept = torch.zeros_like(mask)
        kept[mask.nonzero()[::step, 0]] = True
        out.append(kept)
    return out
