"""What is timed: for each case and size, the calls to compare and the operations behind them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import baseline
import numpy as np
import torch

from sthggep._inputs._section import SectionWindow
from sthggep._training._lightning import Training
from sthggep._training._presets import PRESETS
from sthggep.nn import (
    FeatureHGGEPNet,
    HGGEPNet,
    similar_incidence,
    spatial_incidence,
    spatial_neighbors,
)
from sthggep.nn._precision import faster_in_bf16, lowered
from sthggep.nn._section import PatchInputs

N_GENES, N_COPIES = 785, 5
PATCH_FLOPS = 27.64e6  # convolutions of one patch, as torch.utils.flop_counter counts them
CPU = torch.device("cpu")
Calls = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Work:
    """Operations that cannot be left out, in GFLOP by precision, and pixels to decode in MB."""

    low: float = 0.0
    full: float = 0.0
    pixels: float = 0.0

    def seconds(self, rates: dict[str, float]) -> float:
        """Least time at the machine's own rates; in bfloat16 only where that is faster."""
        low = max(rates["bfloat16"], rates["float32"])
        return self.low / low + self.full / rates["float32"] + self.pixels / rates["decode"]


@dataclass(frozen=True)
class Case:
    """One thing to time, against the number of spots."""

    title: str
    sizes: tuple[int, ...]
    calls: Callable[[int], Calls]
    work: Callable[[int], Work] | None = None
    large: tuple[int, ...] = ()
    plain_to: int = 0
    repeats: int = 2
    memory: tuple[int, ...] = ()
    warm_to: int = 10**9
    warm_memory: bool = False


def positions(n: int) -> np.ndarray:
    """A square array of spots."""
    return np.stack(np.divmod(np.arange(n), int(np.ceil(n**0.5))), axis=1).astype(float)


def patches(n: int) -> torch.Tensor:
    """Patches of noise: what is in them does not matter to the clock."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 112, 112), dtype=torch.uint8, generator=generator)


@cache
def network(precision: str = "auto") -> HGGEPNet:
    """The network of the paper preset, weights as they are drawn."""
    torch.manual_seed(0)
    return HGGEPNet(N_GENES, precision=precision).eval()


# ---------------------------------------------------------------- paper preset, forward


def product_gflop(n: int) -> float:
    """Matrix products of one pass over one section: projections, attention, LSTM (whose first state is zero)."""
    dim, levels, depth, layers, views = 1024, 3, 4, 4, 4
    projections = levels * depth * 12 * dim**2 * n
    attention = levels * depth * 4 * n**2 * dim
    lstm = layers * (2 * views - 1) * 8 * dim**2 * n
    return (projections + attention + lstm) / 1e9


def float_gflop(n: int) -> float:
    """What stays in float32: convolutions, hypergraph projections, heads."""
    return (PATCH_FLOPS + 4 * 1024 * 512 + 8 * 1024 * N_GENES) * n / 1e9


def forward_calls(n: int) -> Calls:
    """Ours as it comes, and the plain network of the same weights."""
    net, given, where = network(), patches(n), positions(n)
    run = torch.inference_mode()
    return {"sthggep": run(lambda: net(given, where)), "plain": run(lambda: baseline.forward(net, given, where))}


def forward_work(n: int) -> Work:
    """Of one pass."""
    return Work(low=product_gflop(n), full=float_gflop(n))


def correlation(n: int) -> float:
    """Lowest correlation of a gene between the prediction as it comes and in float32."""
    net, given, where = network(), patches(n), positions(n)
    shade = torch.linspace(0.3, 1, n)[torch.randperm(n, generator=torch.Generator().manual_seed(1))]
    given = (given * shade[:, None, None, None]).to(torch.uint8)
    found = []
    for precision in ("auto", "float32"):
        net.precision = precision
        with torch.inference_mode():
            found.append(net(given, where).expression)
    net.precision = "auto"
    ours, exact = (one - one.mean(dim=0) for one in found)
    return float(torch.nn.functional.cosine_similarity(ours, exact, dim=0).min())


# ---------------------------------------------------------------- paper preset, training step


def section(n: int) -> SectionWindow:
    """Noise in the place of counts."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.full((n, N_GENES), 0.5), generator=generator)
    every = torch.ones(n, dtype=torch.bool)
    return SectionWindow.of_whole(
        "noise", PatchInputs(patches(n), positions(n)), counts.log1p(), counts, torch.ones(n), every, ~every
    )


def training_calls(n: int) -> Calls:
    """A step of the optimizer: ours, and six float32 passes. Both on one network, whose weights move a little."""
    net, given = HGGEPNet(N_GENES), section(n)
    module = Training(net, PRESETS["paper"].recipe)
    module.log = module.log_dict = lambda *_, **__: None
    optimizer = torch.optim.AdamW(net.parameters(), 1e-5, weight_decay=0.0)
    precision = "auto" if faster_in_bf16(CPU) else "float32"

    def step(loss: Callable[[], torch.Tensor]) -> None:
        net.train()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    def ours() -> torch.Tensor:
        with lowered(CPU, precision):
            return module.training_step(given, 0)

    def plain() -> torch.Tensor:
        return baseline.training_loss(net, *given.inputs, given.target, given.counts, n_copies=N_COPIES)

    return {"sthggep": partial(step, ours), "plain": partial(step, plain)}


def training_work(n: int) -> Work:
    """Six passes there and back; the way back does twice the work."""
    passes = 3 * (N_COPIES + 1)
    return Work(low=passes * product_gflop(n), full=passes * float_gflop(n))


# ---------------------------------------------------------------- features, hypergraph, prediction


@cache
def tissue() -> tuple[Path, float]:
    """Toy tissue in a tiled JPEG, as slides are stored, and its pixels in MB."""
    import tifffile

    from sthggep import datasets

    toy = datasets.toy(size_um=(2000.0, 2000.0), mpp=0.5, n_genes=4)
    images = next(iter(toy.uns["spatial"].values()))["images"]
    pixels = max(images.values(), key=len)
    path = Path(tempfile.mkdtemp(prefix="sthggep-bench-")) / "tissue.tiff"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    tifffile.imwrite(path, pixels, photometric="ycbcr", tile=(256, 256), compression="jpeg", resolution=(2e4, 2e4))
    return path, pixels.nbytes / 1e6


def slide(n: int) -> Any:
    """Spots on that tissue, opened anew: nothing of it is decoded yet."""
    import anndata as ad
    import pandas as pd

    from sthggep._slides._places import Places
    from sthggep._slides._resolve import resolve_one

    data = ad.AnnData(obs=pd.DataFrame(index=[f"spot{i}" for i in range(n)]))
    data.obsm["spatial"] = 400 + positions(n) * 3200 / int(np.ceil(n**0.5))
    data.uns["spatial"] = {"toy": {"metadata": {"source_image_path": str(tissue()[0]), "mpp": 0.5}}}
    return resolve_one(data, Places(mpp=0.5))


@cache
def encoder() -> Any:
    """The encoder that comes with the package."""
    from sthggep._encoders._frozen import FrozenEncoder

    return FrozenEncoder("shufflenet_he", None, CPU)


def feature_calls(n: int) -> Calls:
    """Features of the default preset: four fields of view, four flips each."""
    from sthggep._encoders._encode import encode

    inputs = PRESETS["default"].inputs
    return {"sthggep": lambda: encode(slide(n), encoder(), inputs.sizes_um, flips=inputs.flips)}


@cache
def image_gflop() -> float:
    """Convolutions of one image of 224 pixels."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder().module(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops() / 1e9


def feature_work(n: int) -> Work:
    """Every field of view four times through the network, the slide decoded once."""
    views = len(PRESETS["default"].inputs.sizes_um)
    return Work(full=4 * views * n * image_gflop(), pixels=tissue()[1])


def hypergraph_calls(n: int) -> Calls:
    """Spatial neighbors and hyperedges, and those of the most similar of eight neighbors."""
    where = positions(n)
    features = torch.randn(n, 64, generator=torch.Generator().manual_seed(0))

    def tie() -> None:
        near = spatial_neighbors(where, 9, max_distance=2.0).rows
        spatial_incidence(near)
        similar_incidence(features, near)

    def plain() -> None:
        baseline.hyperedges(features, baseline.neighbors(where, 8), 4)

    return {"sthggep": tie, "plain": plain}


def prediction_calls(n: int) -> Calls:
    """One network of the default preset, from features that are there to genes."""
    preset = PRESETS["default"]
    torch.manual_seed(0)
    net = FeatureHGGEPNet([1360] * 4, N_GENES, **preset.net).eval()
    generator = torch.Generator().manual_seed(0)
    stages = [torch.randn(n, 1360, generator=generator) for _ in range(4)]
    where = positions(n)

    def predict() -> None:
        near = spatial_neighbors(where, net.n_neighbors)
        held = spatial_incidence(spatial_neighbors(where, 9, max_distance=1.6).rows)
        net(stages, near.rows, near.offsets, held, n)

    return {"sthggep": torch.inference_mode()(predict)}


def prediction_work(n: int) -> Work:
    """Projections of the stages and attention's own, programs and genes."""
    dim, rank = 128, PRESETS["default"].net["rank"]
    stage = 2 * 1360 * dim + 2 * 6 * dim**2
    return Work(full=(4 * stage + 4 * dim * dim + 2 * dim * rank + 2 * rank * N_GENES) * n / 1e9)


CASES = {
    "forward": Case(
        title="Paper preset, prediction",
        sizes=(200, 1000, 4000),
        large=(10_000,),
        calls=forward_calls,
        work=forward_work,
        plain_to=4000,
        warm_to=1000,
        memory=(1000, 4000),
    ),
    "training": Case(
        title="Paper preset, training step with five copies",
        sizes=(180,),
        calls=training_calls,
        work=training_work,
        plain_to=180,
        memory=(180,),
        warm_memory=True,
    ),
    "features": Case(
        title="Features, four fields of view",
        sizes=(100, 400),
        large=(2000,),
        calls=feature_calls,
        work=feature_work,
        memory=(400,),
    ),
    "hypergraph": Case(
        title="Hyperedges",
        sizes=(200, 2000, 20_000, 200_000),
        calls=hypergraph_calls,
        plain_to=2000,
        memory=(200_000,),
    ),
    "prediction": Case(
        title="Default preset, one network on features",
        sizes=(200, 2000, 20_000),
        large=(200_000,),
        calls=prediction_calls,
        work=prediction_work,
        memory=(20_000,),
    ),
}
