"""Features of a Visium slide: each spot's patches beside the tissue that is encoded once.

    python benchmarks/encoding.py --folder scale                 # makes the slide of benchmarks/scale.py first
    python benchmarks/encoding.py --folder scale --spots 20000   # four times the spots on the same tissue

The spots lie on a hexagonal array 100 µm apart (50 µm for 20,000). Patches are timed on some of the spots, and the time is
scaled to all of them; the tissue is encoded whole. Both read the same file, one after the other, in one process.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from measure import peak
from scale import MPP, make_slide

SIZES_UM = (80.0, 160.0, 320.0, 640.0)
SAMPLE = 256


def hexagonal(path: Path, n: int, pitch_um: float):
    """Spots on a hexagonal array in the middle of the slide, as an AnnData."""
    import anndata as ad
    import pandas as pd

    side = int(np.ceil(n**0.5))
    row, column = (index[:n] for index in np.divmod(np.arange(side * side), side))
    x, y = column + (row % 2) / 2, row * 3**0.5 / 2
    adata = ad.AnnData(obs=pd.DataFrame(index=[f"s{i}" for i in range(n)]))
    adata.obs["array_col"], adata.obs["array_row"] = 2 * column + row % 2, row
    adata.obsm["spatial"] = np.column_stack([x, y]) * (pitch_um / MPP) + 4000
    adata.uns["spatial"] = {"large": {"metadata": {"source_image_path": str(path), "mpp": MPP}}}
    return adata


def main() -> None:
    """Time both encodings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--spots", type=int, default=5000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "slide.tiff"
    if not path.exists():
        make_slide(path)
    warnings.simplefilter("ignore")

    from dataclasses import replace

    from sthggep._encoders._encode import encode, sweep
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._encoders._tissue import TissueEncoding
    from sthggep._slides._resolve import resolve_one

    pitch = 100.0 * (5000 / options.spots) ** 0.5
    slide, frozen = resolve_one(hexagonal(path, options.spots, pitch)), FrozenEncoder("shufflenet_he")
    rows = np.sort(np.random.default_rng(0).permutation(slide.n_spots)[:SAMPLE])
    part = replace(slide, xy=slide.xy[rows], rows=slide.rows[rows])
    seconds = {}
    for flips in (True, False):
        start = time.perf_counter()
        encode(part, frozen, SIZES_UM, flips=flips, encoding="patches")
        seconds[f"patches, {'four flips' if flips else 'one view'}"] = (
            (time.perf_counter() - start) * slide.n_spots / SAMPLE
        )
    places = {"spots": {"xy": slide.xy}, "reference windows": {"spots": False}}
    highest = 0.0
    for what, windows in places.items():
        for size in SIZES_UM:
            encoding = TissueEncoding(slide, frozen, size, flips=False, **windows)
            area = encoding.amount(np.arange(len(encoding.xy)))
            start = time.perf_counter()
            highest = max(highest, peak(lambda encoding=encoding: sweep(encoding, "Features"))["peak"])
            seconds[f"tissue, {what}, {size:g} µm ({area:.0f} mm² with context)"] = time.perf_counter() - start
        seconds[f"tissue, {what}, all fields of view"] = sum(
            value for name, value in seconds.items() if name.startswith(f"tissue, {what}, ")
        )
    for name, value in seconds.items():
        print(f"{name:70} {value:8.1f} s {1000 * value / slide.n_spots:8.2f} ms a spot")
    print(f"peak memory of the tissue: {highest:.2f} GB")


if __name__ == "__main__":
    main()
