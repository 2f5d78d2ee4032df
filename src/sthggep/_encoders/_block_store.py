"""Features of a section in blocks on disk, so that no process encodes a finished block again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._disk._whole import clear_folder, whole_file
from sthggep._encoders._cache import describe, image_fingerprint
from sthggep._log import log

if TYPE_CHECKING:
    from sthggep._encoders._sweep import Encoding
    from sthggep._progress import Progress

CHECKSUM_BYTES = hashlib.sha256().digest_size


class BlockStore:
    """Blocks of one section, each a whole file whose name is a hash of all that its values depend on.

    The file ends with a checksum of its values and its name, so that a damaged or misplaced one is not used.

    Parameters
    ----------
    folder
        Folder of the blocks; :meth:`make` creates it.
    encoding
        The section, the encoder and the fields of view.
    records
        What the features depend on, for each field of view.
    """

    def __init__(self, folder: Path, encoding: Encoding, records: Sequence[Mapping[str, object]]) -> None:
        self.folder, self.encoding = folder, encoding
        clear_folder(folder)
        self.rows = encoding.blocks
        content = [{k: v for k, v in record.items() if k != "section"} for record in records]
        self._content = json.dumps(content, sort_keys=True).encode()

    @classmethod
    def of(cls, folder: Path, encoding: Encoding, image: str | None = None) -> BlockStore | None:
        """Open the blocks of a section; ``None`` where the encoder's weights have no id to name blocks by."""
        image = image or image_fingerprint(encoding.slide.levels)
        descriptions = [describe(encoding, size, image) for size in encoding.sizes_um]
        records = [record for record in descriptions if record is not None]
        return cls(folder, encoding, records) if len(records) == len(descriptions) else None

    def missing(self) -> list[int]:
        """Return the numbers of the blocks that are not on disk."""
        return [number for number in range(len(self.rows)) if not self._path(number).exists()]

    def read(self, number: int) -> NDArray[np.float32] | None:
        """Read a block (fields of view, spots, values); ``None`` where it is absent or broken."""
        path = self._path(number)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        array, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
        if _checksum(path, array) != checksum:
            log.warning("The features in %s are damaged; they are computed again.", path)
            return None
        values: NDArray[np.float32] = np.load(BytesIO(array), allow_pickle=False)
        return values if values.shape == self._shape(number) else None

    def get(self, number: int, bar: Progress) -> NDArray[np.float32]:
        """Read a block, or encode it where it is not on disk."""
        values = self.read(number)
        if values is None:
            return self.make(number, bar)
        bar.update(self.encoding.amount(self.rows[number]))
        return values

    def make(self, number: int, bar: Progress | None = None) -> NDArray[np.float32]:
        """Encode a block and write it."""
        values = np.zeros(self._shape(number), dtype=np.float32)
        place = {size: i for i, size in enumerate(self.encoding.sizes_um)}
        for size, at, part in self.encoding.run(self.rows[number], bar):
            values[place[size], at] += part
        path, array = self._path(number), BytesIO()
        np.save(array, values)
        with whole_file(path) as file:
            file.write_bytes(array.getvalue() + _checksum(path, array.getvalue()))
        return values

    def _shape(self, number: int) -> tuple[int, int, int]:
        return len(self.encoding.sizes_um), len(self.rows[number]), self.encoding.dim

    def _path(self, number: int) -> Path:
        digest = hashlib.sha256(self._content + np.ascontiguousarray(self.rows[number]).tobytes()).hexdigest()
        return self.folder / f"{digest[:32]}.npy"


def _checksum(path: Path, array: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + array).digest()
