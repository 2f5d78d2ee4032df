"""Sections as tensors: what a network is fed and what it should say. Split by section or spatial block, never by spot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._encoders._encode import encode
from sthggep._encoders._kept_blocks import BlockStore
from sthggep._encoders._record import feature_record, has_features
from sthggep._encoders._sweep import Encoding, FeatureArray
from sthggep._keys import feature_key
from sthggep._table._user_features import read_user_features
from sthggep.nn._published import TABLE_ROWS

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._compute import Compute
    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide


def array_positions(slide: Slide) -> NDArray[np.int64]:
    """Array positions, as the published network looks them up, or an error that says what is expected."""
    array_xy = slide.array_xy()
    if array_xy is None:
        msg = (
            f"Section {slide.name!r} has no array positions, which the published network needs: obs columns 'array_x' and "
            "'array_y' (Visium: 'array_col' and 'array_row') were expected."
        )
        raise KeyError(msg)
    if array_xy.min() < 0 or array_xy.max() >= TABLE_ROWS:
        msg = (
            f"Section {slide.name!r} has array positions from {array_xy.min()} to {array_xy.max()}, but the published "
            f"network knows 0 to {TABLE_ROWS - 1} only. Fit a new model: its positions are relative to the section."
        )
        raise ValueError(msg)
    return array_xy


def frozen_stages(
    slide: Slide,
    inputs: Inputs,
    encoder: FrozenEncoder | None,
    compute: Compute,
    *,
    folder: Path | None = None,
    blocks: Path | None = None,
) -> list[FeatureArray]:
    """One feature array a stage: those that are in ``obsm`` already, else computed; kept in ``folder``, if one is given.

    ``blocks`` is a folder of finished blocks, which stay there.
    """
    if encoder is None:
        return [read_user_features(slide, key) for key in inputs.obsm]
    found = _described(slide, inputs, encoder)
    if new := [size for size, values in found.items() if values is None]:
        done = encode(
            slide,
            encoder,
            new,
            flips=inputs.flips,
            batch_size=compute.batch_size,
            show=compute.show_progress,
            folder=folder,
            blocks=blocks,
        )
        found |= dict(zip(new, done, strict=True))
    stages = [found[size] for size in inputs.sizes_um if size is not None]
    return [values for values in stages if values is not None]


def kept_blocks(
    slide: Slide, inputs: Inputs, encoder: FrozenEncoder | None, batch_size: int, folder: Path
) -> BlockStore | None:
    """Blocks in which :func:`frozen_stages` computes features; ``None`` where it has none to compute, or keeps none."""
    if encoder is None:
        return None
    new = [size for size, values in _described(slide, inputs, encoder).items() if values is None]
    if not new:
        return None
    return BlockStore.of(folder, Encoding(slide, encoder, new, flips=inputs.flips, batch_size=batch_size))


def _described(slide: Slide, inputs: Inputs, encoder: FrozenEncoder) -> dict[float, FeatureArray | None]:
    """Features that are in ``obsm`` already, for each field of view; ``None`` where they are still to be computed."""
    table = slide.adata
    sizes = [size for size in inputs.sizes_um if size is not None]
    if len(sizes) < len(inputs.sizes_um):
        msg = "Features of a frozen encoder need a field of view in microns."
        raise ValueError(msg)
    keys = {size: feature_key(inputs.encoder, size) for size in sizes}
    return {
        size: np.asarray(table.obsm[key][slide.rows], dtype=np.float32)
        if has_features(table, key, feature_record(encoder, size, inputs.flips, slide.stain), slide)
        else None
        for size, key in keys.items()
    }
