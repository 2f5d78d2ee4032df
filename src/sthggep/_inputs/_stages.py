"""Feature arrays of a section, one a stage, and array positions for the published network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sthggep._encoders._block_store import BlockStore
from sthggep._encoders._cache import image_fingerprint
from sthggep._encoders._encode import encode, make_encodings
from sthggep._encoders._record import feature_record, has_features, other_encoding, read_sections
from sthggep._encoders._reference_windows import StageFeatures
from sthggep._keys import feature_key
from sthggep._log import log
from sthggep._table._user_features import read_user_features
from sthggep.nn._published import TABLE_ROWS

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._image._recolor import Recoloring
    from sthggep._inputs._compute import Compute
    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide


def array_positions(slide: Slide) -> NDArray[np.int64]:
    """Read the array positions that the published network needs.

    Raises
    ------
    KeyError
        The section has no array positions.
    ValueError
        A position is not in the tables of the published network.
    """
    array_xy = slide.array_xy()
    if array_xy is None:
        msg = (
            f"Section {slide.name!r} has no array positions, which the published network needs. Expected the obs columns "
            "'array_x' and 'array_y' (Visium: 'array_col' and 'array_row')."
        )
        raise KeyError(msg)
    if array_xy.min() < 0 or array_xy.max() >= TABLE_ROWS:
        msg = (
            f"Section {slide.name!r} has array positions from {array_xy.min()} to {array_xy.max()}, but the published "
            f"network has embeddings of 0 to {TABLE_ROWS - 1} only. Fit a new model: it reads positions relative to the "
            "section."
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
    block_folder: Path | None = None,
) -> list[StageFeatures]:
    """Read one feature array a stage from ``obsm``, and compute those that ``obsm`` lacks.

    Parameters
    ----------
    slide
        The section.
    inputs
        Encoder and fields of view, or keys of ``obsm``.
    encoder
        The frozen encoder; ``None`` reads the user's features.
    compute
        Batch size and progress.
    folder
        Folder for computed features; ``None`` returns them in memory.
    block_folder
        Folder that keeps finished blocks of features, for a run that may be interrupted.
    """
    if encoder is None:
        return [StageFeatures(read_user_features(slide, key)) for key in inputs.obsm]
    features = _stored_features(slide, inputs, encoder)
    if missing := [size for size in inputs.fields_of_view if size not in features]:
        _log_other_encoding(slide, inputs, encoder, missing)
        computed = encode(
            slide,
            encoder,
            missing,
            flips=inputs.flips,
            encoding=inputs.encoding,
            batch_size=compute.batch_size,
            show=compute.show_progress,
            folder=folder,
            block_folder=block_folder,
        )
        features |= dict(zip(missing, computed, strict=True))
    return [features[size] for size in inputs.fields_of_view]


def open_blocks(
    slide: Slide, inputs: Inputs, encoder: FrozenEncoder | None, batch_size: int, folder: Path
) -> list[BlockStore]:
    """Blocks in which :func:`frozen_stages` computes features; none if it computes none or can keep none."""
    if encoder is None:
        return []
    encodings = make_encodings(
        slide,
        encoder,
        missing_sizes(slide, inputs, encoder),
        flips=inputs.flips,
        encoding=inputs.encoding,
        batch_size=batch_size,
    )
    image = image_fingerprint(slide.levels) if encodings else None
    stores = [BlockStore.of(folder, encoding, image) for encoding in encodings]
    return [store for store in stores if store is not None]


def _record(inputs: Inputs, encoder: FrozenEncoder, size: float, stain: Recoloring | None) -> dict[str, object]:
    """Return the record that features of these inputs have."""
    return feature_record(encoder, size, flips=inputs.flips, encoding=inputs.encoding, stain=stain)


def missing_sizes(slide: Slide, inputs: Inputs, encoder: FrozenEncoder) -> list[float]:
    """Return the fields of view of which ``obsm`` lacks features of this encoder, these pixels and positions."""
    stored = _stored_keys(slide, inputs, encoder)
    return [size for size in inputs.fields_of_view if size not in stored]


def _stored_features(slide: Slide, inputs: Inputs, encoder: FrozenEncoder) -> dict[float, StageFeatures]:
    """Features in ``obsm`` of this encoder, these pixels and positions, by field of view."""
    table, found = slide.adata, {}
    for size, (key, image) in _stored_keys(slide, inputs, encoder).items():
        values = np.asarray(table.obsm[key][slide.rows], dtype=np.float32)
        found[size] = StageFeatures(values, read_sections(table.uns[key]).moments_of(image, slide.mpp))
    return found


def _log_other_encoding(slide: Slide, inputs: Inputs, encoder: FrozenEncoder, sizes: Sequence[float]) -> None:
    """Say that ``obsm`` holds features that were made in another way, and how to make those that serve."""
    for size in sizes:
        key = feature_key(inputs.encoder, size)
        if found := other_encoding(slide.adata, key, _record(inputs, encoder, size, slide.stain)):
            log.info(
                "%s: obsm[%r] was made with %s; this model reads encoding=%r, flips=%s, and encodes anew. Pass these to "
                "`sthggep.pp.features` so that they are used again.",
                slide.name,
                key,
                found,
                inputs.encoding,
                inputs.flips,
            )
            return


def _stored_keys(slide: Slide, inputs: Inputs, encoder: FrozenEncoder) -> dict[float, tuple[str, str]]:
    """Key in ``obsm`` and image of features of this encoder, these pixels and positions, by field of view."""
    table = slide.adata
    sizes = inputs.fields_of_view
    if len(sizes) < len(inputs.sizes_um):
        msg = f"Expected fields of view in microns for features of a frozen encoder, found {list(inputs.sizes_um)}."
        raise ValueError(msg)
    keys = {size: feature_key(inputs.encoder, size) for size in sizes}
    image = image_fingerprint(slide.levels) if set(keys.values()) & set(table.obsm) else ""
    return {
        size: (key, image)
        for size, key in keys.items()
        if has_features(table, key, _record(inputs, encoder, size, slide.stain), slide, image)
    }
