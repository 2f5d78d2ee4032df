"""Which image of a SpatialData is the H&E."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sthggep._checks import has_key, listing, warn_user
from sthggep._image._channels import are_colors, color_channels
from sthggep._log import ONCE, log
from sthggep._slides._labels import resolutions
from sthggep._slides._pictures import STAINS, kind_of, likely_keys

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from spatialdata.models import SpatialElement

    from sthggep._slides._labels import ImageElement
    from sthggep._slides._places import Places

# Images too coarse for patches, and one that the CytAssist takes of the slide of the assay
PREVIEW_ENDINGS = ("lowres_image", "thumbnail", "cytassist_image")
_FULL, _SMALLER = "full_image", "hires_image"


def choose_image(sdata: SpatialData, spots: SpatialElement | None, places: Places) -> tuple[str, str]:
    """Choose the H&E image that shares a coordinate system with the spots (``None``: any image), and that system."""
    from spatialdata.transformations import get_transformation

    image_key, coordinate_system = places.image_key, places.coordinate_system
    systems = {key: set(get_transformation(image, get_all=True)) for key, image in sdata.images.items()}
    ours = set.union(set(), *systems.values()) if spots is None else set(get_transformation(spots, get_all=True))
    if coordinate_system is not None:
        if coordinate_system not in ours:
            what = "images" if spots is None else "spots"
            msg = f"The {what} are not in coordinate system {coordinate_system!r}; they are in {listing(sorted(ours))}."
            raise KeyError(msg)
        ours = {coordinate_system}
    if image_key is not None:
        has_key(sdata.images, image_key, "the images of the SpatialData", "Pass another `image_key=`.")
    keys = [image_key] if image_key else [key for key in sdata.images if not key.endswith(PREVIEW_ENDINGS)]
    shared = {key: sorted(ours & systems[key]) for key in keys if ours & systems[key]}
    kinds = {key: _kind(sdata.images[key]) for key in shared}
    candidates = _likely(sdata, kinds) if image_key is None else list(shared)
    if len(candidates) != 1:
        what = f"several images ({listing(candidates)})" if candidates else "no image"
        if kinds and not candidates:
            what = f"none in color or gray ({', '.join(f'{key!r}: {kind}' for key, kind in kinds.items())})"
        elif previews := [key for key in sdata.images if ours & systems[key]] if not (candidates or image_key) else []:
            what = f"only a preview, {listing(previews)}, too coarse for patches unless you name it"
        msg = (
            f"Expected one H&E image in the spots' coordinate systems ({listing(sorted(ours))}), found {what}. "
            f"The images are {listing(sdata.images)}. Pass `image_key=` or `coordinate_system=`; of several regions, one a "
            "call by `shapes_key=`."
        )
        raise KeyError(msg) if not candidates else ValueError(msg)
    if kinds[candidates[0]] == STAINS:
        _warn_of_stains(candidates[0], sdata.images[candidates[0]])
    return candidates[0], shared[candidates[0]][0]


def _likely(sdata: SpatialData, kinds: Mapping[str, str]) -> list[str]:
    """Return images in color, else gray; of two sizes the full one, and of several those whose channels are r, g and b."""
    keys = likely_keys(kinds, "The SpatialData")
    copies = {key.removesuffix(_FULL) + _SMALLER for key in keys if key.endswith(_FULL)}
    keys = [key for key in keys if key not in copies]
    named = [key for key in keys if are_colors(channel_names(sdata.images[key]))]
    if len(keys) > 1 and len(named) == 1:
        text = "The SpatialData holds the images %s; sthggep reads %r, whose channels are red, green and blue."
        log.info(text, listing(keys), named[0], extra=ONCE)
        return named
    return keys


def channel_names(element: ImageElement) -> list[object]:
    """Names of the channels of an image, numbers where nobody named them."""
    from spatialdata.models import get_channel_names

    return list(get_channel_names(element))


def _kind(element: ImageElement) -> str:
    array = resolutions(element)[0]
    if set(map(str, array.dims)) != {"c", "y", "x"}:
        return f"with dimensions {tuple(map(str, array.dims))}"
    kind = kind_of(array.shape, array.dtype, int(array.sizes["c"]))
    # Red, green and blue may stand beside further channels
    names = channel_names(element)
    if color_channels(names) is None:
        return STAINS
    return "color" if are_colors(names) and kind == STAINS else kind


def _warn_of_stains(key: str, element: ImageElement) -> None:
    msg = (
        f"Image {key!r}, which you chose, has channels called {listing(channel_names(element))}: these are no colors of an "
        "H&E image. sthggep reads them as such."
    )
    warn_user(msg)
