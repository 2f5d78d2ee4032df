"""Prediction of Visium HD: 8 µm bins on 6.5 × 6.5 mm of tissue, by a closed form on feature maps.

    python benchmarks/visium_hd.py --folder scale             # 812 × 812 bins, 850 genes; makes benchmarks/scale.py's slide first
    python benchmarks/visium_hd.py --folder scale --bin 4     # four times the bins on the same tissue

Printed are the seconds of the whole call and of the reading of scores from the tissue, in brackets processor time, and the peak
of memory. `--genes` writes fewer genes: the tissue is read for all programs alike.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
from scale import MPP, make_slide

GENES, SIDE_UM, START_PX = 850, 6496.0, 4000


def bins(path: Path, bin_um: float, side_um: float):
    """Bins on a square array, as an AnnData."""
    import anndata as ad
    import pandas as pd

    side = round(side_um / bin_um)
    row, column = np.divmod(np.arange(side * side), side)
    adata = ad.AnnData(obs=pd.DataFrame(index=pd.RangeIndex(side * side).astype(str)))
    adata.obs["array_col"], adata.obs["array_row"] = column, row
    adata.obsm["spatial"] = (np.column_stack([column, row]) + 0.5) * (bin_um / MPP) + START_PX
    adata.uns["spatial"] = {"large": {"metadata": {"source_image_path": str(path), "mpp": MPP}}}
    return adata


def make_model():
    """A closed form of 850 genes on toy tissue: time depends on its sizes, not on its values."""
    from sthggep import datasets, tl

    slide = datasets.toy(seed=3, n_genes=GENES, size_um=(1600.0, 1400.0), mpp=1.0)
    return tl.fit(slide, genes=list(slide.var_names), n_members=0, show_progress_bar=False)


def main() -> None:
    """Predict into a file, and print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bin", type=float, default=8.0)
    parser.add_argument("--side", type=float, default=SIDE_UM, help="side of the tissue in µm")
    parser.add_argument("--genes", type=int, default=GENES, help="genes to predict, of those of the model")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.folder.mkdir(parents=True, exist_ok=True)
    path, saved = options.folder / "slide.tiff", options.folder / "model-850"
    if not path.exists():
        make_slide(path)

    import sthggep
    from sthggep.model import _forward

    model = sthggep.HGGEP.load(saved) if saved.exists() else make_model()
    if not saved.exists():
        model.save(saved)
        print("The model is saved: run again to measure.")
        return
    adata, out, genes = bins(path, options.bin, options.side), options.folder / "hd.zarr", model.genes[: options.genes]
    shutil.rmtree(out, ignore_errors=True)
    read, spent = _forward.read_scores, []

    def timed(*args: object, **kwargs: object) -> object:
        start = (time.perf_counter(), time.process_time())
        result = read(*args, **kwargs)  # type: ignore[arg-type]
        spent.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        return result

    _forward.read_scores = timed  # type: ignore[assignment]
    start, cpu = time.perf_counter(), time.process_time()
    sthggep.tl.predict(adata, model, out=out, genes=genes, device="cpu", show_progress_bar=False)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{adata.n_obs} bins of {options.bin:g} µm, {len(genes)} genes: {seconds:.0f} s ({cpu:.0f} s of processor time), of which "
        f"{spent[0][0]:.0f} s ({spent[0][1]:.0f} s) read the tissue; peak {peak:.1f} GB"
    )


if __name__ == "__main__":
    main()
