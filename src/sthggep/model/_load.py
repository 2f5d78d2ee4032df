"""A model by its folder, its name, or itself."""

from __future__ import annotations

from pathlib import Path

from sthggep.model._hggep import BUNDLED_MODELS, HGGEP


def load_model(model: object) -> HGGEP:
    """The model itself, or the one of that name or folder; ``None`` is the one that comes with the package."""
    if isinstance(model, HGGEP):
        return model
    if model is None:
        return HGGEP.from_pretrained(BUNDLED_MODELS[0])
    if isinstance(model, Path):
        return HGGEP.load(model)
    if isinstance(model, str):
        return HGGEP.from_pretrained(model)
    msg = f"`model` must be an HGGEP, or the folder of a saved one, found {type(model).__name__}."
    raise TypeError(msg)
