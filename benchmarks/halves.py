"""Halves of a Visium section: train on one, predict the other.

    python benchmarks/halves.py --slide whole_100_genes.h5ad --mpp 4.3

Training spots have x below the median, tested are the others; then the other way round; then y. The closed form alone.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import sthggep


def main() -> None:
    """Fit on a half, predict the other, score it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument(
        "--mpp", type=float, default=None, help="microns per full-resolution pixel, where the file lacks it"
    )
    parser.add_argument("--members", type=int, default=0, help="networks beside the closed form")
    parser.add_argument("--interval", type=float, default=0.9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    whole = anndata.read_h5ad(options.slide)
    start = time.perf_counter()
    sthggep.pp.features(
        whole,
        size_um=(80.0, 160.0, 320.0, 640.0),
        encoding="tissue",
        flips=False,
        mpp=options.mpp,
        show_progress_bar=False,
    )
    print(f"features of {whole.n_obs} spots: {time.perf_counter() - start:.0f} s")
    rows = []
    for axis in (0, 1):
        first = whole.obsm["spatial"][:, axis] < np.median(whole.obsm["spatial"][:, axis])
        for train, name in ((first, "low to high"), (~first, "high to low")):
            start = time.perf_counter()
            quiet = {"mpp": options.mpp, "show_progress_bar": False}
            model = sthggep.tl.fit(whole[train].copy(), n_members=options.members, **quiet)
            test = whole[~train].copy()
            sthggep.tl.predict(test, model, interval=options.interval, **quiet)
            scores = sthggep.tl.evaluate(test)
            measured = np.log10(1 + 1e4 * _shares(test, model.genes))
            inside = (measured >= test.obsm["hggep_lower"]) & (measured <= test.obsm["hggep_upper"])
            rows.append(
                {
                    "axis": "xy"[axis],
                    "from": name,
                    "genes": len(scores),
                    "pearson": scores["pearson"].fillna(0).mean(),
                    "ceiling": scores["ceiling"].mean(),
                    "coverage, median gene": np.median(inside.mean(axis=0)),
                    "seconds": time.perf_counter() - start,
                }
            )
            print(rows[-1], flush=True)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def _shares(adata: anndata.AnnData, genes: list[str]) -> np.ndarray:
    """Share of each gene in the counts of a spot, over the panel."""
    counts = adata[:, genes].X
    counts = counts.toarray() if hasattr(counts, "toarray") else np.asarray(counts)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


if __name__ == "__main__":
    main()
