"""The closed form: its choices on held-out tissue, the solution on all tissue, and the refit beside networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sthggep._checks import counted
from sthggep._log import log

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sthggep._inputs._section import SectionWindow
    from sthggep._training._presets import Preset
    from sthggep.nn import ClosedFormNet
    from sthggep.nn._section import TrainingSample

MOST_SPOTS = 3000


class ClosedFormFactory(Protocol):
    """A function that solves the closed form on the training spots of some windows."""

    def __call__(
        self, preset: Preset, windows: Sequence[SectionWindow], *, programs_only: bool = False
    ) -> ClosedFormNet:
        """Solve the closed form with the options of this preset; ``programs_only`` leaves out the ridge."""


class RidgeChoice(NamedTuple):
    """Presets with the chosen penalty and number of programs."""

    preset: Preset
    """The choice of all splits."""
    of_others: list[Preset]
    """For each split, the choice of the others, by which its held-out tissue is predicted as if nobody had seen it."""


def choose_ridge(preset: Preset, splits: Sequence[Sequence[SectionWindow]], solve: ClosedFormFactory) -> RidgeChoice:
    """Choose the ridge penalty and the number of gene programs that predict held-out tissue best.

    The best values depend on the tissue: a stronger ridge and fewer programs if counts are low and sections differ, a
    weaker ridge and more programs if features predict well or extra counts define the programs. Each split holds out
    another part of the training tissue. If no split holds out tissue, the preset keeps its values.

    Parameters
    ----------
    preset
        The preset; its recipe lists the candidate penalties, its network options hold the largest number of programs.
    splits
        Windows of all sections with the masks of each split, all of which hold out tissue.
    solve
        Solves the programs on the training spots of windows.
    """
    import torch

    penalties = preset.recipe.penalties
    correlations = [
        _held_out_correlations(solve(preset, split, programs_only=True), split, penalties) for split in splits
    ]
    if not correlations:
        return RidgeChoice(preset, [])
    # Few spots or genes allow fewer programs than the preset: compare numbers of programs that all splits have
    most = min(each.shape[1] for each in correlations)
    stacked = torch.stack([each[:, :most] for each in correlations])

    def choose(correlations: Tensor) -> tuple[float, int]:
        best = int(correlations.sum(dim=0).argmax())
        return penalties[best // most], best % most + 1

    def with_choice(penalty: float, rank: int) -> Preset:
        return replace(preset, net={**preset.net, "penalty": penalty, "rank": rank})

    penalty, rank = choose(stacked)
    log.info("Chosen on held-out tissue: ridge penalty %g, %s.", penalty, counted(rank, "gene program"))
    others = [[j for j in range(len(splits)) if j != i] or [i] for i in range(len(splits))]
    return RidgeChoice(with_choice(penalty, rank), [with_choice(*choose(stacked[rows])) for rows in others])


def on_all_tissue(split: Sequence[SectionWindow]) -> list[SectionWindow]:
    """Windows whose held-out spots are trained on, too."""
    return [window._replace(train=window.train | window.validate, validate=window.validate & False) for window in split]


def refit_on_all(members: Sequence[nn.Module], splits: Sequence[Sequence[SectionWindow]]) -> None:
    """Refit each member's closed form on all training tissue, after all choices on its held-out tissue.

    The gene programs stay, because the member's network predicts their scores, too.
    """
    from sthggep.nn import FeatureHGGEPNet

    for member, split in zip(members, splits, strict=False):
        if isinstance(member, FeatureHGGEPNet) and any(window.validate.any() for window in split):
            samples = [window.sample(window.train | window.validate) for window in split]
            spots = _score_programs(member, [sample for sample in samples if sample.mask.any()])
            member.shortcut.start(spots.features, spots.scores, spots.weights)


class _SpotScores(NamedTuple):
    """Features and program scores of some spots, in the order of the sections."""

    features: Iterator[Tensor]
    """Features of each section, or of each window of one."""
    scores: list[Tensor]
    """Measured program scores of each section."""
    weights: list[Tensor]
    """Weight of each spot."""


def _held_out_correlations(net: ClosedFormNet, split: Sequence[SectionWindow], penalties: Sequence[float]) -> Tensor:
    """Correlations of predicted and measured scores, summed over held-out sections: (penalties, numbers of programs)."""
    import torch

    training = _thin([window.sample(window.train) for window in split if window.train.any()])
    held_out = _thin([window.sample(window.validate) for window in split if window.validate.any()])
    paths = net.shortcut.path(*_score_programs(net, training), penalties)
    spots = _score_programs(net, held_out)
    x = torch.split(torch.cat(list(spots.features)), [len(scores) for scores in spots.scores])
    correlations = torch.zeros(len(penalties), len(net.programs.damp), dtype=torch.float64)
    for features, scores, weight in zip(x, spots.scores, spots.weights, strict=True):
        truth = _center(scores, weight)
        for i, path in enumerate(paths):
            predicted = _center(features @ path, weight) * net.programs.damp
            covariance, variance = ((weight @ (predicted * values)).cumsum(dim=0) for values in (truth, predicted))
            norms = variance.clamp_min(1e-12).sqrt(), (weight @ truth.square()).sum().clamp_min(1e-12).sqrt()
            correlations[i] += covariance / norms[0] / norms[1]
    return correlations


def _center(scores: Tensor, weight: Tensor) -> Tensor:
    """Subtract the section's mean: the model predicts differences between the spots of a section only."""
    return scores - (weight @ scores) / weight.sum()


def _score_programs(net: ClosedFormNet, samples: Sequence[TrainingSample]) -> _SpotScores:
    """Read the features and compute the measured program scores of the masked spots."""
    from sthggep.nn._programs import spot_weights
    from sthggep.nn._section import join_windows

    targets = join_windows([sample.target[sample.mask] for sample in samples], samples)
    sizes = join_windows([sample.library_sizes[sample.mask] for sample in samples], samples)
    weights = [spot_weights(size) for size in sizes]
    return _SpotScores(net.shortcut_features(samples), net.programs.adapt(targets, weights, 0.0), weights)


def _thin(samples: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Keep every k-th masked spot, at most ``MOST_SPOTS`` in all: enough for the choice of a ridge penalty."""
    import torch

    step = -(-sum(int(sample.mask.sum()) for sample in samples) // MOST_SPOTS)
    thinned = []
    for sample in samples:
        mask = torch.zeros_like(sample.mask)
        mask[sample.mask.nonzero()[::step, 0]] = True
        thinned.append(sample._replace(mask=mask))
    return thinned
