"""Stain normalization of pixels by a lookup table, after Reinhard or Macenko."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

StainStatistics = Mapping[str, object]
"""Statistics of a stain in plain lists: ``mean`` and ``spread`` (Reinhard), or ``stains`` and ``strength`` (Macenko)."""
LEVELS = 65  # of each channel in the table, the most that Pillow takes; Pillow interpolates between them
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recoloring:
    """Change of the colors of one slide before an encoder takes its patches.

    Parameters
    ----------
    method
        ``"reinhard"`` or ``"macenko"``.
    reference
        Stain of the training slides.
    source
        Stain of this slide; with ``None`` its pixels stay as they are.
    """

    method: str
    reference: StainStatistics
    source: StainStatistics | None

    @property
    def id(self) -> str:
        """Short name of the method and the reference: the same for all slides of a model."""
        content = json.dumps(dict(self.reference), sort_keys=True)
        return f"{self.method}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def to_dict(self) -> dict[str, object] | None:
        """All that the pixels depend on, in plain types; ``None`` if they stay as they are."""
        if self.source is None:
            return None
        return {"method": self.method, "reference": dict(self.reference), "source": dict(self.source)}

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels ``(…, 3)`` in their new colors."""
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
        colors = change(np.stack([red, green, blue], axis=-1).reshape(-1, 3), self.source, self.reference)
        return ImageFilter.Color3DLUT(LEVELS, (colors / 255).clip(0, 1).astype(np.float32).ravel())


def reinhard(rgb: Floats, source: StainStatistics, reference: StainStatistics) -> Floats:
    """Bring mean and spread of each axis of CIELAB to those of the reference (Reinhard et al. 2001)."""
    from skimage.color import lab2rgb, rgb2lab

    ratio = _values(reference, "spread") / _values(source, "spread")
    lab = (rgb2lab(rgb / 255) - _values(source, "mean")) * ratio + _values(reference, "mean")
    lab[:, 0] = lab[:, 0].clip(0, 100)
    # A bluer color has no light left, and scikit-image would warn of it
    lab[:, 2] = np.minimum(lab[:, 2], (lab[:, 0] + 16) * 199.9 / 116)
    return np.asarray(lab2rgb(lab) * 255, dtype=np.float64)


def macenko(rgb: Floats, source: StainStatistics, reference: StainStatistics) -> Floats:
    """Express optical density by the stains of the slide and rebuild it from those of the reference (Macenko et al. 2009)."""
    strength = np.append(_values(reference, "strength") / _values(source, "strength"), 1.0)
    turn = np.linalg.inv(_basis(source)) @ np.diag(strength) @ _basis(reference)
    # White is at 255; one more keeps the logarithm of black finite
    density = -np.log((rgb + 1) / 256)
    return np.asarray(256 * np.exp(-density @ turn) - 1, dtype=np.float64)


def _values(statistics: StainStatistics, name: str) -> Floats:
    return np.array(statistics[name], dtype=np.float64)


def _basis(stain: StainStatistics) -> Floats:
    """Unit vectors of optical density as rows: hematoxylin, eosin, and the direction across both."""
    both = _values(stain, "stains")
    rows = np.vstack([both, np.cross(*both)])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


MAPS = {"reinhard": reinhard, "macenko": macenko}
