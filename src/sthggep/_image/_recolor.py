"""A map of pixels that brings the stain of one slide to that of others: Reinhard's and Macenko's, looked up in a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Statistics = Mapping[str, Any]
"""What is known of a stain, in plain lists: ``mean`` and ``spread``, or ``stains`` and ``strength``."""
LEVELS = 65  # of each channel in the table, the most that Pillow takes: between them it interpolates
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recoloring:
    """What is done to the pixels of one slide before an encoder sees them.

    Parameters
    ----------
    method
        ``"reinhard"`` or ``"macenko"``.
    reference
        Stain of the training slides.
    source
        Stain of this slide; ``None`` leaves its pixels as they are.
    """

    method: str
    reference: Statistics
    source: Statistics | None

    @property
    def id(self) -> str:
        """Short name of what pixels are brought to: the same for all slides of a model."""
        content = json.dumps(dict(self.reference), sort_keys=True)
        return f"{self.method}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def to_dict(self) -> dict[str, Any] | None:
        """All that the pixels depend on, in plain types; ``None`` where they stay."""
        if self.source is None:
            return None
        return {"method": self.method, "reference": dict(self.reference), "source": dict(self.source)}

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pixels ``(…, 3)`` in their new colors."""
        if self.source is None or pixels.size == 0:
            return pixels
        flat = Image.fromarray(np.ascontiguousarray(pixels).reshape(-1, pixels.shape[-2], 3))
        return np.array(flat.filter(self._table)).reshape(pixels.shape)

    @cached_property
    def _table(self) -> ImageFilter.Color3DLUT:
        # The conversions take 0.3 µs a pixel, which would double the time of features; the table takes a twentieth
        assert self.source is not None
        steps = np.linspace(0, 255, LEVELS)
        blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
        change = MAPS[self.method]
        found = change(np.stack([red, green, blue], axis=-1).reshape(-1, 3), self.source, self.reference)
        return ImageFilter.Color3DLUT(LEVELS, (found / 255).clip(0, 1).astype(np.float32).ravel())


def reinhard(rgb: Floats, source: Statistics, reference: Statistics) -> Floats:
    """Mean and spread of each axis of CIELAB brought to those of the reference (Reinhard et al. 2001)."""
    from skimage.color import lab2rgb, rgb2lab

    ratio = np.array(reference["spread"]) / np.array(source["spread"])
    lab = (rgb2lab(rgb / 255) - source["mean"]) * ratio + reference["mean"]
    lab[:, 0] = lab[:, 0].clip(0, 100)
    # A blue beyond that has no light left in it, and scikit-image would warn
    lab[:, 2] = np.minimum(lab[:, 2], (lab[:, 0] + 16) * 199.9 / 116)
    return np.asarray(lab2rgb(lab) * 255, dtype=np.float64)


def macenko(rgb: Floats, source: Statistics, reference: Statistics) -> Floats:
    """Optical density taken apart by the slide's own stains, put together by those of the reference (Macenko et al. 2009)."""
    strength = np.append(np.array(reference["strength"]) / np.array(source["strength"]), 1.0)
    turn = np.linalg.inv(_basis(source)) @ np.diag(strength) @ _basis(reference)
    # White is at 255; one more keeps the logarithm of black finite
    density = -np.log((rgb + 1) / 256)
    return np.asarray(256 * np.exp(-density @ turn) - 1, dtype=np.float64)


def _basis(stain: Statistics) -> Floats:
    """Unit vectors of optical density as rows: hematoxylin, eosin, and what is neither."""
    both = np.array(stain["stains"], dtype=np.float64)
    rows = np.vstack([both, np.cross(*both)])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


MAPS = {"reinhard": reinhard, "macenko": macenko}
