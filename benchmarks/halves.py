"""Halves of a Visium section: train on one, predict the other.

    python benchmarks/halves.py --slide whole_100_genes.h5ad --mpp 0.725
    python benchmarks/halves.py --slide mouse_embryo --image mouse_embryo/fullres_3000px.jpg    # a folder of Space Ranger

Training spots have x below the median, tested are the others; then the other way round; then y. The closed form alone. The
panel is that of the training half. `--sizes` asks for other fields of view.
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
    parser.add_argument(
        "--slide", type=Path, required=True, help="an AnnData file, or a folder of Space Ranger (squidpy)"
    )
    parser.add_argument("--image", type=Path, default=None, help="full-resolution image of a folder")
    parser.add_argument("--sizes", type=float, nargs="+", default=[80.0, 160.0, 320.0, 640.0])
    parser.add_argument(
        "--mpp", type=float, default=None, help="microns per full-resolution pixel, where the file lacks it"
    )
    parser.add_argument("--members", type=int, default=0, help="networks beside the closed form")
    parser.add_argument("--interval", type=float, default=0.9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    whole = _read(options.slide, options.image)
    sizes = tuple(options.sizes)
    start = time.perf_counter()
    sthggep.pp.features(
        whole,
        size_um=sizes,
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
            start, cpu = time.perf_counter(), time.process_time()
            quiet = {"mpp": options.mpp, "show_progress_bar": False}
            model = sthggep.tl.fit(whole[train].copy(), size_um=sizes, n_members=options.members, **quiet)
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
                    "processor": time.process_time() - cpu,
                }
            )
            print(rows[-1], flush=True)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def _read(path: Path, image: Path | None) -> anndata.AnnData:
    """Read an AnnData file or a folder of Space Ranger."""
    if path.is_file():
        return anndata.read_h5ad(path)
    import squidpy

    whole = squidpy.read.visium(path, library_id=path.name, source_image_path=image)
    whole.var_names_make_unique()
    return whole


def _shares(adata: anndata.AnnData, genes: list[str]) -> np.ndarray:
    """Share of each gene in the counts of a spot, over the panel."""
    counts = adata[:, genes].X
    counts = counts.toarray() if hasattr(counts, "toarray") else np.asarray(counts)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


if __name__ == "__main__":
    main()
