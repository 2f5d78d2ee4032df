"""Time, memory and agreement on a GPU, beside the processor of the same machine.

    python benchmarks/gpu.py --folder scale                            # all parts
    python benchmarks/gpu.py --folder scale --parts agreement sweep    # some of them

- agreement: features, and predictions of the bundled model and of the published network, on the GPU and on the processor;
- sweep: features of a Visium slide of 5,000 spots, in mm² of tissue a second (`benchmarks/encoding.py`'s slide);
- fit: `tl.fit` on two Visium slides of 5,000 spots and 800 genes, `tl.predict` of one of them;
- bins: `tl.predict` of 660,000 bins of 8 µm on 42 mm² of tissue, 850 genes, with the writing;
- paper: prediction of 4,000 spots and a training step of 180 spots, in float32 and with bfloat16 products.

Each part runs on the devices of `--devices`, one after the other. Times of a part are those of the first call; a small call
before it loads libraries.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoding import SIZES_UM, hexagonal
from scale import make_slide, slide_to_train_on

PARTS = ("agreement", "sweep", "fit", "bins", "paper")
SPOTS, BIN_UM = 5000, 8.0


def timed(call: Callable[[], Any], device: str) -> tuple[Any, float]:
    """Result and seconds of a call, with all that the device still has to do."""
    start = time.perf_counter()
    result = call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


def largest_difference(ours: np.ndarray, other: np.ndarray) -> str:
    """Largest difference in spreads of the column, and lowest correlation of a column."""
    a, b = (np.asarray(part, dtype=np.float64) for part in (ours, other))
    kept = b.std(axis=0) > 0
    spread = b.std(axis=0)[kept]
    r = [np.corrcoef(x, y)[0, 1] for x, y in zip(a.T[kept], b.T[kept], strict=True)]
    return f"largest difference {(np.abs(a - b)[:, kept] / spread).max():.1e} of the spread, lowest correlation {min(r):.7f}"


def agreement(folder: Path, devices: list[str]) -> None:
    """Compare features and predictions of the devices with those of the processor."""
    import sthggep

    del folder
    slide = sthggep.datasets.toy(size_um=(2000.0, 2000.0), mpp=1.0, n_genes=30)
    model = sthggep.tl.fit(slide, n_members=0, device="cpu", show_progress_bar=False)
    found = {}
    for device in ("cpu", *devices):
        features = slide.copy()
        sthggep.pp.features(features, size_um=SIZES_UM, encoding="tissue", device=device, show_progress_bar=False)
        predicted = sthggep.tl.predict(slide.copy(), model, device=device, copy=True, show_progress_bar=False)
        found[device] = (
            np.hstack([features.obsm[f"X_shufflenet_he_{size:g}"] for size in SIZES_UM]),
            np.asarray(predicted.obsm["hggep"]),
            published(device),
        )
    for device in devices:
        for what, ours, other in zip(
            ("features", "closed form", "published network"), found[device], found["cpu"], strict=True
        ):
            print(f"{device}, {what}: {largest_difference(ours, other)}", flush=True)


def published(device: str) -> np.ndarray:
    """Prediction in float32 of the published network with weights as they are drawn, for patches of different shade."""
    from cases import network, patches, positions

    net = network("float32").to(device)
    shade = torch.linspace(0.3, 1, 300)[torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    given = (patches(300) * shade[:, None, None, None]).to(torch.uint8)
    with torch.inference_mode():
        result = net(given.to(device), positions(300)).expression.cpu().numpy()
    net.to("cpu")
    return result


def sweep(folder: Path, devices: list[str]) -> None:
    """Encode the tissue under 5,000 spots."""
    from sthggep._encoders._encode import encode
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._encoders._tissue import TissueEncoding
    from sthggep._slides._resolve import resolve_one

    path = folder / "slide.tiff"
    if not path.exists():
        make_slide(path)
    for device in devices:
        frozen = FrozenEncoder("shufflenet_he", None, torch.device(device))
        small = resolve_one(hexagonal(path, 50, 100.0))
        encode(small, frozen, SIZES_UM, flips=False, encoding="tissue")
        for size in SIZES_UM:
            slide = resolve_one(hexagonal(path, SPOTS, 100.0))
            area = TissueEncoding(slide, frozen, size, flips=False)
            mm2 = area.amount(np.arange(len(area.xy)))
            slide = resolve_one(hexagonal(path, SPOTS, 100.0))
            _, seconds = timed(
                lambda s=slide, f=frozen, u=size: encode(s, f, (u,), flips=False, encoding="tissue"), device
            )
            print(f"{device}, {size:g} µm: {seconds:.1f} s, {mm2 / seconds:.1f} mm²/s", flush=True)


def fit(folder: Path, devices: list[str]) -> None:
    """Train on two Visium slides and predict one."""
    import sthggep

    slides = [slide_to_train_on(folder, seed, SPOTS) for seed in (7, 8)]
    for device in devices:
        reset(device)
        model, seconds = timed(
            lambda d=device: sthggep.tl.fit(slides, genes=list(slides[0].var_names), device=d, show_progress_bar=False),
            device,
        )
        print(f"{device}, fit with features: {seconds:.1f} s, {model}{highest(device)}", flush=True)
        _, seconds = timed(
            lambda d=device, m=model: sthggep.tl.predict(slides[0], m, device=d, show_progress_bar=False), device
        )
        print(f"{device}, prediction of {SPOTS} spots: {seconds:.1f} s", flush=True)


def bins(folder: Path, devices: list[str]) -> None:
    """Predict the bins of a Visium HD section into a file."""
    import shutil

    from visium_hd import SIDE_UM, make_model
    from visium_hd import bins as array

    import sthggep

    path, model = folder / "slide.tiff", make_model()
    if not path.exists():
        make_slide(path)
    for device in devices:
        reset(device)
        adata, out = array(path, BIN_UM, SIDE_UM), folder / "bins.zarr"
        shutil.rmtree(out, ignore_errors=True)
        _, seconds = timed(
            lambda a=adata, m=model, o=out, d=device: sthggep.tl.predict(
                a, m, out=o, device=d, show_progress_bar=False
            ),
            device,
        )
        print(f"{device}, {len(adata):,} bins: {seconds:.1f} s{highest(device)}", flush=True)


def paper(folder: Path, devices: list[str]) -> None:
    """Time the published network."""
    from cases import N_GENES, patches, positions, section
    from lightning.fabric.utilities import move_data_to_device

    from sthggep._training._lightning import Training
    from sthggep._training._presets import PRESETS
    from sthggep.nn import HGGEPNet
    from sthggep.nn._precision import lowered

    del folder
    for device in devices:
        where = torch.device(device)
        for precision in ("float32", "bfloat16"):
            torch.manual_seed(0)
            net = HGGEPNet(N_GENES, precision=precision).eval().to(where)
            for n in (200, 4000):
                given, places = patches(n).to(where), positions(n)
                with torch.inference_mode():
                    _, seconds = timed(lambda n_=net, g=given, p=places: n_(g, p).expression.sum().item(), device)
            print(f"{device}, {precision}: prediction of {n:,} spots {seconds:.2f} s{highest(device)}", flush=True)
            module, window = Training(net.train(), PRESETS["paper"].recipe), move_data_to_device(section(180), where)
            module.log = module.log_dict = lambda *_, **__: None
            optimizer = torch.optim.AdamW(net.parameters(), 1e-5, weight_decay=0.0)
            times = []
            for _ in range(5):

                def step(w=window, m=module, o=optimizer, p=precision, d=where) -> None:
                    o.zero_grad()
                    with lowered(d, p):
                        m.training_step(w, 0).backward()
                    o.step()

                times.append(timed(step, device)[1])
            print(f"{device}, {precision}: training step of 180 spots {min(times[1:]):.3f} s", flush=True)


def reset(device: str) -> None:
    """Forget the highest memory so far."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def highest(device: str) -> str:
    """Highest memory of the device."""
    return f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the GPU" if device.startswith("cuda") else ""


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--devices", nargs="+", default=["cuda", "cpu"])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    if "cuda" in options.devices:
        print(
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True
        )
    for part in options.parts:
        globals()[part](options.folder, options.devices)


if __name__ == "__main__":
    main()
