"""Encoding of a section's patches: threads read pixels ahead of the network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sthggep._disk._rows import RowFile
from sthggep._slides._patches import Patches

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._progress import Progress
    from sthggep._slides._slide import Slide

T = TypeVar("T")


FeatureArray = NDArray[np.float32] | RowFile

AHEAD = 3  # batches that threads cut before the network needs them
MOST_THREADS = 4
# A block of patches holds whole batches, so that the network reads the same batches as without blocks
BATCHES = 16


def run_ahead(
    tasks: Iterable[Callable[[], T]],
    ahead: int = AHEAD,
    *,
    threads: int | None = None,
    initializer: Callable[[], object] | None = None,
) -> Iterator[T]:
    """Yield the results of tasks in order, while threads run ``ahead`` tasks ahead, besides one for each thread."""
    threads = threads or max(1, min(MOST_THREADS, (os.cpu_count() or 2) - 1))
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, "sthggep-patches", initializer) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) >= ahead + threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def run_side_by_side(tasks: Iterable[Callable[[], T]], device: str) -> Iterator[T]:
    """Yield the results of tasks in order, while as many run side by side as there are cores, each on one.

    Convolutions use one core each better than one convolution uses them all. For a GPU, the threads read pixels.
    """
    import torch

    threads = torch.get_num_threads()
    if device != "cpu" or threads == 1:
        yield from run_ahead(tasks, ahead=1)
        return
    try:
        yield from run_ahead(tasks, ahead=1, threads=threads, initializer=partial(torch.set_num_threads, 1))
    finally:
        torch.set_num_threads(threads)


class Encoding(Protocol):
    """A way to encode the spots of a section."""

    slide: Slide
    frozen: FrozenEncoder
    flips: bool
    name: str
    """``"patches"`` or ``"tissue"``."""
    unit: str
    """Unit of the progress."""
    sizes_um: list[float]
    """Fields of view."""
    xy: NDArray[np.float64]
    """Centers of the windows: a row of values for each."""
    dim: int
    """Values of a window."""
    blocks: list[NDArray[np.intp]]
    """Rows of the spots of each block: a block is computed and kept on disk as a whole."""

    def amount(self, rows: NDArray[np.intp]) -> float:
        """Return the work for these spots, in units of the progress."""

    def run(
        self, rows: NDArray[np.intp], bar: Progress | None = None
    ) -> Iterator[tuple[float, slice | NDArray[np.intp], NDArray[np.float32]]]:
        """Encode these spots; yield the field of view, positions among ``rows``, and what to add to their values."""


class PatchEncoding:
    """The patches of a section and the encoder that encodes them, one by one.

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
        Patches a batch.
    """

    name, unit = "patches", "patch"

    def __init__(
        self, slide: Slide, frozen: FrozenEncoder, sizes_um: Sequence[float], *, flips: bool, batch_size: int
    ) -> None:
        self.slide, self.frozen, self.flips, self.batch_size = slide, frozen, flips, batch_size
        self.sizes_um, self.xy, self.dim = list(sizes_um), slide.xy, frozen.entry.dim or 0
        self.cuts = {size: Patches(slide, size_um=size, size_px=frozen.entry.size_px) for size in sizes_um}
        # Spots in the order of a sweep over the image
        order = min(self.cuts.values(), key=lambda cut: cut.size_um or 0).sweep()
        step = BATCHES * batch_size
        self.blocks = [order[start : start + step] for start in range(0, len(order), step)]

    def amount(self, rows: NDArray[np.intp]) -> float:
        """Return the number of patches of these spots."""
        return float(len(rows) * len(self.cuts))

    def run(
        self, rows: NDArray[np.intp], bar: Progress | None = None
    ) -> Iterator[tuple[float, slice, NDArray[np.float32]]]:
        """Encode these spots; yield the field of view, the positions among ``rows``, and the values of each batch."""
        starts = range(0, len(rows), self.batch_size)
        batches = [(size, slice(start, start + self.batch_size)) for start in starts for size in self.cuts]
        tasks = (partial(self.cuts[size].__getitem__, rows[at]) for size, at in batches)
        for (size, at), patches in zip(batches, run_ahead(tasks), strict=True):
            yield size, at, self.frozen(patches, flips=self.flips)
            if bar is not None:
                bar.update(len(rows[at]))
