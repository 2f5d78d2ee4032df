"""Coverage and width of intervals on sections and patients that training never saw.

    python benchmarks/intervals.py --root $STHGGEP_DATA --panel panel_her2.txt

Every fold fits a closed form (`n_members=0`), whose intervals are calibrated on its own held-out tissue, and scores them on
the held-out sections. Beside it: one width a gene, the quantile of the absolute errors on the same held-out
tissue, read off the quantiles that the model holds.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import sthggep

LEVELS = (0.8, 0.9, 0.95)
HER2ST = ("B4", "C2", "C3", "C4", "C5")
# What is held out, the training sections, the tested ones. B4 is the only section of its patient: without it, C2-C5 are another patient
FOLDS = (
    ("patients", HER2ST[1:], HER2ST[:1]),
    ("patients", HER2ST[:1], HER2ST[1:]),
    *(("sections", tuple(x for x in HER2ST if x != name), (name,)) for name in HER2ST[1:]),
    ("bulbs", ("MOB1",), ("MOB3",)),
    ("bulbs", ("MOB3",), ("MOB1",)),
)


def sections(root: Path, names: tuple[str, ...]) -> list:
    """Read sections of her2st or of the mouse olfactory bulb."""
    return [
        sthggep.datasets.mob(name, root=root / "mob")
        if name.startswith("MOB")
        else sthggep.datasets.her2st(name, root=root / "her2st")
        for name in names
    ]


def one_width(model: sthggep.HGGEP, level: float) -> np.ndarray:
    """Return one width for each gene: the quantile of the absolute errors, from those of the signed ones."""
    from sthggep.model._calibration import PROBABILITIES

    errors = model.calibration.quantiles
    weights = np.gradient(PROBABILITIES)
    order = np.argsort(np.abs(errors), axis=0)
    mass = np.cumsum(weights[order], axis=0) / weights.sum()
    at = (mass < level).sum(axis=0).clip(max=len(errors) - 1)
    return np.take_along_axis(np.take_along_axis(np.abs(errors), order, axis=0), at[None], axis=0)[0]


def main() -> None:
    """Fit, predict, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--panel", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    from sthggep._table._counts import log10_cp10k, read_panel_counts
    from sthggep._table._scores import score_intervals

    rows = []
    for what, train, test in FOLDS:
        genes = None if what == "bulbs" else options.panel.read_text().split()
        model = sthggep.tl.fit(sections(options.root, train), genes=genes, n_members=0, show_progress_bar=False)
        for slide, name in zip(sections(options.root, test), test, strict=True):
            measured = log10_cp10k(read_panel_counts(slide, model.genes))
            keep = np.ptp(measured, axis=0) > 0
            for level in LEVELS:
                sthggep.tl.predict(slide, model, interval=level, show_progress_bar=False)
                predicted = slide.obsm["hggep"]
                width = one_width(model, level)
                both = {
                    "ours": (slide.obsm["hggep_lower"], slide.obsm["hggep_upper"]),
                    "one width": (np.maximum(predicted - width, 0), predicted + width),
                }
                for method, (lower, upper) in both.items():
                    scores = score_intervals(lower, upper, measured, level)[keep]
                    inside = scores["coverage"]
                    row = {"fold": what, "section": name, "from": "+".join(train), "level": level, "method": method}
                    row |= {"q25": inside.quantile(0.25), "median": inside.median(), "q75": inside.quantile(0.75)}
                    row |= {"in .80-.97": inside.between(0.8, 0.97).mean(), "width": scores["width"].mean()}
                    row |= {"interval score": scores["interval_score"].mean()}
                    rows.append(row)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
