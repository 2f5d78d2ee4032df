"""Where to compute, and in which precision."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resolve_device(device: str = "auto") -> torch.device:
    """``"auto"`` takes CUDA, then MPS, then the CPU; anything else is taken as torch understands it."""
    import torch

    if device != "auto":
        try:
            found = torch.device(device)
            torch.zeros(1, device=found).cpu()
        except (RuntimeError, AssertionError, TypeError) as reason:
            msg = f"Device {device!r} cannot be used here: {reason}. Pass `device='auto'` or 'cpu'."
            raise ValueError(msg) from reason
        return found
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@cache  # a busy machine may answer otherwise the next time, and the same seed would give another model
def faster_in_bf16(device: torch.device) -> bool:
    """Whether large matrix products run clearly faster in bfloat16 here: measured, in some tens of milliseconds."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    return _seconds(torch.bfloat16) * 1.5 < _seconds(torch.float32)


def _seconds(dtype: torch.dtype, size: int = 768) -> float:
    from time import perf_counter

    import torch

    a = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(4):
        start = perf_counter()
        a @ a
        times.append(perf_counter() - start)
    return min(times[1:])
