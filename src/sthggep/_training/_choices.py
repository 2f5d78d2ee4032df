"""A preset with the user's own choices in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sthggep._checks import one_of, positive
from sthggep._slides._stain import check_stain
from sthggep._training._presets import PRESETS, Preset


@dataclass(frozen=True)
class Choices:
    """What the user chose instead of the preset's own; ``None`` keeps that."""

    obsm: str | Sequence[str] | None = None
    encoder: str | None = None
    size_um: float | Sequence[float] | None = None
    stain: str | None = None
    max_epochs: int | None = None
    learning_rate: float | None = None
    n_members: int | None = None


def find_preset(preset: str | Preset) -> tuple[str, Preset]:
    """Name and content of a preset; one that was made by hand is called ``"custom"``."""
    if isinstance(preset, Preset):
        return "custom", preset
    return preset, PRESETS[one_of(preset, PRESETS, "preset")]


def with_choices(preset: Preset, choices: Choices) -> Preset:
    """The preset with the user's choices.

    Raises
    ------
    ValueError
        A choice is invalid, or does not fit the preset or another choice.
    """
    return _with_encoder(_with_numbers(preset, choices), choices)


def _with_numbers(preset: Preset, choices: Choices) -> Preset:
    """The preset with epochs, learning rate, networks and features of the user's own."""
    recipe, inputs, n_members = preset.recipe, preset.inputs, preset.n_members
    if choices.max_epochs is not None:
        recipe = replace(recipe, max_epochs=int(positive(choices.max_epochs, "`max_epochs`")))
    if choices.learning_rate is not None:
        recipe = replace(recipe, learning_rate=positive(choices.learning_rate, "`learning_rate`"))
    if choices.n_members is not None:
        n_members = int(positive(choices.n_members, "`n_members`"))
    if choices.obsm is not None:
        if inputs.kind == "patches":
            msg = "`obsm` holds features, but this preset reads patches. Use `preset='default'`."
            raise ValueError(msg)
        keys = (choices.obsm,) if isinstance(choices.obsm, str) else tuple(choices.obsm)
        inputs = replace(inputs, kind="obsm", obsm=keys)
    return replace(preset, inputs=inputs, recipe=recipe, n_members=n_members)


def _with_encoder(preset: Preset, choices: Choices) -> Preset:
    """The preset with another encoder, other fields of view, or normalized stain."""
    encoder, size_um, stain = choices.encoder, choices.size_um, choices.stain
    if encoder is None and size_um is None and stain is None:
        return preset
    inputs, net = preset.inputs, dict(preset.net)
    if inputs.kind == "obsm":
        msg = "`obsm` holds features that are computed already: `encoder`, `size_um` and `stain` do not apply. Leave one out."
        raise ValueError(msg)
    if stain is not None:
        inputs = replace(inputs, stain=check_stain(stain))
    if encoder is not None:
        from sthggep._encoders._frozen import find_encoder

        if inputs.kind == "patches":
            msg = "`encoder` computes features, but this preset reads patches. Use `preset='default'`."
            raise ValueError(msg)
        entry = find_encoder(encoder)
        net["blocks"] = entry.blocks
        inputs = replace(inputs, encoder=encoder, size_px=entry.size_px, sizes_um=entry.size_um or inputs.sizes_um)
    if size_um is not None:
        sizes = [float(size) for size in np.atleast_1d(np.asarray(size_um, dtype=np.float64))]
        if not sizes or (inputs.kind == "patches" and len(sizes) > 1):
            several = " or several" if inputs.kind != "patches" else ""
            msg = f"`size_um` must hold one field of view in microns{several}, found {sizes}."
            raise ValueError(msg)
        inputs = replace(inputs, sizes_um=tuple(positive(size, "`size_um`") for size in sizes))
    return replace(preset, inputs=inputs, net=net)


def without_counts(preset: Preset) -> Preset:
    """The preset without what is learned from counts alone."""
    return replace(preset, recipe=replace(preset.recipe, count_nll=0.0), net={**preset.net, "count_head": None})
