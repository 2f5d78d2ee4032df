"""`sthggep demo`: the main job from end to end, on toy tissue that the package draws or on real tissue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sthggep._cli import _options as options
from sthggep._cli._command import Run, command
from sthggep._cli._evaluate import genes_text, sections_text
from sthggep._cli._files import check_folder, whole, write_slide
from sthggep._log import log

if TYPE_CHECKING:
    from anndata import AnnData

DATASETS = ("her2st", "cscc", "mob")
TOY_SECTIONS = 3
FIGURES = ("gene_map.png", "scores.png", "history.png", "patches.png")
EXAMPLES = """
sthggep demo
sthggep demo --out c2 --section her2st:C2    (a real section, trained on the others of the data set that are here)
"""


@command("demo", "See it all at work on toy tissue.", EXAMPLES)
@options.option(
    "--out", "-o", type=options.FILE, default=Path("sthggep-demo"), metavar="FOLDER", help="Folder of all that is made."
)
@options.option(
    "--section",
    multiple=True,
    metavar="DATASET:SECTION",
    help="Real tissue, such as her2st:C2: the first is predicted, training is on the others given, or on all others of that "
    "data set that are here.",
)
@options.option("--seed", type=int, default=0, help="Of the toy tissue and of training.")
@options.run
@click.pass_obj
def demo(run: Run, out: Path, section: tuple[str, ...], seed: int) -> None:
    """Train, predict a section held out, score it, draw it: on toy tissue that the package draws (some minutes)."""
    click.echo(run_demo(out, section, seed, show=run.show))
    for line in after(out):
        log.info("%s", line)


def run_demo(out: Path, sections: Sequence[str] = (), seed: int = 0, *, show: bool = True) -> str:
    """Fit, predict a section held out, score, draw, save.

    Parameters
    ----------
    out
        Folder for the table, the figures, the model and the predicted section.
    sections
        Real tissue as ``dataset:section``, the first held out; empty for toy tissue.
    seed
        Of the toy tissue and of the training.
    show
        Show progress.

    Returns
    -------
    The scores, as text.

    Raises
    ------
    FileExistsError
        ``out`` is there and is not a folder of an earlier demo.
    ValueError
        A section is not named as ``dataset:section``, or there is nothing to train on.
    """
    from sthggep import pl, tl
    from sthggep._checks import listing

    check_folder(out, "scores.csv", "demo")
    train, test = _real(sections) if sections else _toy(seed)
    log.info("1. Train on %d sections: %s.", len(train), listing(_name(a) for a in train))
    model = tl.fit(train, seed=seed, show_progress_bar=show)
    log.info("2. Predict %s, which training did not see.", _name(test))
    tl.predict(test, model, show_progress_bar=show)
    log.info("3. Score the prediction against the counts of %s, and draw it.", _name(test))
    scores, section = tl.evaluate(test), tl.summary(test)
    best = scores.sort_values("pearson", ascending=False)

    out.mkdir(parents=True, exist_ok=True)
    scores.to_csv(out / "scores.csv")
    # One of the best, one good, one middling: not a parade
    shown = [str(best.index[int(len(best) * rank)]) for rank in (0, 0.25, 0.5)]
    pl.gene_map(test, list(dict.fromkeys(shown)), save=out / "gene_map.png")
    pl.scores(test, save=out / "scores.png")
    pl.history(model, save=out / "history.png")
    pl.patches(test, size_um=160, save=out / "patches.png")
    model.save(out / "model", overwrite=True)
    _drop_what_a_file_has(test)
    with whole(out / "predicted.h5ad") as part:
        write_slide(test, part)
    return f"{sections_text(section.assign(file=''))}\n\n{genes_text(scores)}\n"


def _toy(seed: int) -> tuple[list[AnnData], AnnData]:
    from sthggep import datasets

    log.info("Drawing %d sections of toy tissue.", TOY_SECTIONS + 1)
    first = seed * (TOY_SECTIONS + 1)
    drawn = [datasets.toy(seed=first + i) for i in range(TOY_SECTIONS + 1)]
    return drawn[:-1], drawn[-1]


def _real(names: Sequence[str]) -> tuple[list[AnnData], AnnData]:
    """The first section is held out; with no others named, all of its data set that have an image here are trained on."""
    from sthggep import datasets
    from sthggep._checks import one_of

    pairs = []
    for name in names:
        dataset, _, section = name.partition(":")
        if not section:
            msg = f"A section is named as dataset:section, such as 'her2st:C2'; found {name!r}."
            raise ValueError(msg)
        pairs.append((one_of(dataset, DATASETS, "data set"), section))
    held_out, others = pairs[0], pairs[1:]
    if not others:
        dataset = held_out[0]
        others = [(dataset, s) for s in datasets.sections(dataset, with_image=True) if s != held_out[1]]
    if not others or held_out in others:
        msg = f"Nothing is left to train on beside {names[0]!r}; name other sections after it."
        raise ValueError(msg)
    return [getattr(datasets, d)(s) for d, s in others], getattr(datasets, held_out[0])(held_out[1])


def _name(adata: AnnData) -> str:
    return str(next(iter(adata.uns["spatial"])))


def _drop_what_a_file_has(adata: AnnData) -> None:
    """Leave the full image of a real section in its own file, which the section names: it has hundreds of megabytes."""
    library = adata.uns["spatial"][_name(adata)]
    if Path(str(library.get("metadata", {}).get("source_image_path", ""))).is_file():
        library["images"].pop("fullres", None)


def after(out: Path) -> list[str]:
    """Where things are, and what to do next."""
    return [
        f"Written to {out}/: scores.csv, {', '.join(FIGURES)}, model/, predicted.h5ad",
        "Next:",
        f"  sthggep evaluate {out}/predicted.h5ad                             the scores again, of any predicted slide",
        f"  sthggep predict SLIDE.h5ad --model {out}/model --out NEW.h5ad     your slide, by the model trained here",
        "  sthggep predict SLIDE.h5ad --out NEW.h5ad                         a breast tumor, by the model of the package",
        "  sthggep fit A.h5ad B.h5ad --out MODEL                             train on your own sections",
        "  sthggep COMMAND --help                                            all options, with examples",
    ]
