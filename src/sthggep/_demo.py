"""`sthggep demo`: the main job from end to end, on toy tissue that the package draws or on real tissue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sthggep._checks import listing, one_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from sthggep.model import HGGEP

DATASETS = ("her2st", "cscc", "mob")
TOY_SECTIONS = 3


def run_demo(out: Path, sections: Sequence[str] = (), seed: int = 0) -> Iterator[str]:
    """Fit, predict a section held out, score, draw, save; yields lines to be shown.

    Parameters
    ----------
    out
        Folder for the table, the figures and the model.
    sections
        Real tissue as ``dataset:section``, the first held out; empty for toy tissue.
    seed
        Of the toy tissue and of the training.

    Raises
    ------
    FileExistsError
        ``out`` is there and is not a folder of an earlier demo.
    ValueError
        A section is not named as ``dataset:section``, or there is nothing to train on.
    """
    from sthggep import pl, tl

    if out.exists() and any(out.iterdir()) and not (out / "scores.csv").exists():
        msg = f"{out} is not empty and no demo wrote it; it is left alone. Pass another `--out`."
        raise FileExistsError(msg)
    train, test = _real(sections) if sections else _toy(seed)
    yield f"Training on {len(train)} sections ({listing(_name(a) for a in train)}), {sum(a.n_obs for a in train)} spots."
    model = tl.fit(train, seed=seed)
    yield repr(model)
    yield f"Predicting {_name(test)}, which training did not see: {test.n_obs} spots."
    tl.predict(test, model)
    scores = tl.evaluate(test)
    best = scores.sort_values("pearson", ascending=False)
    yield best.head(8)[["pearson", "spearman", "rmse", "ceiling"]].to_string(float_format="%.2f")
    yield _summary(scores)

    out.mkdir(parents=True, exist_ok=True)
    scores.to_csv(out / "scores.csv")
    # One of the best, one good, one middling: not a parade
    shown = [str(best.index[int(len(best) * rank)]) for rank in (0, 0.25, 0.5)]
    pl.gene_map(test, list(dict.fromkeys(shown)), save=out / "gene_map.png")
    pl.scores(test, save=out / "scores.png")
    pl.history(model, save=out / "history.png")
    pl.patches(test, size_um=160, save=out / "patches.png")
    model.save(out / "model", overwrite=True)
    yield from _next(out, model)


def _toy(seed: int) -> tuple[list[AnnData], AnnData]:
    from sthggep import datasets

    first = seed * (TOY_SECTIONS + 1)
    drawn = [datasets.toy(seed=first + i) for i in range(TOY_SECTIONS + 1)]
    return drawn[:-1], drawn[-1]


def _real(names: Sequence[str]) -> tuple[list[AnnData], AnnData]:
    """The first section is held out; with no others named, all of its data set that have an image here are trained on."""
    from sthggep import datasets

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


def _summary(scores: pd.DataFrame) -> str:
    mean, ceiling = scores["pearson"].mean(), scores["ceiling"].mean()
    return (
        f"Mean Pearson correlation {mean:.3f} over {len(scores)} genes; the noise in these counts allows {ceiling:.3f}, "
        f"so {mean / ceiling:.0%} of what can be had."
    )


def _next(out: Path, model: HGGEP) -> Iterator[str]:
    yield f"Written to {out}/: scores.csv, gene_map.png, scores.png, history.png, patches.png, model/"
    yield (
        "Next, in Python:\n"
        f"  model = sthggep.HGGEP.load({str(out / 'model')!r})     # {len(model.genes)} genes\n"
        "  sthggep.tl.predict(adata, model)                # your slide: AnnData or SpatialData\n"
        "  sthggep.tl.predict(adata)                       # breast tissue: the model that comes with the package\n"
        "  model = sthggep.tl.fit([adata1, adata2, …])     # or train on your own sections"
    )
