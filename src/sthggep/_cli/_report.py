"""`sthggep report`: one page of predictions, or of a model, that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sthggep._cli import _options as options
from sthggep._cli._command import command
from sthggep._cli._files import about, read_gene_list
from sthggep._log import log
from sthggep._slides._container_files import kind_of, read_container

EXAMPLES = """
sthggep report predicted.h5ad --out report.html
sthggep report predicted/*.h5ad --model my-model --genes GNAS,FASN --out report.html
sthggep report --model her2st --out model.html                     (a model alone)
"""


@command("report", "Write one page of maps and scores.", EXAMPLES)
@click.argument("slides", nargs=-1, type=options.FILE)
@options.option("--out", "-o", required=True, type=options.FILE, metavar="HTML", help="Page to write.")
@options.option("--overwrite", is_flag=True, help="Replace a page that is there.")
@options.option("--model", default=None, metavar="NAME|FOLDER", help="Model whose curves and record are shown.")
@options.option("--title", default=None, help="Heading of the page.")
@options.option("--key", default="hggep", help="Name of the prediction.")
@options.genes
@options.layer
@options.spots
@options.run
def report(slides: tuple[Path, ...], out: Path, model: str | None, genes: tuple[str, ...], **rest: Any) -> None:
    """Write one self-contained page: maps of every gene to click through, scores, the model.

    SLIDES hold a prediction (`sthggep predict`). Without slides the page is of the model.
    """
    if not slides and model is None:
        msg = "Nothing to report. Pass slides that hold a prediction, or --model."
        raise click.UsageError(msg)
    for slide in slides:
        kind_of(slide)

    from sthggep import pl
    from sthggep.model._load import load_model

    loaded = None if model is None else load_model(model)
    found = {}
    for slide in slides:
        with about(slide):
            found[slide.stem if slide.stem not in found else str(slide)] = read_container(slide)
    results: Any = found or loaded
    page = pl.report(results, out, model=loaded if found else None, genes=read_gene_list(genes), **rest)
    log.info("%s written (%.1f MB): open it in a browser", page, page.stat().st_size / 1e6)
