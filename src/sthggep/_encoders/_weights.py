"""Weights of image encoders, from an argument, the package, a folder of the user, or the download cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._checks import listing
from sthggep._disk._tensors import read_safetensors, read_torch
from sthggep._progress import can_draw

if TYPE_CHECKING:
    import torch

    from sthggep._encoders._entry import Encoder

FOLDER_VARIABLE = "STHGGEP_WEIGHTS"
StateDict = dict[str, "torch.Tensor"]


def load_weights(encoder: Encoder, weights: str | Path | None = None) -> StateDict:
    """Load the state dict of an encoder.

    Parameters
    ----------
    encoder
        Entry of the registry, which holds the file names and the address.
    weights
        A file, or a folder that holds the file. Default: the file in the package; else the file in
        ``$STHGGEP_WEIGHTS``; else a download into torch's cache.

    Raises
    ------
    FileNotFoundError
        The file does not exist, or the download fails.
    ValueError
        The file does not hold such a state dict.
    """
    if weights is not None:
        if not encoder.files and not Path(weights).is_file():
            msg = (
                f"`weights` of the encoder {encoder.name!r} must be a file with its state dict, found {str(weights)!r}."
            )
            raise FileNotFoundError(msg)
        return _read_state_dict(_find_file(Path(weights), encoder, "`weights`"), encoder)
    local = bundled_path(encoder.bundled) if encoder.bundled else find_local_weights(encoder)
    return _read_state_dict(local, encoder) if local is not None else _download_state_dict(encoder)


def bundled_path(name: str) -> Path:
    """Return the path of a file or folder in the package."""
    from importlib.resources import files

    return Path(str(files("sthggep") / "_bundled" / name))


def find_local_weights(encoder: Encoder) -> Path | None:
    """Find the encoder's file in ``$STHGGEP_WEIGHTS``; ``None`` where the variable is not set."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return _find_file(Path(folder), encoder, f"${FOLDER_VARIABLE}") if folder else None


def find_cached_weights(encoder: Encoder) -> Path | None:
    """Find the encoder's file in torch's download cache; ``None`` where it is absent."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / encoder.url.rsplit("/", 1)[-1]
    return path if path.is_file() else None


def hash_weights(state: StateDict) -> str:
    """Hash the content of weights into a short id, which does not depend on their file."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        if not state[name].numel():
            continue
        # As bytes, since numpy has no bfloat16
        digest.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _find_file(path: Path, encoder: Encoder, source: str) -> Path:
    """Return the encoder's file in a folder, or the file itself."""
    if path.is_file():
        return path
    matches = sorted(match for pattern in encoder.files for match in path.glob(pattern)) if path.is_dir() else []
    if not matches:
        content = listing(sorted(p.name for p in path.iterdir())) if path.is_dir() else "no such file or folder"
        msg = f"{source} is {str(path)!r}: expected a file like {listing(encoder.files)}, found {content}."
        raise FileNotFoundError(msg)
    return matches[0]


def _read_state_dict(path: Path, encoder: Encoder) -> StateDict:
    """Read a state dict from a file, without running code that the file may hold."""
    import torch

    try:
        state = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    except ValueError as reason:
        msg = f"{str(path)!r} cannot be read as weights of {encoder.name!r}: {reason}"
        raise ValueError(msg) from reason
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        kind = type(state).__name__
        msg = f"{str(path)!r} must hold a state dict (names to tensors) of {encoder.name!r}, found {kind}."
        raise ValueError(msg)
    return state


def _download_state_dict(encoder: Encoder) -> StateDict:
    """Download a state dict into torch's cache, with a checksum."""
    import pickle
    from http.client import HTTPException

    import torch

    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(encoder.url).name
    try:
        state: StateDict = torch.hub.load_state_dict_from_url(
            encoder.url, map_location="cpu", progress=can_draw(), check_hash=True, weights_only=True
        )
    except (OSError, HTTPException) as reason:  # URLError is an OSError
        msg = (
            f"The weights of {encoder.name!r} could not be downloaded from {encoder.url} ({reason}). "
            f"Without network: put the file into a folder and set ${FOLDER_VARIABLE} to it, or pass `weights=<file>`; "
            "`weights='random'` uses random weights, which predict much worse."
        )
        raise FileNotFoundError(msg) from reason
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as reason:
        msg = (
            f"The download from {encoder.url} is not the file with the weights of {encoder.name!r} ({reason}). "
            f"Delete {str(cached)!r} if it exists and call again, or pass `weights=<file>`."
        )
        raise ValueError(msg) from reason
    return state
