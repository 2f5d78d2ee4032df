"""A model on disk: ``config.json`` and ``model.safetensors`` in one folder, written whole or not at all; checkpoints."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._checks import listing
from sthggep._disk._run_folder import check_folder
from sthggep._disk._tensors import explain, read_safetensors, read_torch
from sthggep._disk._whole import whole_folder
from sthggep.model._former import upgrade

if TYPE_CHECKING:
    from torch import Tensor

# 2: stain normalization, which earlier versions would ignore; 3: American names; 4: an id of the whole record
FORMAT, AMERICAN_NAMES, WHOLE_ID = 4, 3, 4
# A record of 60,000 genes has some 4 MB
MOST_BYTES, MOST_ENTRIES = 16 << 20, 1_000_000
CONFIG, TENSORS = "config.json", "model.safetensors"


def model_path(value: object) -> Path:
    """Return the path of a model's folder or of a checkpoint; refuse what is no path."""
    if not isinstance(value, str | PathLike):
        msg = f"The path of a saved model was expected, found {type(value).__name__}: {reprlib.repr(value)}."
        raise TypeError(msg)
    return Path(value)


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write a model over another folder, or over a model without ``overwrite``.

    Raises
    ------
    FileExistsError
        The folder exists, and ``overwrite`` is false or it is not a model.
    """
    check_folder(folder.parent, "folder")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        msg = f"{str(folder)!r} exists already. Pass `overwrite=True` to replace it, or another folder."
        raise FileExistsError(msg)
    if not _is_model(folder):
        msg = f"{str(folder)!r} exists and is not a model of sthggep; it is left alone. Pass another folder."
        raise FileExistsError(msg)


def _is_model(folder: Path) -> bool:
    """Whether the folder holds a model of sthggep: other tools write a ``config.json``, too."""
    try:
        return "format" in _read_config(folder / CONFIG)
    except (OSError, ValueError):
        return False


def write_folder(folder: Path, config: Mapping[str, object], tensors: Mapping[str, Tensor], *, overwrite: bool) -> None:
    """Write a model folder, whole or not at all.

    Raises
    ------
    FileExistsError
        The folder exists, and ``overwrite`` is false or it is not a model.
    """
    from safetensors.torch import save_file

    check_free(folder, overwrite=overwrite)
    with whole_folder(folder, replace=True) as part:
        part.mkdir()
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, part / TENSORS
        )
        text = json.dumps({"format": FORMAT, **config}, indent=1, allow_nan=False)
        (part / CONFIG).write_text(text, encoding="utf-8")


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a model folder.

    Raises
    ------
    FileNotFoundError
        The folder or one of its files is not there.
    ValueError
        A file is broken, or was written by a newer version.
    """
    if not folder.is_dir():
        near = [p.parent.name for p in folder.parent.glob(f"*/{CONFIG}")] if folder.parent.is_dir() else []
        msg = (
            f"No model at {str(folder)!r}: a folder written by `model.save` was expected. "
            f"{f'Models beside it: {listing(near)}.' if near else 'There is no model beside it either.'}"
        )
        raise FileNotFoundError(msg)
    absent = [name for name in (CONFIG, TENSORS) if not (folder / name).is_file()]
    if absent:
        present = listing(sorted(p.name for p in folder.iterdir()))
        msg = f"{str(folder)!r} is not a whole model: {listing(absent)} missing, found {present}. Save the model again."
        raise FileNotFoundError(msg)
    config = _read_config(folder / CONFIG)
    if config["format"] > FORMAT:
        msg = (
            f"{str(folder)!r} has format {config['format']}, written by sthggep {config.get('version', '?')}; this version "
            f"reads formats up to {FORMAT}. Upgrade: `pip install -U sthggep`."
        )
        raise ValueError(msg)
    try:
        tensors = read_safetensors(folder / TENSORS)
    except ValueError as reason:
        msg = f"{str(folder / TENSORS)!r} is broken or half-written ({reason}). Save the model again."
        raise ValueError(msg) from reason
    return (config, tensors) if config["format"] >= AMERICAN_NAMES else upgrade(config, tensors)


def _read_config(path: Path) -> dict[str, Any]:
    """Read the record of a model, and check its size and its format."""
    try:
        config = json.loads(_read_text(path))
        if not isinstance(config, dict) or type(config.get("format")) is not int or config["format"] < 1:
            msg = f"an object with the number `format` was expected, found {reprlib.repr(config)}"
            raise ValueError(msg)
        if not isinstance(config.get("training", {}), dict):
            msg = f"an object `training` was expected, found {reprlib.repr(config['training'])}"
            raise ValueError(msg)
    except (ValueError, RecursionError) as reason:
        msg = f"{str(path)!r} is not a model's record ({explain(reason)}). Save the model again."
        raise ValueError(msg) from reason
    return config


def _read_text(path: Path) -> str:
    """Read a text of a bounded size."""
    with path.open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES or text.count(b",") > MOST_ENTRIES:
        msg = f"at most {MOST_BYTES:,} bytes and {MOST_ENTRIES:,} entries were expected, found more"
        raise ValueError(msg)
    return text.decode("utf-8")


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint file without running code in it.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is not a state dict, or holds more than tensors and plain types.
    """
    if not path.is_file():
        msg = f"No checkpoint at {str(path)!r}: the file of a state dict or of a Lightning checkpoint was expected."
        raise FileNotFoundError(msg)
    advice = "A file of tensors is expected: in the authors' environment, save `model.state_dict()` by `torch.save`."
    try:
        state = read_torch(path)
    except ValueError as reason:
        msg = f"{str(path)!r} cannot be read safely ({reason}). {advice}"
        raise ValueError(msg) from reason
    if not isinstance(state, Mapping):
        msg = f"{str(path)!r} holds a {type(state).__name__}, not a state dict. {advice}"
        raise ValueError(msg)
    return state


def select_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors whose names start with the prefix, and remove it from their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
