"""Load a model by its folder or its name."""

from __future__ import annotations

from pathlib import Path

from sthggep.model._folders import BUNDLED_MODELS
from sthggep.model._hggep import HGGEP


def load_model(model: object) -> HGGEP:
    """Return a model, or load it by its name or folder; ``None`` is the bundled model."""
    if isinstance(model, HGGEP):
        return model
    if model is None:
        return HGGEP.from_pretrained(BUNDLED_MODELS[0])
    if isinstance(model, Path):
        return HGGEP.load(model)
    if isinstance(model, str):
        return HGGEP.from_pretrained(model)
    msg = f"`model` must be an HGGEP, a name or the folder of a saved model, found {type(model).__name__}."
    raise TypeError(msg)
