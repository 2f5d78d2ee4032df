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

from sthggep._disk._rows import RowFile
from sthggep._encoders._cache import FeatureCache, describe, image_fingerprint, key_of
from sthggep._encoders._kept_blocks import KeptBlocks
from sthggep._keys import feature_key
from sthggep._progress import Progress, progress
from sthggep.pp._patches import Patches

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._slides._slide import Slide

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
    blocks: Path | None = None,
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
    blocks
        Folder of finished blocks, which are kept there and not done again; ``None`` keeps none.
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
        if new:
            encoding = Encoding(slide, frozen, list(new), flips=flips, batch_size=batch_size)
            _fill(new, encoding, show=show, kept=None if blocks is None else KeptBlocks.of(blocks, encoding))
    found |= new
    return [found[size] if folder is not None else found[size][:] for size in sizes_um]


class Encoding:
    """Patches of a section on their way through an encoder.

    Parameters
    ----------
    slide
        The section.
    frozen
        The encoder.
    sizes_um
        Fields of view.
    flips
        Average over the four flips of each patch.
    batch_size
        Patches at a time.
    """

    def __init__(
        self, slide: Slide, frozen: FrozenEncoder, sizes_um: Sequence[float], *, flips: bool, batch_size: int
    ) -> None:
        self.slide, self.frozen, self.flips, self.batch_size = slide, frozen, flips, batch_size
        self.cuts = {size: Patches(slide, size_um=size, size_px=frozen.entry.size_px) for size in sizes_um}
        # Spots in the order of a sweep over the image
        self.order = min(self.cuts.values(), key=lambda cut: cut.size_um or 0).sweep()

    def run(
        self, rows: NDArray[np.intp], done: Progress | None = None
    ) -> Iterator[tuple[float, slice, NDArray[np.float32]]]:
        """Encode these spots while the next ones are read: field of view, place among ``rows``, and values."""
        starts = range(0, len(rows), self.batch_size)
        batches = [(size, slice(start, start + self.batch_size)) for start in starts for size in self.cuts]
        tasks = (partial(self.cuts[size].__getitem__, rows[at]) for size, at in batches)
        for (size, at), patches in zip(batches, ahead(tasks), strict=True):
            yield size, at, self.frozen(patches, flips=self.flips)
            if done is not None:
                done.update(len(rows[at]))


def _fill(outs: dict[float, Rows], encoding: Encoding, *, show: bool, kept: KeptBlocks | None) -> None:
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
