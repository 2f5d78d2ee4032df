"""`sthggep predict`: write predicted expression into copies of slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click
from click.core import ParameterSource

from sthggep._cli import _options as options
from sthggep._cli._command import Run, command
from sthggep._cli._files import (
    SPACING_UM,
    describe,
    match_images,
    name_slide,
    open_with_spots,
    read_gene_list,
    write_slide,
    write_whole,
)
from sthggep._cli._outputs import check_tables, is_table_file, output_files, unwritten_files, write_table
from sthggep._cli._records import PredictionKeywords, PredictionOptions, prediction_keywords
from sthggep._cli._types import POSITIVE, WHOLE
from sthggep._disk._lock import locked
from sthggep._disk._run_folder import check_folder
from sthggep._log import log
from sthggep._names import check_key
from sthggep._slides._container_files import kind_of
from sthggep._slides._places import Places

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep.model import HGGEP

BUNDLED = "her2st"
COHORT = "Many slides"
EXAMPLES = """
sthggep predict slide.h5ad --out predicted.h5ad                    (breast tumor: the bundled model)
sthggep predict slide.zarr --model my-model --out predicted.zarr   (a SpatialData)
sthggep predict a.h5ad b.h5ad c.zarr --model my-model --out predicted/
sthggep predict slide.h5ad --out some.h5ad --genes FASN,GNAS,SCD --latent
sthggep predict slide.h5ad --out predicted.parquet                 (a table of spots and genes, for pandas and R)
sthggep predict slide.h5ad --measured in_capture_area --out rest.h5ad   (learn from the measured spots first)
sthggep predict slides/*.h5ad --model my-model --out predicted/ --workers 4
sthggep predict biopsy.svs --spacing-um 55 --out biopsy.h5ad       (an image without spots)
"""


@command("predict", "Predict expression at the spots of slides.", EXAMPLES)
@options.slides
@options.option(
    "--out",
    "-o",
    required=True,
    metavar="FILE|FOLDER",
    help="File to write: the slide (.h5ad, .zarr), or the prediction as a table of spots and genes (.csv, .tsv, .parquet). Or a "
    "folder for files with the names of the slides.",
)
@options.option("--overwrite", is_flag=True, help="Replace existing files.")
@options.option(
    "--skip-existing", is_flag=True, help="Skip slides whose output file exists, to resume an interrupted job."
)
@options.option(
    "--model",
    default=BUNDLED,
    metavar="NAME|FOLDER",
    help="her2st (breast tumors), the folder of a saved model, or OWNER/NAME on the Hugging Face hub.",
)
@options.genes
@options.option("--key-added", default="hggep", help="Name of the prediction: key in obsm and uns.")
@options.option("--latent", is_flag=True, help="Also write the latent embedding: obsm['X_<key>'].")
@options.option("--counts", is_flag=True, help="Also write expected counts (models of --preset paper).")
@options.option(
    "--interval",
    type=POSITIVE,
    metavar="LEVEL",
    help="Also write the ends of intervals in which this share of the spots lies, from 0.5 to 0.99: obsm['<key>_lower'], "
    "obsm['<key>_upper'].",
)
@options.option(
    "--interval-of",
    type=click.Choice(["measurement", "expression"]),
    default="measurement",
    help="What the interval is of: the measurement of a spot, or its mean over repeated measurements.",
)
@options.option(
    "--size-factors",
    metavar="COLUMN",
    help="Column of obs with size factors for the expected counts; implies --counts.",
)
@options.option(
    "--spacing-um",
    type=POSITIVE,
    help="Distance in µm of new spots that the command places over the tissue. If not given: the slide's spots; 100 for an "
    "image.",
)
@options.option(
    "--predictions-only",
    is_flag=True,
    help="Write the predictions alone, block by block, as X of an AnnData without images: for very many spots.",
)
@options.measured
@options.layer
@options.spots
@options.images
@options.fullres
@options.window
@options.option(
    "--workers",
    type=WHOLE,
    heading=COHORT,
    help="Processes on this machine among which the command distributes slides, and blocks of large slides. It writes "
    "predictions only; after an interruption the same command resumes.",
)
@options.option(
    "--scheduler",
    metavar="ADDRESS",
    heading=COHORT,
    help="Dask scheduler whose workers predict the slides instead, such as tcp://host:8786.",
)
@options.compute
@options.run
@click.pass_obj
def predict(
    run: Run,
    /,
    slides: tuple[Path, ...],
    out: str,
    model: str,
    **settings: Unpack[PredictionOptions],
) -> None:
    """Predict the expression at every spot of slides, and write the slides with the prediction in them.

    The slides need no counts. SLIDES may be AnnData (.h5ad, .zarr), SpatialData (.zarr), folders of Space Ranger (Visium),
    or bare images (TIFF, SVS, JPEG, PNG).
    """
    genes = read_gene_list(settings["genes"])
    check_key(settings["key_added"], "`key_added`")
    cohort = settings["workers"] is not None or settings["scheduler"] is not None
    if settings["measured"] is not None and (cohort or settings["spacing_um"] is not None):
        msg = "--measured names spots of one slide that has counts. Leave out --workers, --scheduler and --spacing-um."
        raise ValueError(msg)
    if cohort and settings["fullres_image"]:
        msg = (
            "--fullres-image is of slides that are predicted one after the other. Leave out --workers and --scheduler."
        )
        raise ValueError(msg)
    images = match_images(slides, settings["fullres_image"])
    as_table = cohort or settings["predictions_only"] or settings["spacing_um"] is not None
    files = output_files(slides, out, as_table=as_table)
    check_tables(files, settings)
    if settings["scheduler"] is None:  # remote workers may have other devices
        options.check_device(settings["device"])
    overwrite = settings["overwrite"] or cohort
    for target in files.values():
        check_folder(target.parent, "--out")
    unwritten = unwritten_files(files, overwrite=overwrite, skip_existing=settings["skip_existing"])
    if not unwritten:
        log.info("Nothing to do: all %d output files exist.", len(files))
        return

    from sthggep._checks import predicted_genes
    from sthggep._table._gene_names import as_named
    from sthggep.model._load import load_model

    loaded = load_model(model)
    log.info("%s", loaded)
    if genes is not None:
        predicted_genes(as_named(genes, loaded.genes), loaded.genes, "the model")
    is_default = click.get_current_context().get_parameter_source("model") is ParameterSource.DEFAULT
    if is_default:
        log.info("This is the bundled model, for breast tumors only. To use another model: --model FOLDER")
    if cohort:
        keywords = prediction_keywords(settings, genes, Places.among(settings))
        predict_many(list(unwritten), loaded, out, keywords, settings, show=run.show)
        return
    predict_each(unwritten, images, loaded, genes, settings, was_chosen=not is_default, show=run.show)


def predict_many(
    slides: list[Path], model: HGGEP, out: str, keywords: PredictionKeywords, options: PredictionOptions, *, show: bool
) -> None:
    """Predict slides by several processes; if a slide fails, the command fails after the others are done."""
    from sthggep import tl

    table = tl.predict_cohort(
        slides,
        model,
        out=out,
        spacing_um=options["spacing_um"],
        workers=options["workers"],
        scheduler=options["scheduler"],
        overwrite=options["overwrite"],
        show_progress_bar=show,
        **keywords,
    )
    if (table["status"] == "failed").any():
        click.get_current_context().exit(1)


def predict_each(
    files: dict[Path, Path],
    images: dict[Path, Path],
    model: HGGEP,
    genes: list[str] | None,
    options: PredictionOptions,
    *,
    was_chosen: bool,
    show: bool,
) -> None:
    """Predict the slides one after the other, and write each to its output file.

    A model that nobody has chosen is refused for a slide with none of its genes.
    """
    from sthggep import tl
    from sthggep._slides._anndata import table_of
    from sthggep.model._load import refuse_foreign_genes

    is_table = is_table_file(next(iter(files.values())))
    only = options["predictions_only"] and not is_table
    for number, (slide, target) in enumerate(files.items(), start=1):
        target.parent.mkdir(parents=True, exist_ok=True)
        with name_slide(slide), locked(target, "a prediction"), write_whole(target) as part:
            data, places = open_slide(slide, Places.among(options), options["spacing_um"], images.get(slide))
            if not was_chosen:
                refuse_foreign_genes(model, table_of(data, places.table_key))
            keywords = prediction_keywords(options, genes, places)
            spots = {name: options[name] for name in ("measured", "min_counts", "layer")}
            summary = predict_into(data, model, keywords, spots, out=part if only else None, show=show)
            if is_table:
                predicted = tl.to_adata(data, options["key_added"], table_key=places.table_key)
                write_table(predicted.to_df().rename_axis("spot"), part, index=True)
            elif not only:
                write_slide(data, part, places.table_key)
        log.info("%s written (%d of %d): %s", target, number, len(files), summary)
    if not only and not is_table:
        key = "" if options["key_added"] == "hggep" else f" --key {options['key_added']}"
        log.info("Next, if the slide has counts: sthggep evaluate %s%s", target, key)


def predict_into(
    data: AnnData | SpatialData,
    model: HGGEP,
    keywords: PredictionKeywords,
    spots: dict[str, Any],
    *,
    out: Path | None,
    show: bool,
) -> str:
    """Predict one slide, and return a summary: genes, spots and the place of the prediction."""
    from sthggep import tl
    from sthggep._slides._anndata import table_of
    from sthggep._slides._resolve import resolve
    from sthggep._table._verdicts import describe_verdicts, set_verdicts_of, verdicts_of

    tl.predict(data, model, out=out, show_progress_bar=show, **spots, **keywords)
    table, key = table_of(data, keywords["table_key"]), keywords["key_added"]
    place = f"obsm[{key!r}]" if out is None else "X"
    if "evidence" in table.uns[key]:
        places = Places(
            table_key=keywords["table_key"], shapes_key=keywords["shapes_key"], library_key=keywords["library_key"]
        )
        for slide in resolve(data, places, need_image=False):
            verdicts = verdicts_of(slide, key, list(map(str, table.uns[key]["genes"])))
            if verdicts is not None:
                lines = [describe_verdicts(verdicts)]
                lines += [describe_verdicts(each, kind) for kind, each in set_verdicts_of(slide, key).items()]
                log.info("Section %s, by held-out tissue: %s.", slide.name, "; ".join(lines))
    return f"{len(table.uns[key]['genes'])} genes at {table.n_obs} spots, {place}"


def open_slide(
    path: Path, places: Places, spacing_um: float | None, image: Path | None = None
) -> tuple[AnnData | SpatialData, Places]:
    """Read a slide, place spots over its tissue if needed, and log the result; return it with its places."""
    from sthggep._slides._anndata import table_of

    data, places = open_with_spots(path, places, spacing_um, image)
    if kind_of(path) != "image" and spacing_um is None:
        describe(data, path, places)
    else:
        n_spots = table_of(data, places.table_key).n_obs
        log.info("%s: %d spots placed over the tissue, %g µm apart", path, n_spots, spacing_um or SPACING_UM)
    return data, places
