"""A model on disk: ``config.json`` and ``model.safetensors`` in one folder, written whole or not at all; checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sthggep._checks import listing
from sthggep._disk._whole import whole_folder

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 3  # 2: stain normalization, which earlier versions would leave out; 3: American names
# Names that formats before 3 used, in the tensors and in the record of the training
OLD_TENSOR_NAMES = {".programmes.": ".programs."}
OLD_TRAINING_NAMES = {"colours": "colors", "marks": "fingerprints"}
CONFIG, TENSORS = "config.json", "model.safetensors"


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write a model over something that is to be kept.

    Raises
    ------
    FileExistsError
        The folder is there, and is to be kept or is no model.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        msg = f"{str(folder)!r} exists already. Pass `overwrite=True` to replace it, or another folder."
        raise FileExistsError(msg)
    if not _is_model(folder):
        msg = f"{str(folder)!r} exists and is not a model of sthggep; it is left alone. Pass another folder."
        raise FileExistsError(msg)


def _is_model(folder: Path) -> bool:
    """Whether the record in the folder is one of ours: other tools write a ``config.json``, too."""
    try:
        return "format" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], *, overwrite: bool) -> None:
    """Write a model folder, whole or not at all.

    Raises
    ------
    FileExistsError
        The folder is there, and is to be kept or is no model.
    """
    from safetensors.torch import save_file

    check_free(folder, overwrite=overwrite)
    with whole_folder(folder, replace=True) as part:
        part.mkdir()
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, part / TENSORS
        )
        (part / CONFIG).write_text(json.dumps({"format": FORMAT, **config}, indent=1), encoding="utf-8")


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a model folder.

    Raises
    ------
    FileNotFoundError
        The folder or one of its files is not there.
    ValueError
        A file is broken, or was written by a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not folder.is_dir():
        near = [p.parent.name for p in folder.parent.glob(f"*/{CONFIG}")] if folder.parent.is_dir() else []
        msg = (
            f"No model at {str(folder)!r}: a folder written by `model.save` was expected. "
            f"{f'Models beside it: {listing(near)}.' if near else 'There is no model beside it either.'}"
        )
        raise FileNotFoundError(msg)
    absent = [name for name in (CONFIG, TENSORS) if not (folder / name).is_file()]
    if absent:
        there = listing(sorted(p.name for p in folder.iterdir()))
        msg = f"{str(folder)!r} is not a whole model: {listing(absent)} missing, found {there}. Save the model again."
        raise FileNotFoundError(msg)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        found = int(config["format"])
    except (ValueError, KeyError, TypeError) as reason:
        msg = f"{str(folder / CONFIG)!r} is not a model's record ({reason!r}). Save the model again."
        raise ValueError(msg) from reason
    if found > FORMAT:
        msg = (
            f"{str(folder)!r} has format {found}, written by sthggep {config.get('version', '?')}; this version reads "
            f"formats up to {FORMAT}. Upgrade: `pip install -U sthggep`."
        )
        raise ValueError(msg)
    try:
        tensors = load_file(folder / TENSORS)
    except (SafetensorError, OSError, ValueError) as reason:
        msg = f"{str(folder / TENSORS)!r} is broken or half-written ({reason}). Save the model again."
        raise ValueError(msg) from reason
    return (config, tensors) if found >= FORMAT else _renamed(config, tensors)


def _renamed(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model of an earlier format under the names of today. Its id was made of the old names, so it has none."""
    training = {OLD_TRAINING_NAMES.get(name, name): value for name, value in config.get("training", {}).items()}
    for old, new in OLD_TENSOR_NAMES.items():
        tensors = {name.replace(old, new): value for name, value in tensors.items()}
    return {**config, "training": training, "id": None}, tensors


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a file of tensors that somebody else wrote, running no code in it.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It holds something else, or more than tensors and plain types.
    """
    import pickle

    import torch

    if not path.is_file():
        msg = f"No checkpoint at {str(path)!r}: the file of a state dict or of a Lightning checkpoint was expected."
        raise FileNotFoundError(msg)
    advice = "A file of tensors is expected: in the authors' environment, save `model.state_dict()` by `torch.save`."
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as reason:
        why = (str(reason).splitlines() or [type(reason).__name__])[0]
        msg = f"{str(path)!r} cannot be read safely ({why}). {advice}"
        raise ValueError(msg) from reason
    if not isinstance(state, Mapping):
        msg = f"{str(path)!r} holds a {type(state).__name__}, not a state dict. {advice}"
        raise ValueError(msg)
    return state


def table_to_json(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns of a table as JSON knows them: it has neither NaN nor infinity."""
    filled = table.replace([np.inf, -np.inf], np.nan).astype(object)
    return {str(name): [None if pd.isna(value) else value for value in filled[name]] for name in filled}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names start so, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
