"""The same training by one process and by two: `python two_processes.py FOLDER 1|2`; two start each other by Lightning's DDP."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from sthggep._inputs._section import SectionWindow
from sthggep._training._lightning import train_network
from sthggep._training._presets import Recipe
from sthggep.nn import FeatureHGGEPNet, HGGEPNet, spatial_incidence, spatial_neighbors
from sthggep.nn._section import FeatureInputs, PatchInputs

N = 12
XY = np.stack(np.divmod(np.arange(N), 4), axis=1).astype(float)
# Without dropout, training draws no random numbers
STILL = {"dim": 32, "depth": 1, "heads": 2, "dropout": 0.0}


def section(seed: int, *, patches: bool, validate: bool = False) -> SectionWindow:
    """Spots whose brightness determines their genes."""
    rng = np.random.default_rng(seed)
    brightness = rng.uniform(0.3, 1, N)
    counts = torch.from_numpy(rng.poisson(8 * brightness[:, None] * np.array([1.0, 2.0, 0.5]))).float()
    every = torch.ones(N, dtype=torch.bool)
    masks = (~every, every) if validate else (every, ~every)
    if patches:
        pixels = rng.random((N, 3, 112, 112)) * 255 * brightness[:, None, None, None]
        inputs = PatchInputs(torch.from_numpy(pixels.astype(np.uint8)), XY)
    else:
        neighbors = spatial_neighbors(XY, 5)
        features = torch.from_numpy(np.column_stack([brightness, rng.random((N, 3))])).float()
        inputs = FeatureInputs([features], neighbors.rows, neighbors.offsets, spatial_incidence(neighbors.rows), N)
    return SectionWindow.of_whole(f"section {seed}", inputs, counts.log1p(), counts, torch.ones(N), *masks)


def learn(folder: Path, processes: int, *, patches: bool) -> None:
    """Train a small network on two sections, both in one step."""
    torch.manual_seed(0)
    if patches:
        net = HGGEPNet(3, hypergraph_dropout=0.0, hypergraph_dim=16, fusion_layers=1, precision="float32", **STILL)
    else:
        net = FeatureHGGEPNet([4], 3, input_dropout=0.0, rank=2, **STILL)
    sections = [section(i, patches=patches) for i in (0, 1)]
    if not patches:  # validation uses running statistics of batch normalization, which differ between processes
        sections += [section(i, patches=patches, validate=True) for i in (2, 3)]
    recipe = Recipe(max_epochs=3, learning_rate=1e-3, count_nll=0.25 if patches else 0.0)
    options = {"devices": 2, "strategy": "ddp_find_unused_parameters_true"}
    options = options if processes == 2 else {"accumulate_grad_batches": 2}
    history = train_network(
        net, sections, recipe, seed=0, device=torch.device("cpu"), trainer_kwargs=options, folder=folder
    )
    if os.environ.get("LOCAL_RANK", "0") == "0":
        torch.save(net.state_dict(), folder / "net.pt")
        (folder / "history.json").write_text(json.dumps(history.to_dict("list")))


if __name__ == "__main__":
    for name in ("patches", "features"):
        learn(Path(sys.argv[1]) / name, int(sys.argv[2]), patches=name == "patches")
