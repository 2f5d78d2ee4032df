"""Features of frozen image encoders, streamed over the spots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sthggep._checks import may_write, positive
from sthggep._device import resolve_device
from sthggep._docs import document_places
from sthggep._encoders._encode import encode
from sthggep._encoders._frozen import FrozenEncoder, find_encoder
from sthggep._encoders._record import _agrees, _sections, feature_record, is_done
from sthggep._keys import feature_key
from sthggep._slides._anndata import copy_data, table_of
from sthggep._slides._placement import warn_of_misplaced
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep._slides._stain import check_reference, normalized

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide


@document_places
def features(
    data: AnnData | SpatialData,
    encoder: str = "shufflenet_he",
    *,
    size_um: float | Sequence[float],
    key_added: str | None = None,
    weights: str | Path | None = None,
    flips: bool = True,
    stain: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    cache: str | Path | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    device: str = "auto",
    show_progress_bar: bool = True,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Describe each spot's surroundings by a frozen image encoder.

    Parameters
    ----------
    data
        AnnData with its image in ``uns["spatial"]``, or SpatialData; one or several sections.
    encoder
        Name of the encoder: ``"shufflenet_he"`` (ShuffleNetV2 ×0.5 adapted to unlabeled H&E, the mean maps of stages 2
        to 5, 1,360 values; it comes with the package); ``"shufflenet"`` (the same with ImageNet weights); one added by :func:`sthggep.pp.register_encoder`; or, where that package is installed, ``"transformers:<model id or
        folder>"`` (the class token, or the mean of tokens where there is none), ``"timm:<name>"``, ``"lazyslide:<name>"``.
        :func:`sthggep.pp.encoders` lists them.
    size_um
        Field of view in microns, or several of them, each written under a key of its own.
    key_added
        Key in ``obsm``; ``None`` derives it. Only for a single field of view.
    weights
        A file, a folder that holds it, or ``"random"``. ``None`` looks into the folder ``$STHGGEP_WEIGHTS``, then into
        torch's download cache, then downloads with a checksum; encoders of other packages see to their own.
    flips
        Average over the four flips of each patch: slower, steadier.
    stain
        What a model that was fitted by ``tl.fit(stain=...)`` brings colors to, ``model.stain``: the slides are looked at in the
        colors of its training slides, as it needs them. ``None`` leaves the colors as they are.
    batch_size
        Patches at a time.
    cache
        Folder where features are kept between runs, in a file for each section and field of view (5 kB a spot), and found
        again by the image, the encoder and its weights, the field of view, the spots and the microns per pixel. ``None``
        takes ``$STHGGEP_FEATURE_CACHE``, which :func:`sthggep.tl.fit` and :func:`sthggep.tl.predict` look into, too; where
        that is not set, nothing is kept. A large image is known by windows of its finest level, its coarsest level, and
        the size and time of its file. Empty it after changing the code or the transform of an encoder of your own.
    {places}
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    show_progress_bar
        Show progress.
    copy
        Return a changed copy, and leave ``data`` alone.

    Returns
    -------
    ``None``, or the copy. Writes, for each field of view:

    ``obsm["X_<encoder>_<µm>"]`` : float32 (n_obs, n_features)
        The features; NaN for spots of regions that were not asked for. Of a longer name of an encoder the last part is
        taken: ``"transformers:owner/model"`` writes ``"X_model_<µm>"``.
    ``uns["X_<encoder>_<µm>"]`` : dict
        Encoder, weights, field of view, patch size, flips, stain normalization if there is one; sections and their microns per pixel. A section that is
        there already with the same record is not done again.

    Raises
    ------
    KeyError, ValueError
        No image, spots outside it, microns per pixel not known, or a key that sthggep did not write.
    FileNotFoundError
        The encoder's weights cannot be found or downloaded.
    ImportError
        The encoder is of a package that is not installed.
    """
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    sizes = [float(size) for size in np.atleast_1d(np.asarray(size_um, dtype=np.float64))]
    if not sizes:
        msg = "`size_um` is empty: give the field of view in microns, such as 160, or several."
        raise ValueError(msg)
    positive(batch_size, "`batch_size`")
    for size in sizes:
        positive(size, "`size_um`")
    if key_added is not None and len(sizes) != 1:
        msg = f"`key_added` names one field of view, found {len(sizes)}: {sizes}. Leave it out, or call once for each."
        raise ValueError(msg)
    find_encoder(encoder)
    if stain is not None:
        check_reference(stain)
    data = copy_data(data) if copy else data
    table = table_of(data, table_key)
    keys = {size: key_added or feature_key(encoder, size) for size in sizes}
    for key in keys.values():
        may_write(table, key)
    slides = resolve(data, places)
    for slide in slides:
        slide.require_mpp()
        warn_of_misplaced(slide)
    slides = [normalized(slide, stain) for slide in slides]
    frozen = FrozenEncoder(encoder, weights, resolve_device(device))
    records = {size: feature_record(frozen, size, flips, slides[0].stain) for size in keys}
    found: dict[float, list[tuple[Slide, NDArray[np.float32]]]] = {size: [] for size in keys}
    for slide in slides:
        new = [size for size, key in keys.items() if not is_done(table, key, records[size], slide)]
        done = encode(slide, frozen, new, flips=flips, batch_size=batch_size, show=show_progress_bar, cache=cache)
        for size, values in zip(new, done, strict=True):
            found[size].append((slide, values[:]))
    for size, key in keys.items():
        _write(table, key, records[size], found[size])
    return data if copy else None


def _write(
    table: AnnData, key: str, record: dict[str, Any], found: Sequence[tuple[Slide, NDArray[np.float32]]]
) -> None:
    """Put the features of some sections beside those that are there with the same record."""
    if not found:
        return
    values = np.full((table.n_obs, found[0][1].shape[1]), np.nan, dtype=np.float32)
    known: dict[str, float] = {}
    if _agrees(table, key, record):
        values = np.array(table.obsm[key], dtype=np.float32)
        known = _sections(table.uns[key])
    for slide, features_ in found:
        values[slide.rows] = features_
        known[slide.name] = slide.require_mpp()
    table.obsm[key] = values
    sections = {"sections": np.array(list(known), dtype=object), "mpp": np.array(list(known.values()))}
    table.uns[key] = record | sections
