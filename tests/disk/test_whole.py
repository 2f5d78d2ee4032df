"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from sthggep._disk._digest import digest
from sthggep._disk._whole import PART, PlaceTakenError, scratch_beside, whole_file, whole_folder

ERRORS = [RuntimeError, KeyboardInterrupt]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def stopped(block: AbstractContextManager[Path], error: type[BaseException], *, as_file: bool = False) -> None:
    """Write half of the content, then raise the error."""
    with block as part:
        if not as_file:
            part.mkdir(exist_ok=True)
        (part if as_file else part / "a").write_text("half")
        raise error


@pytest.fixture
def usual_mask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An existing folder."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("old")
    return tmp_path / "model"


# --- files


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as part:
        part.write_text("one")
        assert part.name == "a.txt", "what writes it may go by its ending"
        assert not path.exists()
    assert path.read_text() == "one"
    assert names(path.parent) == {"a.txt"}


@pytest.mark.parametrize("error", ERRORS)
def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        stopped(whole_file(path), error, as_file=True)
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_file_exists_at_all_times_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: pytest.fail("it was taken away first"))
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("it was moved away first"))
    with whole_file(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_a_file_does_not_replace_a_folder(model: Path):
    with pytest.raises(OSError, match="model"), whole_file(model) as part:
        part.write_text("new")
    assert (model / "a").read_text() == "old"
    assert names(model.parent) == {"model"}


def test_a_file_replaces_a_link_and_not_what_it_points_to(tmp_path: Path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "a.txt").symlink_to(tmp_path / "theirs")
    with whole_file(tmp_path / "a.txt") as part:
        part.write_text("ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "a.txt").read_text() == "ours"
    assert not (tmp_path / "a.txt").is_symlink()


@pytest.mark.usefixtures("usual_mask")
def test_modes_are_those_of_any_file(tmp_path: Path):
    with whole_file(tmp_path / "a.txt") as part:
        part.write_text("one")
    with whole_folder(tmp_path / "b") as part:
        part.mkdir()
        (part / "c").write_text("two")
    assert mode(tmp_path / "a.txt") == mode(tmp_path / "b" / "c") == 0o640
    assert mode(tmp_path / "b") == 0o750


@pytest.mark.usefixtures("usual_mask")
@pytest.mark.handles("The file gets the permissions that the umask allows, so others can read it.")
@pytest.mark.parametrize("private", [pytest.param(0o600, id="a file that a library writes for its owner only")])
def test_private_files_of_libraries_are_as_others(tmp_path: Path, private: int):
    def write(path: Path) -> None:
        path.write_text("one")
        path.chmod(private)

    with whole_file(tmp_path / "a.txt") as part:
        write(part)
    with whole_folder(tmp_path / "b") as part:
        (part / "below").mkdir(parents=True)
        write(part / "below" / "c")
    assert mode(tmp_path / "a.txt") == mode(tmp_path / "b" / "below" / "c") == 0o640


def test_half_written_files_are_private(tmp_path: Path):
    path = tmp_path / "a.txt"
    with whole_file(path) as one, whole_file(path) as other:
        assert one.parent != other.parent
        assert mode(one.parent) == 0o700
        assert one.parent.parent == tmp_path
        assert one.parent.name.endswith(PART), "a run folder takes it for what a killed process left"
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"


def test_half_written_files_may_lie_in_another_folder(tmp_path: Path):
    out, state = tmp_path / "out", tmp_path / "state"
    out.mkdir()
    with whole_file(out / "a.txt", within=state) as part:
        part.write_text("one")
        assert names(out) == set()
        assert part.is_relative_to(state)
    assert names(out) == {"a.txt"}
    assert names(state) == set()


# --- folders


def test_a_folder_appears_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "model"
    with whole_folder(path) as part:
        part.mkdir()
        (part / "a").write_text("one")
        assert not path.exists()
    assert (path / "a").read_text() == "one"
    assert names(path.parent) == {"model"}


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("error", ERRORS)
def test_a_failed_write_leaves_the_earlier_folder(model: Path, error: type[BaseException], replace: bool):
    with pytest.raises(error):
        stopped(whole_folder(model, replace=replace), error)
    assert (model / "a").read_text() == "old"
    assert names(model.parent) == {"model"}


def test_a_folder_replaces_another_with_its_contents(model: Path):
    with whole_folder(model, replace=True) as part:
        part.mkdir()
        (part / "b").write_text("new")
    assert names(model) == {"b"}
    assert names(model.parent) == {"model"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_folder_comes_back_when_the_move_fails(
    model: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if target == model and not (self / "a").exists():
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(error), whole_folder(model, replace=True) as part:
        part.mkdir()
    assert (model / "a").read_text() == "old"
    assert names(model.parent) == {"model"}


def test_a_folder_that_cannot_come_back_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch):
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if target == model:
            raise OSError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError), whole_folder(model, replace=True) as part:  # noqa: PT011
        part.mkdir()
    (remainder,) = model.parent.glob("*/replaced/a")
    assert remainder.read_text() == "old"


def test_the_first_folder_stays(model: Path):
    with pytest.raises(PlaceTakenError, match="model"), whole_folder(model) as part:
        part.mkdir()
    assert names(model) == {"a"}
    assert names(model.parent) == {"model"}


def test_a_folder_that_was_not_made_leaves_nothing(tmp_path: Path):
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "model"):
        pass
    assert names(tmp_path) == set()


def test_a_link_to_a_folder_is_replaced_and_not_followed(model: Path):
    link = model.parent / "link"
    link.symlink_to(model, target_is_directory=True)
    with whole_folder(link, replace=True) as part:
        part.mkdir()
    assert (model / "a").read_text() == "old"
    assert not link.is_symlink()
    assert names(link) == set()


def test_scratch_folder_is_removed(tmp_path: Path):
    with scratch_beside(tmp_path / "a.h5ad") as folder:
        assert folder.parent == tmp_path
    with pytest.raises(RuntimeError):
        stopped(scratch_beside(tmp_path / "a.h5ad"), RuntimeError)
    assert names(tmp_path) == set()


# --- hashes


def test_hashes_are_those_that_are_stored():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest(values) == "e2c0a71510b5394d"
    assert digest("B4", values) == "4add57f1ed33d149"
    assert digest(values.T) == digest(np.ascontiguousarray(values.T)) != digest(values)
