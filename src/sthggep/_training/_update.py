"""The update of a model by measured spots of new sections: programs, weights, means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sthggep.nn import ClosedFormNet, FeatureHGGEPNet
from sthggep.nn._closed_form import MOST_PRIOR_SPOTS
from sthggep.nn._programs import find_programs, section_moments, spot_weights
from sthggep.nn._section import join_windows
from sthggep.nn._update import MeasuredScores, measure_prior, solve_change

if TYPE_CHECKING:
    from sthggep._inputs._section import SectionWindow

MOST_SPOTS = 6000
MOST_SPOTS_OF_PART = 1500  # by which each part of the tissue is predicted by the others
WORTH = 100.0  # spots of new sections that say as much about means and spreads as the training
FEWEST_PROGRAMS = 6  # of the change
PROGRAM_SHARE = 2 / 3  # of the programs of the training: a change is known less well
PROGRAM_WORTH = 150.0  # spots that the programs of the training count for beside those of the new sections


class MeasuredTissue(NamedTuple):
    """The measured spots of the new sections, all together."""

    features: Tensor
    """``(n, width)``, of the first network."""
    earlier: Tensor
    """``(n, genes)``: standardized predictions of the model as it is."""
    target: Tensor
    """``(n, genes)``."""
    weights: Tensor
    """``(n,)``."""
    section: Tensor
    """``(n,)`` number of the section."""

    def take(self, most_spots: int, rows: Tensor | None = None) -> MeasuredTissue:
        """Take some rows, or all; of more than ``most_spots``, every k-th."""
        part = self if rows is None else MeasuredTissue(*(each[rows] for each in self))
        step = -(-len(part.weights) // most_spots)
        part = part if step <= 1 else MeasuredTissue(*(each[::step] for each in part))
        return part._replace(section=torch.unique(part.section, return_inverse=True)[1])

    def by_section(self, values: Tensor) -> list[Tensor]:
        """Split rows by section."""
        return [values[self.section == number] for number in range(int(self.section.max()) + 1)]


@torch.no_grad()
def update_members(
    members: Sequence[ClosedFormNet],
    tissue: MeasuredTissue,
    *,
    whole_panel: bool = True,
    keep_prior: bool = True,
) -> list[ClosedFormNet]:
    """Update the networks of a model by the training spots of new sections.

    Each predicts what it predicted, times a factor, plus a change that is linear in the features and the same for all. Its
    networks stay as they are. See :func:`sthggep.nn._update.solve_change`.

    Parameters
    ----------
    members
        The networks, which do not change.
    tissue
        Measured spots of the new sections; the time grows with the square of their number.
    whole_panel
        Whether the genes are all that the networks began with. Of fewer, expression is on another scale, so that their
        means and spreads are those of the new sections.
    keep_prior
        Whether the updated networks are to be updated again.
    """
    share = float(tissue.weights.sum() / (tissue.weights.sum() + WORTH)) if whole_panel else 1.0
    moments = [
        section_moments(*pair) for pair in zip(*map(tissue.by_section, (tissue.target, tissue.weights)), strict=True)
    ]
    means, spreads = (torch.stack(part) for part in zip(*moments, strict=True))
    spread = torch.stack([member.programs.spread for member in members]).mean(dim=0).lerp(spreads.mean(dim=0), share)
    standardized = (tissue.target - means[tissue.section]) / spreads[tissue.section]
    first, prior = members[0], members[0].prior
    rows = standardized * tissue.weights.sqrt().unsqueeze(1)
    loadings, damp = _find_change_programs(first, rows)
    scores = MeasuredScores(
        tissue.features, standardized @ loadings.T, tissue.earlier @ loadings.T, tissue.weights, tissue.section
    )
    factor, change = solve_change(scores, prior)
    updated = [_with_change(member, factor, change, loadings, damp) for member in members]
    left = (standardized - factor * tissue.earlier - (tissue.features @ change * damp) @ loadings) * spread
    offsets = torch.stack(
        [(w / w.sum()) @ part for w, part in zip(*map(tissue.by_section, (tissue.weights, left)), strict=True)]
    )
    for member in updated:
        member.programs.mean.lerp_((means + offsets).mean(dim=0), share)
        member.programs.spread.copy_(spread)
    if keep_prior:
        _keep_prior(updated[0], first, tissue, rows)
    return updated


@torch.no_grad()
def read_measured(members: Sequence[ClosedFormNet], windows: Sequence[SectionWindow]) -> MeasuredTissue:
    """Read features, predictions and measurements of the training spots of windows."""
    samples = [window.sample(window.train) for window in windows if window.train.any()]
    earlier = []
    for sample in samples:
        parts = [(m(*sample.inputs).expression[sample.mask] - m.programs.mean) / m.programs.spread for m in members]
        earlier.append(torch.stack(parts).mean(dim=0))
    numbers = join_windows([torch.full((int(sample.mask.sum()),), 0) for sample in samples], samples)
    return MeasuredTissue(
        torch.cat(list(members[0].shortcut_features(samples))),
        torch.cat(earlier),
        torch.cat([sample.target[sample.mask] for sample in samples]),
        spot_weights(torch.cat([sample.library_sizes[sample.mask] for sample in samples])),
        torch.cat([torch.full_like(part, number) for number, part in enumerate(numbers)]),
    )


def _find_change_programs(first: ClosedFormNet, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Find the programs of the change, from those of the training and the new sections; their loadings and damping."""
    programs = first.programs
    if first.prior is None:
        return programs.loadings.clone(), programs.damp.clone()
    of_training = (PROGRAM_WORTH * first.prior_strengths).sqrt().unsqueeze(1) * programs.loadings
    most = max(FEWEST_PROGRAMS, round(PROGRAM_SHARE * len(programs.loadings)))
    return find_programs([of_training, rows], most, programs.damping)


def _with_change(net: ClosedFormNet, factor: float, change: Tensor, loadings: Tensor, damp: Tensor) -> ClosedFormNet:
    """Copy a network with the change added, and its programs joined with those of the change."""
    both = torch.cat([factor * net.programs.damp.unsqueeze(1) * net.programs.loadings, damp.unsqueeze(1) * loadings])
    turn, sizes, joined = torch.linalg.svd(both.double(), full_matrices=False)
    some = sizes > sizes[0].clamp_min(1e-12) * 1e-6
    some[0] = True
    turn, sizes, joined = turn[:, some].float(), sizes[some].float(), joined[some].float()
    state = net.state_dict()
    weight, scale = torch.cat([state["shortcut.weight"], change], dim=1), 1.0
    if isinstance(net, FeatureHGGEPNet):
        # The change is not blended: it counts whole beside any share of the network
        blend = min(float(net.blend), 0.5)
        scale = float(net.blend) / blend if blend else 1.0
        old = state["shortcut.weight"] * (1 - float(net.blend)) / (1 - blend)
        weight = torch.cat([old, change / (1 - blend)], dim=1)
        n_old = len(state["scores.weight"])
        state["scores.weight"] = scale * turn[:n_old].T @ state["scores.weight"]
        state["scores.bias"] = scale * turn[:n_old].T @ state["scores.bias"]
        state["blend"] = torch.full_like(state["blend"], blend)
    state |= {"shortcut.weight": weight @ turn, "programs.loadings": joined, "programs.damp": sizes}
    if "prior_strengths" in state:
        state["prior_strengths"] = torch.zeros(len(sizes))
    with torch.random.fork_rng(devices=[]):
        copy = type(net)(**{**net.config, "rank": len(sizes)})
    copy.load_state_dict(state)
    return copy.eval()


def _keep_prior(updated: ClosedFormNet, first: ClosedFormNet, tissue: MeasuredTissue, rows: Tensor) -> None:
    """Join the prior of the model with what the new sections determine, for a further update."""
    prior = first.prior
    if prior is None:
        return
    step = -(-len(tissue.features) // MOST_PRIOR_SPOTS)
    before = prior.values.sqrt().unsqueeze(1) * prior.vectors
    after = (step * tissue.weights[::step]).sqrt().unsqueeze(1) * tissue.features[::step]
    of_training = (PROGRAM_WORTH * first.prior_strengths).sqrt().unsqueeze(1) * first.programs.loadings
    squares = sum((part @ updated.programs.loadings.T).square().sum(dim=0) for part in (of_training, rows))
    strengths = squares / (PROGRAM_WORTH + tissue.weights.sum())
    updated.set_prior(measure_prior(torch.cat([before, after]), prior.penalty), strengths)
