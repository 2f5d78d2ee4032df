"""`sthggep predict`: slides in, the same slides with predicted expression out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sthggep._cli import _options as options
from sthggep._cli._command import Run, command
from sthggep._cli._files import about, describe, gene_list, kind_of, read_slide, write_slide
from sthggep._log import log

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

ENDINGS = {"anndata": (".h5ad", ".zarr"), "image": (".h5ad", ".zarr"), "spatialdata": (".zarr",)}
BUNDLED = "her2st"
EXAMPLES = """
sthggep predict slide.h5ad --out predicted.h5ad                    (breast tumour: the model of the package)
sthggep predict slide.zarr --model my-model --out predicted.zarr   (a SpatialData)
sthggep predict a.h5ad b.h5ad c.zarr --model my-model --out predicted/
sthggep predict slide.h5ad --out some.h5ad --genes FASN,GNAS,SCD --latent
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
    "--model", default=BUNDLED, metavar="NAME|FOLDER", help="her2st (breast tumours), or the folder of a saved model."
)
@options.genes
@options.option("--key-added", default="hggep", help="Name of the prediction: key in obsm and uns.")
@options.option("--latent", is_flag=True, help="Write the latent embedding, too: obsm['X_<key>'].")
@options.option("--counts", is_flag=True, help="Write expected counts, too (models of --preset paper).")
@options.option("--size-factors", metavar="COLUMN", help="Column of obs that expected counts are multiplied by.")
@options.option(
    "--spacing-um", type=float, default=100.0, help="Distance of the spots that are laid over an image without spots."
)
@options.spots
@options.images
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
    spacing_um: float,
    **rest: Any,
) -> None:
    """Predict the expression at every spot of slides, and write the slides with the prediction in them.

    Counts are not needed. SLIDES may be AnnData (.h5ad, .zarr), SpatialData (.zarr), or bare images (TIFF, SVS, JPEG, PNG).
    """
    chosen = gene_list(genes)
    targets = outputs(slides, out)
    todo = free(targets, overwrite=overwrite, skip_existing=skip_existing)
    if not todo:
        log.info("Nothing to do: all %d files are there.", len(targets))
        return

    from sthggep import tl
    from sthggep._checks import genes_present
    from sthggep._slide import table_of
    from sthggep.tl._predict import load_model

    loaded = load_model(model)
    log.info("%s", loaded)
    if chosen is not None:
        genes_present(chosen, loaded.genes, "the model")
    if click.get_current_context().get_parameter_source("model") is ParameterSource.DEFAULT:
        log.info("That is the model of the package: it knows breast tumours only. Another one: --model FOLDER")
    key = rest["key_added"]
    for at, (slide, target) in enumerate(todo.items(), start=1):
        with about(slide):
            data = opened(slide, spacing_um, **rest)
            tl.predict(
                data,
                loaded,
                genes=chosen,
                counts=size_factors or counts,
                show_progress_bar=run.show,
                **rest,
            )
            write_slide(data, target)
            n_spots, n_genes = table_of(data, rest["table_key"]).obsm[key].shape
            text = "%s written (%d of %d): %d genes at %d spots, obsm[%r]"
            log.info(text, target, at, len(todo), n_genes, n_spots, key)
    log.info("Next, where counts were measured: sthggep evaluate %s", next(iter(todo.values())))


def outputs(slides: tuple[Path, ...], out: str) -> dict[Path, Path]:
    """The file that each slide is written to; refuses what could not hold it."""
    kinds = {slide: kind_of(slide) for slide in slides}
    path = Path(out)
    is_folder = out.endswith(("/", "\\")) or not path.suffix or (path.is_dir() and path.suffix.lower() != ".zarr")
    if len(slides) > 1 and not is_folder:
        msg = f"{len(slides)} slides do not fit into one file. Pass a folder: --out predicted/"
        raise ValueError(msg)
    if not is_folder:
        (kind,) = kinds.values()
        if path.suffix.lower() not in ENDINGS[kind]:
            what = {"anndata": "an AnnData", "spatialdata": "a SpatialData", "image": "an image"}[kind]
            msg = f"{path} cannot hold this slide ({what}): pass an --out that ends in {' or '.join(ENDINGS[kind])}."
            raise ValueError(msg)
        return {slides[0]: path}
    targets = {s: path / (f"{s.stem}.h5ad" if kind == "image" else s.name) for s, kind in kinds.items()}
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


def opened(path: Path, spacing_um: float, **rest: Any) -> AnnData | SpatialData:
    """A slide, with spots laid over it where it is a bare image."""
    if kind_of(path) == "image":
        return gridded(path, spacing_um, rest["mpp"])
    data = read_slide(path)
    places = ("table_key", "shapes_key", "spatial_key", "library_key", "coordinate_system", "mpp")
    describe(data, path, **{name: rest[name] for name in places})
    return data


def gridded(path: Path, spacing_um: float, mpp: float | None) -> AnnData | SpatialData:
    """Spots over the tissue of an image."""
    from sthggep import io, pp

    lay = getattr(pp, "tissue_grid", None)
    if lay is None:
        msg = "This version lays no spots over an image: pass an AnnData or a SpatialData with spots."
        raise ValueError(msg)
    data: AnnData = lay(io.read_slide(path, mpp=mpp), spacing_um=spacing_um)
    log.info("%s: %d spots over the tissue, %g µm apart", path, data.n_obs, spacing_um)
    return data
