"""Features of a section by a frozen encoder, in one sweep over its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import one_of, warn_user
from sthggep._disk._rows import RowFile
from sthggep._encoders._block_store import BlockStore
from sthggep._encoders._cache import FeatureCache, describe, hash_record, image_fingerprint
from sthggep._encoders._entry import ENCODINGS
from sthggep._encoders._reference_windows import StageFeatures, split_windows
from sthggep._encoders._sweep import Encoding, FeatureArray, PatchEncoding
from sthggep._encoders._tissue import TissueEncoding
from sthggep._encoders._tokens import check_maps
from sthggep._names import file_name
from sthggep._progress import progress
from sthggep._slides._colors import image_mpp

if TYPE_CHECKING:
    from sthggep._encoders._entry import Encoder
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._slides._slide import Slide

# On real tissue an image eight times coarser than asked for costs .003 of correlation, and one of twelve times is read well
COARSEST = 16.0


def encode(
    slide: Slide,
    frozen: FrozenEncoder,
    sizes_um: Sequence[float],
    *,
    flips: bool = True,
    encoding: str = "patches",
    batch_size: int = 64,
    show: bool = False,
    cache: str | Path | None = None,
    folder: Path | None = None,
    block_folder: Path | None = None,
) -> list[StageFeatures]:
    """Encode one section: an array (n_spots, dim) for each field of view, for tissue with mean and spread of its features.

    Parameters
    ----------
    slide
        The section.
    frozen
        The encoder.
    sizes_um
        Fields of view in microns.
    flips
        Average over the four flips of each patch, or over all eight turns and flips of each tile.
    encoding
        ``"patches"``: one sweep cuts the patches of all fields of view, and decodes each block of the image about once.
        ``"tissue"``: for each field of view, the encoder reads the tissue in large tiles.
    batch_size
        Patches a batch.
    show
        Show progress.
    cache
        Folder that keeps features between runs. Default: ``$STHGGEP_FEATURE_CACHE``, if it is set.
    folder
        Folder for features on disk. Default: the function returns arrays in memory.
    block_folder
        Folder that keeps finished blocks, so that a later call skips them. Default: no blocks on disk.
    """
    _warn_of_coarse_image(slide, frozen.entry.size_px, sizes_um)
    plan = make_encodings(slide, frozen, sizes_um, flips=flips, encoding=encoding, batch_size=batch_size)
    shapes = {size: (len(part.xy), part.dim) for part in plan for size in part.sizes_um}
    feature_cache = FeatureCache.open(cache)
    records: dict[float, dict[str, object] | None] = dict.fromkeys(sizes_um)
    if feature_cache is not None and sizes_um:
        image = image_fingerprint(slide.levels)
        for part in plan:
            records |= {size: describe(part, size, image) for size in part.sizes_um}
    features: dict[float, FeatureArray] = {}
    with ExitStack() as stack:
        new: dict[float, FeatureArray] = {}
        for size, record in records.items():
            cached = feature_cache.find(hash_record(record), shapes[size]) if feature_cache and record else None
            if cached is not None:
                features[size] = cached
            elif feature_cache and record:
                new[size] = stack.enter_context(feature_cache.writing(hash_record(record), record, shapes[size]))
            elif folder is not None:
                new[size] = RowFile.create(folder / f"{file_name(slide.name)}-{size:g}.npy", *shapes[size])
            else:
                new[size] = np.zeros(shapes[size], dtype=np.float32)
        parts = plan
        if len(new) < len(sizes_um):
            parts = make_encodings(slide, frozen, list(new), flips=flips, encoding=encoding, batch_size=batch_size)
        _fill(new, parts, show=show, block_folder=block_folder)
    features |= new
    arrays = [features[size] if folder is not None else features[size][: shapes[size][0]] for size in sizes_um]
    split = partial(split_windows, n_spots=slide.n_spots) if encoding == "tissue" else StageFeatures
    return [split(each) for each in arrays]


def _warn_of_coarse_image(slide: Slide, size_px: int, sizes_um: Sequence[float]) -> None:
    """Warn of an image that is far coarser than the smallest field of view asks for; it is enlarged without limit."""
    mpp = image_mpp(slide)
    if mpp is None or not sizes_um or mpp * size_px <= COARSEST * min(sizes_um):
        return
    size = min(sizes_um)
    warn_user(
        f"Section {slide.name!r}: its image has {mpp:.3g} µm/px and is enlarged {mpp * size_px / size:.0f} times for a field of "
        f"view of {size:g} µm, which has {size_px} px. This takes as long as a fine image and shows no more detail. Pass a "
        f"finer image if there is one, or larger fields of view (`size_um=` of `sthggep.tl.fit` or `sthggep.pp.features`)."
    )


def check_encoding(encoding: str, entry: Encoder) -> str:
    """Check that an encoder can be used in this way."""
    if one_of(encoding, ENCODINGS, "encoding") == "tissue":
        check_maps(entry)
    return encoding


def make_encodings(
    slide: Slide, frozen: FrozenEncoder, sizes_um: Sequence[float], *, flips: bool, encoding: str, batch_size: int
) -> list[Encoding]:
    """Plan how to encode a section: all fields of view in one sweep over patches, or tile by tile for each of them."""
    if check_encoding(encoding, frozen.entry) == "tissue":
        return [TissueEncoding(slide, frozen, size, flips=flips) for size in sizes_um]
    return [PatchEncoding(slide, frozen, sizes_um, flips=flips, batch_size=batch_size)] if sizes_um else []


def sweep(encoding: Encoding, what: str, *, show: bool = False) -> NDArray[np.float32]:
    """Encode all spots of one field of view in memory, (n_spots, values)."""
    out = np.zeros((len(encoding.xy), encoding.dim), dtype=np.float32)
    (size,) = encoding.sizes_um
    _fill({size: out}, [encoding], show=show, block_folder=None, what=what)
    return out


def _fill(
    outs: Mapping[float, FeatureArray],
    encodings: Sequence[Encoding],
    *,
    show: bool,
    block_folder: Path | None,
    what: str = "Features",
) -> None:
    """Fill the arrays of all fields of view, in one sweep or block by block."""
    # Tissue has one encoding a field of view: all of them read one image
    image = image_fingerprint(encodings[0].slide.levels) if encodings and block_folder is not None else None
    for encoding in encodings:
        slide, sizes = encoding.slide, ", ".join(f"{size:g}" for size in encoding.sizes_um)
        store = None if block_folder is None else BlockStore.of(block_folder, encoding, image)
        order = np.concatenate(encoding.blocks)
        # Blocks are encoded by themselves, so tissue at their borders is read for each of them
        total = sum(encoding.amount(rows) for rows in ([order] if store is None else store.rows))
        with progress(total, f"{what} of {slide.name} at {sizes} µm", encoding.unit, show=show, leave=False) as bar:
            if store is None:
                for size, at, values in encoding.run(order, bar):
                    outs[size][order[at]] += values
            else:
                for number, rows in enumerate(store.rows):
                    for size, values in zip(encoding.sizes_um, store.get(number, bar), strict=True):
                        outs[size][rows] = values
        for level in slide.levels:
            if level.blocks is not None:
                level.blocks.forget()
