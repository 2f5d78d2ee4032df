"""Libraries of an AnnData: the entries of ``uns["spatial"]``, one for each section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anndata import AnnData

from sthggep._checks import listing, unique
from sthggep._slides._values import as_mapping, id_text

PARTS = ("images", "scalefactors", "metadata")
EXAMPLE = "{section: {'images': {'hires': array}, 'scalefactors': {'tissue_hires_scalef': factor}}}"


def read_libraries(adata: AnnData) -> dict[str, Mapping[str, object]]:
    """Return the libraries by name; other entries, such as the ``is_single`` of CELLxGENE, are none."""
    entries = _with_slashes(as_mapping(adata.uns.get("spatial")))
    libraries = {name: value for name, value in entries.items() if _is_library(name, value)}
    unique(map(id_text, libraries), "The sections in uns['spatial']", "Give each section a name of its own.")
    return {id_text(name): as_mapping(value) for name, value in libraries.items()}


def _with_slashes(entries: Mapping[str, object]) -> dict[str, object]:
    """Join names that a file has split: of a section ``P1/2`` it makes a group ``P1`` that holds a group ``2``."""
    joined: dict[str, object] = {}
    for name, value in entries.items():
        split: Mapping[str, object] = {}
        if isinstance(value, Mapping) and name not in PARTS:
            is_library = any(part in value for part in PARTS)
            # Beside the parts of a library there may be foreign records
            marks = PARTS[:1] if is_library else PARTS
            split = {key: each for key, each in value.items() if key not in PARTS and _leads_to(each, marks)}
        if not split or is_library:
            joined[name] = value
        joined |= {f"{name}/{rest}": library for rest, library in _with_slashes(split).items()}
    return joined


def _leads_to(value: object, marks: Sequence[str]) -> bool:
    """Whether an entry is a library, or holds one at some depth."""
    if not isinstance(value, Mapping):
        return False
    return any(mark in value for mark in marks) or any(_leads_to(each, marks) for each in value.values())


def _is_library(name: object, value: object) -> bool:
    """Whether an entry is a section, and neither a mark nor a part of a section whose level is missing."""
    return isinstance(value, Mapping) and (name not in PARTS or any(part in value for part in PARTS))


def explain_no_library(adata: AnnData) -> str:
    """Say what ``uns["spatial"]`` holds if it holds no section; empty if it is absent, empty or holds sections."""
    spatial = adata.uns.get("spatial")
    if spatial is None or read_libraries(adata) or (isinstance(spatial, Mapping) and not spatial):
        return ""
    if not isinstance(spatial, Mapping):
        return f"uns['spatial'] must be {EXAMPLE}, found {type(spatial).__name__}."
    if parts := [name for name in spatial if name in PARTS]:
        return (
            f"uns['spatial'] holds {listing(parts)} without the level of the section. Add this level: "
            "`adata.uns['spatial'] = {'section': adata.uns['spatial']}`."
        )
    types = ", ".join(f"{str(name)!r} ({type(value).__name__})" for name, value in list(spatial.items())[:5])
    return f"uns['spatial'] must be {EXAMPLE}, but its entries are no sections: {types}."
