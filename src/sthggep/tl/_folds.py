"""`tl.folds`: the folds of a cross-validation, to train any other method on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sthggep._arguments import checked
from sthggep._docs import document_places
from sthggep._slides._fingerprint import section_fingerprint
from sthggep._slides._patients import patient_of
from sthggep._slides._places import Places
from sthggep._slides._resolve import distinct_names, resolve
from sthggep.tl._cross_validation._folds import groups_of, plan_folds, refuse_spellings, shared_patients
from sthggep.tl._cross_validation._leaks import refuse_leaks

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
@document_places
def folds(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    group_key: str = "patient",
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
) -> pd.DataFrame:
    """List the folds that :func:`sthggep.tl.cross_validate` uses, and refuse the same tissue on both sides of one.

    Train your own method on the ``"train"`` sections of each fold, predict its ``"test"`` sections, and pass the predictions
    to :func:`sthggep.tl.compare`.

    Parameters
    ----------
    slides
        Several sections with counts, in one object or many.
    group_key
        Column of ``obs`` with the groups to hold out, or ``"section"``; see :func:`sthggep.tl.cross_validate`.
    layer
        Layer of the raw counts, by which copies are recognized. Default: ``X``.
    {places}

    Returns
    -------
    A DataFrame with a row for each ``fold`` and ``section``: ``group`` (the one that the fold holds out), ``role``
    (``"train"`` or ``"test"``), ``slide`` (position of the section's object in ``slides``), ``patient``, and ``leak``, which
    is ``"same patient"`` for a test section whose patient is trained on.

    Raises
    ------
    KeyError
        ``obs`` lacks the column of the groups.
    ValueError
        Fewer than two groups, a group in two spellings, or the same tissue in two groups, judged by name, counts, spot
        positions and places of the array. :func:`sthggep.tl.cross_validate` compares the images, too.

    Examples
    --------
    >>> folds = sthggep.tl.folds(slides, group_key="patient")
    >>> test = folds[(folds["fold"] == 0) & (folds["role"] == "test")]["slide"]
    """
    places = Places(table_key=table_key, shapes_key=shapes_key, spatial_key=spatial_key, library_key=library_key)
    objects = list(slides) if isinstance(slides, Sequence) else [slides]
    pairs = [(i, slide) for i, data in enumerate(objects) for slide in resolve(data, places, need_image=False)]
    sections = [slide for _, slide in pairs]
    named = distinct_names(sections)
    groups = groups_of(named, group_key)
    refuse_spellings(groups, group_key)
    planned = plan_folds(named, groups, group_key)
    refuse_leaks(sections, [section_fingerprint(slide, slide.name, layer) for slide in sections], groups)
    leaks = shared_patients(named, planned)
    rows = [
        {
            "fold": fold.number,
            "group": fold.group,
            "section": named[i].name,
            "role": "test" if i in fold.test else "train",
            "slide": pairs[i][0],
            "patient": patient_of(named[i]),
            "leak": "same patient" if i in fold.test and named[i].name in leaks else "",
        }
        for fold in planned
        for i in range(len(named))
    ]
    return pd.DataFrame(rows)
