"""The same from a shell: ``sthggep demo | fit | predict | evaluate``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Gene expression from H&E: train on your slides, predict any slide, see how far to trust it.",
)

Slides = Annotated[list[Path], typer.Argument(help="Slides: AnnData (.h5ad) or SpatialData (.zarr).")]
OneSlide = Annotated[Path, typer.Argument(help="A slide: AnnData (.h5ad) or SpatialData (.zarr).")]
Layer = Annotated[str | None, typer.Option(help="Layer of the raw counts; X if not given.")]
Library = Annotated[str | None, typer.Option("--library-key", help="Column of obs that tells sections apart.")]
Mpp = Annotated[float | None, typer.Option(help="Microns per full-resolution pixel, where the file does not say.")]
Table = Annotated[str, typer.Option("--table-key", help="Table of a SpatialData.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the table, the figures and the model.")] = Path("sthggep-demo"),
    section: Annotated[
        list[str] | None,
        typer.Option(
            help="Real tissue, such as her2st:C2: the first is predicted, training is on the others given, "
            "or on all others of that data set that are here."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the toy tissue and of training.")] = 0,
) -> None:
    """Fit, predict a section held out, score it, draw it: on toy tissue from the package, or on real tissue."""
    from sthggep._demo import run_demo

    for line in run_demo(out, sections=section or (), seed=seed):
        typer.echo(line)


@app.command()
def fit(
    slides: Slides,
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    preset: Annotated[str, typer.Option(help="default or paper.")] = "default",
    genes: Annotated[Path | None, typer.Option(help="Text file, one gene a line; else a panel is chosen.")] = None,
    weights: Annotated[str | None, typer.Option(help="File or folder of the encoder's weights, or 'random'.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Image encoder instead of the preset's.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a saved model to go on from.")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a model that is there.")] = False,
    layer: Layer = None,
    library_key: Library = None,
    table_key: Table = "table",
    mpp: Mpp = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Same seed, same model.")] = 0,
) -> None:
    """Train on slides with counts, and save the model."""
    from sthggep import tl
    from sthggep._store import check_free

    check_free(out, overwrite=overwrite)
    panel = None if genes is None else [line.strip() for line in genes.read_text().splitlines() if line.strip()]
    fitted = tl.fit(
        [_read(path) for path in slides],
        genes=panel,
        preset=preset,
        model=model,
        encoder=encoder,
        weights=weights,
        max_epochs=max_epochs,
        layer=layer,
        library_key=library_key,
        table_key=table_key,
        mpp=mpp,
        device=device,
        seed=seed,
    )
    fitted.save(out, overwrite=overwrite)
    typer.echo(f"{fitted}\nSaved to {out}")


@app.command()
def predict(
    slide: OneSlide,
    model: Annotated[Path, typer.Option(help="Folder of a saved model.")],
    out: Annotated[Path, typer.Option(help="File to write: .h5ad or .zarr, as the slide.")],
    key_added: Annotated[str, typer.Option(help="Name of the prediction.")] = "hggep",
    latent: Annotated[bool, typer.Option(help="Write the latent embedding, too.")] = False,
    library_key: Library = None,
    table_key: Table = "table",
    mpp: Mpp = None,
    device: Device = "auto",
) -> None:
    """Predict a slide with a saved model, and write the slide with the prediction in it."""
    from sthggep import tl
    from sthggep._slide import table_of

    if out.exists():
        msg = f"{out} exists already and is left alone. Pass another --out."
        raise FileExistsError(msg)
    data = _read(slide)
    _check_ending(data, out)
    tl.predict(
        data,
        model,
        key_added=key_added,
        latent=latent,
        library_key=library_key,
        table_key=table_key,
        mpp=mpp,
        device=device,
    )
    _write(data, out)
    n_obs, n_genes = table_of(data, table_key).obsm[key_added].shape
    typer.echo(f"{n_genes} genes of {n_obs} spots, under obsm[{key_added!r}] in {out}")


@app.command()
def evaluate(
    slide: OneSlide,
    key: Annotated[str, typer.Option(help="Name of the prediction.")] = "hggep",
    out: Annotated[Path | None, typer.Option(help="CSV file for the table.")] = None,
    layer: Layer = None,
    library_key: Library = None,
    table_key: Table = "table",
) -> None:
    """Score a prediction against the counts of the same slide."""
    from sthggep import tl

    scores = tl.evaluate(_read(slide), key, layer=layer, library_key=library_key, table_key=table_key)
    if out is not None:
        scores.to_csv(out)
    best = scores.sort_values("pearson", ascending=False)
    typer.echo(best.head(15).to_string(float_format="%.3f"))
    typer.echo(f"Mean over {len(scores)} genes: {scores.mean(numeric_only=True).round(3).to_dict()}")


def _read(path: Path) -> AnnData | SpatialData:
    """An AnnData or a SpatialData from disk, told apart by what the file holds."""
    if not path.exists():
        msg = f"{path} does not exist; an AnnData (.h5ad) or a SpatialData (.zarr) was expected."
        raise FileNotFoundError(msg)
    if path.suffix == ".h5ad":
        import anndata

        return anndata.read_h5ad(path)
    if path.suffix == ".zarr":
        import anndata
        import zarr

        if zarr.open_group(path, mode="r").attrs.get("encoding-type") == "anndata":
            return anndata.read_zarr(path)
        from spatialdata import read_zarr

        return read_zarr(path)
    msg = f"{path} has an unknown ending; an AnnData (.h5ad) or a SpatialData (.zarr) was expected."
    raise ValueError(msg)


def _check_ending(data: AnnData | SpatialData, path: Path) -> None:
    """Refuse, before work starts, a file that could not hold the slide."""
    endings = (".zarr",) if hasattr(data, "tables") else (".h5ad", ".zarr")
    if path.suffix not in endings:
        msg = (
            f"{path} cannot hold this slide ({type(data).__name__}): pass an --out that ends in {' or '.join(endings)}."
        )
        raise ValueError(msg)


def _write(data: AnnData | SpatialData, path: Path) -> None:
    if hasattr(data, "tables"):
        data.write(path)
    elif path.suffix == ".zarr":
        data.write_zarr(path)
    else:
        data.write_h5ad(path)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, not a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("lightning", "lightning.pytorch", "fsspec", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except (KeyError, ValueError, TypeError, OSError, ImportError) as error:
        # The system's own errors carry a number first; a KeyError shows its message in quotes
        text = str(error) if getattr(error, "errno", None) or not error.args else error.args[0]
        typer.echo(f"Error: {text}", err=True)
        raise SystemExit(2) from None
