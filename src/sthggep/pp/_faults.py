"""Faults of the image around each spot, as a column of ``obs``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthggep._arguments import checked
from sthggep._checks import accepts_results
from sthggep._docs import document_places
from sthggep._log import NOTEBOOK, log
from sthggep._slides._anndata import copy_data, table_of
from sthggep._slides._faults import FAULTS, find_faults
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep._slides._results import write_results

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
@document_places
def image_faults(
    data: AnnData | SpatialData,
    *,
    key_added: str = "image_fault",
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Find spots whose image shows pen, glass, a fold or blur, before they are predicted as tissue.

    The function looks at a thumbnail of 4 µm a pixel, in a square of 160 µm around each spot. It finds what such a thumbnail
    shows clearly, and no more.

    Parameters
    ----------
    data
        Slide with spots and an H&E image, of one or several sections.
    key_added
        Column of ``obs``.
    {places}
    copy
        Return a copy with the column, and leave ``data`` unchanged.

    Returns
    -------
    ``None``, or with ``copy=True`` the copy. Writes this column to the table:

    ``obs[key_added]`` : category
        The first of these that applies, or missing where the thumbnail shows none:

        - ``"pen"``: a fifth of the pixels is green, blue or black ink. Red ink looks like eosin, and is not found.
        - ``"glass"``: nine tenths of the pixels are bright and without color, or all are bright and alike.
        - ``"fold"``: a fifth of the pixels is darker than stained tissue, as where it lies double.
        - ``"blur"``: out of focus by about 5 µm or more, by the variance of the Laplacian.

    Raises
    ------
    KeyError
        The slide has no image.
    ValueError
        ``obs[key_added]`` exists and sthggep did not write it.

    See Also
    --------
    sthggep.tl.predict : Writes how unlike the training tissue each spot is, and names these faults in a warning.

    Notes
    -----
    The thresholds were chosen on five sections of tumors and olfactory bulbs, none of whose spots is marked. Of 7,537 spots
    on three Visium sections, 95 are marked, most of them as blurred in an image of 4.7 µm a pixel.

    Examples
    --------
    >>> sthggep.pp.image_faults(slide)
    >>> clean = slide[slide.obs["image_fault"].isna()].copy()
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
    data = copy_data(data) if copy else data
    table = table_of(data, table_key)
    _refuse_other_column(table, key_added)
    names = np.full(table.n_obs, None, dtype=object)
    for slide in resolve(data, places, need_image=True):
        names[slide.rows] = faults = find_faults(slide)
        counts = Counter(name for name in faults if name is not None)
        text = ", ".join(f"{name} {counts[name]}" for name in FAULTS if name in counts) or "none seen"
        log.info("Section %s, faults of the image at %d spots: %s.", slide.name, slide.n_spots, text, extra=NOTEBOOK)
    column = pd.Series(pd.Categorical(names, categories=list(FAULTS)), index=table.obs_names)
    write_results(table, obs={key_added: column})
    return data if copy else None


def _refuse_other_column(table: AnnData, key: str) -> None:
    """Refuse to overwrite a column that holds anything but faults."""
    accepts_results(table)
    if key in table.obs and not set(table.obs[key].dropna().unique()) <= set(FAULTS):
        msg = f"obs[{key!r}] exists already and sthggep did not write it; it is left alone. Pass another `key_added=`."
        raise ValueError(msg)
