"""The authors' outputs and small networks for the tests of `sthggep.nn`."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from sthggep import nn

BESIDE = Path(__file__).resolve().parents[3] / "shared"


def _folder(variable: str, name: str, content: str) -> Path:
    folder = Path(os.environ.get(variable) or BESIDE / name).expanduser()
    if not folder.is_dir():
        pytest.skip(f"Needs {content}: set ${variable} to the folder that holds them.")
    return folder


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Use one thread: on busy cores, threads that wait for each other make these tests ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    return _folder("STHGGEP_REFERENCE", "reference", "outputs of the authors' network")


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    return _folder("STHGGEP_WEIGHTS", "weights", "image weights")


@pytest.fixture(scope="session")
def spec(reference_folder: Path) -> dict[str, tuple[list[int], str]]:
    """Names, shapes and types of the authors' state."""
    return json.loads((reference_folder / "state_dict_spec.json").read_text())


def formula(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Value of one entry of the state behind the golden outputs."""
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if last == "running_var":
        z = 1 + 0.5 * np.abs(z)
    elif last == "running_mean":
        z = 0.1 * z
    elif len(shape) > 1:
        z = z / np.sqrt(np.prod(shape[1:])).astype(np.float32)
    else:
        z = 0.1 * z + (1 if last == "weight" else 0)
    return torch.from_numpy(np.asarray(z, dtype=np.float32))


@pytest.fixture(scope="session")
def golden(reference_folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(reference_folder / "golden_forward.npz"))


@pytest.fixture(scope="session")
def reference_run(spec, golden) -> dict[str, torch.Tensor]:
    """Every stage of our network under the authors' weights, on the patches of the golden file."""
    net = nn.from_reference_state_dict({name: formula(name, tuple(shape)) for name, (shape, _) in spec.items()})
    stages: dict[str, torch.Tensor] = {}
    modules_by_stage = {"gem": net.gradient, "hgnn": net.hypergraph}
    modules_by_stage |= {name: net.backbone.get_submodule(name) for name in ("stage3", "stage4", "conv5")}
    modules_by_stage |= {f"down{i}": net.get_submodule(f"level{i}") for i in (4, 5, 6)}
    modules_by_stage |= {f"ViT{i}": net.transformers[i - 1] for i in (1, 2, 3)}
    for name, module in modules_by_stage.items():
        module.register_forward_hook(lambda _module, _args, out, name=name: stages.update({f"stage_{name}": out}))
    patches = torch.from_numpy(golden["patches"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        out = net(patches, golden["array_xy"])
    heads = {"pred": out.expression, "zinb_mean": out.mean, "zinb_dispersion": out.dispersion}
    return stages | heads | {"zinb_dropout": out.dropout, "latent": out.latent}


SMALL = {"dim": 32, "depth": 1, "heads": 2, "hypergraph_dim": 16, "fusion_layers": 1}


@pytest.fixture
def small():
    """Return a function that makes small networks on patches, in evaluation mode."""

    def make(**options):
        net = nn.HGGEPNet(5, **({"precision": "float32"} | SMALL | options)).eval()
        # With torch's initial weights the signal of an untrained backbone fades: outputs would not depend on inputs
        net.load_state_dict({name: formula(name, tuple(value.shape)) for name, value in net.state_dict().items()})
        return net

    return make


@pytest.fixture
def grid() -> np.ndarray:
    """A 5 x 4 array whose border spots have many neighbors at one distance."""
    return np.stack(np.meshgrid(np.arange(5), np.arange(4)), axis=-1).reshape(-1, 2).astype(float)


@pytest.fixture
def patches(grid) -> torch.Tensor:
    return torch.rand(len(grid), 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 255
