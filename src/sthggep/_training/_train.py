"""Training of a model from a checked task, step by step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import counted
from sthggep._log import log

if TYPE_CHECKING:
    from torch import Tensor

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._section import Scale, Section
    from sthggep._training._ensemble import TrainedEnsemble
    from sthggep._training._prepare import PreparedInputs
    from sthggep._training._task import TrainingTask
    from sthggep.model import HGGEP
    from sthggep.model._novelty import Novelty
    from sthggep.model._record import TrainingRecord


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
    from sthggep._training._calibration import calibrate
    from sthggep._training._checkpoint_folder import open_training
    from sthggep._training._ensemble import describe_ensemble, train_ensemble
    from sthggep._training._held_out import measure_held_out
    from sthggep._training._prepare import prepare
    from sthggep._training._record import record_training
    from sthggep._training._scale import fit_scale, record_genes
    from sthggep._training._validation import plan_validation
    from sthggep.model import HGGEP

    options, parent = task.options, task.parent
    plan = plan_validation(task.slides, options.validation, task.n_members)
    with open_training(task, plan) as folder, tempfile.TemporaryDirectory(prefix="sthggep-") as scratch:
        scale = fit_scale(task)
        extra = [counts_only(slide, task.genes, options.layer, scale) for slide in task.extra_sections]
        stain = fit_reference(task.slides, task.preset.inputs.stain) if parent is None else parent.stain
        task = replace(task, slides=[normalized(slide, stain) for slide in task.slides])
        _log_start(task)
        start = time.perf_counter()
        if prepared is None:
            prepared = prepare(task.slides, task.preset, options, parent=parent, folder=Path(scratch))
        sections, record = _read_sections(task, prepared, scale)
        ensemble = train_ensemble(task, sections, plan, extra, folder)
        novelty = _measure_novelty(task, sections)
        if parent is None:
            _keep_prior(ensemble, sections)
    log.info("Trained in %.0f s: %s.", time.perf_counter() - start, describe_ensemble(ensemble))
    record.held_out_pearson = ensemble.held_out_pearson
    std = None if record.targets is None else record.targets["std"]
    evidence = measure_held_out(task, sections, ensemble, 1.0 if std is None else np.asarray(std, dtype=np.float32))
    held_out = list(ensemble.held_out.values())
    calibration = calibrate(held_out, record.ceiling, std, evidence, novelty, ensemble.of_patients)
    record.calibrated_on = [] if calibration is None else list(ensemble.held_out)
    record = record_genes(record, task, sections)
    record.gene_sets = {name: list(genes) for name, genes in task.gene_sets.items()}
    return HGGEP(
        ensemble.members,
        task.genes,
        task.preset.inputs,
        preset=task.preset_name,
        encoder_state=_portable_state(prepared.encoder, parent),
        training=record_training(record, task, plan, prepared.encoder, stain, sections),
        history=ensemble.history,
        calibration=calibration,
    )


def _portable_state(encoder: FrozenEncoder | None, parent: HGGEP | None) -> dict[str, Tensor] | None:
    """Weights of the encoder that the model holds; ``None`` if it finds its encoder by name, or has none."""
    from sthggep._encoders._frozen import read_state

    if encoder is None or not (encoder.portable if parent is None else parent.encoder_state is not None):
        return None
    return {key: value.cpu() for key, value in read_state(encoder.module).items()} or None


def _read_sections(task: TrainingTask, prepared: PreparedInputs, scale: Scale) -> tuple[list[Section], TrainingRecord]:
    """Read the sections with their targets, and start the record with the noise ceiling, or with the targets."""
    from sthggep._inputs._section import section_of_counts, section_of_targets
    from sthggep._table._all_counts import ALL
    from sthggep._table._targets import mean_and_std
    from sthggep.model._record import TrainingRecord

    pairs = list(zip(task.slides, prepared.windows, strict=True))
    targets, layer = task.targets, task.options.layer
    if targets is None:
        sections = [
            section_of_counts(
                slide,
                task.genes,
                layer,
                windows,
                measured=task.measured_of(i),
                min_counts=task.min_counts,
                scale=scale,
            )
            for i, (slide, windows) in enumerate(pairs)
        ]
        return sections, TrainingRecord(ceiling=_ceilings(task), scaled_by=ALL if task.all_counts else None)
    values = [targets.read(slide) for slide in task.slides]
    mean, std = mean_and_std(values, targets)
    scaled = [((part - mean) / std).astype("float32") for part in values]
    sections = [section_of_targets(slide, part, windows) for (slide, windows), part in zip(pairs, scaled, strict=True)]
    return sections, TrainingRecord(targets={**targets.to_dict(), "mean": mean.tolist(), "std": std.tolist()})


def _keep_prior(ensemble: TrainedEnsemble, sections: Sequence[Section]) -> None:
    """Let the first network keep what an update by further spots needs to know of the training."""
    from sthggep._inputs._section import windows_of, with_masks
    from sthggep.nn import ClosedFormNet

    net = ensemble.members[0]
    if isinstance(net, ClosedFormNet):
        windows = with_masks(windows_of(sections), sections)  # without the spots around each window
        net.keep_prior([window.sample(window.train) for window in windows if window.train.any()])


def _measure_novelty(task: TrainingTask, sections: Sequence[Section]) -> Novelty | None:
    """Measure what the images of the training sections have in common, where they are held out of each other."""
    from sthggep._inputs._section import windows_of
    from sthggep._training._novelty import measure_novelty

    if task.options.validation is None:
        return None
    return measure_novelty(windows_of(sections), task.slides, int(task.preset.net.get("n_windows", 1)))


def _ceilings(task: TrainingTask) -> list[float]:
    """Compute the noise ceiling of each gene, averaged over the sections that hold it; 0 for a gene without counts."""
    from sthggep._inputs._section import read_counts
    from sthggep._table._all_counts import with_rest
    from sthggep._table._scores import mean_of_known, noise_ceiling

    rng = np.random.default_rng(task.options.compute.seed)
    ceilings = []
    for slide in task.slides_of_counts():
        counts, held, rest = read_counts(
            slide, task.genes, task.options.layer, may_lack=task.mixed, all_counts=task.all_counts
        )
        ceiling = noise_ceiling(with_rest(counts, rest), rng)[: len(task.genes)]
        ceilings.append(np.where(held, np.nan_to_num(ceiling), np.nan))
    return [round(float(ceiling), 4) for ceiling in np.nan_to_num(mean_of_known(ceilings))]


def _log_start(task: TrainingTask) -> None:
    """Log the size of the task before training starts."""
    networks, network = counted(range(task.n_members), "network"), task.preset.network
    trains = task.most_networks > 0
    if task.parent is not None:
        what = f"Fine-tuning {task.parent.id}"
    elif network == "HGGEPNet":
        what = f"Training {networks}"
    else:
        what = "Solving the closed form" + (f", and training up to {networks} beside it" if trains else "")
    sections = f"{counted(task.slides, 'section')} ({sum(slide.n_spots for slide in task.slides_of_counts())} spots)"
    outputs = counted(task.genes, "gene" if task.targets is None else "target")
    epochs = counted(task.preset.recipe.max_epochs, "epoch")
    most = f", {epochs} at most" if trains else ""
    log.info("%s: %s, %s%s, on %s.", what, outputs, sections, most, task.options.compute.device)
