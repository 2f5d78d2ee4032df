"""The hypergraph convolution three ways, in a whole prediction and a whole training step.

    OMP_NUM_THREADS=1 python benchmarks/hyperconv.py --write   # minutes; the table of docs/performance_speed.md

- sthggep: a `MessagePassing` of torch_geometric that sums the senders' rows where they are;
- torch_geometric: its own `HypergraphConv`, which is right as long as every hyperedge weighs one;
- gathered: every spot is copied for every hyperedge that holds it, a few columns at a time, then added up.

They take turns in one process. Times are the processor's, so that other processes on the machine do not count; memory is the peak above
what was there before the call.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from torch import Tensor

from sthggep.nn import FeatureHGGEPNet, HypergraphConv, spatial_incidence, spatial_neighbors
from sthggep.nn._hyperconv import HypergraphMean

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance_speed.md"
MARKS = "<!-- hyperconv -->", "<!-- /hyperconv -->"
GATHERED_VALUES = 1 << 23  # 32 MB
STAGES, GENES = [1360] * 4, 800

Mean = Callable[..., Tensor]


def gathered(
    _: HypergraphMean, values: Tensor, incidence: Tensor, n_hyperedges: int, weight: Tensor | None = None
) -> Tensor:
    """The mean of all hyperedges from copies of the spots that each of them holds."""
    spots, edges = incidence
    one = torch.ones(len(spots)) if weight is None else weight[edges]
    degrees = torch.zeros(len(values)).index_add(0, spots, one)
    sizes = torch.zeros(n_hyperedges).index_add(0, edges, torch.ones(len(spots)))
    scale = torch.where(sizes > 0, 1 / sizes, 0.0) * (1 if weight is None else weight)
    out = []
    for part in torch.split(values, max(1, GATHERED_VALUES // max(1, len(spots))), dim=1):
        means = part.new_zeros(n_hyperedges, part.shape[1]).index_add(0, edges, part[spots]) * scale.unsqueeze(1)
        mixed = torch.zeros_like(part).index_add(0, spots, means[edges])
        out.append(mixed * torch.where(degrees > 0, 1 / degrees, 0.0).unsqueeze(1))
    return torch.cat(out, dim=1)


def of_torch_geometric(
    _: HypergraphMean, values: Tensor, incidence: Tensor, n_hyperedges: int, weight: Tensor | None = None
) -> Tensor:
    """The mean of all hyperedges by torch_geometric's convolution without its product."""
    from torch_geometric.nn import HypergraphConv

    with torch.random.fork_rng():  # its weights are not used: leave the dropout of the step alone
        conv = HypergraphConv(1, 1, bias=False)
    conv.lin, conv.out_channels = torch.nn.Identity(), values.shape[1]
    mean: Tensor = conv(values, incidence, hyperedge_weight=weight, num_edges=n_hyperedges)
    return mean


WAYS: dict[str, Mean] = {
    "sthggep": HypergraphMean.forward,
    "torch_geometric": of_torch_geometric,
    "gathered": gathered,
}


@contextmanager
def mean_by(way: Mean) -> Iterator[None]:
    """Networks that take the mean of hyperedges this way."""
    before = HypergraphMean.forward
    HypergraphMean.forward = way  # type: ignore[method-assign]
    try:
        yield
    finally:
        HypergraphMean.forward = before  # type: ignore[method-assign]


def graph(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbors, offsets and incidence of ``n`` spots on a square array."""
    xy = np.stack(np.divmod(np.arange(n), int(n**0.5) + 1), axis=1).astype(float)
    near = spatial_neighbors(xy, 9)
    return near.rows, near.offsets, spatial_incidence(near.rows)


def convolution(n: int = 20_000) -> Callable[[], Any]:
    """One convolution of 128 features into 64."""
    conv, x, incidence = HypergraphConv(128, 64), torch.randn(n, 128), graph(n)[2]

    @torch.no_grad()
    def call() -> Tensor:
        out: Tensor = conv(x, incidence, n)
        return out

    return call


def network(n: int, stages: list[int], genes: int) -> tuple[FeatureHGGEPNet, tuple[Any, ...]]:
    """A network of the default preset's kind and a section of random features."""
    torch.manual_seed(0)
    net = FeatureHGGEPNet(stages, genes)
    net.blend.fill_(0.25)
    for solved in (net.shortcut, net.programs):
        for value in solved.buffers():  # zeros as long as nothing was solved
            value.copy_(torch.rand(value.shape))
    neighbors, offsets, incidence = graph(n)
    return net, ([torch.randn(n, width) for width in stages], neighbors, offsets, incidence, n)


def prediction(n: int = 5_000, stages: list[int] = STAGES, genes: int = GENES) -> Callable[[], Tensor]:
    """A prediction by network and linear shortcut."""
    net, inputs = network(n, stages, genes)
    net.eval()

    @torch.no_grad()
    def call() -> Tensor:
        out: Tensor = net(*inputs).expression
        return out

    return call


def training_step(n: int = 5_000, stages: list[int] = STAGES, genes: int = GENES) -> Callable[[], Tensor]:
    """Loss and gradients of one section; returns the gradient of the hypergraph's first product."""
    net, inputs = network(n, stages, genes)
    target = torch.randn(n, genes)

    def call() -> Tensor:
        torch.manual_seed(0)
        net.zero_grad()
        torch.nn.functional.mse_loss(net(*inputs).expression, target).backward()
        gradient: Tensor = net.get_parameter("hypergraph.conv1.weight").grad
        return gradient

    return call


CASES: dict[str, Callable[[], Callable[[], Any]]] = {
    "One convolution, 20,000 spots, 128 to 64 features": convolution,
    "Prediction, 5,000 spots, 4 × 1,360 features": prediction,
    "Training step, 5,000 spots, 4 × 1,360 features": training_step,
}


def shortest(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Least processor seconds of a call each way, in turns."""
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(repeats):
        for name, way in WAYS.items():
            with mean_by(way):
                start = time.process_time()
                call()
                best[name] = min(best[name], time.process_time() - start)
    return best


def peak(call: Callable[[], Any]) -> float:
    """Highest memory during a call above what was there before, in GB; freed memory goes back to the system first."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return measure.peak(call)["above"]


def rows(repeats: int) -> list[str]:
    """The table, line by line."""
    out = [
        f"|  | {' | '.join(WAYS)} | {' | '.join(f'memory: {name}' for name in WAYS)} |",
        "| --- " * (1 + 2 * len(WAYS)) + "|",
    ]
    for title, case in CASES.items():
        call = case()
        call()
        seconds = shortest(call, repeats)
        held = {}
        for name, way in WAYS.items():
            with mean_by(way):
                held[name] = peak(call)
        cells = [f"{1e3 * seconds[name]:,.0f} ms" for name in WAYS] + [f"{1e3 * held[name]:,.0f} MB" for name in WAYS]
        out.append(f"| {title} | {' | '.join(cells)} |")
    return out


def main() -> None:
    """Measure and print, or write into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each, of which the shortest counts")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance_speed.md")
    options = parser.parse_args()
    table = "\n".join(rows(options.repeats))
    print(table)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        PAGE.write_text(f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
