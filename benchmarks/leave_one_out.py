"""Leave one section out, over real sections: the default preset beside ridge on the same frozen features.

    python benchmarks/leave_one_out.py --root $STHGGEP_DATA/her2st --panel panel_her2.txt --out docs/_tables/leave_one_out.csv

Per-gene Pearson correlation within the held-out section, on log10(1 + counts per 10,000 of the panel), mean over genes.
Nothing sees the counts of the held-out section, the panel file excepted (published; it was chosen on all sections).
With --expression the gene programmes are also learnt from the counts of all other her2st sections, less those of the held-out
section's patient.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import sthggep
from sthggep._expression import counts, log10_cp10k
from sthggep.tl._evaluate import score

ENCODER = "shufflenet_he"
SIZES_UM = (80.0, 160.0, 320.0, 640.0)
SECTIONS = ("B4", "C2", "C3", "C4", "C5")


def stacked(slide, width: str) -> np.ndarray:
    """Features of the fields of view side by side, each standardised within the section."""
    sizes = SIZES_UM if width == "all" else (float(width),)
    found = np.hstack([slide.obsm[f"X_{ENCODER}_{size:g}"] for size in sizes])
    return (found - found.mean(axis=0)) / np.maximum(found.std(axis=0), 1e-6)


def ridge(train, test, panel: list[str], width: str, alphas=(1e2, 1e3, 1e4, 1e5)) -> np.ndarray:
    """Ridge from frozen features; its penalty is chosen by leaving out training sections."""
    from sklearn.linear_model import Ridge

    x = [stacked(slide, width) for slide in train]
    y = [log10_cp10k(counts(slide, panel)) for slide in train]
    y = [target - target.mean(axis=0) for target in y]

    def fitted(alpha: float, left_out: int | None = None) -> Ridge:
        kept = [i for i in range(len(x)) if i != left_out]
        return Ridge(alpha).fit(np.vstack([x[i] for i in kept]), np.vstack([y[i] for i in kept]))

    def inner(alpha: float) -> float:
        found = [np.nanmean(score(fitted(alpha, i).predict(x[i]), y[i])["pearson"]) for i in range(len(x))]
        return float(np.mean(found))

    best = max(alphas, key=inner)
    return fitted(best).predict(stacked(test, width))


def nearest_patch(train, test, panel: list[str]) -> np.ndarray:
    """Expression of the training spot whose patch looks most alike."""
    from sklearn.neighbors import NearestNeighbors

    x = np.vstack([stacked(slide, "all") for slide in train])
    y = np.vstack([log10_cp10k(counts(slide, panel)) for slide in train])
    at = NearestNeighbors(n_neighbors=1).fit(x).kneighbors(stacked(test, "all"), return_distance=False)[:, 0]
    return y[at]


def counted(root: Path) -> dict:
    """Counts of the her2st sections that are not looked at, by their names."""
    found = {}
    for path in sorted((root / "data" / "ST-cnts").glob("*.tsv.gz")):
        name = path.name[:2]
        spots = root / "data" / "ST-spotfiles" / f"{name}_selection.tsv"
        if name not in SECTIONS and spots.exists():
            found[name] = sthggep.io.read_st(path, None, spots, patient=name[0], section=name)
    return found


def fold(slides: dict, held_out: str, panel: list[str], further: dict | None, seed: int) -> list[dict]:
    """All methods on one section held out."""
    train, test = [slide for name, slide in slides.items() if name != held_out], slides[held_out].copy()
    measured = log10_cp10k(counts(test, panel))
    start = time.perf_counter()
    expression = None if further is None else [s for name, s in further.items() if name[0] != held_out[0]]
    model = sthggep.tl.fit(train, genes=panel, expression=expression, seed=seed, show_progress_bar=False)
    seconds = time.perf_counter() - start
    sthggep.tl.predict(test, model, show_progress_bar=False)
    scores = sthggep.tl.evaluate(test)
    rows = [("default preset", scores["pearson"].mean(), scores["rmse"].mean(), seconds)]
    for name, predict in {
        "ridge, 160 µm": lambda: ridge(train, test, panel, "160"),
        "ridge, 80–640 µm": lambda: ridge(train, test, panel, "all"),
        "nearest patch": lambda: nearest_patch(train, test, panel),
    }.items():
        start = time.perf_counter()
        predicted = predict()
        seconds = time.perf_counter() - start
        found = score(np.asarray(predicted, dtype=np.float32), measured)
        rows.append((name, found["pearson"].mean(), np.nan, seconds))
    ceiling = scores["ceiling"].mean()
    return [
        {"section": held_out, "method": m, "pearson": p, "rmse": r, "seconds": s, "ceiling": ceiling}
        for m, p, r, s in rows
    ]


def main() -> None:
    """Run all folds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="her2st")
    parser.add_argument("--sections", nargs="+", default=SECTIONS)
    parser.add_argument("--root", default=None)
    parser.add_argument("--panel", type=Path, default=None, help="gene list; else a panel is chosen in each fold")
    parser.add_argument("--expression", action="store_true", help="her2st: programmes also from other patients' counts")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)

    slides, start = {}, time.perf_counter()
    for name in options.sections:
        slide = getattr(sthggep.datasets, options.dataset)(name, root=options.root)
        sthggep.pp.features(slide, size_um=SIZES_UM, show_progress_bar=False)
        slide.uns["spatial"][name]["images"].pop("fullres", None)  # features are done: make room
        slides[name] = slide
    print(f"reading and features of {len(slides)} sections: {time.perf_counter() - start:.0f} s")
    further = counted(Path(options.root)) if options.expression else None
    rows = []
    for name in options.sections:
        train = [slide for other, slide in slides.items() if other != name]
        panel = options.panel.read_text().split() if options.panel else sthggep.pp.gene_panel(train)
        rows += fold(slides, name, panel, further, options.seed)
        print(pd.DataFrame(rows[-4:]).to_string(float_format="%.3f", header=len(rows) == 4), flush=True)
    table = pd.DataFrame(rows)
    wide = table.pivot(index="method", columns="section", values="pearson")
    wide["mean"] = wide.mean(axis=1)
    print(wide.to_string(float_format="%.3f"))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.out, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
