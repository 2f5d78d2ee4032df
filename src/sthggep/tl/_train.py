"""From checked slides to a trained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from sthggep._data import Section
    from sthggep._presets import Preset
    from sthggep._slide import Slide
    from sthggep.model import HGGEP
    from sthggep.pp._encoders import FrozenEncoder


class Prepared(NamedTuple):
    """What the networks are fed of each slide (no counts are in it), and the encoder behind it."""

    inputs: list[tuple[Any, ...]]
    encoder: FrozenEncoder | None

    def at(self, chosen: Sequence[int]) -> Prepared:
        """The same of some of the slides."""
        return Prepared([self.inputs[i] for i in chosen], self.encoder)


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
    prepared: Prepared | None = None,
) -> HGGEP:
    """Train the members of the ensemble on checked slides, fresh ones or a model's, turned into tensors unless they are."""
    from sthggep._data import feature_names, labelled, measured
    from sthggep.model import HGGEP
    from sthggep.pp._encoders import state_of
    from sthggep.tl._networks import build_network, held_out_pearson, settle
    from sthggep.tl._signature import marks
    from sthggep.tl._tune import continued, sections_seen, shares_of
    from sthggep.tl._validation import apply_plan, plan_validation

    plan = plan_validation(slides, validation, preset.n_members)
    if prepared is None:
        prepared = prepare(slides, preset, weights, batch_size=batch_size, device=device, show=show, parent=parent)
    encoder = prepared.encoder
    sections = [labelled(slide, genes, layer, fed) for slide, fed in zip(slides, prepared.inputs, strict=True)]
    splits = [apply_plan(sections, slides, held_out) for held_out in plan]
    counted = [measured(slide, genes, layer) for slide in further]

    def begin(member: int, split: Sequence[Section]) -> nn.Module:
        if parent is not None:
            return continued(parent, member, genes, split)
        return build_network(preset, split, len(genes), weights, seed + member, counted)

    members, history = _train_members(
        preset, splits, begin, trainer_kwargs=trainer_kwargs, device=device, seed=seed, show=show
    )
    settle(members, splits, None if parent is None else shares_of(parent, len(members)))
    record: dict[str, Any] = {
        "sections": [slide.name for slide in slides],
        "n_spots": [slide.n_spots for slide in slides],
        "mpp": [slide.mpp for slide in slides],
        "pitch_um": [None if slide.mpp is None else round(slide.pitch() * slide.mpp, 2) for slide in slides],
        "validation": [str(held_out) for held_out in plan],
        "seed": seed,
        "encoder_weights": encoder.weights if encoder else None,
        "marks": [asdict(marks(slide)) for slide in slides],
        "ceiling": _ceilings(slides, genes, layer, seed),
    }
    if (held_out := held_out_pearson(members, splits)) is not None:
        record["held_out_pearson"] = held_out
    if further:
        record["expression"] = [slide.name for slide in further]
    columns = {key: feature_names(slides[0], key) for key in preset.inputs.obsm}
    if any(columns.values()):
        record["obsm_columns"] = columns
    if parent is not None:
        record |= {"model": parent.id, "model_sections": sections_seen(parent)}
        record["marks"] = [*parent.training.get("marks", []), *record["marks"]]
    portable = encoder is not None and (encoder.portable if parent is None else parent.encoder_state is not None)
    held = state_of(encoder.module) if encoder and portable else {}
    state = {key: value.cpu() for key, value in held.items()} or None
    return HGGEP(members, genes, preset.inputs, preset=name, encoder_state=state, training=record, history=history)


def _ceilings(slides: Sequence[Slide], genes: Sequence[str], layer: str | None, seed: int) -> list[float]:
    """Noise ceiling of each gene, its mean over the sections: which genes can be measured, for `tl.top_genes`."""
    import numpy as np

    from sthggep._expression import counts
    from sthggep.tl._evaluate import noise_ceiling

    rng = np.random.default_rng(seed)
    found = [noise_ceiling(counts(s.adata, genes, layer=layer, rows=s.rows), rng) for s in slides]
    # A gene without counts has no ceiling: nothing of it can be had
    return [round(float(ceiling), 4) for ceiling in np.nan_to_num(found).mean(axis=0)]


def prepare(
    slides: Sequence[Slide],
    preset: Preset,
    weights: str | Path | None,
    *,
    batch_size: int,
    device: torch.device,
    show: bool,
    parent: HGGEP | None = None,
) -> Prepared:
    """What the networks are fed, from images and positions alone."""
    from sthggep._data import network_inputs
    from sthggep.pp._encoders import FrozenEncoder

    encoder = parent.encoder(device=str(device)) if parent else None
    if parent is None and preset.inputs.kind == "features":
        encoder = FrozenEncoder(preset.inputs.encoder, weights, device)

    # What prediction asks the network for; networks on patches find their neighbours themselves
    neighbors = int(preset.net.get("n_neighbors", 1))
    inputs = [
        network_inputs(slide, preset.inputs, encoder, n_neighbors=neighbors, batch_size=batch_size, show=show)
        for slide in slides
    ]
    return Prepared(inputs, encoder)


def _train_members(
    preset: Preset,
    splits: Sequence[list[Section]],
    begin: Callable[[int, Sequence[Section]], nn.Module],
    *,
    trainer_kwargs: dict[str, Any] | None,
    device: torch.device,
    seed: int,
    show: bool,
) -> tuple[list[nn.Module], pd.DataFrame]:
    """One network a split, begun as ``begin`` says, each from a seed of its own; and the curves of all."""
    import pandas as pd
    from tqdm.auto import tqdm

    from sthggep._training import train

    members, curves = [], []
    epochs = preset.recipe.max_epochs
    with tqdm(total=len(splits) * epochs, desc="Training", unit="epoch", disable=None if show else True) as bar:
        for member, split in enumerate(splits):
            net = begin(member, split)
            history = train(
                net, split, preset.recipe, seed=seed + member, device=device, bar=bar, trainer_kwargs=trainer_kwargs
            )
            # Stopping early leaves the rest of this member's share of the bar
            bar.update((member + 1) * epochs - bar.n)
            history.insert(0, "member", member)
            members.append(net)
            curves.append(history)
    return members, pd.concat(curves, ignore_index=True)
