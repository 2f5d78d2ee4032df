"""Training of a model from a checked task, step by step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sthggep._checks import counted
from sthggep._log import log
from sthggep._progress import progress

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._section import Section, SectionWindow
    from sthggep._slides._slide import Slide
    from sthggep._training._prepare import PreparedInputs
    from sthggep._training._presets import Preset
    from sthggep._training._task import NetworkFactory, TrainingTask
    from sthggep._training._validation import HeldOut
    from sthggep.model import HGGEP
    from sthggep.model._record import TrainingRecord
    from sthggep.nn import ClosedFormNet
    from sthggep.nn._section import CountsOnly


def train(task: TrainingTask, prepared: PreparedInputs | None = None) -> HGGEP:
    """Train an ensemble of networks, and choose and refit what held-out tissue decides.

    Parameters
    ----------
    task
        Checked slides, genes, preset and options.
    prepared
        Network inputs of the slides; ``None`` makes them.

    Returns
    -------
    The trained model.
    """
    from sthggep._inputs._section import counts_only
    from sthggep._slides._stain import fit_reference, normalized
    from sthggep._training._kept_training import open_training
    from sthggep._training._prepare import prepare
    from sthggep._training._record import record_training
    from sthggep._training._validation import plan_validation
    from sthggep.model import HGGEP

    options, parent = task.options, task.parent
    plan = plan_validation(task.slides, options.validation, task.n_members)
    with open_training(task, plan) as folder, tempfile.TemporaryDirectory(prefix="sthggep-") as scratch:
        extra = [counts_only(slide, task.genes, options.layer) for slide in task.extra_sections]
        stain = fit_reference(task.slides, task.preset.inputs.stain) if parent is None else parent.stain
        task = replace(task, slides=[normalized(slide, stain) for slide in task.slides])
        _log_start(task)
        start = time.perf_counter()
        if prepared is None:
            prepared = prepare(task.slides, task.preset, options, parent=parent, folder=Path(scratch))
        sections, record = _read_sections(task, prepared)
        ensemble = _train_ensemble(task, sections, plan, extra, folder)
    log.info("Trained in %.0f s: %s.", time.perf_counter() - start, _describe_ensemble(ensemble))
    record.held_out_pearson = ensemble.held_out_pearson
    return HGGEP(
        ensemble.members,
        task.genes,
        task.preset.inputs,
        preset=task.preset_name,
        encoder_state=_portable_state(prepared.encoder, parent),
        training=record_training(record, task, plan, prepared.encoder, stain),
        history=ensemble.history,
    )


_SHARE_LOG = "Share of the networks in the prediction, chosen on held-out tissue: %g; the linear shortcut has the rest."


class _TrainedEnsemble(NamedTuple):
    """Trained networks, their curves, and their correlations on held-out tissue."""

    members: list[nn.Module]
    history: pd.DataFrame
    held_out_pearson: list[float | None] | None


def _train_ensemble(
    task: TrainingTask,
    sections: Sequence[Section],
    plan: Sequence[HeldOut],
    extra: Sequence[CountsOnly],
    folder: Path | None,
) -> _TrainedEnsemble:
    """Solve the closed form of the task, where it has one, and train the networks that earn a share beside it."""
    from sthggep._inputs._section import windows_of
    from sthggep._training._fine_tuning import adapt_network

    windows, parent = windows_of(sections), task.parent
    splits = _split(windows, sections, task.slides, plan)
    if parent is None and task.preset.network == "FeatureHGGEPNet":
        return _train_beside_closed_form(task, windows, sections, splits, extra, folder)
    if parent is not None and task.preset.network == "ClosedFormNet":
        return _adapt_closed_form(parent, task, splits)

    def make_network(preset: Preset, member: int, windows: Sequence[SectionWindow]) -> nn.Module:
        if parent is not None:
            return adapt_network(parent, member, task.genes, windows)
        return build_network(preset, windows, len(task.genes), task.options.weights, task.options.compute.seed + member)

    from sthggep._training._fine_tuning import shares_of
    from sthggep._training._networks import build_network, choose_share, held_out_pearson

    members, history = _train_members(task, splits, range(task.n_members), make_network, folder)
    choose_share(members, splits, task.preset.recipe, None if parent is None else shares_of(parent, len(members)))
    return _TrainedEnsemble(members, history, held_out_pearson(members, splits))


def _train_beside_closed_form(
    task: TrainingTask,
    windows: Sequence[SectionWindow],
    sections: Sequence[Section],
    splits: Sequence[list[SectionWindow]],
    extra: Sequence[CountsOnly],
    folder: Path | None,
) -> _TrainedEnsemble:
    """Solve the closed form; train a network, and the others only if the first earns a share on held-out tissue."""
    import pandas as pd

    from sthggep._training._closed_form import choose_ridge, on_all_tissue, refit_on_all
    from sthggep._training._networks import build_closed_form, build_network, choose_share, held_out_pearson
    from sthggep._training._validation import plan_choices

    n_genes, seed = len(task.genes), task.options.compute.seed

    def solve(preset: Preset, windows: Sequence[SectionWindow], *, programs_only: bool = False) -> ClosedFormNet:
        return build_closed_form(preset, windows, n_genes, extra, programs_only=programs_only)

    def make_network(preset: Preset, member: int, windows: Sequence[SectionWindow]) -> nn.Module:
        return build_network(preset, windows, n_genes, task.options.weights, seed + member, extra)

    choices = plan_choices(task.slides, task.options.validation, task.n_members)
    choice_splits = _split(windows, sections, task.slides, choices)
    task = replace(task, preset=choose_ridge(task.preset, choice_splits, solve))
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
        correlations = held_out_pearson(members, splits)
        refit_on_all(members, splits)
        return _TrainedEnsemble(members, history, correlations)
    if len(history):
        log.info("The network earns no share in the prediction on held-out tissue: the closed form predicts alone.")
    held_out = [split for split in choice_splits if any(window.validate.any() for window in split)]
    correlations = held_out_pearson([solve(task.preset, split) for split in held_out], held_out)
    return _TrainedEnsemble([solve(task.preset, on_all_tissue(splits[0]))], history, correlations)


def _adapt_closed_form(parent: HGGEP, task: TrainingTask, splits: Sequence[list[SectionWindow]]) -> _TrainedEnsemble:
    """Adapt a model without networks to new sections: on all of their tissue, and on parts of it to measure it."""
    import pandas as pd

    from sthggep._training._closed_form import on_all_tissue
    from sthggep._training._fine_tuning import adapt_network
    from sthggep._training._networks import held_out_pearson

    held_out = [split for split in splits if any(window.validate.any() for window in split)]
    correlations = held_out_pearson([adapt_network(parent, 0, task.genes, split) for split in held_out], held_out)
    adapted = adapt_network(parent, 0, task.genes, on_all_tissue(splits[0]))
    return _TrainedEnsemble([adapted], pd.DataFrame(), correlations)


def _portable_state(encoder: FrozenEncoder | None, parent: HGGEP | None) -> dict[str, Tensor] | None:
    """Weights of the encoder that the model holds; ``None`` if it finds its encoder by name, or has none."""
    from sthggep._encoders._frozen import read_state

    if encoder is None or not (encoder.portable if parent is None else parent.encoder_state is not None):
        return None
    return {key: value.cpu() for key, value in read_state(encoder.module).items()} or None


def _split(
    windows: Sequence[SectionWindow], sections: Sequence[Section], slides: Sequence[Slide], plan: Sequence[HeldOut]
) -> list[list[SectionWindow]]:
    """Give the windows the masks of each part of the plan."""
    from sthggep._inputs._section import with_masks
    from sthggep._training._validation import apply_plan

    return [with_masks(windows, apply_plan(sections, slides, held_out)) for held_out in plan]


def _read_sections(task: TrainingTask, prepared: PreparedInputs) -> tuple[list[Section], TrainingRecord]:
    """Read the sections with their targets, and start the record with the noise ceiling, or with the targets."""
    from sthggep._inputs._section import section_of_counts, section_of_targets
    from sthggep._table._targets import mean_and_std
    from sthggep.model._record import TrainingRecord

    pairs = list(zip(task.slides, prepared.windows, strict=True))
    targets, layer = task.targets, task.options.layer
    if targets is None:
        sections = [section_of_counts(slide, task.genes, layer, windows) for slide, windows in pairs]
        return sections, TrainingRecord(ceiling=_ceilings(task))
    values = [targets.read(slide) for slide in task.slides]
    mean, std = mean_and_std(values, targets)
    scaled = [((part - mean) / std).astype("float32") for part in values]
    sections = [section_of_targets(slide, part, windows) for (slide, windows), part in zip(pairs, scaled, strict=True)]
    return sections, TrainingRecord(targets={**targets.to_dict(), "mean": mean.tolist(), "std": std.tolist()})


def _ceilings(task: TrainingTask) -> list[float]:
    """Compute the noise ceiling of each gene, averaged over the sections; 0 for a gene without counts."""
    import numpy as np

    from sthggep._table._counts import read_panel_counts
    from sthggep._table._scores import noise_ceiling

    rng = np.random.default_rng(task.options.compute.seed)
    ceilings = [
        noise_ceiling(read_panel_counts(slide.adata, task.genes, layer=task.options.layer, rows=slide.rows), rng)
        for slide in task.slides
    ]
    return [round(float(ceiling), 4) for ceiling in np.nan_to_num(ceilings).mean(axis=0)]


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
    with progress(len(numbers) * epochs, "Training", "epoch", show=compute.show_progress) as bar:
        for done, member in enumerate(numbers, 1):
            split = splits[member]
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
            history.insert(0, "member", member)
            if bar.lines and task.n_members > 1:
                log.info("Network %d: %s.", member + 1, _outcome(history))
            # After early stopping, advance by the epochs that are left out
            bar.update(done * epochs - bar.n)
            members.append(net)
            curves.append(history)
    return members, pd.concat(curves, ignore_index=True)


def _log_start(task: TrainingTask) -> None:
    """Log the size of the task before training starts."""
    networks, parent = counted(range(task.n_members), "network"), task.parent
    closed_form = task.preset.network != "HGGEPNet"
    beside = "" if max(task.preset.recipe.shares) == 0 else f", and training up to {networks} beside it"
    what = f"Solving the closed form{beside}" if closed_form else f"Training {networks}"
    if parent is not None:
        what = f"Fine-tuning {parent.id}"
    sections = f"{counted(task.slides, 'section')} ({sum(slide.n_spots for slide in task.slides)} spots)"
    outputs = counted(task.genes, "gene" if task.targets is None else "target")
    epochs = counted(task.preset.recipe.max_epochs, "epoch")
    log.info("%s: %s, %s, %s at most, on %s.", what, outputs, sections, epochs, task.options.compute.device)


def _describe_ensemble(ensemble: _TrainedEnsemble) -> str:
    """Describe what predicts: the closed form, or networks with their epochs."""
    if type(ensemble.members[0]).__name__ != "ClosedFormNet":
        return _outcome(ensemble.history)
    pearson = [value for value in ensemble.held_out_pearson or () if value is not None]
    held_out = f", PCC {sum(pearson) / len(pearson):.3f} on held-out tissue" if pearson else ""
    return f"closed form of {counted(range(int(ensemble.members[0].config['rank'])), 'gene program')}{held_out}"  # type: ignore[index]


def _outcome(history: pd.DataFrame) -> str:
    """Describe the number of epochs and the best held-out correlation."""
    epochs = history.groupby("member").size()
    length = f"{epochs.min()}" if epochs.min() == epochs.max() else f"{epochs.min()} to {epochs.max()}"
    text = f"{length} epoch{'s' if epochs.max() > 1 else ''}"
    if "val_pearson" not in history:
        return text
    best = history.groupby("member")["val_pearson"].max().mean()
    return f"{text}, validation PCC {best:.3f}{' on average' if len(epochs) > 1 else ''}"
