"""Cache of features on disk, keyed by all that they depend on: image, encoder and geometry."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._disk._rows import RowFile
from sthggep._disk._run_folder import check_folder
from sthggep._disk._whole import PlaceTakenError, clear_folder, scratch_beside, whole_folder
from sthggep._encoders._entry import AROUND_UM, UNVERSIONED
from sthggep._log import log

if TYPE_CHECKING:
    from sthggep._encoders._sweep import Encoding
    from sthggep._image._level import Level

VARIABLE = "STHGGEP_FEATURE_CACHE"
FORMAT = 1
VALUES, RECORD = "features.npy", "record.json"
# The fingerprint of a lazy image covers windows spread over its finest level, and its coarsest level
_WINDOWS, _WINDOW, _WHOLE = 5, 256, 4096**2
_TEMPORARY: ContextVar[str | None] = ContextVar("temporary feature cache", default=None)


@contextmanager
def temporary_cache() -> Iterator[None]:
    """Keep features until the block ends, so that steps of one call encode the same spots once."""
    with tempfile.TemporaryDirectory(prefix="sthggep-features-") as folder:
        token = _TEMPORARY.set(folder)
        try:
            yield
        finally:
            _TEMPORARY.reset(token)


class FeatureCache:
    """A folder with one entry a section, encoder and field of view; written whole or not at all.

    Processes may share it: an entry appears by renaming a finished folder, and the first one stays. An entry that is
    damaged is computed again.

    Parameters
    ----------
    folder
        It is made where it is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        check_folder(self.folder, "cache")
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_folder(self.folder)

    @classmethod
    def open(cls, folder: str | Path | None) -> FeatureCache | None:
        """Open the cache in ``folder``. Default: ``$STHGGEP_FEATURE_CACHE``; ``None`` where neither names a folder."""
        path = folder or os.environ.get(VARIABLE) or _TEMPORARY.get()
        return cls(path) if path else None

    def find(self, key: str, shape: tuple[int, int]) -> RowFile | None:
        """Return the entry under ``key``; ``None`` where it is absent or damaged."""
        entry = self.folder / key
        if not entry.is_dir():
            return None
        try:
            record = json.loads((entry / RECORD).read_text())
            values = RowFile(entry / VALUES)
            if values.shape == shape and values.checksum() == record["crc32"]:
                if str(self.folder) != _TEMPORARY.get():
                    log.info("Features of %s found in %s.", record["section"], entry)
                return values
            fault: object = "its values are not those that were written"
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            fault = error
        log.warning("The features in %s are damaged (%s); they are computed again.", entry, fault)
        with suppress(FileNotFoundError), scratch_beside(entry) as away:  # another process was first
            entry.rename(away / key)
        return None

    @contextmanager
    def writing(self, key: str, record: dict[str, object], shape: tuple[int, int]) -> Iterator[RowFile]:
        """A file to be filled; it becomes the entry when the block ends, and goes away on an error."""
        try:
            with whole_folder(self.folder / key) as part:
                part.mkdir()
                values = RowFile.create(part / VALUES, *shape)
                yield values
                (part / RECORD).write_text(json.dumps(record | {"crc32": values.checksum()}, indent=1))
            values.path = self.folder / key / VALUES
        except PlaceTakenError:
            # Another process was first; an open file can be read on after its name is gone
            log.info("Features of %s were written by another process meanwhile.", record["section"])


def describe(encoding: Encoding, size_um: float, image: str) -> dict[str, object] | None:
    """Return all that the features of a section depend on; ``None`` where the encoder's weights have no id."""
    slide, frozen = encoding.slide, encoding.frozen
    if frozen.weights == UNVERSIONED:
        return None
    entry, recolored = frozen.entry, slide.stain and slide.stain.to_dict()
    return {
        "format": FORMAT,
        "section": slide.name,
        "image": image,
        "encoder": entry.name,
        "weights": frozen.weights,
        "normalized": [list(map(float, entry.mean)), list(map(float, entry.std))],
        "size_um": float(size_um),
        "size_px": entry.size_px,
        "dim": encoding.dim,
        "flips": encoding.flips,
        "mpp": slide.require_mpp(),
        "spots": hashlib.sha256(np.ascontiguousarray(encoding.xy).tobytes()).hexdigest(),
        "n_spots": len(encoding.xy),
    } | {
        # Features of patches without stain normalization have no such entries
        **({"stain": recolored} if recolored else {}),
        **({"encoding": encoding.name, "around_um": list(AROUND_UM)} if encoding.name != "patches" else {}),
        **({"context_px": frozen.maps.context_px} if encoding.name == "tissue" and frozen.maps.input_px else {}),
    }


def hash_record(record: Mapping[str, object]) -> str:
    """Hash a record into the key of an entry, without the section's name, which features do not depend on."""
    content = {name: value for name, value in record.items() if name != "section"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def image_fingerprint(levels: Sequence[Level]) -> str:
    """Hash an image without reading all of a large one.

    The function hashes all pixels of an image in memory. Of a lazy image it hashes the shapes, 25 windows of the finest
    level and the coarsest level; of its file also the size and the time of the last change. Of a lazy image without a file
    it hashes all of the coarsest level, however large.
    """
    digest = hashlib.sha256()
    for level in levels:
        digest.update(repr((level.shape, str(level.array.dtype), level.axes, level.scale)).encode())
        if level.blocks is None:
            for part in np.array_split(level.array, max(1, int(level.array.nbytes) >> 26)):
                digest.update(np.ascontiguousarray(part).tobytes())
    sources = {level.source for level in levels if level.source is not None and level.blocks is not None}
    for source in sorted(sources):
        status = source.stat()
        digest.update(repr((status.st_size, status.st_mtime_ns)).encode())
    lazy = [level for level in levels if level.blocks is not None]
    if lazy:
        for patch in lazy[0].read(_spread_boxes(lazy[0].shape)):
            digest.update(patch.tobytes())
        if not sources or lazy[-1].shape[0] * lazy[-1].shape[1] <= _WHOLE:
            _hash_whole(lazy[-1], digest)
    return digest.hexdigest()


def _spread_boxes(shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the boxes (left, top, right, bottom) of windows spread over an image."""
    height, width = shape
    x, y = (np.linspace(0, max(size - _WINDOW, 0), _WINDOWS).astype(int) for size in (width, height))
    corners = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return np.hstack([corners, np.minimum(corners + _WINDOW, (width, height))])


def _hash_whole(level: Level, digest: hashlib._Hash) -> None:
    """Hash all pixels of a level, block by block."""
    assert level.blocks is not None
    rows, columns = (edges.tolist() for edges in level.blocks.edges)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            digest.update(level.read(np.array([[left, top, right, bottom]]))[0].tobytes())
