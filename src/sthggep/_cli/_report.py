"""`sthggep report`: one HTML page of predictions or of a model, which opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from sthggep._cli import _options as options
from sthggep._cli._command import command
from sthggep._cli._files import name_slide, read_gene_list
from sthggep._log import log
from sthggep._slides._container_files import kind_of, read_container

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._cli._records import ReportOptions

EXAMPLES = """
sthggep report predicted.h5ad --out report.html
sthggep report predicted/*.h5ad --model my-model --genes GNAS,FASN --out report.html
sthggep report predicted.h5ad --tiles folder --out report.html     (H&E at full resolution, in report_tiles/)
sthggep report --model her2st --out model.html                     (a model alone)
"""


@command("report", "Write one page of maps and scores.", EXAMPLES)
@click.argument("slides", nargs=-1, type=options.FILE)
@options.option("--out", "-o", required=True, type=options.FILE, metavar="HTML", help="Page to write.")
@options.option("--overwrite", is_flag=True, help="Replace an existing page.")
@options.option(
    "--model", default=None, metavar="NAME|FOLDER", help="Model whose training curves and record the page shows."
)
@options.option("--title", default=None, help="Heading of the page.")
@options.option("--key", default="hggep", help="Name of the prediction.")
@options.option(
    "--tiles",
    type=click.Choice(["page", "folder"]),
    default="page",
    help="Where the zoomed H&E is: page, with the pixels that fit into 1.6 MB; or folder, at full resolution beside the page.",
)
@options.genes
@options.layer
@options.spots
@options.run
def report(
    slides: tuple[Path, ...],
    out: Path,
    model: str | None,
    genes: tuple[str, ...],
    **settings: Unpack[ReportOptions],
) -> None:
    """Write one HTML page: maps of every gene that zoom, scores and verdicts, training curves and the model's record.

    SLIDES hold a prediction (`sthggep predict`). Without slides the page shows the model alone.
    """
    if not slides and model is None:
        msg = "Nothing to report: slides or a model were expected. Pass slides that hold a prediction, or --model."
        raise click.UsageError(msg)
    if out.suffix.lower() not in (".html", ".htm"):
        msg = f"The page must end in .html, found {out}. Pass another --out."
        raise ValueError(msg)
    for slide in slides:
        kind_of(slide)

    from sthggep import pl
    from sthggep.model._load import load_model

    loaded = None if model is None else load_model(model)
    by_name: dict[str, AnnData | SpatialData] = {}
    for slide in slides:
        with name_slide(slide):
            by_name[slide.stem if slide.stem not in by_name else str(slide)] = read_container(slide)
    panel = read_gene_list(genes)
    if by_name or loaded is None:
        # One slide has the names of its sections; of several, files tell them apart
        page = pl.report(
            next(iter(by_name.values())) if len(by_name) == 1 else by_name, out, model=loaded, genes=panel, **settings
        )
    else:
        page = pl.report(loaded, out, genes=panel, **settings)
    log.info("%s written (%.1f MB): open it in a browser", page, page.stat().st_size / 1e6)
