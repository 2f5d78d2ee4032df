"""The plain network that ours is timed against gives the same numbers; and the benchmarks' own arithmetic."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sthggep.nn import HGGEPNet

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = {"dim": 64, "depth": 2, "heads": 2, "hypergraph_dim": 16, "fusion_layers": 2, "precision": "float32"}
STILL = {"dropout": 0.0, "hypergraph_dropout": 0.0}


def load(name: str, monkeypatch) -> ModuleType:
    """A file of the benchmarks, which are no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def baseline(monkeypatch):
    return load("baseline", monkeypatch)


@pytest.fixture
def section():
    """Patches, positions with a spot on its own, expression, counts."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.divmod(np.arange(30), 6), axis=1).astype(float)
    xy[-1] = 40.0
    shade = np.linspace(50, 256, 30)[:, None, None, None]
    patches = torch.from_numpy((rng.random((30, 3, 112, 112)) * rng.random((30, 3, 1, 1)) * shade).astype(np.uint8))
    counts = torch.from_numpy(rng.poisson(2, (30, 7)).astype(np.float32))
    return patches, xy, torch.log1p(counts), counts


def network(**options) -> HGGEPNet:
    torch.manual_seed(0)
    net = HGGEPNet(7, **(SMALL | options))
    generator = torch.Generator().manual_seed(1)
    for name, value in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return net


@torch.no_grad()
def test_plain_network_predicts_the_same(baseline, section):
    net, (patches, xy, *_) = network().eval(), section
    ours, plain = net(patches, xy), baseline.forward(net, patches, xy)
    for name in ("expression", "latent", "mean", "dispersion", "dropout"):
        torch.testing.assert_close(getattr(plain, name), getattr(ours, name), rtol=1e-4, atol=1e-5)


def test_plain_neighbours_and_hyperedges_are_the_same(baseline, section):
    net, xy = network(), section[1]
    near, rows = baseline.neighbors(xy, 8), net.neighbors(xy).tolist()
    assert near == [[j for j in row if j >= 0] for row in rows]
    features = torch.randn(30, 64, generator=torch.Generator().manual_seed(0))
    found = baseline.hyperedges(features, near, 4)
    assert torch.equal(found, net._hyperedges(features, net.neighbors(xy))[0])


def test_plain_training_step_has_the_same_loss_and_gradients(baseline, section):
    from sthggep._data import Section
    from sthggep._presets import PRESETS
    from sthggep._training import Training

    patches, xy, target, counts = section
    nets = [network(**STILL).train() for _ in range(2)]
    every = torch.ones(30, dtype=torch.bool)
    module = Training(nets[0], PRESETS["paper"].recipe, seed=3)
    module.log = module.log_dict = lambda *_, **__: None
    ours = module.training_step(Section("A", (patches, xy), target, counts, torch.ones(30), every, ~every), 0)
    generator = torch.Generator().manual_seed(3)
    plain = baseline.training_loss(nets[1], patches, xy, target, counts, generator=generator)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    ours.backward()
    plain.backward()
    expected = dict(nets[1].named_parameters())
    for name, found in nets[0].named_parameters():
        if name.startswith(("heads", "fusion", "transformers.2")):
            error = (found.grad - expected[name].grad).norm() / expected[name].grad.norm()
            assert error < 1e-3, name
