"""A model on disk: whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sthggep.model import _store
from sthggep.model._store import CONFIG, FORMAT, TENSORS, read_folder, write_folder


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((3, 2), value), "b": torch.arange(4)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_folder(tmp_path / "model", {"version": "0.1", "genes": ["A", "µ"]}, tensors(), overwrite=False)
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_round_trip(model: Path):
    config, stored = read_folder(model)
    assert config == {"format": FORMAT, "version": "0.1", "genes": ["A", "µ"]}
    assert stored.keys() == tensors().keys()
    assert all(torch.equal(stored[name], value) for name, value in tensors().items())
    assert sorted(p.name for p in model.iterdir()) == [CONFIG, TENSORS]
    assert [p.name for p in model.parent.iterdir()] == ["model"]


def test_tensors_that_share_memory_or_are_views(tmp_path: Path):
    matrix = torch.arange(12.0).reshape(3, 4)
    write_folder(tmp_path / "m", {}, {"x": matrix, "y": matrix, "t": matrix.T, "row": matrix[1]}, overwrite=False)
    stored = read_folder(tmp_path / "m")[1]
    assert torch.equal(stored["t"], matrix.T)
    assert torch.equal(stored["row"], matrix[1])
    assert torch.equal(stored["x"], stored["y"])


def test_folders_above_are_made(tmp_path: Path):
    write_folder(tmp_path / "a" / "b" / "model", {}, tensors(), overwrite=False)
    assert (tmp_path / "a" / "b" / "model" / CONFIG).is_file()


# --- overwriting --------------------------------------------------------------------------------------------------


def test_a_model_is_replaced_only_with_overwrite(model: Path):
    before = contents(model)
    with pytest.raises(FileExistsError, match=r"exists already\. Pass `overwrite=True`"):
        write_folder(model, {"version": "0.2"}, tensors(2), overwrite=False)
    assert contents(model) == before
    (model / "old_file.txt").write_text("of the former model")
    write_folder(model, {"version": "0.2"}, tensors(2), overwrite=True)
    config, stored = read_folder(model)
    assert config["version"] == "0.2"
    assert float(stored["a.weight"][0, 0]) == 2
    assert sorted(contents(model)) == [CONFIG, TENSORS]


def test_other_folders_are_never_replaced(tmp_path: Path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not a model of sthggep; it is left alone"):
        write_folder(folder, {}, tensors(), overwrite=True)
    file = tmp_path / "file"
    file.write_text("a file")
    for overwrite in (True, False):
        with pytest.raises(FileExistsError):
            write_folder(file, {}, tensors(), overwrite=overwrite)
    assert contents(tmp_path) == {"thesis/chapter.txt": b"years of work", "file": b"a file"}


# --- whole or not at all ------------------------------------------------------------------------------------------


def fail_at(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one step of writing fail."""
    if step == "tensors":
        import safetensors.torch

        def save(tensors_, path):
            Path(path).write_bytes(b"half")
            raise OSError(28, "disk full")

        monkeypatch.setattr(safetensors.torch, "save_file", save)
    elif step == "config":
        monkeypatch.setattr(_store.json, "dumps", lambda *a, **k: (_ for _ in ()).throw(TypeError("not JSON")))
    else:
        original = Path.rename

        def rename(self, target):
            new = self.is_dir() and '"0.1"' not in (self / CONFIG).read_text()
            if new:
                raise KeyboardInterrupt if step == "interrupted" else OSError("busy")
            return original(self, target)

        monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("step", ["tensors", "config", "rename", "interrupted"])
def test_a_failure_leaves_the_old_model_and_no_scratch(model: Path, step: str, monkeypatch: pytest.MonkeyPatch):
    before = contents(model.parent)
    with monkeypatch.context() as patch:
        fail_at(step, patch)
        with pytest.raises((OSError, TypeError, KeyboardInterrupt)):
            write_folder(model, {"version": "0.2"}, tensors(2), overwrite=True)
        with pytest.raises((OSError, TypeError, KeyboardInterrupt)):
            write_folder(model.parent / "other", {}, tensors(2), overwrite=False)
    assert contents(model.parent) == before
    assert [p.name for p in model.parent.iterdir()] == ["model"]
    assert read_folder(model)[0]["version"] == "0.1"


# --- missing and incomplete folders -------------------------------------------------------------------------------


def test_no_such_folder(model: Path):
    with pytest.raises(FileNotFoundError, match=r"No model at '.*modle'.*`model\.save`.*Models beside it: 'model'"):
        read_folder(model.parent / "modle")
    with pytest.raises(FileNotFoundError, match="There is no model beside it either"):
        read_folder(model.parent / "nowhere" / "model")


@pytest.mark.parametrize(("missing", "present"), [(CONFIG, TENSORS), (TENSORS, CONFIG)])
def test_half_of_a_model(model: Path, missing: str, present: str):
    (model / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"not a whole model: '{missing}' missing, found '{present}'"):
        read_folder(model)


def test_half_written_tensors(model: Path):
    whole = (model / TENSORS).read_bytes()
    for half in (whole[: len(whole) // 2], whole[:4], b"", whole[:-1]):
        (model / TENSORS).write_bytes(half)
        with pytest.raises(ValueError, match=rf"{TENSORS}' is broken or half-written"):
            read_folder(model)


@pytest.mark.parametrize("text", ['{"format": 1', "[]", "{}", '{"format": "one"}', '{"format": null}', "", "\xff"])
def test_a_broken_record(model: Path, text: str):
    (model / CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{CONFIG}' is not a model's record"):
        read_folder(model)


def test_a_newer_format(model: Path):
    config = json.loads((model / CONFIG).read_text())
    (model / CONFIG).write_text(json.dumps(config | {"format": FORMAT + 1, "version": "9.9"}))
    with pytest.raises(
        ValueError, match=rf"has format {FORMAT + 1}, written by sthggep 9\.9.*up to {FORMAT}.*pip install -U"
    ):
        read_folder(model)
