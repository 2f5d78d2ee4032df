"""`sthggep evaluate`: scores of predictions against the counts of the same slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from sthggep._cli import _options as options
from sthggep._cli._command import command
from sthggep._cli._files import name_slide, read_gene_list
from sthggep._cli._outputs import write_table
from sthggep._cli._types import SEED
from sthggep._disk._run_folder import check_folder
from sthggep._disk._whole import whole_file
from sthggep._log import log
from sthggep._slides._container_files import file_names, kind_of, read_container

if TYPE_CHECKING:
    import pandas as pd

    from sthggep._cli._records import ScoreOptions

SHOWN = 10
EXAMPLES = """
sthggep evaluate predicted.h5ad
sthggep evaluate predicted/*.h5ad --out scores.csv --summary sections.csv
sthggep evaluate slides/*.h5ad --predicted predicted/
sthggep evaluate predicted.h5ad --genes GNAS,FASN --layer counts
"""


@command("evaluate", "Score predictions against counts and their noise ceiling.", EXAMPLES)
@options.slides
@options.option("--out", "-o", type=options.FILE, metavar="CSV", help="Write the scores of each gene in each section.")
@options.option("--summary", type=options.FILE, metavar="CSV", help="Write the table of sections.")
@options.option("--key", default="hggep", help="Name of the prediction.")
@options.option(
    "--predicted", type=options.FILE, metavar="FOLDER", help="Folder of prediction files with the names of the slides."
)
@options.genes
@options.option(
    "--moran", is_flag=True, help="Also write Moran's I, the smoothness of the maps (to the file of --out)."
)
@options.option("--seed", type=SEED, default=0, help="Seed of the noise ceiling and of the interval.")
@options.layer
@options.spots
@options.run
def evaluate(
    slides: tuple[Path, ...],
    out: Path | None,
    summary: Path | None,
    key: str,
    predicted: Path | None,
    genes: tuple[str, ...],
    moran: bool,
    **scoring: Unpack[ScoreOptions],
) -> None:
    """Score predictions against the counts of the same slides, section by section.

    Each correlation has a noise ceiling: the correlation that a perfect prediction would reach, since counts are noisy.
    """
    panel = read_gene_list(genes)
    for slide in slides:
        kind_of(slide)
    for file in (out, summary):
        check_csv(file)

    import pandas as pd

    from sthggep import tl

    sections, scores = [], []
    for slide in slides:
        with name_slide(slide):
            data = read_container(slide)
            if predicted is not None:
                tl.attach(data, predicted_file(slide, predicted), key=key)
            log.info("%s read; scoring %r", slide, key)
            by_section = tl.summary(data, key, genes=panel, **scoring)
            by_gene = tl.evaluate(data, key, genes=panel, moran=moran, **scoring)
        if "section" not in by_gene:
            by_gene["section"] = by_section.index[0]
        sections.append(by_section.drop(columns="pooled_pearson", errors="ignore").assign(file=str(slide)))
        scores.append(by_gene.assign(file=str(slide)))
    section_table, gene_table = pd.concat(sections), pd.concat(scores)
    click.echo(f"{sections_text(section_table)}\n\n{genes_text(gene_table)}")
    for file, table in ((out, gene_table), (summary, section_table)):
        if file is not None:
            save(table, file)


def predicted_file(slide: Path, folder: Path) -> Path:
    """The file of a slide's prediction: that of the slide's name, or the one that `predict` named after it."""
    return folder / slide.name if (folder / slide.name).exists() else file_names([slide], folder, [".h5ad"])[slide]


def check_csv(file: Path | None) -> None:
    """Refuse, before work starts, a file that is not a table, such as a slide, which must not be overwritten."""
    if file is not None and file.suffix.lower() not in (".csv", ".tsv"):
        msg = f"A file for a table ends in .csv or .tsv, found {file}. Pass another --out or --summary."
        raise ValueError(msg)
    if file is not None:
        check_folder(file.parent, "--out or --summary")


def save(table: pd.DataFrame, file: Path) -> None:
    """Write a table; its first columns are the file and the section of each row."""
    rows = table.reset_index()
    first = ["file", "section"]
    rows = rows[[*first, *(column for column in rows if column not in first)]]
    with whole_file(file) as part:
        write_table(rows, part)
    log.info("%s written (%d rows)", file, len(rows))


def sections_text(table: pd.DataFrame) -> str:
    """One line for each section: its correlation, the interval and the noise ceiling."""
    import pandas as pd

    several = table["file"].nunique() > 1 and not table.index.is_unique
    shown = pd.DataFrame(
        {
            "section": [_section(row, several) for _, row in table.iterrows()],
            "spots": table["n_spots"].astype(str),
            "genes": table["n_genes"].astype(str),
            "Pearson": table["pearson"].map("{:.3f}".format),
            "95 % interval": [_interval(row) for _, row in table.iterrows()],
            "ceiling": table["ceiling"].map("{:.3f}".format),
            "of ceiling": table["of_ceiling"].map(percent),
        }
    )
    text = f"Sections (means over genes)\n{shown.to_string(index=False)}"
    if len(table) > 1:
        text += f"\nMean over {len(table)} sections: Pearson {table['pearson'].mean():.3f}."
    if constant := int(table["n_constant"].sum()):
        text += f"\n{constant} constant genes have no correlation; the means omit them."
    return text


def genes_text(scores: pd.DataFrame) -> str:
    """The best predicted genes, by their mean over sections."""
    columns = ["pearson", "ceiling", "of_ceiling", "spearman", "rmse"]
    means = scores.groupby(level="gene", sort=False)[columns].mean()
    best = means.nlargest(SHOWN, "pearson")
    shown = best.drop(columns="of_ceiling").map("{:.3f}".format)
    shown.insert(2, "of ceiling", best["of_ceiling"].map(percent))
    shown = shown.rename(columns={"pearson": "Pearson", "spearman": "Spearman", "rmse": "RMSE"}).rename_axis(None)
    return f"Best {len(best)} of {len(means)} genes\n{shown.to_string()}"


def _section(row: pd.Series, several: bool) -> str:
    """Name of a section, with its file if names repeat, and a mark if the model was trained on it."""
    name = f"{row['file']}: {row.name}" if several else str(row.name)
    if row["trained_on"] != row["trained_on"]:
        return f"{name} (trained on?)"
    return f"{name} (trained on)" if row["trained_on"] else name


def _interval(row: pd.Series) -> str:
    low, high = row["pearson_low"], row["pearson_high"]
    return f"{low:.3f} to {high:.3f}" if low == low else "too few spots"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share == share else "–"
