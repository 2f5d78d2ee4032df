"""Measurement of novelty in training: components of the features, and distances of tissue that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._imports import import_whole
from sthggep._slides._lattice import spatial_blocks
from sthggep.model._novelty import COMPONENTS, STEPS, Novelty, StageBasis

if TYPE_CHECKING:
    from sthggep._inputs._section import SectionWindow
    from sthggep._slides._slide import Slide

MOST_SPOTS = 4000  # of all sections together
LEAST_SPOTS = 20
FOLDS = 5
LEAST_SPREAD = 1e-6
LEAST_WIDTH = 2 * COMPONENTS  # of fewer features, components leave next to nothing

Floats = NDArray[np.float32]


def measure_novelty(windows: Sequence[SectionWindow], slides: Sequence[Slide], n_windows: int) -> Novelty | None:
    """Measure which features training sections have in common, and how far held-out sections lie from them.

    Parameters
    ----------
    windows
        Windows of all sections, with frozen features.
    slides
        The sections.
    n_windows
        Windows of the tissue whose features stand side by side in each stage; the first is the field of view.

    Returns
    -------
    The novelty; ``None`` for networks that read patches, for very few spots, and for few features.
    """
    from sthggep.nn._section import FeatureInputs

    if not all(isinstance(window.inputs, FeatureInputs) for window in windows):
        return None
    numbers = _middle(len(windows[0].inputs.features))  # type: ignore[union-attr]
    parts, folds = _thinned(windows, slides, numbers, n_windows)
    if sum(map(len, folds)) < LEAST_SPOTS or min(part.shape[1] for part in parts[0]) < LEAST_WIDTH:
        return None
    stacked = [np.concatenate([part[i] for part in parts]) for i in range(len(numbers))]
    fold, section = np.concatenate(folds), np.repeat(np.arange(len(folds)), list(map(len, folds)))
    distances = np.zeros(len(fold))
    for held_out in np.unique(fold):
        seen = fold != held_out
        if seen.any():
            for number, x in zip(numbers, stacked, strict=True):
                distances[~seen] += find_basis(number, x[seen]).distance(x[~seen])
    # Sections count alike, whatever their number of spots
    levels = np.linspace(0, 1, STEPS)
    pooled = [np.quantile(distances[section == number], levels) for number in np.unique(section)]
    quantiles = np.quantile(np.concatenate(pooled), levels).astype(np.float32)
    stages = tuple(find_basis(number, x) for number, x in zip(numbers, stacked, strict=True))
    return Novelty(stages, quantiles)


def _middle(n_stages: int) -> list[int]:
    """Two stages in the middle: the smallest fields of view show single cells, the largest all tissue."""
    return list(range(n_stages)) if n_stages < 3 else [n_stages // 2 - 1, n_stages // 2]


def _thinned(
    windows: Sequence[SectionWindow], slides: Sequence[Slide], numbers: Sequence[int], n_windows: int
) -> tuple[list[list[Floats]], list[NDArray[np.intp]]]:
    """Features of some spots of each section, by stage, and the part of the tissue to which each belongs."""
    most = max(MOST_SPOTS // len(slides), 2 * COMPONENTS)
    parts, folds = [], []
    for i, slide in enumerate(slides):
        own = [window for window in windows if window.section == i]
        step = max(1, -(-slide.n_spots // most))
        values: list[list[Floats]] = [[] for _ in numbers]
        rows = []
        for window in own:
            core = np.flatnonzero(window.core.numpy())[::step]
            rows.append(window.rows.numpy()[core])
            for part, number in zip(values, numbers, strict=True):
                stage = window.inputs.features[number]  # type: ignore[union-attr]
                part.append(stage[core][:, : stage.shape[1] // n_windows].float().numpy())
        parts.append([np.concatenate(part) for part in values])
        joined = np.concatenate(rows)
        if len(slides) > 1:
            folds.append(np.full(len(joined), i % FOLDS))
        else:
            blocks = [spatial_blocks(slide.xy[joined], fold, FOLDS) for fold in range(FOLDS)]
            folds.append(np.argmax(blocks, axis=0))
    return parts, folds


def find_basis(stage: int, x: Floats) -> StageBasis:
    """Find the leading components of standardized features."""
    import_whole("sklearn.utils.extmath")
    from sklearn.utils.extmath import randomized_svd

    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), LEAST_SPREAD)
    most = max(1, min(COMPONENTS, len(x) // 2, x.shape[1] - 1))
    components = randomized_svd((x - mean) / spread, most, random_state=0)[2]
    # As they are stored, so that a saved model tells the same
    return StageBasis(stage, mean, spread, components.astype(np.float16).astype(np.float32))
