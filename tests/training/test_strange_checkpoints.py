"""Checkpoint folders of a training that a stranger wrote, or a failing disk."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sthggep._inputs._section import SectionWindow
from sthggep._training._checkpoints import BEST, FINISHED, STATE, _keep_in
from sthggep._training._lightning import train_network
from sthggep._training._networks import start_network
from sthggep._training._presets import Recipe
from sthggep.nn import FeatureHGGEPNet, spatial_incidence, spatial_neighbors
from sthggep.nn._section import FeatureInputs

RECIPE = Recipe(max_epochs=2, learning_rate=1e-3, correlation=1.0, patience=6)


class Killed(BaseException):
    """Raised where a process would die."""


def section(name: str, seed: int, *, validate: bool = False) -> SectionWindow:
    rng = np.random.default_rng(seed)
    near = spatial_neighbors(np.stack(np.divmod(np.arange(25), 5), axis=1), 5)
    features = torch.from_numpy(rng.standard_normal((25, 6)).astype(np.float32))
    target = 1 + 0.3 * features[:, :1] * torch.linspace(-1, 1, 4)
    yes = torch.ones(25, dtype=torch.bool)
    masks = (~yes, yes) if validate else (yes, ~yes)
    inputs = FeatureInputs([features], near.rows, near.offsets, spatial_incidence(near.rows), 25)
    return SectionWindow.of_whole(name, inputs, target, target.round(), torch.ones(25), *masks)


def train(folder: Path | None, *, die_at_epoch: int | None = None) -> tuple[torch.Tensor, pd.DataFrame]:
    """Train a network, and die before an epoch."""
    torch.manual_seed(0)
    sections = [section("A", 0), section("V", 9, validate=True)]
    net = FeatureHGGEPNet([6], 4, dim=16, heads=2, rank=2)
    start_network(net, sections)
    epochs = []

    def count(*_: Any) -> None:
        epochs.append(1)
        if die_at_epoch is not None and len(epochs) == 2 * die_at_epoch + 1:
            raise Killed

    hook = net.register_forward_pre_hook(count)
    try:
        history = train_network(net, sections, RECIPE, seed=0, device=torch.device("cpu"), folder=folder)
    finally:
        hook.remove()
    return torch.cat([value.flatten().float() for value in net.state_dict().values()]), history


@pytest.fixture(scope="module")
def expected():
    return train(None)


@pytest.fixture(scope="module")
def stopped_source(tmp_path_factory) -> Path:
    """A folder of a training that was killed in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "network-0"
    with pytest.raises(Killed):
        train(folder, die_at_epoch=1)
    assert (folder / STATE).is_file()
    return folder


@pytest.fixture
def stopped(stopped_source, tmp_path) -> Path:
    return Path(shutil.copytree(stopped_source, tmp_path / "network-0"))


@pytest.fixture(scope="module")
def finished_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "network-0"
    train(folder)
    return folder


@pytest.fixture
def finished(finished_source, tmp_path) -> Path:
    return Path(shutil.copytree(finished_source, tmp_path / "network-0"))


class Evil:
    """Runs a command of the system when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def halved(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path, _: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        largest = archive.read(max(archive.infolist(), key=lambda part: part.file_size))
    content = bytearray(path.read_bytes())
    content[content.index(largest) + len(largest) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = [
    pytest.param(
        lambda path, trace: torch.save({"state_dict": Evil(trace), "net": Evil(trace)}, path), id="code in an archive"
    ),
    pytest.param(lambda path, trace: path.write_bytes(pickle.dumps(Evil(trace))), id="code in a bare pickle"),
    pytest.param(halved, id="half of the file"),
    pytest.param(flipped, id="one flipped bit"),
    pytest.param(lambda path, trace: path.write_bytes(b""), id="an empty file"),
    pytest.param(lambda path, trace: torch.save([1], path), id="a list"),
    pytest.param(lambda path, trace: torch.save({}, path), id="nothing in it"),
    pytest.param(
        lambda path, trace: torch.save({"net": {}, "rows": [], "state_dict": {}}, path), id="no weights in it"
    ),
    pytest.param(
        lambda path, trace: torch.save({"net": 5, "rows": 5, "state_dict": 5}, path), id="numbers for its parts"
    ),
]


@pytest.mark.handles(
    "The training stops with an error that names the checkpoint and says to delete it. No code in the file runs."
)
@pytest.mark.parametrize("unsafe_variable", [False, True], ids=["", "with the variable that asks for unsafe loads"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_state_of_an_epoch(damage, unsafe_variable, stopped, monkeypatch):
    if unsafe_variable:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trace = stopped.parent / "SthggepTestTrace"
    damage(stopped / STATE, trace)
    with pytest.raises(ValueError, match=rf"{STATE}' is broken, or not of this training \(.*Delete the file"):
        train(stopped)
    assert not trace.exists()


@pytest.mark.handles(
    "The training stops with an error that names the file of the network and says to delete it. No code in the file runs."
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_finished_network(damage, finished):
    trace = finished.parent / "SthggepTestTrace"
    damage(finished / FINISHED, trace)
    with pytest.raises(ValueError, match=rf"{FINISHED}' is broken, or not of this training \(.*Delete the file"):
        train(finished)
    assert not trace.exists()


@pytest.mark.handles("sthggep rejects the archive by its size before it allocates memory.")
@pytest.mark.parametrize("name", [STATE, FINISHED])
def test_archives_of_zeros(name, stopped):
    with zipfile.ZipFile(stopped / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 3_000_000)
    with pytest.raises(ValueError, match=rf"{name}' is broken, .*unpacks to [\d,]+ bytes from [\d,]+\)"):
        train(stopped)


@pytest.mark.parametrize("name", [STATE, FINISHED])
def test_without_the_file_the_network_is_trained_again(name, stopped, finished_source, expected):
    if name == FINISHED:
        shutil.rmtree(stopped)
        shutil.copytree(finished_source, stopped)
        assert torch.equal(train(stopped)[0], expected[0])
    (stopped / name).unlink()
    weights, history = train(stopped)
    assert torch.equal(weights, expected[0])
    pd.testing.assert_frame_equal(history, expected[1])


@pytest.mark.handles("The training stops with an error that names the file. No code in the file runs.")
@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage.id != "one flipped bit"])
def test_the_weights_of_the_best_epoch(damage, stopped):
    best = str(stopped / BEST / Path(edit_state(stopped, lambda state: state["best_model_path"])).name)
    damage(Path(best), stopped.parent / "SthggepTestTrace")
    # The state names it as the best, which no later epoch can reach
    two, worse = torch.tensor(2.0), f"{best}.worse"
    change = {
        "best_model_score": two,
        "kth_value": two,
        "kth_best_model_path": worse,
        "best_k_models": {best: two, worse: two},
    }
    edit_state(stopped, lambda state: state.update(change))
    with pytest.raises(ValueError, match=r"\.ckpt' is broken, or not of this training"):
        train(stopped)
    assert not (stopped.parent / "SthggepTestTrace").exists()


def edit_state(folder: Path, change: Callable[[dict], Any]) -> Any:
    """Change the state of Lightning's callback that keeps the best epoch."""
    state = torch.load(folder / STATE, weights_only=True)
    (best,) = [callback for callback in state["callbacks"].values() if "best_model_path" in callback]
    result = change(best)
    torch.save(state, folder / STATE)
    return result


@pytest.mark.handles("The training stops with an error that names the file.")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"best_k_models": {"a": "x"}}, id="words for the scores of the best epochs"),
        pytest.param(
            {"best_k_models": {"a": torch.ones(()), "b": torch.ones(())}, "kth_best_model_path": ""},
            id="no worst of two",
        ),
        pytest.param({"best_k_models": 5}, id="a number for the best epochs"),
        pytest.param({"best_model_path": 5}, id="a number for a path"),
    ],
)
def test_a_state_that_no_training_has(change, stopped):
    edit_state(stopped, lambda state: state.update(change))
    with pytest.raises(ValueError, match=rf"{STATE}' is broken, or not of this training"):
        train(stopped)


@pytest.mark.handles("sthggep reads and deletes no file outside the folder.")
@pytest.mark.parametrize(
    "how",
    [
        pytest.param("absolute", id="an absolute path for the best epoch"),
        pytest.param("upwards", id="a path for the best epoch that leads out of the folder"),
    ],
)
def test_paths_in_the_state_stay_in_the_folder(how, stopped, expected):
    precious = stopped.parent / "precious.ckpt"
    precious.write_text("years of work")
    path = {"absolute": str(precious), "upwards": str(stopped / BEST / ".." / ".." / precious.name)}[how]
    worst = torch.tensor(-2.0)
    edit_state(
        stopped,
        lambda state: state.update(
            kth_best_model_path=path, kth_value=worst, best_k_models={path: worst, state["best_model_path"]: worst}
        ),
    )
    assert torch.equal(train(stopped)[0], expected[0])
    assert precious.read_text() == "years of work"


def test_a_folder_that_was_moved_is_resumed(stopped, expected):
    moved = stopped.rename(stopped.with_name("moved"))
    weights, history = train(moved)
    assert torch.equal(weights, expected[0])
    pd.testing.assert_frame_equal(history, expected[1])


def test_paths_are_moved_into_the_folder(tmp_path):
    state = {
        "dirpath": "/elsewhere",
        "best_model_path": "/elsewhere/a.ckpt",
        "kth_best_model_path": "../../b.ckpt",
        "last_model_path": "",
        "best_k_models": {"http://b.ckpt": torch.ones(())},
    }
    _keep_in(tmp_path, state)
    assert state == {
        "dirpath": str(tmp_path),
        "best_model_path": str(tmp_path / "a.ckpt"),
        "kth_best_model_path": str(tmp_path / "b.ckpt"),
        "last_model_path": "",
        "best_k_models": {str(tmp_path / "b.ckpt"): torch.ones(())},
    }


def test_errors_of_a_training_itself_keep_their_kind(stopped):
    with pytest.raises(Killed):
        train(stopped, die_at_epoch=0)
