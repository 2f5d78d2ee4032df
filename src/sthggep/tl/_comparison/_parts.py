"""The measured slides of a comparison, each with the predictions of all methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from sthggep._checks import counted, listing, unique, warn_user
from sthggep._slides._anndata import table_of
from sthggep._slides._resolve import distinct_names, resolve
from sthggep.tl._comparison._sources import Source, carries_counts, read_source

if TYPE_CHECKING:
    from sthggep._slides._places import Places
    from sthggep._slides._slide import Slide


@dataclass(frozen=True)
class Part:
    """One measured object: its table, its sections that all methods predict, and the predictions."""

    table: AnnData
    slides: list[Slide]
    sources: list[Source]


def objects_with_counts(loaded: Mapping[str, list[Any]], table_key: str) -> list[Any]:
    """The objects of the first prediction that carries counts."""
    for values in loaded.values():
        if values and all(carries_counts(value, table_key) for value in values):
            return values
    msg = (
        "No prediction carries counts to score against. Pass the measured slide: `sthggep.tl.compare(predictions, slide)`, or a "
        "list of slides."
    )
    raise ValueError(msg)


def read_parts(loaded: Mapping[str, list[Any]], objects: Sequence[Any], places: Places) -> list[Part]:
    """Read the sections and the predictions of every object, and refuse spots that a method lacks."""
    parts = []
    for i, data in enumerate(objects):
        table, slides = table_of(data, places.table_key), resolve(data, places, need_image=False)
        sources = [
            read_source(method, _value_of(method, values, i, len(objects)), table, places.table_key)
            for method, values in loaded.items()
        ]
        parts.append(Part(table, slides, sources))
    _refuse_ambiguous(loaded, parts)
    return _with_distinct_names([replace(part, slides=_predicted_by_all(part)) for part in parts])


def _value_of(method: str, values: list[Any], i: int, n: int) -> object:
    """The prediction for one of ``n`` objects."""
    if len(values) not in (1, n):
        msg = (
            f"The prediction {method!r} is a list of {len(values)}, but there are {counted(n, 'slide')}. Pass one for each slide, in "
            "the order of `data`."
        )
        raise ValueError(msg)
    return values[i] if len(values) == n else values[0]


def _refuse_ambiguous(loaded: Mapping[str, list[Any]], parts: Sequence[Part]) -> None:
    """Refuse one prediction for several slides whose spots have the same names."""
    shared = [method for method, values in loaded.items() if len(values) == 1 and not isinstance(values[0], str)]
    if len(parts) > 1 and shared:
        names = [str(name) for part in parts for name in part.table.obs_names]
        unique(
            names,
            f"Spots of all slides, by whose names the prediction {shared[0]!r} is read,",
            "Pass a list with one prediction for each slide.",
        )


def _predicted_by_all(part: Part) -> list[Slide]:
    """Sections that no method left out; each method must hold all of their spots."""
    kept = []
    for slide in part.slides:
        empty = [source.method for source in part.sources if source.is_empty(slide)]
        for source in part.sources:
            source.rows(slide)
        if empty:
            warn_user(f"Section {slide.name!r} is not compared: {listing(empty)} did not predict it (NaN throughout).")
        else:
            kept.append(_used_by_none(slide, part.sources))
    return kept


def _used_by_none(slide: Slide, sources: Sequence[Source]) -> Slide:
    """Leave out the spots of a section whose counts a method used."""
    used = np.any([source.measured(slide) for source in sources], axis=0)
    if used.all():
        msg = f"Section {slide.name!r}: the counts of all its {slide.n_spots} spots were used by some method, so none is left to score."
        raise ValueError(msg)
    return replace(slide, rows=slide.rows[~used], xy=slide.xy[~used]) if used.any() else slide


def _with_distinct_names(parts: Sequence[Part]) -> list[Part]:
    """Number sections of different objects that share a name."""
    names = iter(distinct_names([slide for part in parts for slide in part.slides]))
    named = [replace(part, slides=[next(names) for _ in part.slides]) for part in parts]
    if not any(part.slides for part in named):
        msg = "No section is predicted by all methods. Predict the same sections with each of them."
        raise ValueError(msg)
    return named
