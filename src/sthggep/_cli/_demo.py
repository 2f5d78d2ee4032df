"""`sthggep demo`: the whole pipeline on toy tissue or on real sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sthggep._cli import _options as options
from sthggep._cli._command import Run, command
from sthggep._cli._evaluate import genes_text, sections_text
from sthggep._cli._files import check_contents, write_slide, write_whole
from sthggep._cli._types import SEED
from sthggep._log import log

if TYPE_CHECKING:
    from anndata import AnnData

DATASETS = ("her2st", "cscc", "mob")
TOY_SECTIONS = 3
FIGURES = ("gene_map.png", "crop.png", "scores.png", "history.png", "patches.png")
EXAMPLES = """
sthggep demo
sthggep demo --out c2 --section her2st:C2    (a real section; trains on the other local sections of the data set)
"""


@command("demo", "Run the whole pipeline on toy tissue.", EXAMPLES)
@options.option(
    "--out", "-o", type=options.FILE, default=Path("sthggep-demo"), metavar="FOLDER", help="Folder for all results."
)
@options.option(
    "--section",
    multiple=True,
    metavar="DATASET:SECTION",
    help="Real section, such as her2st:C2. May be repeated: the demo holds out the first and trains on the others; with "
    "one section it trains on the other local sections of the data set.  [default: toy tissue]",
)
@options.option("--seed", type=SEED, default=0, help="Seed of the toy tissue and of the training.")
@options.run
@click.pass_obj
def demo(run: Run, out: Path, section: tuple[str, ...], seed: int) -> None:
    """Train a model, predict a held-out section, score and draw the prediction, by default on toy tissue (minutes)."""
    click.echo(run_demo(out, section, seed, show=run.show))
    for line in next_steps(out):
        log.info("%s", line)


def run_demo(out: Path, sections: Sequence[str] = (), seed: int = 0, *, show: bool = True) -> str:
    """Train a model, predict a held-out section, score and draw the prediction, and save all results.

    Parameters
    ----------
    out
        Folder for the table, the figures, the model and the predicted section.
    sections
        Real sections as ``dataset:section``; the demo holds out the first. Default: toy tissue.
    seed
        Seed of the toy tissue and of the training.
    show
        Show progress.

    Returns
    -------
    The scores, as text.

    Raises
    ------
    FileExistsError
        ``out`` exists and is not a folder of an earlier demo.
    ValueError
        A name does not have the form ``dataset:section``, or no section is left to train on.
    """
    from sthggep import pl, tl
    from sthggep._checks import listing
    from sthggep._table._verdicts import describe_verdicts

    check_contents(out, "scores.csv", "demo")
    train, test = _read_sections(sections) if sections else _draw_toy(seed)
    log.info("1. Train on %d sections: %s.", len(train), listing(_name(a) for a in train))
    model = tl.fit(train, seed=seed, show_progress_bar=show)
    log.info("2. Predict the held-out section %s.", _name(test))
    tl.predict(test, model, show_progress_bar=show)
    verdicts = tl.trust(test)
    log.info("3. Score the prediction against the counts of %s and draw it.", _name(test))
    scores, section = tl.evaluate(test), tl.summary(test)
    best = scores.sort_values("pearson", ascending=False)

    out.mkdir(parents=True, exist_ok=True)
    with write_whole(out / "scores.csv") as part:
        scores.join(verdicts[["verdict", "reason"]]).to_csv(part)
    # The best gene, one of good and one of middling score, so that the figure is not too favorable
    genes = [str(best.index[int(len(best) * rank)]) for rank in (0, 0.25, 0.5)]
    why = "genes of the best, of good and of middling score on this section"
    pl.gene_map(test, list(dict.fromkeys(genes)), title=why, save=out / "gene_map.png")
    why = f"{genes[0]}, the gene of the best score, in the middle of the section"
    pl.gene_map(test, genes[0], crop_coord=_middle(test), size=1.2, title=why, save=out / "crop.png")
    pl.scores(test, save=out / "scores.png")
    pl.history(model, save=out / "history.png")
    pl.patches(test, size_um=160, save=out / "patches.png")
    model.save(out / "model", overwrite=True)
    _drop_image_on_disk(test)
    with write_whole(out / "predicted.h5ad") as part:
        write_slide(test, part)
    held = f"Before any count of it was read, tissue held out of the training said of {_name(test)}: {describe_verdicts(verdicts)}."
    return f"{sections_text(section.assign(file=''))}\n\n{genes_text(scores)}\n\n{held}\n"


def _draw_toy(seed: int) -> tuple[list[AnnData], AnnData]:
    """Toy sections to train on, and a held-out one."""
    from sthggep import datasets

    log.info("Drawing %d sections of toy tissue.", TOY_SECTIONS + 1)
    first = seed * (TOY_SECTIONS + 1)
    sections = [datasets.toy(seed=first + i) for i in range(TOY_SECTIONS + 1)]
    return sections[:-1], sections[-1]


def _read_sections(names: Sequence[str]) -> tuple[list[AnnData], AnnData]:
    """Real sections to train on, and the held-out one, which is the first; default: the data set's others with image."""
    from sthggep import datasets
    from sthggep._checks import one_of

    pairs = []
    for name in names:
        dataset, _, section = name.partition(":")
        if not section:
            msg = f"A section in the form dataset:section was expected, such as 'her2st:C2', found {name!r}."
            raise ValueError(msg)
        pairs.append((one_of(dataset, DATASETS, "data set"), section))
    held_out, others = pairs[0], pairs[1:]
    if not others:
        dataset = held_out[0]
        others = [(dataset, s) for s in datasets.sections(dataset, with_image=True) if s != held_out[1]]
    if not others or held_out in others:
        msg = f"At least one section beside {names[0]!r} was expected. Nothing is left to train on: pass further --section."
        raise ValueError(msg)
    return [getattr(datasets, d)(s) for d, s in others], getattr(datasets, held_out[0])(held_out[1])


def _name(adata: AnnData) -> str:
    return str(next(iter(adata.uns["spatial"])))


def _middle(adata: AnnData) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the middle third of the spots, in full-resolution pixels."""
    import numpy as np

    (left, top), (right, bottom) = np.quantile(np.asarray(adata.obsm["spatial"]), (1 / 3, 2 / 3), axis=0)
    return float(left), float(right), float(top), float(bottom)


def _drop_image_on_disk(adata: AnnData) -> None:
    """Drop the full image (hundreds of megabytes) of a real section, whose record names the image file."""
    library = adata.uns["spatial"][_name(adata)]
    if Path(str(library.get("metadata", {}).get("source_image_path", ""))).is_file():
        library["images"].pop("fullres", None)


def next_steps(out: Path) -> list[str]:
    """Lines on the results and on further commands."""
    return [
        f"Written to {out}/: scores.csv, {', '.join(FIGURES)}, model/, predicted.h5ad",
        "Next:",
        f"  sthggep evaluate {out}/predicted.h5ad                             score any predicted slide",
        f"  sthggep predict SLIDE.h5ad --model {out}/model --out NEW.h5ad     predict your slide with the demo's model",
        "  sthggep predict SLIDE.h5ad --out NEW.h5ad                         predict a breast tumor with the bundled model",
        "  sthggep fit A.h5ad B.h5ad --out MODEL                             train on your own sections",
        "  sthggep COMMAND --help                                            list all options, with examples",
    ]
