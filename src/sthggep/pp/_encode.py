"""Patches through a frozen encoder, in one sweep over the section: cut ahead of the network, kept where there is room."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sthggep._keys import feature_key
from sthggep._progress import progress
from sthggep._rows import RowFile
from sthggep.pp._feature_cache import FeatureCache, describe, image_fingerprint, key_of
from sthggep.pp._patches import Patches

if TYPE_CHECKING:
    from sthggep._slide import Slide
    from sthggep.pp._encoders import FrozenEncoder

T = TypeVar("T")
Rows = NDArray[np.float32] | RowFile
AHEAD = 3  # batches cut before they are asked for
MOST_THREADS = 4


def ahead(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Results of tasks in order, a few of them worked on by threads before they are asked for."""
    threads = max(1, min(MOST_THREADS, (os.cpu_count() or 2) - 1))
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="sthggep-patches") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) >= AHEAD + threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


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
) -> list[Rows]:
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
    """
    shape = (slide.n_spots, frozen.entry.dim or 0)
    kept = FeatureCache.chosen(cache)
    records: dict[float, dict[str, Any] | None] = dict.fromkeys(sizes_um)
    if kept is not None and sizes_um:
        image = image_fingerprint(slide.levels)
        records = {size: describe(slide, frozen, size, flips, image) for size in sizes_um}
    found: dict[float, Rows] = {}
    with ExitStack() as stack:
        new: dict[float, Rows] = {}
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
        _fill(new, slide, frozen, flips=flips, batch_size=batch_size, show=show)
    found |= new
    return [found[size] if folder is not None else found[size][:] for size in sizes_um]


def _fill(
    outs: dict[float, Rows], slide: Slide, frozen: FrozenEncoder, *, flips: bool, batch_size: int, show: bool
) -> None:
    """Encode the patches of all fields of view, while the next ones are read."""
    if not outs:
        return
    cuts = {size: Patches(slide, size_um=size, size_px=frozen.entry.size_px) for size in outs}
    order = min(cuts.values(), key=lambda cut: cut.size_um or 0).sweep()
    batches = [(size, order[start : start + batch_size]) for start in range(0, len(order), batch_size) for size in cuts]
    tasks = (partial(cuts[size].__getitem__, rows) for size, rows in batches)
    label = f"Features of {slide.name} at {', '.join(f'{size:g}' for size in outs)} µm"
    with progress(len(order) * len(outs), label, "patch", show=show, leave=False) as done:
        for (size, rows), patches in zip(batches, ahead(tasks), strict=True):
            outs[size][rows] = frozen(patches, flips=flips)
            done.update(len(rows))
