"""Results in an AnnData: all of a call, or none of them if it is interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from anndata import AnnData

Fields = dict[str, Mapping[str, object]]


def write_results(
    table: AnnData,
    *,
    obsm: Mapping[str, object] | None = None,
    uns: Mapping[str, object] | None = None,
    obs: Mapping[str, object] | None = None,
    without: Iterable[str] = (),
) -> None:
    """Write arrays, records and columns of one call, and remove the arrays ``without``; an error leaves the table as it was."""
    without = set(without) - set(obsm or {})
    fields: Fields = {"obsm": obsm or {}, "obs": obs or {}, "uns": uns or {}}
    before: Fields = {
        field: {key: values_of(table, field)[key] for key in _keys(field, new, without) if key in getattr(table, field)}
        for field, new in fields.items()
    }
    try:
        for key in without:
            table.obsm.pop(key, None)
        _write(table, fields)
    except BaseException:
        for field, new in fields.items():
            for key in [key for key in new if key not in before[field] and key in getattr(table, field)]:
                del values_of(table, field)[key]
        _write(table, before)
        raise


def values_of(table: AnnData, field: str) -> MutableMapping[str, Any]:
    """``obsm``, ``obs`` or ``uns``, anew: that of a view is another one after the first change."""
    values: MutableMapping[str, Any] = getattr(table, field)
    return values


def _keys(field: str, new: Mapping[str, object], without: Iterable[str]) -> list[str]:
    return [*new, *(without if field == "obsm" else ())]


def _write(table: AnnData, fields: Fields) -> None:
    for field, values in fields.items():
        for key, value in values.items():
            values_of(table, field)[key] = value
