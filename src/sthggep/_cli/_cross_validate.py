"""`sthggep cross-validate`: held-out patients or sections, the model beside its baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sthggep._cli import _options as options
from sthggep._cli._command import RECORD, Run, command
from sthggep._cli._evaluate import percent
from sthggep._cli._files import check_folder, read_gene_list, read_slides, targets_of
from sthggep._log import log
from sthggep._slides._places import Places

if TYPE_CHECKING:
    import pandas as pd

FOLDS, SCORES, FIGURE = "folds", "scores.csv", "cross_validation.png"
BASELINES = ("mean", "nearest_patch", "ridge")
EXAMPLES = """
sthggep cross-validate sections/*.h5ad --out held-out
sthggep cross-validate sections/*.h5ad --out held-out --group-key section --baseline ridge
sthggep cross-validate --config held-out/run.yaml         (goes on with the folds that are missing)
"""


@command("cross-validate", "Hold out patients or sections, beside baselines.", EXAMPLES)
@options.slides
@options.option(
    "--out", "-o", type=options.FILE, required=True, metavar="FOLDER", help="Folder of folds, table and figure."
)
@options.option(
    "--group-key",
    default="patient",
    help="Column of obs whose values are held out one by one; section leaves out each section.",
)
@options.option(
    "--baseline",
    type=click.Choice([*BASELINES, "none"]),
    multiple=True,
    default=BASELINES,
    help="What stands beside the model. May be repeated.",
)
@options.preset
@options.option(
    "--validation",
    type=click.Choice(["auto", "sections", "blocks", "none"]),
    default="auto",
    heading=options.TRAINING,
    help="Held out of the training sections to stop early.",
)
@options.genes
@options.targets
@options.training
@options.look
@options.layer
@options.spots
@options.images
@options.compute
@options.window
@options.run
@click.pass_obj
def cross_validate(
    run: Run,
    /,
    slides: tuple[Path, ...],
    out: Path,
    baseline: tuple[str, ...],
    genes: tuple[str, ...],
    targets: str | None,
    validation: str,
    expression: tuple[Path, ...],
    size_um: tuple[float, ...],
    obsm: tuple[str, ...],
    window: str,
    **rest: Any,
) -> None:
    """Hold out one patient (or section) after the other, and score the model beside simple baselines.

    FOLDER gets scores.csv (a row for each section, method, metric and gene), a figure, run.yaml (the options of this run)
    and the finished folds: the same command goes on where it was interrupted.
    """
    panel = read_gene_list(genes)
    check_folder(out, FOLDS, "cross-validation")
    places = Places.among(rest)
    data = read_slides(slides, places)
    further = read_slides(expression, replace(places, mpp=None))

    from sthggep import pl, tl

    results = tl.cross_validate(
        data,
        out=out / FOLDS,
        genes=panel,
        targets=targets_of(targets),
        baselines=[name for name in baseline if name != "none"],
        validation=None if validation == "none" else validation,
        expression=further or None,
        size_um=options.several(size_um),
        obsm=options.several(obsm),
        window=options.window_of(window),
        show_progress_bar=run.show,
        **rest,
    )
    results.to_csv(out / SCORES, index=False)
    pl.cross_validation(results, save=out / FIGURE)
    run.keep(out)
    click.echo(table_text(results))
    log.info("Written to %s/: %s, %s, %s, %s/", out, SCORES, FIGURE, RECORD, FOLDS)


def table_text(results: pd.DataFrame) -> str:
    """Mean Pearson correlation over genes: a line a section, a column a method, the ceiling last."""
    wanted = results[results["metric"].isin(["pearson", "ceiling"])]
    means = wanted.groupby(["section", "method"], sort=False)["value"].mean().unstack("method")
    groups = results.drop_duplicates("section").set_index("section")["group"]
    table = means.map("{:.3f}".format)
    table.insert(0, "held out", groups.reindex(table.index))
    overall = means.mean()
    table.loc["all sections"] = {"held out": "", **overall.map("{:.3f}".format)}
    table = table.rename_axis(index=None, columns=None).rename(columns={"mean": "mean of training"})
    if "ceiling" not in overall:
        return f"Pearson correlation, mean over targets\n{table.to_string()}"
    shares = ", ".join(
        f"{name} {percent(overall[name] / overall['ceiling'])}" for name in overall.index if name != "ceiling"
    )
    text = f"Pearson correlation, mean over genes\n{table.to_string()}"
    return f"{text}\nOf the ceiling: {shares}."
