"""Features of a section in blocks that stay on disk: what is finished is not done again, wherever it was done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._disk._whole import whole_file
from sthggep._encoders._cache import describe, image_fingerprint

if TYPE_CHECKING:
    from sthggep._encoders._sweep import Encoding
    from sthggep._progress import Progress

# Batches a block: whole ones, so that the network is fed what it would be fed without blocks
BATCHES = 16


class KeptBlocks:
    """Blocks of one section, each a file that is whole or not there, known by all that its values depend on.

    Parameters
    ----------
    folder
        Where they are; it is made.
    encoding
        The section, the encoder and the fields of view.
    records
        What the features depend on, for each field of view.
    """

    def __init__(self, folder: Path, encoding: Encoding, records: Sequence[dict[str, Any]]) -> None:
        self.folder, self.encoding = folder, encoding
        order, step = encoding.order, BATCHES * encoding.batch_size
        self.rows = [order[start : start + step] for start in range(0, len(order), step)]
        content = [{k: v for k, v in record.items() if k != "section"} for record in records]
        self._known = json.dumps(content, sort_keys=True).encode()

    @classmethod
    def of(cls, folder: Path, encoding: Encoding) -> KeptBlocks | None:
        """Those of a section; ``None`` where nothing tells the encoder's weights apart, and nothing can be kept."""
        image = image_fingerprint(encoding.slide.levels)
        found = [describe(encoding.slide, encoding.frozen, size, encoding.flips, image) for size in encoding.cuts]
        records = [record for record in found if record is not None]
        return cls(folder, encoding, records) if len(records) == len(found) else None

    def missing(self) -> list[int]:
        """Numbers of the blocks that are still to be done."""
        return [number for number in range(len(self.rows)) if not self._path(number).exists()]

    def read(self, number: int) -> NDArray[np.float32] | None:
        """Features of a block (fields of view, spots, values); ``None`` where it is not there, or broken."""
        try:
            found = np.load(self._path(number), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.shape == self._shape(number) else None

    def get(self, number: int, done: Progress) -> NDArray[np.float32]:
        """Features of a block, read or made."""
        found = self.read(number)
        if found is None:
            return self.make(number, done)
        done.update(found.shape[0] * found.shape[1])
        return found

    def make(self, number: int, done: Progress | None = None) -> NDArray[np.float32]:
        """Encode a block, and keep it."""
        values = np.empty(self._shape(number), dtype=np.float32)
        place = {size: i for i, size in enumerate(self.encoding.cuts)}
        for size, at, part in self.encoding.run(self.rows[number], done):
            values[place[size], at] = part
        with whole_file(self._path(number)) as file:
            np.save(file, values)
        return values

    def _shape(self, number: int) -> tuple[int, int, int]:
        return len(self.encoding.cuts), len(self.rows[number]), self.encoding.frozen.entry.dim or 0

    def _path(self, number: int) -> Path:
        digest = hashlib.sha256(self._known + np.ascontiguousarray(self.rows[number]).tobytes()).hexdigest()
        return self.folder / f"{digest[:32]}.npy"
