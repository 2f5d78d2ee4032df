"""Patches through a frozen encoder, in one sweep over the section: cut ahead of the network, kept where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthggep._disk._rows import RowFile
from sthggep._encoders._cache import FeatureCache, describe, image_fingerprint, key_of
from sthggep._encoders._kept_blocks import KeptBlocks
from sthggep._encoders._sweep import Encoding, FeatureArray
from sthggep._keys import feature_key
from sthggep._progress import progress

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._slides._slide import Slide


def encode(
    slide: Slide,
    frozen: FrozenEncoder,
    sizes_um: Sequence[float],
    *,
    flips: bool = True,
    batch_size: int = 64,
    show: bool = False,
    cache: str | Path | None = None,
    folder: Path | None = None,
    blocks: Path | None = None,
) -> list[FeatureArray]:
    """Features of one section, an array (n_spots, dim) for each field of view.

    Parameters
    ----------
    slide
        The section.
    frozen
        The encoder.
    sizes_um
        Fields of view. All are cut in one sweep, so that each block of the image is decoded about once.
    flips
        Average over the four flips of each patch.
    batch_size
        Patches at a time.
    show
        Show progress.
    cache
        Folder of the features kept between runs; ``None`` asks ``$STHGGEP_FEATURE_CACHE``.
    folder
        Where to write features that memory need not hold; ``None`` returns them in memory.
    blocks
        Folder of finished blocks, which are kept there and not done again; ``None`` keeps none.
    """
    shape = (slide.n_spots, frozen.entry.dim or 0)
    kept = FeatureCache.chosen(cache)
    records: dict[float, dict[str, Any] | None] = dict.fromkeys(sizes_um)
    if kept is not None and sizes_um:
        image = image_fingerprint(slide.levels)
        records = {size: describe(slide, frozen, size, flips, image) for size in sizes_um}
    found: dict[float, FeatureArray] = {}
    with ExitStack() as stack:
        new: dict[float, FeatureArray] = {}
        for size, record in records.items():
            there = kept.find(key_of(record), shape) if kept and record else None
            if there is not None:
                found[size] = there
            elif kept and record:
                new[size] = stack.enter_context(kept.writing(key_of(record), record, shape))
            elif folder is not None:
                new[size] = RowFile.create(folder / f"{feature_key(slide.name, size)}.npy", *shape)
            else:
                new[size] = np.empty(shape, dtype=np.float32)
        if new:
            encoding = Encoding(slide, frozen, list(new), flips=flips, batch_size=batch_size)
            _fill(new, encoding, show=show, kept=None if blocks is None else KeptBlocks.of(blocks, encoding))
    found |= new
    return [found[size] if folder is not None else found[size][:] for size in sizes_um]


def _fill(outs: dict[float, FeatureArray], encoding: Encoding, *, show: bool, kept: KeptBlocks | None) -> None:
    """Features of all fields of view, in one sweep or block after block."""
    order, slide = encoding.order, encoding.slide
    label = f"Features of {slide.name} at {', '.join(f'{size:g}' for size in outs)} µm"
    with progress(len(order) * len(outs), label, "patch", show=show, leave=False) as done:
        if kept is None:
            for size, at, values in encoding.run(order, done):
                outs[size][order[at]] = values
        else:
            for number, rows in enumerate(kept.rows):
                for size, values in zip(outs, kept.get(number, done), strict=True):
                    outs[size][rows] = values
    for level in slide.levels:
        if level.blocks is not None:
            level.blocks.forget()
