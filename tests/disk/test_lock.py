"""Two processes at one file or folder, and processes that die there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sthggep._disk import _lock, _whole
from sthggep._disk._lock import LOCK, BusyError, locked
from sthggep._disk._run_folder import RunFolder, check_folder
from sthggep._disk._whole import OLD, PART, scratch_beside, whole_file, whole_folder

RUN = RunFolder("training", "checkpoint_dir", "training.json")

Stay = Callable[[], None]
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="Needs processes that begin as copies."),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def hold_lock(path: Path, stay: Stay) -> None:
    with locked(path, "a test"):
        stay()


def hold_run(path: Path, stay: Stay) -> None:
    with RUN.at_work(path, {"a": 1}):
        stay()


def write_file(path: Path, stay: Stay) -> None:
    with whole_file(path) as part:
        part.write_text("half")
        stay()
        part.write_text("whole")


def write_folder(path: Path, stay: Stay) -> None:
    with whole_folder(path, replace=True) as part:
        part.mkdir()
        (part / "a").write_text("new")
        stay()


def stop_between_moves(path: Path, stay: Stay) -> None:
    rename = Path.rename

    def move_and_stay(self: Path, target: Path) -> None:
        rename(self, target)
        stay()

    Path.rename = move_and_stay
    write_folder(path, lambda: None)


def stop_before_the_old_goes(path: Path, stay: Stay) -> None:
    _whole.shutil.rmtree = lambda *_, **__: stay()
    write_folder(path, lambda: None)


@contextmanager
def child(act: Callable[[Path, Stay], None], path: Path, *, die: bool = False) -> Iterator[int]:
    """Another process, which acts until it stays in the middle; it ends there without any clean-up, or goes on after the block."""
    to_us, from_us = os.pipe(), os.pipe()

    def stay() -> None:
        os.write(to_us[1], b"1")
        if die:
            os._exit(9)
        os.read(from_us[0], 1)

    process = os.fork()
    if not process:
        try:
            act(path, stay)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.read(to_us[0], 1) == b"1"
    try:
        yield process
    finally:
        os.write(from_us[1], b"1")
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        for end in (*to_us, *from_us):
            os.close(end)
    assert code == (9 if die else 0)


def kill(act: Callable[[Path, Stay], None], path: Path) -> None:
    """A process that dies in the middle of it."""
    with child(act, path, die=True):
        pass


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- two processes


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("folder", id="a folder that another process works in"),
        pytest.param("a.h5ad", id="a file that another process writes"),
    ],
)
@pytest.mark.handles("sthggep rejects the second process and names the first one.")
def test_the_second_learns_who_is_at_work(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    with (
        child(hold_lock, tmp_path / name) as process,
        pytest.raises(BusyError, match=rf"{name}' \(process {process} on .*\): a prediction"),
        locked(tmp_path / name, "a prediction"),
    ):
        pass
    with locked(tmp_path / name, "a prediction"):
        pass
    assert not list(tmp_path.rglob(f"*{LOCK}"))


def test_a_call_within_a_call_is_refused(tmp_path: Path):
    with locked(tmp_path, "one"), pytest.raises(BusyError, match=f"process {os.getpid()}"), locked(tmp_path, "two"):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path):
    kill(hold_lock, tmp_path)
    assert names(tmp_path) == {LOCK}
    with locked(tmp_path, "a test"):
        pass
    assert names(tmp_path) == set()


@pytest.mark.parametrize("die", [False, True])
def test_disks_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die: bool):
    """A file with the process's number takes their place."""
    from filelock import SoftFileLock

    monkeypatch.setattr(_lock, "FileLock", SoftFileLock)
    with child(hold_lock, tmp_path, die=die) as process:
        if not die:
            with pytest.raises(BusyError, match=f"process {process}"), locked(tmp_path, "a test"):
                pass
    with locked(tmp_path, "a test"):
        pass
    assert names(tmp_path) == set()


def test_runs_share_no_folder(tmp_path: Path):
    folder = tmp_path / "ck"
    with child(hold_run, folder) as process:
        with pytest.raises(BusyError, match=f"process {process} on .*: a training"), RUN.at_work(folder, {"a": 2}):
            pass
        assert '"a": 1' in (folder / "training.json").read_text()
    with pytest.raises(ValueError, match="these differ: 'a'"), RUN.at_work(folder, {"a": 2}):
        pass
    with RUN.at_work(folder, {"a": 1}):
        pass
    assert names(folder) == {"training.json"}


def test_a_run_goes_on_where_another_died(tmp_path: Path):
    kill(hold_run, tmp_path / "ck")
    with RUN.at_work(tmp_path / "ck", {"a": 1}):
        pass
    assert names(tmp_path / "ck") == {"training.json"}


def test_a_run_clears_what_a_dead_process_left_in_its_folder(tmp_path: Path):
    """Also beside a file that was whole when the process died, which no call writes again."""
    with RUN.at_work(tmp_path / "ck", {"a": 1}):
        (tmp_path / "ck" / "network-0").mkdir()
        kill(write_file, tmp_path / "ck" / "network-0" / "epoch")
    assert names(tmp_path / "ck" / "network-0") != set()
    with RUN.at_work(tmp_path / "ck", {"a": 1}):
        assert names(tmp_path / "ck" / "network-0") == set()


def test_writers_of_one_file_both_finish(tmp_path: Path):
    path = tmp_path / "a.txt"
    with child(write_file, path):
        with whole_file(path) as part:
            part.write_text("ours")
        assert path.read_text() == "ours"
    assert path.read_text() == "whole"
    assert names(tmp_path) == {"a.txt"}


# --- processes that die


@pytest.mark.parametrize("act", [write_file, write_folder])
def test_what_a_dead_process_left_goes_when_the_file_is_written_again(
    tmp_path: Path, act: Callable[[Path, Stay], None]
):
    path, other = tmp_path / "a", tmp_path / "b"
    kill(act, path)
    assert not path.exists()
    (left,) = tmp_path.glob(f"*{PART}")
    with whole_file(other) as part:
        part.write_text("other")
    assert left.exists(), "it belongs to another file"
    with whole_file(path) as part:
        part.write_text("new")
    assert names(tmp_path) == {"a", "b"}


def test_what_a_living_process_writes_stays(tmp_path: Path):
    path = tmp_path / "a"
    with child(write_file, path), scratch_beside(path) as scratch:
        assert len(list(tmp_path.glob(f"*{PART}"))) == 2
        assert scratch.exists()
    assert path.read_text() == "whole"


def test_a_folder_that_a_dead_process_moved_away_comes_back(tmp_path: Path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "a").write_text("old")
    kill(stop_between_moves, path)
    assert not path.exists()
    with pytest.raises(RuntimeError), whole_folder(path, replace=True):
        raise RuntimeError
    assert (path / "a").read_text() == "old"
    assert names(tmp_path) == {"model"}


def test_the_new_folder_stays_where_a_process_died_after_the_move(tmp_path: Path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "a").write_text("old")
    kill(stop_before_the_old_goes, path)
    assert (path / "a").read_text() == "new"
    assert len(list(tmp_path.rglob(OLD))) == 1
    with scratch_beside(path):
        pass
    assert names(tmp_path) == {"model"}
    assert (path / "a").read_text() == "new"


# --- links, and places that cannot be written


def test_no_link_is_followed(tmp_path: Path):
    """Neither one with the name of a lock nor one with that of a half-written thing."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "a").write_text("precious")
    work = tmp_path / "work"
    work.mkdir()
    with scratch_beside(work / "a") as scratch:
        prefix = scratch.name.rsplit("-", 1)[0]
    (work / f"{prefix}-planted{PART}").symlink_to(theirs, target_is_directory=True)
    (work / LOCK).symlink_to(theirs / "a")
    with whole_file(work / "a") as part:
        part.write_text("ours")
    with pytest.raises(OSError, match=r"symbolic link|link"), locked(work, "a test"):
        pass
    assert (theirs / "a").read_text() == "precious"


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("file", id="a file in place of a folder"),
        pytest.param("file/below", id="a folder below a file"),
        pytest.param("dangling", id="a link to nothing"),
    ],
)
@pytest.mark.handles("sthggep rejects the path before work starts.")
def test_places_for_a_folder(tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    with pytest.raises(FileExistsError, match="`out` must be a folder, found the file"):
        check_folder(tmp_path / place, "out")


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*, dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("sthggep._disk._run_folder.tempfile.TemporaryFile", refuse)
    with pytest.raises(
        PermissionError, match=r"`out`: no file can be made in .* \(Permission denied\)\. Pass another place"
    ):
        check_folder(tmp_path / "a" / "b", "out")
    check_folder(tmp_path, "out")  # a folder that is there may hold all that is needed
