"""`sthggep cross-validate`: scores of the model and its baselines on held-out patients or sections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from sthggep._cli import _options as options
from sthggep._cli._command import RECORD, Run, command
from sthggep._cli._evaluate import percent
from sthggep._cli._files import check_contents, read_panel, read_slides
from sthggep._cli._records import TrainingOptions, training_keywords
from sthggep._cli._types import POSITIVE
from sthggep._disk._whole import whole_file
from sthggep._log import log
from sthggep._slides._places import Places

if TYPE_CHECKING:
    import pandas as pd

FOLDS, SCORES, FIGURE, INTERVALS = "folds", "scores.csv", "cross_validation.png", "calibration.png"
BASELINES = ("mean", "nearest_patch", "ridge")
EXAMPLES = """
sthggep cross-validate sections/*.h5ad --out held-out
sthggep cross-validate sections/*.h5ad --out held-out --group-key section --baseline ridge
sthggep cross-validate --config held-out/run.yaml         (resumes with the missing folds)
"""


@command("cross-validate", "Score the model and baselines on held-out patients or sections.", EXAMPLES)
@options.slides
@options.option(
    "--out", "-o", type=options.FILE, required=True, metavar="FOLDER", help="Folder for folds, table and figure."
)
@options.option(
    "--group-key",
    default="patient",
    help="Column of obs with the groups to hold out one by one; section holds out each section.",
)
@options.option(
    "--baseline",
    type=click.Choice([*BASELINES, "none"]),
    multiple=True,
    default=BASELINES,
    help="Baseline to score beside the model. May be repeated.",
)
@options.option(
    "--interval",
    type=POSITIVE,
    multiple=True,
    metavar="LEVEL",
    help="Also score the model's intervals of this level, such as 0.9, and draw them (calibration.png). May be repeated.",
)
@options.option(
    "--trust",
    is_flag=True,
    help="Also compare the verdicts on genes (sthggep.tl.trust) with what the held-out sections show.",
)
@options.preset
@options.option(
    "--validation",
    type=click.Choice(["auto", "sections", "patients", "blocks", "none"]),
    default="auto",
    heading=options.TRAINING,
    help="Training tissue to hold out for early stopping.",
)
@options.panel
@options.targets
@options.training
@options.features
@options.layer
@options.spots
@options.images
@options.fullres
@options.compute
@options.window
@options.run
@click.pass_obj
def cross_validate(
    run: Run,
    /,
    slides: tuple[Path, ...],
    out: Path,
    group_key: str,
    baseline: tuple[str, ...],
    interval: tuple[float, ...],
    trust: bool,
    validation: str,
    fullres_image: tuple[Path, ...],
    **training: Unpack[TrainingOptions],
) -> None:
    """Hold out each patient (or section) in turn, and score the model and simple baselines on it.

    The command writes into FOLDER: scores.csv (a row for each section, method, metric and gene), a figure, run.yaml (the
    options of this run) and the finished folds. After an interruption the same command resumes.
    """
    panel = read_panel(training["genes"])
    check_contents(out, FOLDS, "cross-validation")
    options.check_device(training["device"])
    places = Places.among(training)
    data = read_slides(slides, places, fullres_image)
    expression = read_slides(training["expression"], replace(places, mpp=None))

    from sthggep import pl, tl

    results = tl.cross_validate(
        data,
        out=out / FOLDS,
        group_key=group_key,
        baselines=[name for name in baseline if name != "none"],
        interval=interval or None,
        trust=trust,
        validation=None if validation == "none" else validation,
        show_progress_bar=run.show,
        **training_keywords(training, panel, expression),
    )
    with whole_file(out / SCORES) as part:
        results.to_csv(part, index=False)
    pl.cross_validation(results, save=out / FIGURE)
    if interval:
        pl.calibration(results, save=out / INTERVALS)
    run.write_options(out)
    click.echo(table_text(results))
    if trust:
        click.echo(f"\n{trust_text(results)}")
    figures = f"{FIGURE}, {INTERVALS}" if interval else FIGURE
    log.info("Written to %s/: %s, %s, %s, %s/", out, SCORES, figures, RECORD, FOLDS)


def trust_text(results: pd.DataFrame) -> str:
    """Count the genes that verdicts trusted, and how many of them each held-out section shows: a row for each section."""
    import pandas as pd

    own = results[(results["method"] == "hggep") & results["metric"].isin(["trusted", "correlated", "novelty"])]
    wide = own.pivot_table(index=["section", "gene"], columns="metric", values="value", sort=False, dropna=False)
    rows = {}
    for section, part in wide.groupby(level="section", sort=False):
        trusted, shown = part["trusted"] == 1, part["correlated"] == 1
        both = int((trusted & shown).sum())
        rows[section] = {
            "trusted genes": str(int(trusted.sum())),
            "of them correlated here": f"{both / trusted.sum():.0%}" if trusted.any() else "-",
            "of the correlated, trusted": f"{both / shown.sum():.0%}" if shown.any() else "-",
            "not judged": str(int(part["trusted"].isna().sum())),
            "novelty": f"{part['novelty'].mean():.2f}",
        }
    return "Verdicts\n" + pd.DataFrame(rows).T.rename_axis("section").to_string()


def table_text(results: pd.DataFrame) -> str:
    """Mean Pearson correlation over genes: a row for each section, a column for each method, the ceiling last."""
    correlations = results[results["metric"].isin(["pearson", "ceiling"])]
    means = correlations.groupby(["section", "method"], sort=False)["value"].mean().unstack("method")
    groups = results.drop_duplicates("section").set_index("section")["group"]
    table = means.map("{:.3f}".format)
    table.insert(0, "held out", groups.reindex(table.index))
    overall = means.mean()
    table.loc["all sections"] = {"held out": "", **overall.map("{:.3f}".format)}
    table = table.rename_axis(index=None, columns=None).rename(columns={"mean": "mean of training"})
    if "ceiling" not in overall:
        return f"Pearson correlation, mean over targets\n{table.to_string()}"
    fractions = ", ".join(
        f"{name} {percent(overall[name] / overall['ceiling'])}" for name in overall.index if name != "ceiling"
    )
    text = f"Pearson correlation, mean over genes\n{table.to_string()}"
    return f"{text}\nFraction of the ceiling: {fractions}."
