"""An interrupted training resumes with the same result; several processes train the same model as one."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sthggep._inputs._section import SectionWindow
from sthggep._training._checkpoints import FINISHED, STATE
from sthggep._training._lightning import train_network
from sthggep._training._networks import start_network
from sthggep._training._presets import Recipe
from sthggep.nn import FeatureHGGEPNet, spatial_incidence, spatial_neighbors
from sthggep.nn._section import FeatureInputs

SCRIPTS = Path(__file__).parent / "scripts"
RECIPE = Recipe(max_epochs=6, learning_rate=1e-3, correlation=1.0, step_epochs=2, step_factor=0.5, patience=6)


class Killed(BaseException):
    """Raised in place of the end of a process."""


def section(name: str, seed: int, *, validate: bool = False) -> SectionWindow:
    rng = np.random.default_rng(seed)
    neighbors = spatial_neighbors(np.stack(np.divmod(np.arange(25), 5), axis=1), 5)
    features = torch.from_numpy(rng.standard_normal((25, 6)).astype(np.float32))
    target = 1 + 0.3 * features[:, :1] * torch.linspace(-1, 1, 4)
    every = torch.ones(25, dtype=torch.bool)
    masks = (~every, every) if validate else (every, ~every)
    inputs = FeatureInputs([features], neighbors.rows, neighbors.offsets, spatial_incidence(neighbors.rows), 25)
    return SectionWindow.of_whole(name, inputs, target, target.round(), torch.ones(25), *masks)


@pytest.fixture(params=[True, False], ids=["validated", "all epochs"])
def sections(request) -> list[SectionWindow]:
    return [section(name, i) for i, name in enumerate("ABC")] + [section("V", 9, validate=True)] * request.param


def run(sections: list[SectionWindow], folder: Path | None, *, die_at: int = 0, recipe: Recipe = RECIPE):
    """Train, and raise `Killed` at the start of pass ``die_at`` through the network."""
    torch.manual_seed(0)
    net = FeatureHGGEPNet([6], 4, dim=16, heads=2, rank=2)
    start_network(net, sections)
    passes = []

    def count(*_: Any) -> None:
        passes.append(1)
        if len(passes) == die_at:
            raise Killed

    net.register_forward_pre_hook(count)
    return net, train_network(net, sections, recipe, seed=0, device=torch.device("cpu"), folder=folder)


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether two networks have the same weights to the last bit."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_resumes_from_any_interruption(sections, tmp_path):
    """Dropout, order of the sections, schedule, best epoch and curves are as without the interruption."""
    whole, history = run(sections, None)
    for die_at in (2, 5, 8, 10, 17):
        folder = tmp_path / str(die_at)
        with pytest.raises(Killed):
            run(sections, folder, die_at=die_at)
        assert (folder / STATE).exists() == (die_at > len(sections))
        net, resumed_history = run(sections, folder)
        assert same_weights(net, whole), die_at
        pd.testing.assert_frame_equal(resumed_history, history)


def test_several_interruptions(sections, tmp_path):
    whole, history = run(sections, None)
    for die_at in (6, 6, 2):
        with pytest.raises(Killed):
            run(sections, tmp_path, die_at=die_at)
    net, resumed_history = run(sections, tmp_path)
    assert same_weights(net, whole)
    pd.testing.assert_frame_equal(resumed_history, history)


def test_finished_networks_are_not_trained_again(sections, tmp_path):
    whole, history = run(sections, tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {FINISHED}
    net, loaded_history = run(sections, tmp_path, die_at=1)
    assert same_weights(net, whole)
    pd.testing.assert_frame_equal(loaded_history, history)
    # Checkpoints count epochs from 0, as those of earlier versions do
    assert [row["epoch"] for row in torch.load(tmp_path / FINISHED)["rows"]] == list(range(len(history)))
    assert history["epoch"].tolist() == list(range(1, len(history) + 1))


def test_training_that_stopped_early_is_not_continued(tmp_path, monkeypatch):
    """The process ends between the last epoch and the end of the training."""
    from sthggep._training import _lightning as _training

    sections = [section("A", 0), section("V", 9, validate=True)]
    recipe = replace(RECIPE, max_epochs=40, patience=1, learning_rate=0.3)
    whole, history = run(sections, None, recipe=recipe)
    assert 1 < len(history) < 40

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(_training, "store_finished", die)
        with pytest.raises(Killed):
            run(sections, tmp_path, recipe=recipe)
    net, resumed_history = run(sections, tmp_path, die_at=1, recipe=recipe)
    assert same_weights(net, whole)
    pd.testing.assert_frame_equal(resumed_history, history)


# ---------------------------------------------------------------- tl.fit


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("slow_fit", SCRIPTS / "slow_fit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment() -> dict[str, str]:
    """The environment of this process, with the same number of threads."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.skipif(sys.platform == "win32", reason="Needs SIGKILL.")
def test_killed_fit_resumes(script, tmp_path):
    """The system kills a process in the middle of its second network."""
    command = [sys.executable, str(SCRIPTS / "slow_fit.py"), str(tmp_path), "1", "2"]
    result = subprocess.run(command, env=environment(), capture_output=True, check=False, timeout=250)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.name in (STATE, FINISHED)} == {
        f"network-0/{FINISHED}",
        f"network-1/{STATE}",
    }
    # The resumed fit trains only the interrupted epoch and those after it
    resumed_diary, whole_diary = script.Diary(), script.Diary()
    resumed_model, whole = script.fit(tmp_path, resumed_diary), script.fit(None, whole_diary)
    assert resumed_diary.epochs == [(0, 2), (0, 3)]
    assert whole_diary.epochs == [(network, epoch) for network in (0, 1) for epoch in range(4)]
    assert resumed_model.id == whole.id
    pd.testing.assert_frame_equal(resumed_model.history, whole.history)


def test_folder_of_another_training_is_refused(script, tmp_path):
    script.fit(tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match=r"holds a training of other data .*differ: .*recipe.*`checkpoint_dir`"):
        script.fit(tmp_path, max_epochs=2)
    with pytest.raises(ValueError, match="differ: 'genes'"):
        script.fit(tmp_path, max_epochs=1, genes=["NUCL1", "STRO1"])
    record = json.loads((tmp_path / "training.json").read_text())
    assert len(record["sections"]) == 3
    (tmp_path / "training.json").unlink()
    with pytest.raises(FileExistsError, match="holds files and no training of sthggep"):
        script.fit(tmp_path, max_epochs=1)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="must be a folder, found the file"):
        script.fit(tmp_path / "file", max_epochs=1)


# ---------------------------------------------------------------- several processes


@pytest.mark.skipif(not torch.distributed.is_available(), reason="This torch has no processes that talk to each other.")
def test_two_processes_train_the_same_model_as_one(tmp_path):
    """Two sections a step, by Lightning's DDP on the CPU: losses, best epoch and weights."""
    for processes in (1, 2):
        command = [sys.executable, str(SCRIPTS / "two_processes.py"), str(tmp_path / str(processes)), str(processes)]
        subprocess.run(command, env=environment(), check=True, capture_output=True, timeout=250)
    for network in ("patches", "features"):
        first, second = (tmp_path / str(processes) / network for processes in (1, 2))
        expected, history = (json.loads((folder / "history.json").read_text()) for folder in (first, second))
        assert list(history) == list(expected)
        assert len(history["epoch"]) == 3
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=f"{network}: {name}")
        a, b = (torch.load(folder / "net.pt", weights_only=True) for folder in (first, second))
        for name, value in a.items():
            if "running" not in name and value.is_floating_point():
                torch.testing.assert_close(b[name], value, rtol=1e-3, atol=2e-4, msg=f"{network}: {name}")
