"""Self-distillation ("bake"): a section must be predicted as its augmented copies are on average."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma


def augment_section(patches: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One augmented copy of a section: grayscale, rotation and horizontal flip, the same for all its patches.

    As published: grayscale with probability 0.1, rotation uniform in ±90° (nearest pixel, black corners), flip with
    probability 0.2. The authors' patches are transposed when they are flipped; here they are upright.

    Parameters
    ----------
    patches
        ``(n, 3, size, size)`` patches.
    generator
        Source of randomness, on the CPU; ``None`` for torch's own.

    Returns
    -------
    Patches of the same shape.
    """
    gray, turn, flip = torch.rand(3, generator=generator).tolist()
    out = patches.float()
    if gray < 0.1:
        luma = torch.tensor(GRAY, device=out.device).reshape(1, 3, 1, 1)
        out = (out * luma).sum(dim=1, keepdim=True).expand_as(out)
    angle = math.radians(180 * turn - 90)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], device=out.device)
    # pixel coordinates need float32: in bfloat16 they would miss their pixels
    with torch.autocast(out.device.type, enabled=False):
        # one grid for all patches, which stand side by side as channels
        together = out.reshape(1, -1, *out.shape[2:])
        grid = F.affine_grid(matrix.unsqueeze(0), list(together.shape), align_corners=False)
        turned = F.grid_sample(together, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        out = turned.reshape(out.shape)
    return out.flip(-1) if flip < 0.2 else out


def _stacked(parts: Tensor | Sequence[Tensor]) -> Tensor:
    return (parts if isinstance(parts, Tensor) else torch.stack(list(parts))).float()


def bake_targets(copies: Tensor | Sequence[Tensor], coefficients: Tensor | Sequence[Tensor]) -> Tensor:
    """Average the predictions of augmented copies, each spot with its own softmax weights.

    Parameters
    ----------
    copies
        Predictions ``(n, genes)``, one a copy; or stacked.
    coefficients
        Outputs ``(n, 1)`` of the distillation head, one a copy; or stacked.

    Returns
    -------
    Targets ``(n, genes)``; gradients flow through predictions and weights.
    """
    with torch.autocast(copies[0].device.type, enabled=False):
        weights = _stacked(coefficients).softmax(dim=0)
        return (weights * _stacked(copies)).sum(dim=0)


def self_distillation(
    prediction: Tensor, copies: Tensor | Sequence[Tensor], coefficients: Tensor | Sequence[Tensor]
) -> Tensor:
    """Squared distance between the prediction and what augmented copies agree on.

    As published ("bake"), gradients flow through both sides.

    Parameters
    ----------
    prediction
        ``(n, genes)`` prediction of the section as it is.
    copies
        Predictions of its augmented copies.
    coefficients
        Outputs of the distillation head for them.

    Returns
    -------
    A scalar.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        return F.mse_loss(prediction.float(), bake_targets(copies, coefficients))
