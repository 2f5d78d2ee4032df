"""A preset with the user's own choices in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import positive
from sthggep._slides._stain import check_stain

if TYPE_CHECKING:
    from sthggep._training._presets import Preset


def adapt(
    preset: Preset,
    obsm: str | Sequence[str] | None,
    max_epochs: int | None,
    learning_rate: float | None,
    n_members: int | None,
) -> Preset:
    """The preset with the user's own numbers in it."""
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


def look_through(
    preset: Preset, encoder: str | None, size_um: float | Sequence[float] | None, stain: str | None = None
) -> Preset:
    """The preset, looking through another encoder, at other fields of view, or at normalized stain."""
    if encoder is None and size_um is None and stain is None:
        return preset
    inputs, net = preset.inputs, dict(preset.net)
    if inputs.kind == "obsm":
        msg = "`obsm` holds features that are there already: `encoder`, `size_um` and `stain` do not go with it. Leave one out."
        raise ValueError(msg)
    if stain is not None:
        inputs = replace(inputs, stain=check_stain(stain))
    if encoder is not None:
        from sthggep._encoders._frozen import find_encoder

        if inputs.kind == "patches":
            msg = "`encoder` makes features, but this preset looks at patches. Use `preset='default'`."
            raise ValueError(msg)
        entry = find_encoder(encoder)
        net["blocks"] = entry.blocks
        inputs = replace(inputs, encoder=encoder, size_px=entry.size_px, sizes_um=entry.size_um or inputs.sizes_um)
    if size_um is not None:
        sizes = [float(size) for size in np.atleast_1d(np.asarray(size_um, dtype=np.float64))]
        if not sizes or (inputs.kind == "patches" and len(sizes) > 1):
            msg = (
                f"`size_um` must hold one field of view in microns{' or several' if inputs.kind != 'patches' else ''}, "
            )
            msg += f"found {sizes}."
            raise ValueError(msg)
        inputs = replace(inputs, sizes_um=tuple(positive(size, "`size_um`") for size in sizes))
    return replace(preset, inputs=inputs, net=net)


def without_counts(preset: Preset) -> Preset:
    """The preset without what is learned from counts alone."""
    return replace(preset, recipe=replace(preset.recipe, count_nll=0.0), net={**preset.net, "count_head": None})
