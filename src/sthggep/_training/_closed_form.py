"""What held-out tissue says of the closed form, before any network is trained: how many programs, how strong a ridge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sthggep._checks import counted
from sthggep._log import log

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sthggep._inputs._section import Section
    from sthggep._training._presets import Preset

# Against features whose squares add up to one a spot: from hardly any to so much that little but the strongest is left
PENALTIES = tuple(float(penalty) for penalty in np.geomspace(0.1, 100, 13).round(3))

MOST_SPOTS = 3000


def with_ridge(
    preset: Preset, splits: Sequence[Sequence[Section]], begin: Callable[[int, Sequence[Section]], nn.Module]
) -> Preset:
    """The preset with the ridge penalty and the number of programs that predict held-out tissue best, one for all members.

    What is right depends on the tissue: a stronger ridge and fewer programs where counts are low and sections differ,
    a weaker one and more where features tell much, or where further counts teach the programs. Each split holds out another
    part; together they are asked of all training tissue, or much of it. Where nothing is held out the preset's own stay.
    """
    import torch

    if preset.network != "FeatureHGGEPNet":
        return preset
    asked = [(m, split) for m, split in enumerate(splits) if any(section.validate.any() for section in split)]
    if not asked:
        return preset
    # Few spots or genes allow fewer programs than the preset: of those, what all members have
    found = [_agreement(begin(member, split), split) for member, split in asked]
    most = min(each.shape[1] for each in found)
    best = int(torch.stack([each[:, :most] for each in found]).sum(dim=0).argmax())
    penalty, rank = PENALTIES[best // most], best % most + 1
    log.info("By held-out tissue: ridge penalty %g, %s.", penalty, counted(rank, "gene program"))
    return replace(preset, net={**preset.net, "penalty": penalty, "rank": rank})


def solve_on_all(members: Sequence[Any], splits: Sequence[Sequence[Section]]) -> None:
    """Solve each member's closed form anew with the tissue that it held out, of which nothing is left to be asked.

    The programs stay: the member's network speaks in them, too.
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
    """Measured program scores of each section."""
    weights: list[Tensor]


def _agreement(net: Any, split: Sequence[Section]) -> Tensor:
    """Correlation of predicted with measured scores within held-out sections, summed: penalties × first programs."""
    import torch

    learned, asked = ([s for s in split if getattr(s, part).any()] for part in ("train", "validate"))
    known = _scored(net, learned, thinned([section.train for section in learned]))
    paths = net.shortcut.path(*known, PENALTIES)
    held_out = _scored(net, asked, thinned([section.validate for section in asked]))
    x = torch.split(torch.cat(list(held_out.features)), [len(scores) for scores in held_out.scores])
    found = torch.zeros(len(PENALTIES), len(net.programs.damp), dtype=torch.float64)
    for features, measured, weight in zip(x, held_out.scores, held_out.weights, strict=True):
        truth = _within(measured, weight)
        for i, path in enumerate(paths):
            predicted = _within(features @ path, weight) * net.programs.damp
            shared, own = ((weight @ (predicted * other)).cumsum(dim=0) for other in (truth, predicted))
            found[i] += shared / own.clamp_min(1e-12).sqrt() / (weight @ truth.square()).sum().clamp_min(1e-12).sqrt()
    return found


def _within(scores: Tensor, weight: Tensor) -> Tensor:
    """Around the section's mean: only what differs between its spots is predicted."""
    return scores - (weight @ scores) / weight.sum()


def _scored(net: Any, sections: Sequence[Section], masks: Sequence[Tensor]) -> _Scored:
    """What the closed form is solved on, or asked of."""
    from sthggep._training._networks import statistics_of
    from sthggep.nn._programs import spot_weights
    from sthggep.nn._stages import by_section, of_spots

    statistics = [statistics_of(section) for section in sections]
    inputs = [section.inputs for section in sections]
    features = net.spread([fed[0] for fed in inputs], [fed[3] for fed in inputs], masks, statistics)
    targets = by_section(of_spots([section.target for section in sections], masks), statistics)
    sizes = by_section(of_spots([section.library_sizes for section in sections], masks), statistics)
    weights = [spot_weights(size) for size in sizes]
    return _Scored(features, net.programs.adapt(targets, weights, 0.0), weights)


def thinned(masks: Sequence[Tensor]) -> list[Tensor]:
    """Every second of the spots, third and so on, so that no more than ``MOST_SPOTS`` are left: they say the same of a ridge."""
    import torch

    step = -(-sum(int(mask.sum()) for mask in masks) // MOST_SPOTS)
    out = []
    for mask in masks:
        kept = torch.zeros_like(mask)
        kept[mask.nonzero()[::step, 0]] = True
        out.append(kept)
    return out
