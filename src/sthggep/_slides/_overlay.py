"""Two maps of tissue laid over each other: the shift, turn and mirroring at which they agree most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Map = NDArray[np.float64]


class Overlay(NamedTuple):
    """Two maps at one orientation, cut to the places that both cover; ``score`` is their cross-correlation there."""

    score: float
    a: Map
    b: Map


def best_overlay(a: Map, b: Map) -> Overlay:
    """Lay one map over the other where their cross-correlation is largest, in all four turns and mirrored."""
    return max(_overlays(a, b), key=lambda overlay: overlay.score)


def _overlays(a: Map, b: Map) -> Iterator[Overlay]:
    """The best shift of each orientation. Only the sum over common pixels counts, so the maps are 0 where nothing is."""
    side = fft.next_fast_len(max(a.shape) + max(b.shape), real=True)
    spectrum = fft.rfft2(a, (side, side))
    for turned in _orientations(b):
        correlation = fft.irfft2(spectrum * np.conj(fft.rfft2(turned, (side, side))), (side, side))
        place = np.unravel_index(int(correlation.argmax()), correlation.shape)
        # Negative shifts wrap around
        down, right = (int(p) - side if p >= extent else int(p) for p, extent in zip(place, a.shape, strict=True))
        yield Overlay(float(correlation[place]), *_common(a, turned, down, right))


def _orientations(b: Map) -> Iterator[Map]:
    for mirrored in (b, b[:, ::-1]):
        for turns in range(4):
            yield np.rot90(mirrored, turns)


def _common(a: Map, b: Map, down: int, right: int) -> tuple[Map, Map]:
    """Both maps on the rectangle that they share, with ``b`` moved down and to the right."""
    top, left = max(down, 0), max(right, 0)
    bottom, end = min(a.shape[0], b.shape[0] + down), min(a.shape[1], b.shape[1] + right)
    return a[top:bottom, left:end], b[top - down : bottom - down, left - right : end - right]


def correlation(a: Map, b: Map) -> float:
    """Pearson correlation of two maps of one shape; 0 if one is constant."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
