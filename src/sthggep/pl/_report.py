"""One HTML page of predictions or of a model, which opens offline."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import quote

from anndata import AnnData

from sthggep._arguments import checked
from sthggep._checks import one_of
from sthggep._disk._run_folder import check_folder
from sthggep._disk._whole import whole_file, whole_folder
from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep.pl._report_data import page_data
from sthggep.pl._report_model import describe_model

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP
    from sthggep.pl._tissue import Slides

TITLE, DATA = "<!--TITLE-->", "/*DATA*/null"  # places in the template
PARTS = {
    "/*STYLE*/": "_report.css",
    "/*VALUES*/": "_report_values.js",
    "/*VIEWER*/": "_report_viewer.js",
    "/*TABLES*/": "_report_tables.js",
    "/*PAGE*/": "_report.js",
}
TILES = ("page", "folder")
# Images that the page may load: tiles in a folder have the page's own origin, which a page opened from a disk lacks
POLICY, POLICY_OF_FOLDER = "img-src data:;", "img-src data: 'self' file:;"


@checked
@document_places
def report(
    results: HGGEP | AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    path: str | Path,
    *,
    model: HGGEP | None = None,
    key: str = "hggep",
    genes: Sequence[str] | None = None,
    title: str | None = None,
    tiles: str = "page",
    layer: str | None = None,
    library_key: str | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    mpp: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one HTML page of predictions or of a model: interactive maps, scores, training curves, the model's record.

    The page holds all its data, so that you can mail it and open it offline. You select a gene in the table of scores or
    by a search; the page then shows its H&E, observed map and predicted map side by side, and its verdict
    (:func:`sthggep.tl.trust`). You can show a second gene beside it, and filter the table by verdict.

    All maps zoom and move together: by the wheel, by dragging, by two fingers, by buttons, or by the keys ``+``, ``-``,
    arrows and ``0``. The scale bar follows. A spot that you point at or tap shows its values, with the ends of its interval
    if :func:`sthggep.tl.predict` wrote them (``interval=``); with the keyboard it is the spot in the middle of the map, and
    Shift and an arrow go to the next one.

    Parameters
    ----------
    results
        Slides with a prediction (one, a list, or a dict by name), or a model alone.
    path
        File to write; it must end in ``.html`` or ``.htm``.
    model
        The model that made the predictions; the page then also shows its training curves and its record. Default: the
        page shows the predictions only.
    key
        Name of the prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    genes
        Genes whose maps are in the page. Default: all genes of the prediction; of large slides as many as fit into about
        20 MB, by their held-out correlation.
    title
        Heading of the page. Default: the names of the slides, or the id of the model.
    tiles
        Where the H&E of the zoomed maps is. ``"page"``: in the page, with as many pixels as fit into about 1.6 MB (some
        1,800 a side of one section). ``"folder"``: in the folder ``<name of the page>_tiles`` beside the page, as fine as the
        image; the folder has to stay beside the page.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    {places}
    overwrite
        Replace an existing page, and an existing folder of tiles.

    Returns
    -------
    The path of the page.

    Raises
    ------
    FileExistsError
        The file, or the folder of tiles, exists, and ``overwrite`` is ``False``.
    KeyError
        A slide has no such prediction or no image, or the prediction does not hold a gene.
    TypeError
        ``results`` is neither slides nor a model, or ``model`` is not a model.
    ValueError
        ``path`` does not end in ``.html``, or ``tiles`` is neither ``"page"`` nor ``"folder"``.

    Examples
    --------
    >>> sthggep.pl.report(slide, "report.html", model=model)
    >>> sthggep.pl.report(slide, "report.html", tiles="folder")  # the H&E at full resolution
    >>> sthggep.pl.report(model, "model.html")
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
    target, folder = Path(path), None
    if target.suffix.lower() not in {".html", ".htm"}:
        msg = f"`path` must end in .html, found {str(target)!r}."
        raise ValueError(msg)
    if one_of(tiles, TILES, "place of the tiles") == "folder":
        folder = target.with_name(f"{target.stem}_tiles")
    _check_places(target, folder, overwrite=overwrite)
    slides, model = _split(results, model)
    sections = _named_sections(slides, places)
    page: dict[str, object] = {
        "title": title,
        "made": date.today().isoformat(),
        "model": None if model is None else describe_model(model),
    }
    kept = whole_folder(folder, replace=overwrite) if folder is not None and sections else nullcontext()
    with kept as part:
        page |= page_data(
            sections, key=key, layer=layer, genes=genes, folder=part, address=quote(folder.name) if folder else ""
        )
    page["title"] = title or _title(sections, model, str(page["noun"]))
    _write(target, page, POLICY if folder is None else POLICY_OF_FOLDER)
    return target


def _check_places(target: Path, folder: Path | None, *, overwrite: bool) -> None:
    """Refuse a page or a folder that exists."""
    for place in (target, folder):
        if place is not None and place.exists() and not overwrite:
            msg = f"{str(place)!r} exists already. Pass another path, or `overwrite=True`."
            raise FileExistsError(msg)
    check_folder(target.parent, "path")


def _split(results: HGGEP | Slides, model: HGGEP | None) -> tuple[Slides, HGGEP | None]:
    """Slides and the model of a page; no slides if the page is about a model alone."""
    if _is_model(results):
        if model is not None:
            msg = "Slides and `model=`, or one model alone, were expected, not two models."
            raise TypeError(msg)
        return [], results
    if model is not None and not _is_model(model):
        msg = f"`model` must be an HGGEP, found {type(model).__name__}. Load it by `sthggep.HGGEP.load(folder)`."
        raise TypeError(msg)
    return results, model


def _is_model(value: object) -> TypeGuard[HGGEP]:
    return hasattr(value, "members") and hasattr(value, "training")


def _named_sections(slides: Slides, places: Places) -> list[tuple[str, Slide]]:
    """Sections with their names on the page: the key in a dict of slides, else the name of the section."""
    items: list[tuple[str, AnnData | SpatialData]]
    if isinstance(slides, Mapping):
        items = [(str(name), item) for name, item in slides.items()]
    elif isinstance(slides, Sequence) and not isinstance(slides, str):
        items = [("", item) for item in slides]
    else:
        items = [("", slides)]
    resolved = [(name, resolve(item, places)) for name, item in items]
    return [
        (name if name and len(sections) == 1 else f"{name} {section.name}".strip(), section)
        for name, sections in resolved
        for section in sections
    ]


def _title(sections: Sequence[tuple[str, Slide]], model: HGGEP | None, noun: str) -> str:
    what = "Predicted expression" if noun == "gene" else f"Predicted {noun}s"
    if not sections:
        return what if model is None else f"Model {model.id}"
    names = [name for name, _ in sections]
    return f"{what}: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"


def _write(target: Path, page: Mapping[str, object], policy: str) -> None:
    """Write the template with its style, scripts and data, whole or not at all."""
    parts = files("sthggep.pl")
    # A name may hold half of a surrogate pair, which UTF-8 has no bytes for
    title = html.escape(str(page["title"])).encode(errors="replace").decode()
    # No markup and no comment can begin within the data, whatever its names are
    data = json.dumps(page, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
    texts = {TITLE: title, DATA: data, POLICY: policy}
    texts |= {place: parts.joinpath(name).read_text(encoding="utf-8") for place, name in PARTS.items()}
    template = parts.joinpath("_report.html").read_text(encoding="utf-8")
    # In one pass, so that a name that looks like a place of the template is none
    text = re.sub("|".join(map(re.escape, texts)), lambda place: texts[place[0]], template)
    with whole_file(target) as part:
        part.write_text(text, encoding="utf-8")
