"""A preset with the options that the user chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import one_of, positive
from sthggep._slides._stain import check_stain
from sthggep._training._presets import ON_SPOTS, ON_TISSUE, PRESETS, Preset

if TYPE_CHECKING:
    from sthggep._inputs._inputs import Inputs


@dataclass(frozen=True)
class Choices:
    """Options that replace those of the preset; ``None`` keeps the preset's."""

    obsm: str | Sequence[str] | None = None
    """Keys of the user's features."""
    encoder: str | None = None
    """Name of the frozen encoder."""
    size_um: float | Sequence[float] | None = None
    """Fields of view in microns."""
    encoding: str | None = None
    """``"patches"`` or ``"tissue"``."""
    flips: bool | None = None
    """Whether features are means over several views."""
    stain: str | None = None
    """Method of the stain normalization."""
    max_epochs: int | None = None
    learning_rate: float | None = None
    n_members: int | None = None
    """Number of networks; 0 for the closed form alone."""


def find_preset(preset: str | Preset) -> tuple[str, Preset]:
    """Find a preset by its name and return both; the name of a :class:`Preset` object is ``"custom"``."""
    if isinstance(preset, Preset):
        return "custom", preset
    return preset, PRESETS[one_of(preset, PRESETS, "preset")]


def with_choices(preset: Preset, choices: Choices) -> Preset:
    """Replace options of the preset by the user's choices.

    Raises
    ------
    ValueError
        A choice is invalid, or contradicts the preset or another choice.
    """
    return _with_encoder(_with_numbers(preset, choices), choices)


def _with_numbers(preset: Preset, choices: Choices) -> Preset:
    """The preset with the user's epochs, learning rate, number of networks and features."""
    recipe, inputs, n_members = preset.recipe, preset.inputs, preset.n_members
    if choices.max_epochs is not None:
        recipe = replace(recipe, max_epochs=int(positive(choices.max_epochs, "`max_epochs`")))
    if choices.learning_rate is not None:
        recipe = replace(recipe, learning_rate=positive(choices.learning_rate, "`learning_rate`"))
    if choices.n_members == 0:
        if preset.network == "HGGEPNet":
            msg = "`n_members=0` solves the closed form alone, which this preset does not have. Pass 1 or more."
            raise ValueError(msg)
        recipe = replace(recipe, shares=(0.0,))
    elif choices.n_members is not None:
        n_members = int(positive(choices.n_members, "`n_members`"))
    if choices.obsm is not None:
        if inputs.kind == "patches":
            msg = f"`obsm` holds features, but this preset reads {inputs}. Pass `preset='default'`."
            raise ValueError(msg)
        keys = (choices.obsm,) if isinstance(choices.obsm, str) else tuple(choices.obsm)
        if not keys:
            msg = "`obsm` is empty. Pass a key of features or several, or leave it out."
            raise ValueError(msg)
        inputs = replace(inputs, kind="obsm", obsm=keys, encoding="patches", flips=True)
        return replace(preset, inputs=inputs, recipe=recipe, n_members=n_members, net={**preset.net, **ON_SPOTS})
    return replace(preset, inputs=inputs, recipe=recipe, n_members=n_members)


def _with_encoder(preset: Preset, choices: Choices) -> Preset:
    """The preset with another encoder, other fields of view, or normalized stain."""
    encoder, size_um, stain = choices.encoder, choices.size_um, choices.stain
    if all(each is None for each in (encoder, size_um, stain, choices.encoding, choices.flips)):
        return preset
    inputs, net = preset.inputs, dict(preset.net)
    if inputs.kind == "obsm":
        msg = "`obsm` holds computed features, so `encoder`, `size_um`, `encoding`, `flips` and `stain` do not apply. Leave them or `obsm` out."
        raise ValueError(msg)
    if stain is not None:
        inputs = replace(inputs, stain=check_stain(stain))
    if encoder is not None:
        from sthggep._encoders._frozen import find_encoder

        if inputs.kind == "patches":
            msg = f"`encoder` computes features, but this preset reads {inputs}. Pass `preset='default'`."
            raise ValueError(msg)
        entry = find_encoder(encoder)
        net["blocks"] = entry.blocks
        inputs = replace(inputs, encoder=encoder, size_px=entry.size_px, sizes_um=entry.size_um or inputs.sizes_um)
        if choices.encoding is None:
            inputs = _with_encoding(inputs, inputs.encoding if entry.maps is not None else "patches")
    if size_um is not None:
        sizes = [float(size) for size in np.atleast_1d(np.asarray(size_um, dtype=np.float64))]
        if not sizes or (inputs.kind == "patches" and len(sizes) > 1):
            several = " or several" if inputs.kind != "patches" else ""
            msg = f"`size_um` must hold one field of view in microns{several}, found {sizes}."
            raise ValueError(msg)
        inputs = replace(inputs, sizes_um=tuple(positive(size, "`size_um`") for size in sizes))
    if choices.encoding is not None:
        inputs = _with_encoding(inputs, choices.encoding)
    if choices.flips is not None:
        inputs = _with_flips(inputs, choices.flips)
    if inputs.kind == "features":
        net |= ON_TISSUE if inputs.encoding == "tissue" else ON_SPOTS
    return replace(preset, inputs=inputs, net=net)


def _with_encoding(inputs: Inputs, encoding: str) -> Inputs:
    """Inputs whose encoder reads patches, or the tissue once."""
    from sthggep._encoders._encode import check_encoding
    from sthggep._encoders._frozen import find_encoder

    if inputs.kind == "patches":
        msg = f"`encoding` says how a frozen encoder reads the image, but this preset reads {inputs}. Leave it out."
        raise ValueError(msg)
    encoding = check_encoding(encoding, find_encoder(inputs.encoder))
    # One view of the tissue predicts as well as four flips of patches
    return replace(inputs, encoding=encoding, flips=encoding == "patches")


def _with_flips(inputs: Inputs, flips: bool) -> Inputs:
    """Inputs whose features are means over several views, or of one view."""
    if inputs.kind == "patches":
        msg = f"`flips` says how many views a frozen encoder reads, but this preset reads {inputs}. Leave it out."
        raise ValueError(msg)
    return replace(inputs, flips=flips)


def without_counts(preset: Preset) -> Preset:
    """Return the preset without the count head and its loss, for targets that are not genes."""
    return replace(preset, recipe=replace(preset.recipe, count_nll=0.0), net={**preset.net, "count_head": None})
