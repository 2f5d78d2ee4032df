"""The device that torch computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


GPU = "gpu"


def resolve_device(device: str = "auto") -> torch.device:
    """Choose the device: ``"auto"`` takes CUDA, then MPS, then the CPU; ``"gpu"`` the same without the CPU.

    torch parses any other name. ``"gpu:1"`` is ``"cuda:1"``.

    Raises
    ------
    ValueError
        There is no such device here.
    """
    import torch

    name = device.lower()
    if name == GPU:
        device = _find_gpu()
    elif name.startswith(f"{GPU}:"):
        device = f"cuda:{name.removeprefix(f'{GPU}:')}"
    if device != "auto":
        try:
            resolved = torch.device(device)
            torch.zeros(1, device=resolved).cpu()
            if resolved.type == "cpu" and resolved.index:
                msg = "there is one CPU, which has no number"
                raise RuntimeError(msg)
        except (RuntimeError, AssertionError, TypeError, ImportError) as reason:
            msg = f"Device {device!r} cannot be used here: {reason}. Pass `device='auto'` or `device='cpu'`."
            raise ValueError(msg) from reason
        return resolved
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _find_gpu() -> str:
    """Return the name of the GPU, CUDA before MPS."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    built = "" if torch.version.cuda else f", and torch {torch.__version__} is built without CUDA"
    msg = f"Device 'gpu' cannot be used here: torch sees no GPU (CUDA or MPS){built}. Pass `device='auto'` or `device='cpu'`."
    raise ValueError(msg)
