"""From a checked training task to a trained model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._checks import counted
from sthggep._log import log
from sthggep._progress import progress

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from sthggep._inputs._section import Section, SectionWindow
    from sthggep._slides._slide import Slide
    from sthggep._training._prepare import Prepared
    from sthggep._training._presets import Preset
    from sthggep._training._task import BeginNetwork, TrainingTask
    from sthggep._training._validation import HeldOut
    from sthggep.model import HGGEP
    from sthggep.model._record import TrainingRecord
    from sthggep.nn._section import CountsOnly


def train(task: TrainingTask, prepared: Prepared | None = None) -> HGGEP:
    """Train an ensemble of networks.

    Parameters
    ----------
    task
        Checked slides, genes, preset and options.
    prepared
        Inputs of the networks for the slides, where they were made before; ``None`` makes them.

    Returns
    -------
    The trained model.
    """
    from sthggep._encoders._frozen import read_state
    from sthggep._inputs._section import counts_only, windows_of
    from sthggep._slides._stain import fit_reference, normalized
    from sthggep._training._closed_form import choose_ridge, refit_on_all
    from sthggep._training._fine_tuning import shares_of
    from sthggep._training._kept_training import open_training
    from sthggep._training._networks import choose_share, held_out_pearson
    from sthggep._training._prepare import prepare
    from sthggep._training._record import record_training
    from sthggep._training._validation import plan_choices, plan_validation
    from sthggep.model import HGGEP

    preset, options, parent = task.preset, task.options, task.parent
    plan = plan_validation(task.slides, options.validation, task.n_members)
    folder = None if options.checkpoint_dir is None else open_training(task, plan)
    extra = [counts_only(slide, task.genes, options.layer) for slide in task.extra_sections]
    stain = fit_reference(task.slides, preset.inputs.stain) if parent is None else parent.stain
    task = replace(task, slides=[normalized(slide, stain) for slide in task.slides])
    begin = _begin_with(task, extra)
    _log_start(task)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sthggep-") as scratch:
        if prepared is None:
            prepared = prepare(task.slides, preset, options, parent=parent, folder=Path(scratch))
        sections, record = _read_sections(task, prepared)
        windows = windows_of(sections)
        splits = _split(windows, sections, task.slides, plan)
        if parent is None:
            choices = plan_choices(task.slides, options.validation, task.n_members)
            preset = choose_ridge(preset, _split(windows, sections, task.slides, choices), begin)
        members, history = _train_members(replace(task, preset=preset), splits, begin, folder)
        choose_share(members, splits, preset.recipe, None if parent is None else shares_of(parent, len(members)))
        record.held_out_pearson = held_out_pearson(members, splits)
        if parent is None:
            refit_on_all(members, splits)
    log.info("Trained in %.0f s: %s.", time.perf_counter() - start, _outcome(history))
    encoder = prepared.encoder
    record = record_training(record, task, plan, encoder, stain)
    portable = encoder is not None and (encoder.portable if parent is None else parent.encoder_state is not None)
    held = read_state(encoder.module) if encoder and portable else {}
    state = {key: value.cpu() for key, value in held.items()} or None
    return HGGEP(
        members,
        task.genes,
        preset.inputs,
        preset=task.preset_name,
        encoder_state=state,
        training=record,
        history=history,
    )


def _begin_with(task: TrainingTask, extra: Sequence[CountsOnly]) -> BeginNetwork:
    """How the networks of this task begin: fresh, or as those of the model to fine-tune."""
    from sthggep._training._fine_tuning import fine_tuned
    from sthggep._training._networks import build_network

    def begin(preset: Preset, member: int, windows: Sequence[SectionWindow]) -> nn.Module:
        if task.parent is not None:
            return fine_tuned(task.parent, member, task.genes, windows)
        seed = task.options.compute.seed + member
        return build_network(preset, windows, len(task.genes), task.options.weights, seed, extra)

    return begin


def _split(
    windows: Sequence[SectionWindow], sections: Sequence[Section], slides: Sequence[Slide], plan: Sequence[HeldOut]
) -> list[list[SectionWindow]]:
    """The windows with the masks of each part of the plan."""
    from sthggep._inputs._section import with_masks
    from sthggep._training._validation import apply_plan

    return [with_masks(windows, apply_plan(sections, slides, held_out)) for held_out in plan]


def _read_sections(task: TrainingTask, prepared: Prepared) -> tuple[list[Section], TrainingRecord]:
    """Sections with their targets, and a record with what is known of these."""
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
    """Noise ceiling of each gene, its mean over the sections; a gene without counts has a ceiling of 0."""
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
    task: TrainingTask, splits: Sequence[list[SectionWindow]], begin: BeginNetwork, folder: Path | None
) -> tuple[list[nn.Module], pd.DataFrame]:
    """One network for each split, each from a seed of its own, and the curves of all."""
    import pandas as pd

    from sthggep._training._lightning import train_network

    members, curves = [], []
    recipe, compute = task.preset.recipe, task.options.compute
    epochs = recipe.max_epochs
    with progress(len(splits) * epochs, "Training", "epoch", show=compute.show_progress) as done:
        for member, split in enumerate(splits):
            net = begin(task.preset, member, split)
            history = train_network(
                net,
                split,
                recipe,
                seed=compute.seed + member,
                device=compute.device,
                done=done,
                trainer_kwargs=task.options.trainer_kwargs,
                folder=None if folder is None else folder / f"network-{member}",
            )
            history.insert(0, "member", member)
            if done.lines and len(splits) > 1:
                log.info("Network %d of %d: %s.", member + 1, len(splits), _outcome(history))
            # Stopping early leaves the rest of this member's share of the bar
            done.update((member + 1) * epochs - done.n)
            members.append(net)
            curves.append(history)
    return members, pd.concat(curves, ignore_index=True)


def _log_start(task: TrainingTask) -> None:
    networks, parent = counted(range(task.n_members), "network"), task.parent
    what = f"Training {networks}" if parent is None else f"Fine-tuning {networks} of {parent.id}"
    sections = f"{counted(task.slides, 'section')} ({sum(slide.n_spots for slide in task.slides)} spots)"
    outputs = counted(task.genes, "gene" if task.targets is None else "target")
    epochs = counted(task.preset.recipe.max_epochs, "epoch")
    log.info("%s: %s, %s, %s at most, on %s.", what, outputs, sections, epochs, task.options.compute.device)


def _outcome(history: pd.DataFrame) -> str:
    """How long networks were trained, and how well they did on what was held out to stop early."""
    epochs = history.groupby("member").size()
    length = f"{epochs.min()}" if epochs.min() == epochs.max() else f"{epochs.min()} to {epochs.max()}"
    text = f"{length} epoch{'s' if epochs.max() > 1 else ''}"
    if "val_pearson" not in history:
        return text
    best = history.groupby("member")["val_pearson"].max().mean()
    return f"{text}, validation PCC {best:.3f}{' on average' if len(epochs) > 1 else ''}"
