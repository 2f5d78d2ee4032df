"""Folders of models that have a name: bundled models, local folders, and models of the hub."""

from __future__ import annotations

from pathlib import Path

from sthggep._checks import listing
from sthggep._encoders._weights import bundled_path
from sthggep.model._hub import download, is_repository_name

BUNDLED_MODELS = ("her2st",)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # a name too long for the disk
        return False


def find_model_folder(name: object, *, revision: str | None, token: str | None) -> Path:
    """Find the folder of a model, and download it if its name is one of the hub.

    Raises
    ------
    FileNotFoundError
        There is no such model.
    ValueError
        ``revision`` is passed for a model that is not on the hub.
    """
    if not isinstance(name, str):
        msg = (
            f"`name` must be a text: {listing(BUNDLED_MODELS)}, a folder, or 'owner/name'; found {type(name).__name__}."
        )
        raise TypeError(msg)
    is_folder = _is_folder(name)
    if is_folder or name in BUNDLED_MODELS:
        if revision is not None:
            kind = "a folder" if is_folder else "of this package"
            msg = f"`revision` is for models of the hub, but {name!r} is {kind}. Leave `revision` out."
            raise ValueError(msg)
        return Path(name) if is_folder else Path(bundled_path(name))
    if is_repository_name(name):
        return download(name, revision=revision, token=token)
    if name.startswith((".", "~", "/")) or "\\" in name:
        msg = (
            f"There is no folder {str(Path(name).expanduser().absolute())[:300]!r} of a saved model. Pass the folder that `model.save` "
            f"wrote, or {listing(BUNDLED_MODELS)}."
        )
        raise FileNotFoundError(msg)
    msg = (
        f"No model is called {name[:200]!r}: {listing(BUNDLED_MODELS)} comes with this version. Pass a folder or 'owner/name' of "
        "the Hugging Face hub, or train a model by `sthggep.tl.fit`."
    )
    raise FileNotFoundError(msg)
