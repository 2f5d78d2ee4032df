"""Train HGGEP on one or many slides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._checks import one_of, unique
from sthggep._expression import counts
from sthggep._slide import Slide, resolve

if TYPE_CHECKING:
    import torch
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._data import Inputs
    from sthggep._presets import Preset
    from sthggep.model import HGGEP

log = logging.getLogger("sthggep")


def fit(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    genes: Sequence[str] | None = None,
    preset: str = "default",
    validation: str | Sequence[str] | None = "auto",
    obsm: str | Sequence[str] | None = None,
    max_epochs: int | None = None,
    learning_rate: float | None = None,
    n_members: int | None = None,
    weights: str | Path | None = None,
    layer: str | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    batch_size: int = 64,
    trainer_kwargs: dict[str, Any] | None = None,
    device: str = "auto",
    seed: int = 0,
    show_progress_bar: bool = True,
) -> HGGEP:
    """Train HGGEP.

    Parameters
    ----------
    slides
        One slide or many, AnnData and SpatialData mixed, with H&E and raw counts. They are not changed.
    genes
        The panel; ``None`` takes :func:`sthggep.pp.gene_panel` of these slides.
    preset
        ``"default"``: HGGEP's stages, neighbourhood attention and hypergraph on frozen image features of several fields of
        view; minutes on a laptop. ``"paper"``: the published network, sizes and losses, end to end; made for a GPU.
    validation
        What is held out to stop early: ``"sections"`` (whole sections), ``"blocks"`` (blocks of tissue of each section),
        names of sections, or ``None`` (nothing: all epochs are run). ``"auto"`` holds out sections where there are several,
        else blocks. Each network of an ensemble holds out another part, so that all tissue is learnt from. Spots are never
        held out one by one: their neighbours would tell.
    obsm
        Keys of features that are in ``obsm`` (of any encoder), used instead of the preset's own.
    max_epochs, learning_rate, n_members
        Instead of the preset's: epochs at most, step size, networks that are averaged.
    weights
        Weights of the image encoder: a file, a folder, ``"random"``, or ``None``; see :func:`sthggep.pp.features`.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    image_key, table_key, shapes_key, spatial_key, coordinate_system, library_key
        Where things are; see :func:`sthggep.pp.patches`. ``library_key`` is the column of ``obs`` that tells sections apart.
    mpp
        Microns per full-resolution pixel, of all slides. ``None`` takes each slide's metadata, else its spot pitch.
    batch_size
        Patches encoded at a time.
    trainer_kwargs
        Options for Lightning's ``Trainer``.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    seed
        The same seed gives the same model.
    show_progress_bar
        Show progress.

    Returns
    -------
    The trained model; ``model.history`` holds the curves.

    Raises
    ------
    KeyError, ValueError
        Bad input, refused before anything is computed: no image, spots outside it, counts that are not raw, a gene that
        is absent, an unknown preset.
    FileNotFoundError
        Weights that cannot be found or downloaded.
    """
    from sthggep._device import resolve_device
    from sthggep._presets import PRESETS

    chosen = adapt(PRESETS[one_of(preset, PRESETS, "preset")], obsm, max_epochs, learning_rate, n_members)
    given = list(slides) if isinstance(slides, Sequence) else [slides]
    where = {
        "image_key": image_key,
        "table_key": table_key,
        "shapes_key": shapes_key,
        "spatial_key": spatial_key,
        "coordinate_system": coordinate_system,
        "library_key": library_key,
    }
    found = [s for data in given for s in resolve(data, mpp=mpp, need_image=chosen.inputs.needs_image, **where)]  # type: ignore[arg-type]
    found = _distinct_names(found)
    if genes is None:
        from sthggep.pp import gene_panel

        genes = gene_panel(given, layer=layer, library_key=library_key, table_key=table_key)
    panel = [str(gene) for gene in genes]
    check_slides(found, panel, layer, chosen.inputs)
    return train_on(
        found,
        panel,
        preset,
        chosen,
        validation=validation,
        weights=weights,
        layer=layer,
        batch_size=batch_size,
        trainer_kwargs=trainer_kwargs,
        device=resolve_device(device),
        seed=seed,
        show=show_progress_bar,
    )


def adapt(
    preset: Preset,
    obsm: str | Sequence[str] | None,
    max_epochs: int | None,
    learning_rate: float | None,
    n_members: int | None,
) -> Preset:
    """The preset with the user's own numbers in it."""
    from dataclasses import replace

    from sthggep._checks import positive

    recipe = preset.recipe
    if max_epochs is not None:
        recipe = replace(recipe, max_epochs=int(positive(max_epochs, "`max_epochs`")))
    if learning_rate is not None:
        recipe = replace(recipe, learning_rate=positive(learning_rate, "`learning_rate`"))
    members = preset.n_members if n_members is None else int(positive(n_members, "`n_members`"))
    inputs = preset.inputs
    if obsm is not None:
        if inputs.kind == "patches":
            msg = "`obsm` holds features, but this preset looks at patches. Use `preset='default'`."
            raise ValueError(msg)
        inputs = replace(inputs, kind="obsm", obsm=(obsm,) if isinstance(obsm, str) else tuple(obsm))
    return replace(preset, inputs=inputs, recipe=recipe, n_members=members)


def check_slides(slides: Sequence[Slide], genes: Sequence[str], layer: str | None, inputs: Inputs) -> None:
    """Refuse bad input before anything is computed."""
    from sthggep._checks import has_key

    unique(genes, "The genes of the panel", "List each once.")
    n_filled = 0
    for slide in slides:
        n_filled += int(counts(slide.adata, genes, layer=layer, rows=slide.rows).any(axis=1).sum())
        if inputs.kind == "features":
            slide.require_mpp()
        for key in inputs.obsm:
            has_key(slide.adata.obsm, key, "obsm", "Compute those features first, or leave `obsm` out.")
    if n_filled < 2:
        msg = f"Training needs at least two spots with counts in the panel, found {n_filled} in {len(slides)} sections."
        raise ValueError(msg)


def _distinct_names(slides: Sequence[Slide]) -> list[Slide]:
    """Sections of different files may share a name; history and validation need them apart."""
    from dataclasses import replace

    seen: dict[str, int] = {}
    out = []
    for slide in slides:
        seen[slide.name] = seen.get(slide.name, 0) + 1
        name = slide.name if seen[slide.name] == 1 else f"{slide.name}-{seen[slide.name]}"
        out.append(replace(slide, name=name))
    return out


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
) -> HGGEP:
    """Turn checked slides into tensors, and train the members of the ensemble on them."""
    import pandas as pd
    from tqdm.auto import tqdm

    from sthggep._data import labelled, network_inputs
    from sthggep._training import train
    from sthggep.model import HGGEP
    from sthggep.pp._encoders import FrozenEncoder
    from sthggep.tl._networks import build_network, settle
    from sthggep.tl._validation import apply_plan, plan_validation

    plan = plan_validation(slides, validation, preset.n_members)
    encoder = FrozenEncoder(preset.inputs.encoder, weights, device) if preset.inputs.kind == "features" else None
    k = int(preset.net.get("n_neighbors", 1))  # what prediction asks the network for; patches need none here
    sections = [
        labelled(
            slide,
            genes,
            layer,
            network_inputs(slide, preset.inputs, encoder, n_neighbors=k, batch_size=batch_size, show=show),
        )
        for slide in slides
    ]
    splits = [apply_plan(sections, slides, held_out) for held_out in plan]
    members, curves = [], []
    with tqdm(
        total=preset.n_members * preset.recipe.max_epochs, desc="Training", unit="epoch", disable=None if show else True
    ) as bar:
        for member, split in enumerate(splits):
            net = build_network(preset, split, len(genes), weights, seed + member)
            history = train(
                net, split, preset.recipe, seed=seed + member, device=device, bar=bar, trainer_kwargs=trainer_kwargs
            )
            # Stopping early leaves the rest of this member's share of the bar
            bar.update((member + 1) * preset.recipe.max_epochs - bar.n)
            history.insert(0, "member", member)
            members.append(net)
            curves.append(history)
    settle(members, splits)
    record = {
        "sections": [slide.name for slide in slides],
        "n_spots": [slide.n_spots for slide in slides],
        "mpp": [slide.mpp for slide in slides],
        "validation": [str(held_out) for held_out in plan],
        "seed": seed,
        "encoder_weights": encoder.weights if encoder else None,
    }
    return HGGEP(
        members,
        genes,
        preset.inputs,
        preset=name,
        encoder_state=encoder.module.state_dict() if encoder else None,
        training=record,
        history=pd.concat(curves, ignore_index=True),
    )
