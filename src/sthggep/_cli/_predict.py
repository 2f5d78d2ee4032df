"""`sthggep predict`: slides in, the same slides with predicted expression out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sthggep._cli import _options as options
from sthggep._cli._command import Run, command
from sthggep._cli._files import (
    SPACING_UM,
    about,
    describe,
    open_with_spots,
    read_gene_list,
    whole,
    write_slide,
)
from sthggep._log import log
from sthggep._slides._container_files import kind_of
from sthggep._slides._places import Places

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep.model import HGGEP

ANNDATA = (".h5ad", ".zarr")
ENDINGS = {"anndata": ANNDATA, "image": ANNDATA, "spatialdata": (".zarr",)}
BUNDLED = "her2st"
COHORT = "Many slides"
EXAMPLES = """
sthggep predict slide.h5ad --out predicted.h5ad                    (breast tumor: the model of the package)
sthggep predict slide.zarr --model my-model --out predicted.zarr   (a SpatialData)
sthggep predict a.h5ad b.h5ad c.zarr --model my-model --out predicted/
sthggep predict slide.h5ad --out some.h5ad --genes FASN,GNAS,SCD --latent
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
    help="File to write (.h5ad, .zarr), or a folder: then each slide is written under its own name.",
)
@options.option("--overwrite", is_flag=True, help="Replace files that are there.")
@options.option(
    "--skip-existing", is_flag=True, help="Leave out slides whose file is there: go on where a job stopped."
)
@options.option(
    "--model",
    default=BUNDLED,
    metavar="NAME|FOLDER",
    help="her2st (breast tumors), the folder of a saved model, or OWNER/NAME of the Hugging Face hub.",
)
@options.genes
@options.option("--key-added", default="hggep", help="Name of the prediction: key in obsm and uns.")
@options.option("--latent", is_flag=True, help="Write the latent embedding, too: obsm['X_<key>'].")
@options.option("--counts", is_flag=True, help="Write expected counts, too (models of --preset paper).")
@options.option(
    "--uncertainty", is_flag=True, help="Write how far the model's networks differ, too: obsm['<key>_std']."
)
@options.option("--size-factors", metavar="COLUMN", help="Column of obs that expected counts are multiplied by.")
@options.option(
    "--spacing-um",
    type=float,
    help="Lay new spots this far apart over the tissue, instead of the slide's own. An image has none: 100 if not given.",
)
@options.option(
    "--predictions-only",
    is_flag=True,
    help="Write the predictions alone, block by block, as X of an AnnData without pictures: for very many spots.",
)
@options.spots
@options.images
@options.window
@options.option(
    "--workers",
    type=click.IntRange(min=1),
    heading=COHORT,
    help="Processes on this machine that share the slides, and large slides block by block. Writes predictions only; the "
    "same command goes on where it was killed.",
)
@options.option(
    "--scheduler",
    metavar="ADDRESS",
    heading=COHORT,
    help="The same by the workers of a dask scheduler, such as tcp://host:8786.",
)
@options.compute
@options.run
@click.pass_obj
def predict(
    run: Run,
    /,
    slides: tuple[Path, ...],
    out: str,
    overwrite: bool,
    skip_existing: bool,
    model: str,
    genes: tuple[str, ...],
    counts: bool,
    size_factors: str | None,
    spacing_um: float | None,
    predictions_only: bool,
    window: str,
    workers: int | None,
    scheduler: str | None,
    **rest: Any,
) -> None:
    """Predict the expression at every spot of slides, and write the slides with the prediction in them.

    Counts are not needed. SLIDES may be AnnData (.h5ad, .zarr), SpatialData (.zarr), or bare images (TIFF, SVS, JPEG, PNG).
    """
    chosen = read_gene_list(genes)
    cohort = workers is not None or scheduler is not None
    targets = outputs(slides, out, as_table=cohort or predictions_only or spacing_um is not None)
    todo = free(targets, overwrite=overwrite or cohort, skip_existing=skip_existing)
    if not todo:
        log.info("Nothing to do: all %d files are there.", len(targets))
        return

    from sthggep._checks import genes_present
    from sthggep.model._load import load_model

    loaded = load_model(model)
    log.info("%s", loaded)
    if chosen is not None:
        genes_present(chosen, loaded.genes, "the model")
    if click.get_current_context().get_parameter_source("model") is ParameterSource.DEFAULT:
        log.info("That is the model of the package: it knows breast tumors only. Another one: --model FOLDER")
    rest |= {"genes": chosen, "counts": size_factors or counts, "window": options.window_of(window)}
    if cohort:
        many = {"spacing_um": spacing_um, "workers": workers, "scheduler": scheduler, "overwrite": overwrite}
        predict_many(list(todo), loaded, {**rest, **many, "out": out, "show_progress_bar": run.show})
        return
    for at, (slide, target) in enumerate(todo.items(), start=1):
        with about(slide), whole(target) as part:
            data, places = told(slide, Places.among(rest), spacing_um)
            settings = {
                **rest,
                **asdict(places),
                "show_progress_bar": run.show,
                "out": part if predictions_only else None,
            }
            made = predict_into(data, loaded, settings)
            if not predictions_only:
                write_slide(data, part, places.table_key)
        log.info("%s written (%d of %d): %s", target, at, len(todo), made)
    if not predictions_only:
        key = "" if rest["key_added"] == "hggep" else f" --key {rest['key_added']}"
        log.info("Next, where counts were measured: sthggep evaluate %s%s", target, key)


def predict_many(slides: list[Path], model: HGGEP, settings: dict[str, Any]) -> None:
    """Predict slides by several processes; those that failed make the command fail, once all others are done."""
    from sthggep import tl

    table = tl.predict_cohort(slides, model, **settings)
    if (table["status"] == "failed").any():
        click.get_current_context().exit(1)


def predict_into(data: AnnData | SpatialData, model: HGGEP, settings: dict[str, Any]) -> str:
    """Predict one slide, and say what was made."""
    from sthggep import tl
    from sthggep._slides._anndata import table_of

    tl.predict(data, model, **settings)
    table, key = table_of(data, settings["table_key"]), settings["key_added"]
    place = "X" if settings["out"] else f"obsm[{key!r}]"
    return f"{len(table.uns[key]['genes'])} genes at {table.n_obs} spots, {place}"


def outputs(slides: tuple[Path, ...], out: str, *, as_table: bool = False) -> dict[Path, Path]:
    """The file that each slide is written to; refuses what could not hold it.

    With ``as_table`` an AnnData can hold what is written of any slide: a grid, or predictions alone.
    """
    kinds = {slide: kind_of(slide) for slide in slides}
    path = Path(out)
    is_folder = out.endswith(("/", "\\")) or not path.suffix or (path.is_dir() and path.suffix.lower() != ".zarr")
    if len(slides) > 1 and not is_folder:
        msg = f"{len(slides)} slides do not fit into one file. Pass a folder: --out predicted/"
        raise ValueError(msg)
    if not is_folder:
        (kind,) = kinds.values()
        if path.suffix.lower() not in (endings := ANNDATA if as_table else ENDINGS[kind]):
            what = {"anndata": "an AnnData", "spatialdata": "a SpatialData", "image": "an image"}[kind]
            msg = f"{path} cannot hold this slide ({what}): pass an --out that ends in {' or '.join(endings)}."
            raise ValueError(msg)
        return {slides[0]: path}
    targets = {s: path / (f"{s.stem}.h5ad" if as_table or kind == "image" else s.name) for s, kind in kinds.items()}
    if len(set(targets.values())) < len(slides):
        msg = f"Several slides would be written to one file in {path}: rename them, or use a folder for each."
        raise ValueError(msg)
    return targets


def free(targets: dict[Path, Path], *, overwrite: bool, skip_existing: bool) -> dict[Path, Path]:
    """What is still to be written; refuses to touch a slide that is read, and files that are to be kept."""
    for target in targets.values():
        if any(target.resolve() == other.resolve() for other in targets):
            msg = f"{target} would be written over the slide that is read. Pass another --out."
            raise ValueError(msg)
    there = [target for target in targets.values() if target.exists()]
    if there and not (overwrite or skip_existing):
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        msg = f"{there[0]}{more} exists already and is left alone. Pass another --out, --skip-existing or --overwrite."
        raise FileExistsError(msg)
    if skip_existing and there:
        log.info("%d of %d files are there already and are left out.", len(there), len(targets))
    return {slide: target for slide, target in targets.items() if not (skip_existing and target.exists())}


def told(path: Path, places: Places, spacing_um: float | None) -> tuple[AnnData | SpatialData, Places]:
    """A slide and where all is in it, with a line on what was read or laid over the tissue."""
    from sthggep._slides._anndata import table_of

    data, places = open_with_spots(path, places, spacing_um)
    if kind_of(path) != "image" and spacing_um is None:
        describe(data, path, places)
    else:
        n_spots = table_of(data, places.table_key).n_obs
        log.info("%s: %d spots laid over the tissue, %g µm apart", path, n_spots, spacing_um or SPACING_UM)
    return data, places
