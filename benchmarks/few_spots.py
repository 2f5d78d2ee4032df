"""Few measured spots of a slide: the model as it is, adapted to them, and a new model of them alone.

    python benchmarks/few_spots.py --root $STHGGEP_DATA --panel panel_her2.txt --out few_spots.csv     # about an hour on two cores
    python benchmarks/few_spots.py ... --tasks bulbs --draws 2

Spots are drawn at random (20, 50, 100), or are those with the smallest projection on a direction (a quarter, a half). Scored
are the other spots: Pearson correlation of each gene, mean over genes; a constant prediction counts 0. The closed form alone.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import sthggep
from sthggep._table._counts import log10_cp10k, read_panel_counts
from sthggep._table._scores import column_pearson

C = ("C2", "C3", "C4", "C5")
TASKS = {
    "patients": [(C, "B4"), *((("B4",), name) for name in C)],
    "known": [(tuple(each for each in ("B4", *C) if each != name), name) for name in C],
    "bulbs": [(("MOB1",), "MOB3"), (("MOB3",), "MOB1")],
}
NUMBERS, PARTS, ANGLES = (20, 50, 100), {"quarter": 0.25, "half": 0.5}, (0, 90, 180, 270)
QUIET: dict[str, Any] = {"show_progress_bar": False}


def choices(xy: NDArray[np.float64], draws: int) -> Iterator[tuple[str, int, NDArray[np.bool_]]]:
    """Name, draw and mask of each choice of measured spots."""
    for number in NUMBERS:
        for draw in range(draws):
            mask = np.zeros(len(xy), dtype=bool)
            mask[np.random.default_rng(draw).permutation(len(xy))[:number]] = True
            yield str(number), draw, mask
    for name, share in PARTS.items():
        for angle in ANGLES:
            along = xy @ np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
            mask = np.zeros(len(xy), dtype=bool)
            mask[np.argsort(along, kind="stable")[: int(len(xy) * share)]] = True
            yield name, angle, mask


def predict(slide: anndata.AnnData, model: sthggep.HGGEP) -> NDArray[np.float32]:
    """Prediction of all spots."""
    sthggep.tl.predict(slide, model, key_added="found", **QUIET)
    return np.asarray(slide.obsm["found"])


def score(predicted: NDArray[np.float32], measured: NDArray[np.float32]) -> float:
    """Mean correlation over the genes that vary."""
    return float(np.nan_to_num(column_pearson(predicted, measured))[measured.std(axis=0) > 0].mean())


def main() -> None:
    """Train each model once, and adapt it to each choice of spots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--without-alone", action="store_true", help="leave out the models of the measured spots alone")
    parser.add_argument("--out", type=Path, default=Path("few_spots.csv"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    panel = options.panel.read_text().split()
    slides: dict[str, anndata.AnnData] = {}
    rows = []
    for kind in options.tasks:
        for training, name in TASKS[kind]:
            for each in (*training, name):
                if each not in slides:
                    dataset = "mob" if each.startswith("MOB") else "her2st"
                    slides[each] = getattr(sthggep.datasets, dataset)(each, root=options.root / dataset)
            slide = slides[name]
            genes = (
                panel if kind != "bulbs" else [g for g in slide.var_names if g in set(slides[training[0]].var_names)]
            )
            model = sthggep.tl.fit([slides[each] for each in training], genes=genes, n_members=0, **QUIET)
            measured, as_it_is = log10_cp10k(read_panel_counts(slide, genes)), predict(slide, model)
            for choice, draw, mask in choices(np.asarray(slide.obsm["spatial"], dtype=float), options.draws):
                few: dict[str, Any] = {"measured": mask, "n_members": 0, **QUIET}
                adapted = sthggep.tl.fit(slide, model=model, validation=None, **few)
                found = {"as it is": as_it_is, "adapted": predict(slide, adapted)}
                if not options.without_alone:
                    found["alone"] = predict(slide, sthggep.tl.fit(slide, genes=genes, **few))
                scores = {method: score(values[~mask], measured[~mask]) for method, values in found.items()}
                rows.append(
                    {"task": kind, "from": "+".join(training), "to": name, "measured": choice, "draw": draw, **scores}
                )
                print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(options.out, index=False)
    table = pd.DataFrame(rows).drop(columns="draw").groupby(["task", "from", "to", "measured"], sort=False).mean()
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
