"""bfloat16 products where they are faster, without loss of the differences between spots."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from time import perf_counter
from typing import Literal, get_args

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "bfloat16"]


def check_precision(precision: str) -> None:
    """Refuse an unknown precision."""
    if precision not in get_args(Precision):
        msg = f"Expected precision 'auto', 'float32' or 'bfloat16', found {precision!r}."
        raise ValueError(msg)


@cache  # a busy machine may answer otherwise the next time, and the same input would give another output
def faster_in_bf16(device: torch.device) -> bool:
    """Whether large matrix products run clearly faster in bfloat16 here: measured, in some tens of milliseconds."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    low, full = product_seconds(torch.bfloat16, torch.float32)
    return low * 1.5 < full


def product_seconds(*dtypes: torch.dtype, size: int = 768, times: int = 5) -> list[float]:
    """Shortest time of a matrix product in each type, measured in turn so that a busy moment hits all alike."""
    matrices = [torch.ones(size, size, dtype=dtype) for dtype in dtypes]
    best = [torch.inf] * len(matrices)
    for turn in range(times + 1):
        for i, a in enumerate(matrices):
            start = perf_counter()
            a @ a
            if turn:  # the first is a warm-up
                best[i] = min(best[i], perf_counter() - start)
    return best


def lowered(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where it is requested or faster; no change inside another autocast."""
    if torch.is_autocast_enabled(device.type):
        return nullcontext()
    if precision == "bfloat16" or (precision == "auto" and faster_in_bf16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def is_lowered(device: torch.device) -> bool:
    """Whether products are bfloat16 at this place."""
    return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.bfloat16


def centered_product(x: Tensor, weight: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """``x @ weight.T`` in two parts: of what differs between rows, in bfloat16, and of the rows' mean, in float32.

    bfloat16 has eight digits. Where rows differ by a hundredth of their size they would all be rounded to the same few
    values; the differences themselves are not small beside anything.

    Parameters
    ----------
    x
        ``(..., n, in)``, float32.
    weight
        ``(out, in)``.
    low
        The same in bfloat16.

    Returns
    -------
    ``(..., n, out)`` and ``(..., 1, out)``, to be added.
    """
    mean = x.mean(dim=-2, keepdim=True)
    return (x - mean).to(low.dtype) @ low.mT, mean @ weight.mT
