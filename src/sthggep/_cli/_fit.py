"""`sthggep fit`: train on slides with counts, and save the model."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from sthggep._cli import _options as options
from sthggep._cli._command import RECORD, Run, command
from sthggep._cli._files import read_gene_list, read_panel, read_slides
from sthggep._cli._records import TrainingOptions, training_keywords
from sthggep._cli._types import POSITIVE, WHOLE
from sthggep._disk._run_folder import check_folder
from sthggep._log import log
from sthggep._slides._places import Places

if TYPE_CHECKING:
    from sthggep.model import HGGEP

EXAMPLES = """
sthggep fit a.h5ad b.h5ad c.zarr --out my-model
sthggep fit sections/*.h5ad --out my-model --genes panel.txt --layer counts --n-members 3
sthggep fit visium/outs --fullres-image slide.tif --out my-model --include FAT1,GNAS   (a folder of Space Ranger)
sthggep fit mine.h5ad --out tuned --model her2st          (fine-tune the model of breast tumors)
sthggep fit sections/*.h5ad --out my-model --write-config run.yaml
sthggep fit --config run.yaml --seed 1 --out my-model-1   (options override the file)
"""


@command("fit", "Train on slides with counts and save the model.", EXAMPLES)
@options.slides
@options.option("--out", "-o", type=options.FILE, required=True, metavar="FOLDER", help="Folder to save the model to.")
@options.option("--overwrite", is_flag=True, help="Replace an existing model.")
@options.preset
@options.option(
    "--model",
    heading=options.TRAINING,
    metavar="NAME|FOLDER",
    help="Model to fine-tune: her2st, or the folder of a saved model.  [default: train a new model]",
)
@options.option(
    "--validation",
    multiple=True,
    heading=options.TRAINING,
    help="Tissue to hold out for early stopping: auto, sections, patients, blocks, none, or names of sections. May be repeated.  "
    "[default: auto]",
)
@options.panel
@options.option(
    "--include",
    multiple=True,
    metavar="GENES",
    help="Genes that must be in the panel that the command chooses: a file, or names separated by commas. May be repeated.",
)
@options.option("--max-genes", type=WHOLE, help="Largest number of genes of the panel that the command chooses.")
@options.option("--n-top", type=WHOLE, help="Number of most variable genes of each section.  [default: 1000]")
@options.option(
    "--min-fraction", type=POSITIVE, help="Least share of the spots in which a gene has a count.  [default: 0.1]"
)
@options.targets
@options.measured
@options.option(
    "--gene-sets",
    type=options.FILE,
    heading=options.TRAINING,
    metavar="GMT",
    help="File of gene sets whose predictions the model is to judge by held-out tissue.",
)
@options.option(
    "--checkpoint-dir",
    type=options.FILE,
    heading=options.TRAINING,
    metavar="FOLDER",
    help="Folder for the state of the training: after an interruption the same command resumes it.",
)
@options.training
@options.features
@options.layer
@options.spots
@options.images
@options.fullres
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
    model: str | None,
    validation: tuple[str, ...],
    gene_sets: Path | None,
    include: tuple[str, ...],
    max_genes: int | None,
    n_top: int | None,
    min_fraction: float | None,
    measured: str | None,
    min_counts: int,
    checkpoint_dir: Path | None,
    fullres_image: tuple[Path, ...],
    **training: Unpack[TrainingOptions],
) -> None:
    """Train on slides with H&E and raw counts, and save the model to a folder.

    SLIDES are AnnData (.h5ad, .zarr), SpatialData (.zarr) or folders of Space Ranger (Visium). The command also writes its
    options into the folder, as run.yaml: pass that file to --config to repeat the run.
    """
    panel, included = read_panel(training["genes"]), read_gene_list(include)
    limits = {"max_genes": max_genes, "n_top": n_top, "min_fraction": min_fraction}
    choice: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    if included is not None:
        choice["include"] = included
    if choice:
        check_choice(panel, training["targets"], model)
    check_model_folder(out, overwrite=overwrite)
    options.check_device(training["device"])
    places = Places.among(training)
    data = read_slides(slides, places, fullres_image)
    expression = read_slides(training["expression"], replace(places, mpp=None))

    from sthggep import pp, tl

    if choice:
        names = ("layer", "library_key", "table_key", "shapes_key", "spatial_key")
        places_of_counts: dict[str, Any] = {name: value for name, value in training.items() if name in names}
        panel = pp.gene_panel(data, measured=measured, **choice, **places_of_counts)
    fitted = tl.fit(
        data,
        model=model,
        validation=validation_of(validation),
        gene_sets=gene_sets,
        measured=measured,
        min_counts=min_counts,
        checkpoint_dir=checkpoint_dir,
        show_progress_bar=run.show,
        **training_keywords(training, panel, expression),
    )
    out = save_model(fitted, out, overwrite=overwrite)
    run.write_options(out)
    log.info("%s", fitted)
    log.info("Model saved to %s (options of this run: %s)", out, out / RECORD)
    slide = "OTHER/outs --fullres-image IMAGE" if fullres_image else "SLIDE.h5ad"
    log.info("Next: sthggep predict %s --model %s --out predicted.h5ad", slide, out)


def check_choice(panel: object, targets: str | None, model: str | None) -> None:
    """Refuse options of a panel that the command chooses, where it is given already."""
    if panel is not None or targets or model is not None:
        msg = (
            "--include, --max-genes, --n-top and --min-fraction are of a panel that the command chooses. Leave out --genes, --targets "
            "and --model, or name the whole panel by --genes."
        )
        raise ValueError(msg)


def check_model_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse, before work starts, a folder that cannot take the model."""
    from sthggep.model._store import check_free

    check_folder(out.parent, "--out")
    check_free(out, overwrite=overwrite)


def save_model(model: HGGEP, out: Path, *, overwrite: bool) -> Path:
    """Save a model; if something came to stand in its place meanwhile, in a folder beside it."""
    try:
        model.save(out, overwrite=overwrite)
    except FileExistsError:
        out = next(path for n in count(2) if not os.path.lexists(path := out.with_name(f"{out.name}-{n}")))
        model.save(out)
        log.warning("The folder was taken during the training; the model is in %s.", out)
    return out


def validation_of(validation: tuple[str, ...]) -> str | list[str] | None:
    """The argument of `tl.fit`: a word, names of sections, or ``None``."""
    if not validation:
        return "auto"
    if len(validation) > 1:
        return list(validation)
    return None if validation[0].lower() == "none" else validation[0]
