"""The closed form: how many gene programs and how strong a ridge, chosen on held-out tissue; then refitted on all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sthggep._checks import counted
from sthggep._log import log

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sthggep._inputs._section import SectionWindow
    from sthggep._training._presets import Preset
    from sthggep._training._task import BeginNetwork
    from sthggep.nn import FeatureHGGEPNet
    from sthggep.nn._section import TrainingSample

MOST_SPOTS = 3000


def choose_ridge(preset: Preset, splits: Sequence[Sequence[SectionWindow]], begin: BeginNetwork) -> Preset:
    """The preset with the ridge penalty and the number of gene programs that predict held-out tissue best.

    What is right depends on the tissue: a stronger ridge and fewer programs where counts are low and sections differ, a
    weaker ridge and more programs where features predict well, or where extra counts define the programs. Each split
    holds out another part of the training tissue; together they hold out all of it, or much. All members get the same
    values. Where nothing is held out, the preset keeps its own.

    Parameters
    ----------
    preset
        The preset; its recipe lists the penalties to try, its network the most programs.
    splits
        Windows of all sections with the masks of each split.
    begin
        Makes the network of a member from its windows.
    """
    import torch

    from sthggep.nn import FeatureHGGEPNet

    if preset.network != "FeatureHGGEPNet":
        return preset
    penalties, agreements = preset.recipe.penalties, []
    for member, split in enumerate(splits):
        if any(window.validate.any() for window in split):
            net = begin(preset, member, split)
            assert isinstance(net, FeatureHGGEPNet)
            agreements.append(_agreement(net, split, penalties))
    if not agreements:
        return preset
    # Few spots or genes allow fewer programs than the preset: of those, what all members have
    most = min(each.shape[1] for each in agreements)
    best = int(torch.stack([each[:, :most] for each in agreements]).sum(dim=0).argmax())
    penalty, rank = penalties[best // most], best % most + 1
    log.info("Chosen on held-out tissue: ridge penalty %g, %s.", penalty, counted(rank, "gene program"))
    return replace(preset, net={**preset.net, "penalty": penalty, "rank": rank})


def refit_on_all(members: Sequence[nn.Module], splits: Sequence[Sequence[SectionWindow]]) -> None:
    """Refit each member's closed form on all training tissue, once nothing is left to choose on what it held out.

    The gene programs stay: the member's network predicts their scores, too.
    """
    from sthggep.nn import FeatureHGGEPNet

    for member, split in zip(members, splits, strict=True):
        if isinstance(member, FeatureHGGEPNet) and any(window.validate.any() for window in split):
            samples = [window.sample(window.train | window.validate) for window in split]
            known = _score_programs(member, [sample for sample in samples if sample.mask.any()])
            member.shortcut.start(known.features, known.scores, known.weights)


class _ScoredSpots(NamedTuple):
    """Features and program scores of some spots, in the order of the sections."""

    features: Iterator[Tensor]
    """Of each section, or of each window of one."""
    scores: list[Tensor]
    """Measured program scores of each section."""
    weights: list[Tensor]


def _agreement(net: FeatureHGGEPNet, split: Sequence[SectionWindow], penalties: Sequence[float]) -> Tensor:
    """Correlation of predicted with measured scores within held-out sections, summed: penalties × first programs."""
    import torch

    training = _thin([window.sample(window.train) for window in split if window.train.any()])
    held_out = _thin([window.sample(window.validate) for window in split if window.validate.any()])
    paths = net.shortcut.path(*_score_programs(net, training), penalties)
    unseen = _score_programs(net, held_out)
    x = torch.split(torch.cat(list(unseen.features)), [len(scores) for scores in unseen.scores])
    out = torch.zeros(len(penalties), len(net.programs.damp), dtype=torch.float64)
    for features, scores, weight in zip(x, unseen.scores, unseen.weights, strict=True):
        truth = _center(scores, weight)
        for i, path in enumerate(paths):
            predicted = _center(features @ path, weight) * net.programs.damp
            shared, own = ((weight @ (predicted * other)).cumsum(dim=0) for other in (truth, predicted))
            out[i] += shared / own.clamp_min(1e-12).sqrt() / (weight @ truth.square()).sum().clamp_min(1e-12).sqrt()
    return out


def _center(scores: Tensor, weight: Tensor) -> Tensor:
    """Subtract the section's mean: only differences between its spots are predicted."""
    return scores - (weight @ scores) / weight.sum()


def _score_programs(net: FeatureHGGEPNet, samples: Sequence[TrainingSample]) -> _ScoredSpots:
    """Features and measured program scores of the masked spots."""
    from sthggep.nn._programs import spot_weights
    from sthggep.nn._section import join_windows

    targets = join_windows([sample.target[sample.mask] for sample in samples], samples)
    sizes = join_windows([sample.library_sizes[sample.mask] for sample in samples], samples)
    weights = [spot_weights(size) for size in sizes]
    return _ScoredSpots(net.shortcut_features(samples), net.programs.adapt(targets, weights, 0.0), weights)


def _thin(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Samples with every k-th of their spots, so that at most ``MOST_SPOTS`` are left: a ridge hardly changes."""
    import torch

    step = -(-sum(int(sample.mask.sum()) for sample in samples) // MOST_SPOTS)
    out = []
    for sample in samples:
        mask = torch.zeros_like(sample.mask)
        mask[sample.mask.nonzero()[::step, 0]] = True
        out.append(sample._replace(mask=mask))
    return out
