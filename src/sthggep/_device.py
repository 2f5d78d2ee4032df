"""The device that torch computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resolve_device(device: str = "auto") -> torch.device:
    """Choose the device: ``"auto"`` takes CUDA, then MPS, then the CPU; torch parses any other name."""
    import torch

    if device != "auto":
        try:
            resolved = torch.device(device)
            torch.zeros(1, device=resolved).cpu()
            if resolved.type == "cpu" and resolved.index:
                msg = "there is one CPU, which has no number"
                raise RuntimeError(msg)
        except (RuntimeError, AssertionError, TypeError, ImportError) as reason:
            msg = f"Device {device!r} cannot be used here: {reason}. Pass `device='auto'` or 'cpu'."
            raise ValueError(msg) from reason
        return resolved
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
