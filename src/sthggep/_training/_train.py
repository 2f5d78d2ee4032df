"""From checked slides to a trained model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._checks import counted
from sthggep._log import log
from sthggep._progress import progress
from sthggep._training._prepare import Prepared, prepare

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._section import Section
    from sthggep._slides._slide import Slide
    from sthggep._table._targets import Targets
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP


def train_on(
    slides: Sequence[Slide],
    genes: Sequence[str],
    name: str,
    preset: Preset,
    *,
    validation: str | Sequence[str] | None,
    weights: str | Path | None,
    layer: str | None,
    batch_size: int,
    trainer_kwargs: dict[str, Any] | None,
    device: torch.device,
    seed: int,
    show: bool,
    parent: HGGEP | None = None,
    further: Sequence[Slide] = (),
    targets: Targets | None = None,
    prepared: Prepared | None = None,
    window: int | str | None = None,
    checkpoint_dir: str | Path | None = None,
) -> HGGEP:
    """Train the members of the ensemble on checked slides, fresh ones or a model's, turned into tensors unless they are."""
    from sthggep._encoders._frozen import state_of
    from sthggep._inputs._section import cut, masked, measured
    from sthggep._slides._stain import fit_reference, normalized
    from sthggep._training._closed_form import solve_on_all, with_ridge
    from sthggep._training._fine_tuning import continued, shares_of
    from sthggep._training._kept_training import open_training
    from sthggep._training._networks import build_network, held_out_pearson, settle
    from sthggep._training._validation import apply_plan, judges, plan_validation
    from sthggep.model import HGGEP

    plan = plan_validation(slides, validation, preset.n_members)
    kept = None
    if checkpoint_dir is not None:
        like: dict[str, Any] = {"layer": layer, "parent": parent, "further": further, "targets": targets}
        like |= {"plan": plan, "seed": seed, "weights": weights, "window": window}
        kept = open_training(checkpoint_dir, slides, genes, preset, **like)
    others = [measured(slide, genes, layer) for slide in further]
    stain = fit_reference(slides, preset.inputs.stain) if parent is None else parent.stain
    slides = [normalized(slide, stain) for slide in slides]

    def begin(member: int, split: Sequence[Section]) -> nn.Module:
        if parent is not None:
            return continued(parent, member, genes, split)
        return build_network(preset, split, len(genes), weights, seed + member, others)

    _say_start(slides, genes, preset, device, parent, "gene" if targets is None else "target")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sthggep-") as folder:
        if prepared is None:
            asked: dict[str, Any] = {"batch_size": batch_size, "device": device, "show": show, "parent": parent}
            prepared = prepare(slides, preset, weights, window=window, folder=Path(folder), **asked)
        encoder = prepared.encoder
        sections, learned = _sections(slides, prepared.inputs, genes, layer, targets, seed)
        windows = cut(sections)
        wider = [] if parent else judges(slides, validation, preset.n_members)
        splits, asked_of = (
            [masked(windows, apply_plan(sections, slides, part)) for part in parts] for parts in (plan, wider)
        )
        preset = with_ridge(preset, asked_of, begin)
        members, history = _train_members(
            preset, splits, begin, trainer_kwargs=trainer_kwargs, device=device, seed=seed, show=show, folder=kept
        )
        settle(members, splits, None if parent is None else shares_of(parent, len(members)))
        by_gene = held_out_pearson(members, splits)
        if parent is None:
            solve_on_all(members, splits)
    log.info("Trained in %.0f s: %s.", time.perf_counter() - start, _outcome(history))
    record = _record(slides, preset, plan, seed, encoder, parent, further) | learned
    if stain is not None:
        record["stain"] = stain
    if by_gene is not None:
        record["held_out_pearson"] = by_gene
    portable = encoder is not None and (encoder.portable if parent is None else parent.encoder_state is not None)
    held = state_of(encoder.module) if encoder and portable else {}
    state = {key: value.cpu() for key, value in held.items()} or None
    return HGGEP(members, genes, preset.inputs, preset=name, encoder_state=state, training=record, history=history)


def _record(
    slides: Sequence[Slide],
    preset: Preset,
    plan: Sequence[Any],
    seed: int,
    encoder: FrozenEncoder | None,
    parent: HGGEP | None,
    further: Sequence[Slide],
) -> dict[str, Any]:
    """What a model notes of the slides that it was trained on, in plain types."""
    from sthggep._slides._colors import image_mpp, noted_colors
    from sthggep._slides._fingerprint import marks
    from sthggep._table._user_features import feature_names
    from sthggep._training._fine_tuning import sections_seen

    record: dict[str, Any] = {
        "sections": [slide.name for slide in slides],
        "n_spots": [slide.n_spots for slide in slides],
        "mpp": [slide.mpp for slide in slides],
        "pitch_um": [None if slide.mpp is None else round(slide.pitch() * slide.mpp, 2) for slide in slides],
        "validation": [", ".join(held_out) if isinstance(held_out, tuple) else str(held_out) for held_out in plan],
        "seed": seed,
        "encoder_weights": encoder.weights if encoder else None,
        "marks": [asdict(marks(slide)) for slide in slides],
        "colors": noted_colors(slides) if preset.inputs.needs_image else [],
        "image_mpp": [image_mpp(slide) for slide in slides],
    }
    if further:
        record["expression"] = [slide.name for slide in further]
    columns = {key: feature_names(slides[0], key) for key in preset.inputs.obsm}
    if any(columns.values()):
        record["obsm_columns"] = columns
    if parent is not None:
        record |= {"model": parent.id, "model_sections": sections_seen(parent)}
        for noted in ("marks", "colors", "image_mpp"):
            record[noted] = [*parent.training.get(noted, []), *record[noted]]
    return record


def _sections(
    slides: Sequence[Slide],
    inputs: Sequence[Any],
    genes: Sequence[str],
    layer: str | None,
    targets: Targets | None,
    seed: int,
) -> tuple[list[Section], dict[str, Any]]:
    """Sections with what is to be learned there, and what the record says of that."""
    from sthggep._inputs._section import labeled, taught
    from sthggep._table._targets import spread_of

    both = list(zip(slides, inputs, strict=True))
    if targets is None:
        ceiling = _ceilings(slides, genes, layer, seed)
        return [labeled(slide, genes, layer, fed) for slide, fed in both], {"ceiling": ceiling}
    values = [targets.read(slide) for slide in slides]
    mean, std = spread_of(values, targets)
    scaled = [((part - mean) / std).astype("float32") for part in values]
    sections = [taught(slide, part, fed) for (slide, fed), part in zip(both, scaled, strict=True)]
    return sections, {"targets": {**targets.to_dict(), "mean": mean.tolist(), "std": std.tolist()}}


def _ceilings(slides: Sequence[Slide], genes: Sequence[str], layer: str | None, seed: int) -> list[float]:
    """Noise ceiling of each gene, its mean over the sections: which genes can be measured, for `tl.top_genes`."""
    import numpy as np

    from sthggep._table._counts import counts
    from sthggep._table._scores import noise_ceiling

    rng = np.random.default_rng(seed)
    found = [noise_ceiling(counts(s.adata, genes, layer=layer, rows=s.rows), rng) for s in slides]
    # A gene without counts has no ceiling: nothing of it can be had
    return [round(float(ceiling), 4) for ceiling in np.nan_to_num(found).mean(axis=0)]


def _train_members(
    preset: Preset,
    splits: Sequence[list[Section]],
    begin: Callable[[int, Sequence[Section]], nn.Module],
    *,
    trainer_kwargs: dict[str, Any] | None,
    device: torch.device,
    seed: int,
    show: bool,
    folder: Path | None = None,
) -> tuple[list[nn.Module], pd.DataFrame]:
    """One network a split, begun as ``begin`` says, each from a seed of its own; and the curves of all."""
    import pandas as pd

    from sthggep._training._lightning import train

    members, curves = [], []
    epochs = preset.recipe.max_epochs
    with progress(len(splits) * epochs, "Training", "epoch", show=show) as done:
        for member, split in enumerate(splits):
            net = begin(member, split)
            history = train(
                net,
                split,
                preset.recipe,
                seed=seed + member,
                device=device,
                done=done,
                trainer_kwargs=trainer_kwargs,
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


def _say_start(
    slides: Sequence[Slide],
    genes: Sequence[str],
    preset: Preset,
    device: torch.device,
    parent: HGGEP | None,
    learned: str,
) -> None:
    networks = f"{preset.n_members} network{'s' if preset.n_members > 1 else ''}"
    what = f"Training {networks}" if parent is None else f"Going on with {networks} of {parent.id}"
    spots = sum(slide.n_spots for slide in slides)
    tissue = f"{len(slides)} section{'s' if len(slides) > 1 else ''} ({spots} spots)"
    text = "%s: %s, %s, %s at most, on %s."
    log.info(text, what, counted(genes, learned), tissue, counted(preset.recipe.max_epochs, "epoch"), device)


def _outcome(history: pd.DataFrame) -> str:
    """How long networks were trained, and how well they did on what was held out to stop early."""
    epochs = history.groupby("member").size()
    length = f"{epochs.min()}" if epochs.min() == epochs.max() else f"{epochs.min()} to {epochs.max()}"
    text = f"{length} epoch{'s' if epochs.max() > 1 else ''}"
    if "val_pearson" not in history:
        return text
    best = history.groupby("member")["val_pearson"].max().mean()
    return f"{text}, validation PCC {best:.3f}{' on average' if len(epochs) > 1 else ''}"
