"""Features of frozen image encoders in ``obsm``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sthggep._arguments import checked
from sthggep._checks import may_write, positive
from sthggep._device import resolve_device
from sthggep._docs import document_places
from sthggep._encoders._cache import image_fingerprint
from sthggep._encoders._encode import check_encoding, encode
from sthggep._encoders._frozen import FrozenEncoder, find_encoder
from sthggep._encoders._record import NO_SECTIONS, feature_record, has_features, matches_record, read_sections
from sthggep._imports import import_whole
from sthggep._keys import feature_key
from sthggep._slides._anndata import copy_data, table_of
from sthggep._slides._placement import warn_of_misplaced
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep._slides._results import write_results
from sthggep._slides._stain import check_reference, normalized

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._encoders._reference_windows import StageFeatures, TissueMoments
    from sthggep._slides._slide import Slide


@checked
@document_places
def features(
    data: AnnData | SpatialData,
    encoder: str = "shufflenet_he",
    *,
    size_um: float | Sequence[float],
    key_added: str | None = None,
    weights: str | Path | None = None,
    flips: bool | None = None,
    encoding: str = "patches",
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
    """Compute features of each spot's field of view by a frozen image encoder, and write them to ``obsm``.

    Parameters
    ----------
    data
        AnnData with its image in ``uns["spatial"]``, or SpatialData; one or several sections.
    encoder
        Name of the encoder: ``"shufflenet_he"`` (ShuffleNetV2 ×0.5 adapted to unlabeled H&E, the mean maps of stages 2
        to 5, 1,360 values; the package includes it); ``"shufflenet"`` (the same with ImageNet weights); an encoder of
        :func:`sthggep.pp.register_encoder`; or, where its package is installed, ``"transformers:<model id or folder>"`` (the class token, or the mean of tokens where there is none), ``"timm:<name>"``, ``"lazyslide:<name>"``.
        :func:`sthggep.pp.encoders` lists them.
    size_um
        Field of view in microns, or several, each under its own key. A coarser image than a field of view asks for is
        enlarged; beyond sixteen times the function warns.
    key_added
        Key in ``obsm``, for a single field of view. Default: ``"X_<encoder>_<µm>"``.
    weights
        A file, a folder that holds it, or ``"random"``. Default: the file in the package; else the file in the folder
        ``$STHGGEP_WEIGHTS``; else the file in torch's download cache, which the function downloads with a checksum.
        Encoders of other packages load their own weights.
    flips
        Average over several views, which takes as many times as long and varies less: the four flips of each patch, or
        all eight turns and flips of the tissue, with which a slide that is turned or flipped has the same features.
        Default: ``True`` for patches, ``False`` for tissue, which predicts as well in one view.
    encoding
        ``"patches"``: the encoder reads each spot's patch by itself. ``"tissue"``: the encoder reads the tissue once, in
        large tiles, and a spot's features are the means of the feature maps over its field of view, weighted by area;
        the time then depends on the area of the tissue, not on the number of spots. This needs an encoder with feature
        maps, such as ``"shufflenet_he"``, or a vision transformer: it reads overlapping squares of its own size, and a
        spot's features are the mean patch token over the field of view, without the class token. Tokens near the border of
        a square see less tissue on one side, so those within about a sixth of its width are not used. A model reads
        features only of the encoding that it was trained on.
    stain
        Stain normalization of a model that was fitted by ``tl.fit(stain=...)``: ``model.stain``. The function then changes
        the colors of the slides to those of the training slides. Default: no stain normalization.
    batch_size
        Patches a batch.
    cache
        Folder that keeps features between runs, in a file for each section and field of view (5 kB a spot). Its key is a
        hash of the image, the encoder and its weights, the field of view, the spots and the microns per pixel. Of a large
        image it covers windows of the finest level, the coarsest level, and the size and time of the file. Empty the folder
        after you change the code or the transform of your own encoder. Default: ``$STHGGEP_FEATURE_CACHE``, which
        :func:`sthggep.tl.fit` and :func:`sthggep.tl.predict` read, too; where it is not set, no cache.
    {places}
    device
        Device of the encoder: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"`` …
    show_progress_bar
        Show progress.
    copy
        Return a changed copy and leave ``data`` unchanged.

    Returns
    -------
    ``None``, or the copy. Writes, for each field of view:

    ``obsm["X_<encoder>_<µm>"]`` : float32 (n_obs, n_features)
        The features; NaN for spots outside the chosen regions. The key holds the last part of a longer encoder name:
        ``"transformers:owner/model"`` writes ``"X_model_<µm>"``.
    ``uns["X_<encoder>_<µm>"]`` : dict
        Encoder, weights, field of view, patch size, flips, encoding if not of patches (with ``context_px`` for patch
        tokens), stain normalization if there is one; sections with their microns per pixel and a hash of their image;
        ``spots``, hashes of features and position of each spot. The function skips a section that has the same record
        already. It encodes a section again whose image, positions or microns per pixel have changed.

    Raises
    ------
    KeyError, ValueError
        The slide has no image, spots lie outside the image, microns per pixel are not known, or sthggep did not write
        the key.
    FileNotFoundError
        The function cannot find or download the encoder's weights.
    ImportError
        The encoder's package is not installed.

    Examples
    --------
    >>> sthggep.pp.features(slide, size_um=(160, 320))
    >>> model = sthggep.tl.fit(slide, obsm=["X_shufflenet_he_160", "X_shufflenet_he_320"])
    """
    import_whole("torch")
    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    positive(batch_size, "`batch_size`")
    torch_device = resolve_device(device)
    sizes = _read_sizes(size_um, key_added)
    check_encoding(encoding, find_encoder(encoder))
    flips = encoding == "patches" if flips is None else flips
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
    frozen = FrozenEncoder(encoder, weights, torch_device)
    records = {
        size: feature_record(frozen, size, flips=flips, encoding=encoding, stain=slides[0].stain) for size in keys
    }
    encode_new = partial(
        encode,
        frozen=frozen,
        flips=flips,
        encoding=encoding,
        batch_size=batch_size,
        show=show_progress_bar,
        cache=cache,
    )
    encoded = _encode_sections(table, slides, keys, records, encode_new)
    chosen = {"image_key": image_key} if image_key else {}
    new_features = {
        key: _join(table, key, records[size] | chosen, encoded[size]) for size, key in keys.items() if encoded[size]
    }
    write_results(
        table,
        obsm={key: values for key, (values, _) in new_features.items()},
        uns={key: record for key, (_, record) in new_features.items()},
    )
    return data if copy else None


def _read_sizes(size_um: float | Sequence[float], key_added: str | None) -> list[float]:
    """Check the fields of view, and that a key of one's own names only one."""
    sizes = [float(size) for size in np.atleast_1d(np.asarray(size_um, dtype=np.float64))]
    if not sizes:
        msg = "`size_um` is empty. Pass the field of view in microns, such as 160, or several."
        raise ValueError(msg)
    for size in sizes:
        positive(size, "`size_um`")
    if key_added is not None and len(sizes) != 1:
        msg = f"`key_added` names one field of view, found {len(sizes)}: {sizes}. Leave it out, or call once for each field of view."
        raise ValueError(msg)
    return sizes


class _Encoded(NamedTuple):
    """Features of one section, the fingerprint of its image, and the moments of its tissue."""

    slide: Slide
    values: NDArray[np.float32]
    image: str
    moments: TissueMoments | None


def _encode_sections(
    table: AnnData,
    slides: Sequence[Slide],
    keys: Mapping[float, str],
    records: Mapping[float, Mapping[str, object]],
    encode_new: Callable[..., Sequence[StageFeatures]],
) -> dict[float, list[_Encoded]]:
    """Encode the sections at the fields of view whose features the table lacks."""
    encoded: dict[float, list[_Encoded]] = {size: [] for size in keys}
    for slide in slides:
        image = image_fingerprint(slide.levels)
        new = [size for size, key in keys.items() if not has_features(table, key, records[size], slide, image)]
        for size, stage in zip(new, encode_new(slide, sizes_um=new), strict=True):
            encoded[size].append(_Encoded(slide, stage.values[:], image, stage.moments))
    return encoded


def _join(
    table: AnnData, key: str, record: Mapping[str, object], encoded: Sequence[_Encoded]
) -> tuple[NDArray[np.float32], dict[str, object]]:
    """Features of some sections with those of other sections that have the same record, and the record of all."""
    values = np.full((table.n_obs, encoded[0].values.shape[1]), np.nan, dtype=np.float32)
    sections = NO_SECTIONS
    if matches_record(table, key, record):
        values = np.array(table.obsm[key], dtype=np.float32)
        sections = read_sections(table.uns[key]).without([each.slide.name for each in encoded])
    for each in encoded:
        values[each.slide.rows] = each.values
        sections = sections.add(each.slide, each.values, each.image, each.moments)
    return values, {**record, **sections.to_record()}
