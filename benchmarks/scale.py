"""Time and memory of predicting many spots on a large slide, and what windows change.

python benchmarks/scale.py --folder scale --spots 25000 100000        time, peak memory, blocks read
python benchmarks/scale.py --folder scale --throughput 512             the encoder with and without reading patches
python benchmarks/scale.py --folder scale --halo 4000                  windowed against whole, by the halo
python benchmarks/scale.py --folder scale --fit 5000                   training on two Visium slides, 800 genes
python benchmarks/scale.py --folder scale --update 5000                a model of one slide learns from spots of the other

The slide is made in the folder by the first command: a pyramidal, tiled JPEG TIFF of 32,768 × 32,768 px at 0.5 µm/px,
toy tissue tiled with flips and tints. Each number of spots runs in a process of its own, whose peak memory is reported.
The slides to train on are of the same kind, 16,384 × 16,384 px, with spots 100 µm apart and counts that follow the colors
around a spot.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SIDE, CELL, TILE, MPP = 32_768, 4_096, 256, 0.5
# Full-resolution pixels between spots: 100,000 fill the slide; the model was trained at 200 µm
PITCH, TRAINED_PITCH = 103, 400
LEVELS = 5
TRAINED_SIDE, TRAINED_SEEDS, TRAINED_GENES = 16_384, (7, 8), 800  # slides to train on, and what is counted there


def make_slide(path: Path, seed: int = 7, side: int = SIDE) -> None:
    """Write a slide, tile by tile."""
    import tifffile
    from PIL import Image

    from sthggep import datasets

    toy = datasets.toy(seed=seed, size_um=(CELL * MPP, CELL * MPP), mpp=MPP, n_genes=8)
    cell = next(iter(toy.uns["spatial"].values()))["images"]
    cell = cell[max(cell, key=lambda name: cell[name].shape[0])][:CELL, :CELL]
    rng = np.random.default_rng(0)
    n = side // CELL
    flips, tints = rng.integers(0, 4, (n, n)), rng.uniform(0.92, 1.06, (n, n, 3))
    options = {"tile": (TILE, TILE), "photometric": "ycbcr", "compression": "jpeg", "compressionargs": {"level": 85}}
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for level in range(LEVELS):
            small = np.asarray(Image.fromarray(cell).reduce(2**level)) if level else cell
            shape = (side >> level, side >> level, 3)
            resolution = {"resolution": (1e4 / MPP / 2**level,) * 2, "resolutionunit": "CENTIMETER"}
            more = {"subifds": LEVELS - 1} if level == 0 else {"subfiletype": 1}
            tiles = _tiles(small, flips, tints)
            tif.write(tiles, shape=shape, dtype=np.uint8, **options, **resolution, **more)


def _tiles(cell: np.ndarray, flips: np.ndarray, tints: np.ndarray) -> Iterator[np.ndarray]:
    side = len(cell)
    total = side * len(flips)
    for y in range(0, total, TILE):
        for x in range(0, total, TILE):
            row, column = y // side, x // side
            kind, tint = flips[row, column], tints[row, column]
            turned = cell[:: -1 if kind & 1 else 1, :: -1 if kind & 2 else 1]
            tile = turned[y % side : y % side + TILE, x % side : x % side + TILE]
            yield np.clip(tile * tint, 0, 255).astype(np.uint8)


def section(path: Path, n: int, pitch: int = PITCH):
    """An array of spots on the slide, as an AnnData."""
    import anndata as ad
    import pandas as pd

    side = int(np.ceil(n**0.5))
    y, x = np.divmod(np.arange(n), side)
    adata = ad.AnnData(obs=pd.DataFrame(index=[f"s{i}" for i in range(n)]))
    adata.obs["array_col"], adata.obs["array_row"] = x, y
    adata.obsm["spatial"] = np.column_stack([x, y]) * float(pitch) + pitch / 2
    adata.uns["spatial"] = {"large": {"metadata": {"source_image_path": str(path), "mpp": MPP}}}
    return adata


def model_of(options: argparse.Namespace):
    """The model that comes with the package."""
    import sthggep

    model = sthggep.HGGEP.from_pretrained("her2st")
    model.inputs = dataclasses.replace(model.inputs, flips=options.flips)
    if options.members:
        model.members = model.members[: options.members]
    if options.stand_in:
        _stand_in(model)
    return model


def _stand_in(model) -> None:
    """Instead of the network, means of a 4 × 4 grid of colors, repeated: reading and all that follows stay as they are."""
    import torch

    from sthggep import pp
    from sthggep._encoders._frozen import FrozenEncoder

    class Colors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randn(48, 1360, generator=torch.Generator().manual_seed(0)))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ self.weight

    pp.register_encoder("stand_in", Colors(), size_px=224, dim=1360)
    model.inputs = dataclasses.replace(model.inputs, encoder="stand_in")
    model.encoder_state, model.training.encoder_weights = None, FrozenEncoder("stand_in").weights


def predict(path: Path, n: int, options: argparse.Namespace) -> dict[str, float]:
    """Predict ``n`` spots into a file; in a process of its own."""
    from sthggep import tl

    adata, model = section(path, n), model_of(options)
    out = path.parent / f"predicted-{n}.zarr"
    start = time.perf_counter()
    tl.predict(adata, model, out=out, device="cpu", batch_size=options.batch_size, show_progress_bar=False)
    seconds = time.perf_counter() - start
    found = {"spots": n, "seconds": round(seconds, 1), "cpu_seconds": round(time.process_time(), 1)}
    return found | {"peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}


def slide_to_train_on(folder: Path, seed: int, n: int):
    """A Visium section of ``n`` spots on a slide of its own; genes follow the colors of the tissue."""
    import anndata as ad
    from encoding import hexagonal

    from sthggep import pp

    path = folder / f"visium-{seed}.tiff"
    if not path.exists():
        make_slide(path, seed, TRAINED_SIDE)
    places = hexagonal(path, n, 100.0)
    places.obsm["spatial"] -= 3000
    colors = pp.patches(places, size_um=100, size_px=8)[:].reshape(n, -1, 3).mean(axis=1)
    effects = np.random.default_rng(0).normal(0, 0.4, (3, TRAINED_GENES))
    rates = 3 * np.exp((colors - colors.mean(axis=0)) / colors.std(axis=0) @ effects)
    adata = ad.AnnData(np.random.default_rng(seed).poisson(rates).astype(np.float32), obs=places.obs, uns=places.uns)
    adata.obsm["spatial"] = places.obsm["spatial"]
    return adata


def fit(folder: Path, n: int) -> None:
    """Train on two slides of ``n`` spots: seconds and processor time of the features, and of all that follows."""
    from sthggep import tl

    slides, start = [slide_to_train_on(folder, seed, n) for seed in TRAINED_SEEDS], _clock()
    _encode(slides)
    encoded = _clock()
    print("features: {:.0f} s, {:.0f} s of processor time".format(*(encoded - start)), flush=True)
    model = tl.fit(slides, genes=list(slides[0].var_names), show_progress_bar=False)
    print("what follows: {:.0f} s, {:.0f} s of processor time".format(*(_clock() - encoded)))
    print("in all: {:.0f} s, {:.0f} s of processor time".format(*(_clock() - start)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(slides)} slides of {n} spots, {TRAINED_GENES} genes, {model}; peak {peak:.1f} GB", flush=True)


def update(folder: Path, n: int) -> None:
    """Train on one slide, and let the model learn from all spots of another: seconds beside the features."""
    from sthggep import tl

    first, second = (slide_to_train_on(folder, seed, n) for seed in TRAINED_SEEDS)
    _encode([first, second])
    for members in (0, 5):
        model = tl.fit(first, genes=list(first.var_names), n_members=members, show_progress_bar=False)
        for spots in (n // 4, n):
            start = _clock()
            tl.fit(second, model=model, measured=np.arange(n) < spots, show_progress_bar=False)
            print(
                f"{model}: {spots} spots learned in {{:.0f}} s, {{:.0f}} s of processor time".format(
                    *(_clock() - start)
                ),
                flush=True,
            )


def _encode(slides: list) -> None:
    """Compute the features that the default preset reads."""
    from sthggep import pp
    from sthggep._training._presets import PRESETS

    inputs = PRESETS["default"].inputs
    for slide in slides:
        options = {"size_um": inputs.sizes_um, "flips": inputs.flips, "encoding": inputs.encoding}
        pp.features(slide, inputs.encoder, **options, show_progress_bar=False)


def _clock() -> np.ndarray:
    """Time and processor time, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def throughput(path: Path, n: int, options: argparse.Namespace) -> None:
    """Patches a second: network alone on patches in memory, and read from the slide."""
    from sthggep._encoders._encode import encode
    from sthggep._slides._patches import Patches
    from sthggep._slides._resolve import resolve_one

    model = model_of(options)
    encoder = model.encoder(device="cpu")
    sizes = model.inputs.sizes_um
    slide = resolve_one(section(path, n))
    held = [Patches(slide, size_um=size, size_px=encoder.entry.size_px)[:64] for size in sizes]
    rates = {"alone": [], "with reading": []}
    encoder(held[0], flips=options.flips)
    for _ in range(3):  # in turns, since other work on the machine comes and goes
        start = time.perf_counter()
        for i in range(0, n, 64):
            for batch in held:
                encoder(batch[: min(64, n - i)], flips=options.flips)
        rates["alone"].append(n * len(sizes) / (time.perf_counter() - start))
        start = time.perf_counter()
        fresh = resolve_one(section(path, n))
        encode(fresh, encoder, sizes, flips=options.flips)
        rates["with reading"].append(n * len(sizes) / (time.perf_counter() - start))
        blocks = {level.shape: level.blocks.n_read for level in fresh.levels if level.blocks.n_read}
    for name, found in rates.items():
        print(f"{name}: {np.median(found):.0f} patches/s ({', '.join(f'{rate:.0f}' for rate in found)})")
    shares = np.array(rates["with reading"]) / rates["alone"]
    print(f"share: {np.median(shares):.2f}; blocks read, by level: {blocks}", flush=True)


def halo_table(path: Path, n: int, options: argparse.Namespace) -> None:
    """Windows against the whole section, by the steps of the network that the halo covers."""
    import torch

    from sthggep import pp
    from sthggep._inputs._compute import Compute
    from sthggep._slides._resolve import resolve_one
    from sthggep.model._forward import predict_windows

    adata, model = section(path, n, TRAINED_PITCH), model_of(options)
    pp.features(adata, size_um=model.inputs.sizes_um, flips=options.flips, cache=path.parent / "features")
    slide = resolve_one(adata)
    given = {"encoder": model.encoder(device="cpu"), "compute": Compute(torch.device("cpu"))}
    ((_, whole),) = predict_windows(model.ensemble, slide, window=None, **given)
    for window in options.windows:
        for halo in (0, 1, 2, 3):
            start = time.perf_counter()
            found = np.empty_like(whole.expression)
            for rows, part in predict_windows(model.ensemble, slide, window=window, halo=halo, **given):
                found[rows] = part.expression
            seconds = time.perf_counter() - start
            r = [np.corrcoef(a, b)[0, 1] for a, b in zip(found.T, whole.expression.T, strict=True)]
            off = np.abs(found - whole.expression)
            share = off.max() / whole.expression.std(axis=0).mean()
            print(
                f"window {window}, halo {halo}: lowest correlation of a gene {min(r):.7f}, largest difference {off.max():.2e} "
                f"({share:.1e} of a gene's spread), {seconds:.0f} s",
                flush=True,
            )


def main() -> None:
    """Make the slide, run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--spots", type=int, nargs="*", default=[])
    parser.add_argument("--throughput", type=int, default=0)
    parser.add_argument("--halo", type=int, default=0, help="number of spots, 200 µm apart; 6,500 at most")
    parser.add_argument("--fit", type=int, default=0, help="number of spots of each of two slides to train on")
    parser.add_argument(
        "--update", type=int, default=0, help="number of spots from which a model of another slide learns"
    )
    parser.add_argument("--windows", type=int, nargs="+", default=[2000, 500])
    parser.add_argument("--flips", action="store_true", help="as the model was trained; four times slower")
    parser.add_argument("--members", type=int, default=0, help="networks of the model; all of them for 0")
    parser.add_argument("--stand-in", action="store_true", help="a trivial encoder: time of all but the network")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "slide.tiff"
    if options.child:
        print(json.dumps(predict(path, options.child, options)))
        return
    if not path.exists() and (options.spots or options.throughput or options.halo):
        start = time.perf_counter()
        make_slide(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
        print(f"{path}: {path.stat().st_size / 1e9:.2f} GB, made in {time.perf_counter() - start:.0f} s", flush=True)
    for n in options.spots:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", str(n)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)
    if options.throughput:
        throughput(path, options.throughput, options)
    if options.halo:
        halo_table(path, options.halo, options)
    if options.fit:
        fit(options.folder, options.fit)
    if options.update:
        update(options.folder, options.update)


if __name__ == "__main__":
    main()
