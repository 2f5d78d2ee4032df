"""What predicts: the closed form, and the networks that earn a share beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sthggep._checks import counted
from sthggep._log import log
from sthggep._progress import progress

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from sthggep._inputs._section import Section, SectionWindow
    from sthggep._slides._slide import Slide
    from sthggep._training._calibration import HeldOutSection
    from sthggep._training._presets import Preset
    from sthggep._training._task import NetworkFactory, TrainingTask
    from sthggep._training._validation import HeldOut
    from sthggep.model import HGGEP
    from sthggep.nn import ClosedFormNet
    from sthggep.nn._section import CountsOnly

_SHARE_LOG = "Share of the networks in the prediction, chosen on held-out tissue: %g; the closed form has the rest."


class TrainedEnsemble(NamedTuple):
    """Trained networks, their curves, and their correlations on held-out tissue."""

    members: list[nn.Module]
    history: pd.DataFrame
    held_out_pearson: list[float | None] | None
    held_out: dict[str, HeldOutSection]
    """Predictions of each section that was held out, in whole or in part, by a member that had not seen them."""
    of_patients: list[dict[str, HeldOutSection]]
    """Predictions of each patient's sections by a closed form that had seen none of them; empty if there is one patient."""


def train_ensemble(
    task: TrainingTask,
    sections: Sequence[Section],
    plan: Sequence[HeldOut],
    extra: Sequence[CountsOnly],
    folder: Path | None,
) -> TrainedEnsemble:
    """Solve the closed form of the task, where it has one, and train the networks that earn a share beside it."""
    from sthggep._inputs._section import windows_of
    from sthggep._training._calibration import predict_held_out
    from sthggep._training._fine_tuning import adapt_network
    from sthggep._training._networks import build_network, held_out_pearson

    windows, parent = windows_of(sections), task.parent
    splits = _split(windows, sections, task.slides, plan)
    if parent is None and task.preset.network == "FeatureHGGEPNet":
        return _train_beside_closed_form(task, windows, sections, splits, extra, folder)
    if parent is not None and task.most_networks == 0:
        return _update_model(parent, task, windows, sections)

    def make_network(preset: Preset, member: int, windows: Sequence[SectionWindow]) -> nn.Module:
        if parent is not None:
            return adapt_network(parent, member, task.genes, windows)
        return build_network(preset, windows, len(task.genes), task.options.weights, task.options.compute.seed + member)

    members, history = _train_members(task, splits, range(task.n_members), make_network, folder)
    held_out = predict_held_out(members, splits)
    return TrainedEnsemble(members, history, held_out_pearson(members, splits), held_out, [])


def _train_beside_closed_form(
    task: TrainingTask,
    windows: Sequence[SectionWindow],
    sections: Sequence[Section],
    splits: Sequence[list[SectionWindow]],
    extra: Sequence[CountsOnly],
    folder: Path | None,
) -> TrainedEnsemble:
    """Solve the closed form; train a network, and the others only if the first earns a share on held-out tissue."""
    import pandas as pd

    from sthggep._training._calibration import predict_held_out
    from sthggep._training._closed_form import choose_ridge, on_all_tissue, refit_on_all
    from sthggep._training._networks import build_closed_form, build_network, choose_share, held_out_pearson
    from sthggep._training._validation import plan_choices, plan_patients

    n_genes, seed = len(task.genes), task.options.compute.seed

    def solve(preset: Preset, windows: Sequence[SectionWindow], *, programs_only: bool = False) -> ClosedFormNet:
        return build_closed_form(preset, windows, n_genes, extra, programs_only=programs_only)

    def make_network(preset: Preset, member: int, windows: Sequence[SectionWindow]) -> nn.Module:
        return build_network(preset, windows, n_genes, task.options.weights, seed + member, extra)

    choices = plan_choices(task.slides, task.options.validation, task.n_members)
    # A section that several members hold out is predicted once
    choice_splits = _holding_out(_split(windows, sections, task.slides, list(dict.fromkeys(choices))))
    choice = choose_ridge(task.preset, choice_splits, solve)
    task = replace(task, preset=choice.preset)
    patients = [] if task.options.validation is None else plan_patients(task.slides)
    of_patients = [
        predict_held_out([solve(task.preset, split)], [split])
        for split in _split(windows, sections, task.slides, patients)
    ]
    recipe, members, history = task.preset.recipe, list[Any](), pd.DataFrame()
    share: float | None = 0.0
    if max(recipe.shares) > 0:
        members, history = _train_members(task, splits, range(1), make_network, folder)
        share = choose_share(members, splits, recipe)
    if share:
        more, curves = _train_members(task, splits, range(1, task.n_members), make_network, folder)
        members, history = members + more, pd.concat([history, curves], ignore_index=True)
        # The share is decided on the first network; its size on the held-out tissue of all
        some = tuple(each for each in recipe.shares if each > 0)
        log.info(_SHARE_LOG, choose_share(members, splits, replace(recipe, shares=some)))
        correlations, held_out = held_out_pearson(members, splits), predict_held_out(members, splits)
        refit_on_all(members, splits)
        return TrainedEnsemble(members, history, correlations, held_out, of_patients)
    if len(history):
        log.info("The network earns no share in the prediction on held-out tissue: the closed form predicts alone.")
    solved = [solve(preset, split) for preset, split in zip(choice.of_others, choice_splits, strict=True)]
    correlations, held_out = held_out_pearson(solved, choice_splits), predict_held_out(solved, choice_splits)
    final = solve(task.preset, on_all_tissue(splits[0]))
    return TrainedEnsemble([final], history, correlations, held_out, of_patients)


def _update_model(
    parent: HGGEP, task: TrainingTask, windows: Sequence[SectionWindow], sections: Sequence[Section]
) -> TrainedEnsemble:
    """Update a model with a closed form by new sections: by all of their tissue, and by parts of it to measure it."""
    import pandas as pd

    from sthggep._training._calibration import predict_held_out
    from sthggep._training._fine_tuning import update_model
    from sthggep._training._networks import held_out_pearson
    from sthggep._training._validation import plan_choices

    plan = plan_choices(task.slides, task.options.validation, task.n_members)
    parts = _holding_out(_split(windows, sections, task.slides, list(dict.fromkeys(plan))))
    (everything,) = _split(windows, sections, task.slides, [None])
    updated, solved = update_model(parent, task.genes, everything, parts)
    correlations, held_out = held_out_pearson(solved, parts), predict_held_out(solved, parts)
    return TrainedEnsemble(list[Any](updated), pd.DataFrame(), correlations, held_out, [])


def _holding_out(splits: Sequence[list[SectionWindow]]) -> list[list[SectionWindow]]:
    """Return the splits that hold out tissue."""
    return [split for split in splits if any(window.validate.any() for window in split)]


def _split(
    windows: Sequence[SectionWindow], sections: Sequence[Section], slides: Sequence[Slide], plan: Sequence[HeldOut]
) -> list[list[SectionWindow]]:
    """Give the windows the masks of each part of the plan."""
    from sthggep._inputs._section import with_masks
    from sthggep._training._validation import apply_plan

    return [with_masks(windows, apply_plan(sections, slides, held_out)) for held_out in plan]


def _train_members(
    task: TrainingTask,
    splits: Sequence[list[SectionWindow]],
    numbers: Sequence[int],
    make_network: NetworkFactory,
    folder: Path | None,
) -> tuple[list[nn.Module], pd.DataFrame]:
    """Train the networks of these numbers, each on its split and from another seed; return them with their curves."""
    import pandas as pd

    from sthggep._training._lightning import train_network

    members, curves = [], []
    recipe, compute = task.preset.recipe, task.options.compute
    epochs = recipe.max_epochs
    if not len(numbers):
        return [], pd.DataFrame()
    with progress(epochs, "Training", "epoch", show=compute.show_progress) as bar:
        for member in numbers:
            split = splits[member]
            if task.n_members > 1:
                bar.restart(epochs, f"Training network {member + 1} of {task.n_members}")
            net = make_network(task.preset, member, split)
            history = train_network(
                net,
                split,
                recipe,
                seed=compute.seed + member,
                device=compute.device,
                bar=bar,
                trainer_kwargs=task.options.trainer_kwargs,
                folder=None if folder is None else folder / f"network-{member}",
            )
            history.insert(0, "member", member + 1)
            if bar.lines and task.n_members > 1:
                log.info("Network %d of %d: %s.", member + 1, task.n_members, _outcome(history))
            bar.finish()  # after early stopping, or where a checkpoint holds the network
            members.append(net)
            curves.append(history)
    return members, pd.concat(curves, ignore_index=True)


def describe_ensemble(ensemble: TrainedEnsemble) -> str:
    """Describe what predicts: the closed form, or networks with their epochs."""
    from sthggep.model._networks import is_closed_form

    if not is_closed_form(ensemble.members) and len(ensemble.history):
        return _outcome(ensemble.history)
    pearson = [value for value in ensemble.held_out_pearson or () if value is not None]
    held_out = f", PCC {sum(pearson) / len(pearson):.3f} on held-out tissue" if pearson else ""
    networks = "" if is_closed_form(ensemble.members) else f", beside {counted(ensemble.members, 'network')} as before"
    return (
        f"closed form of {counted(range(int(ensemble.members[0].config['rank'])), 'gene program')}{networks}{held_out}"  # type: ignore[index]
    )


def _outcome(history: pd.DataFrame) -> str:
    """Describe the number of epochs and the best held-out correlation."""
    epochs = history.groupby("member").size()
    length = f"{epochs.min()}" if epochs.min() == epochs.max() else f"{epochs.min()} to {epochs.max()}"
    text = f"{length} epoch{'s' if epochs.max() > 1 else ''}"
    if "val_pearson" not in history:
        return text
    best = history.groupby("member")["val_pearson"].max().mean()
    return f"{text}, validation PCC {best:.3f}{' on average' if len(epochs) > 1 else ''}"
