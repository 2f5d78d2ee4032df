"""Libraries of an AnnData: the entries of ``uns["spatial"]``, one for each section."""

from __future__ import annotations

from collections.abc import Mapping

from anndata import AnnData

from sthggep._checks import listing, unique
from sthggep._slides._values import as_mapping, id_text

PARTS = ("images", "scalefactors", "metadata")
EXAMPLE = "{section: {'images': {'hires': array}, 'scalefactors': {'tissue_hires_scalef': factor}}}"


def read_libraries(adata: AnnData) -> dict[str, Mapping[str, object]]:
    """Return the libraries by name; other entries, such as the ``is_single`` of CELLxGENE, are none."""
    entries = as_mapping(adata.uns.get("spatial"))
    libraries = {name: value for name, value in entries.items() if _is_library(name, value)}
    unique(map(id_text, libraries), "The sections in uns['spatial']", "Give each section a name of its own.")
    return {id_text(name): as_mapping(value) for name, value in libraries.items()}


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
