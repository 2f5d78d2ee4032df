"""One HTML page of a prediction or a model that opens offline."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData

from sthggep._disk._whole import whole_file
from sthggep._docs import document_places
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve
from sthggep.pl._report_data import Included, model_notes, page_data

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthggep.model import HGGEP

PLACE = "/*DATA*/null"


@document_places
def report(
    results: HGGEP | AnnData | SpatialData | Sequence[AnnData | SpatialData] | Mapping[str, AnnData | SpatialData],
    path: str | Path,
    *,
    model: HGGEP | None = None,
    key: str = "hggep",
    genes: Sequence[str] | None = None,
    title: str | None = None,
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
    """Write one self-contained HTML page: maps to click through, scores, training curves, what the model is.

    Nothing is loaded from elsewhere, so the page can be mailed and opens offline. With predictions it shows, for the gene that
    is chosen from the table or searched for, the H&E, the observed map, the predicted map and, where
    :func:`sthggep.tl.predict` was asked for it, the map of the uncertainty, side by side.

    Parameters
    ----------
    results
        Slides with a prediction (one, a list, or a dict by name), or a model alone.
    path
        File to write, ``.html``.
    model
        The model behind the predictions, for its curves and its record.
    key
        Which prediction: ``key_added`` of :func:`sthggep.tl.predict`.
    genes
        Genes whose maps are in the page. ``None`` takes all, or of large slides as many as fit into about 20 MB, those
        first that are known to be predicted best.
    title
        Heading of the page.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    {places}
    overwrite
        Replace a page that is there.

    Returns
    -------
    The path.

    Raises
    ------
    FileExistsError
        The file is there already.
    KeyError
        There is no such prediction, a gene was not predicted, or there is no image.
    TypeError
        ``results`` or ``model`` is neither of these.
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
    target = Path(path)
    if target.suffix.lower() not in {".html", ".htm"}:
        msg = f"`path` must end in .html, found {str(target)!r}."
        raise ValueError(msg)
    if target.exists() and not overwrite:
        msg = f"{str(target)!r} is there already. Pass another path, or `overwrite=True`."
        raise FileExistsError(msg)
    if _is_model(results):
        if model is not None:
            msg = "Pass slides and `model=`, or the model alone, not two models."
            raise TypeError(msg)
        results, model = [], results  # type: ignore[assignment]
    elif model is not None and not _is_model(model):
        msg = f"`model` must be an HGGEP, found {type(model).__name__}. Load it by `sthggep.HGGEP.load(folder)`."
        raise TypeError(msg)
    found = [
        (name if name and len(slides) == 1 else f"{name} {slide.name}".strip(), slide)
        for name, item in _named(results)
        for slides in [resolve(item, places)]
        for slide in slides
    ]
    page: dict[str, Any] = {"title": title or _title(found, model), "made": date.today().isoformat()}
    page |= page_data(found, key=key, layer=layer, included=Included(genes))
    page["model"] = None if model is None else model_notes(model)
    _write(target, page)
    return target


def _is_model(value: object) -> bool:
    return hasattr(value, "members") and hasattr(value, "training")


def _named(results: Any) -> list[tuple[str, Any]]:
    """Slides with the names that the user gave, if any."""
    if isinstance(results, Mapping):
        return [(str(name), item) for name, item in results.items()]
    if isinstance(results, Sequence) and not isinstance(results, str):
        return [("", item) for item in results]
    return [("", results)]


def _title(found: Sequence[tuple[str, Any]], model: Any) -> str:
    if not found:
        return f"Model {model.id}"
    names = [name for name, _ in found]
    return f"Predicted expression: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"


def _write(target: Path, page: Mapping[str, Any]) -> None:
    """The template with its data, whole or not at all."""
    template = files("sthggep.pl").joinpath("_report.html").read_text(encoding="utf-8")
    # A closing tag inside a string would end the script
    data = json.dumps(page, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    text = template.replace("<!--TITLE-->", html.escape(str(page["title"]))).replace(PLACE, data)
    with whole_file(target) as part:
        part.write_text(text, encoding="utf-8")
