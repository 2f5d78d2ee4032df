"""`sthggep fit`: train on slides with counts, and save the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sthggep._cli import _options as options
from sthggep._cli._command import RECORD, Run, command
from sthggep._cli._files import read_gene_list, read_slides, targets_of
from sthggep._log import log
from sthggep._slides._places import Places

EXAMPLES = """
sthggep fit a.h5ad b.h5ad c.zarr --out my-model
sthggep fit sections/*.h5ad --out my-model --genes panel.txt --layer counts --n-members 3
sthggep fit mine.h5ad --out tuned --model her2st          (go on from the model for breast tumors)
sthggep fit sections/*.h5ad --out my-model --write-config run.yaml
sthggep fit --config run.yaml --seed 1 --out my-model-1   (flags win over the file)
"""


@command("fit", "Train on slides with counts, save the model.", EXAMPLES)
@options.slides
@options.option("--out", "-o", type=options.FILE, required=True, metavar="FOLDER", help="Folder of the model.")
@options.option("--overwrite", is_flag=True, help="Replace a model that is there.")
@options.preset
@options.option(
    "--model",
    heading=options.TRAINING,
    metavar="NAME|FOLDER",
    help="Model to go on from (fine-tuning): her2st, or the folder of a saved one.",
)
@options.option(
    "--validation",
    multiple=True,
    heading=options.TRAINING,
    help="Held out to stop early: auto, sections, blocks, none, or names of sections (may be repeated).  [default: auto]",
)
@options.genes
@options.targets
@options.option(
    "--checkpoint-dir",
    type=options.FILE,
    heading=options.TRAINING,
    metavar="FOLDER",
    help="Keep the training there: the same command goes on where it was killed.",
)
@options.training
@options.look
@options.layer
@options.spots
@options.images
@options.window
@options.compute
@options.run
@click.pass_obj
def fit(
    run: Run,
    /,
    slides: tuple[Path, ...],
    out: Path,
    overwrite: bool,
    genes: tuple[str, ...],
    targets: str | None,
    validation: tuple[str, ...],
    expression: tuple[Path, ...],
    size_um: tuple[float, ...],
    obsm: tuple[str, ...],
    window: str,
    **rest: Any,
) -> None:
    """Train on slides with H&E and raw counts, and save the model to a folder.

    SLIDES are AnnData (.h5ad, .zarr) or SpatialData (.zarr). The folder also gets run.yaml, the options of this run, to
    repeat it with --config.
    """
    panel = read_gene_list(genes)
    free_for_model(out, overwrite=overwrite)
    places = Places.among(rest)
    data = read_slides(slides, places)
    further = read_slides(expression, replace(places, mpp=None))

    from sthggep import tl

    model = tl.fit(
        data,
        genes=panel,
        targets=targets_of(targets),
        validation=held_out(validation),
        expression=further or None,
        size_um=options.several(size_um),
        obsm=options.several(obsm),
        window=options.window_of(window),
        show_progress_bar=run.show,
        **rest,
    )
    model.save(out, overwrite=overwrite)
    run.keep(out)
    log.info("%s", model)
    log.info("Model saved to %s (options of this run: %s)", out, out / RECORD)
    log.info("Next: sthggep predict SLIDE.h5ad --model %s --out predicted.h5ad", out)


def free_for_model(out: Path, *, overwrite: bool) -> None:
    """Refuse, before work starts, a folder that is taken."""
    from sthggep.model._store import check_free

    check_free(out, overwrite=overwrite)


def held_out(validation: tuple[str, ...]) -> str | list[str] | None:
    """What `tl.fit` takes: a word, names of sections, or nothing."""
    if not validation:
        return "auto"
    if len(validation) > 1:
        return list(validation)
    return None if validation[0].lower() == "none" else validation[0]
