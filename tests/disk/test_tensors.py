"""Files of tensors that a stranger wrote, or a failing disk."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from sthggep._disk._tensors import MOST_HEADER_BYTES, read_safetensors, read_torch

TRACE = "SthggepTestTrace"


class Evil:
    """Runs a command of the system when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def write_tar(path: Path, evil: Evil) -> None:
    with tarfile.open(path, "w") as archive:
        parts = {"sys_info": pickle.dumps({}), "storages": pickle.dumps(0) + pickle.dumps(evil)}
        for name, content in (parts | {"tensors": pickle.dumps(0), "pickle": pickle.dumps(evil)}).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_script(path: Path, evil: Evil) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("constants.pkl", "data.pkl"):
            archive.writestr(f"archive/{name}", pickle.dumps(evil))
        archive.writestr("archive/code/x.py", "import os")
        archive.writestr("archive/version", "3")


CONTAINERS = {
    "an archive of torch.save with code": lambda path, evil: torch.save({"state_dict": evil}, path),
    "a file of old torch versions with code": lambda path, evil: torch.save(
        {"state_dict": evil}, path, _use_new_zipfile_serialization=False
    ),
    "a bare pickle with code": lambda path, evil: path.write_bytes(pickle.dumps(evil)),
    "a bare pickle of protocol 0 with code": lambda path, evil: path.write_bytes(pickle.dumps(evil, protocol=0)),
    "a tar archive of the oldest torch versions with code": write_tar,
    "a TorchScript archive with code": write_script,
}


@pytest.mark.handles("sthggep rejects the file. The code in it does not run.")
@pytest.mark.parametrize(
    "unsafe_variable", [False, True], ids=["by default", "with the variable that asks for unsafe loads"]
)
@pytest.mark.parametrize("write", CONTAINERS.values(), ids=CONTAINERS)
def test_no_code_runs(write, unsafe_variable, tmp_path, monkeypatch):
    if unsafe_variable:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trace = tmp_path / TRACE
    write(tmp_path / "x.pt", Evil(trace))
    # torch's own message says how to run the code all the same
    with pytest.raises(
        ValueError, match=r"^it is no whole file of `torch\.save`, or holds more than tensors and plain types$"
    ):
        read_torch(tmp_path / "x.pt")
    assert not trace.exists()


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 3_000_000)
        archive.writestr("archive/version", "3")


def overlapping(path: Path) -> None:
    """Two entries of the directory that name one part."""
    torch.save({"a": torch.zeros(5000)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        (part,) = [entry for entry in archive.infolist() if entry.filename.endswith("data/0")]
        for _ in range(3):
            archive.filelist.append(part)
        archive.writestr("archive/more", "")


@pytest.mark.handles("sthggep rejects the archive by its size before it allocates memory.")
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(bomb, id="a compressed archive of zeros"),
        pytest.param(overlapping, id="an archive whose parts overlap"),
    ],
)
def test_archives_that_unpack_to_more_than_they_are(write, tmp_path):
    write(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"unpacks to [\d,]+ bytes from [\d,]+"):
        read_torch(tmp_path / "x.pt")


@pytest.mark.handles("sthggep rejects the file and states the reason.")
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="an empty file"),
        pytest.param(b"hello", id="a text"),
        pytest.param(b"\x80\x02}q\x00.", id="an empty pickle"),
        pytest.param(b"PK\x03\x04" + b"\0" * 99, id="the start of an archive"),
        pytest.param(b"PK\x05\x06" + b"\0" * 18, id="an archive without parts"),
        pytest.param(b"\x80\x02" + b"(" * 100_000, id="a pickle of marks alone"),
    ],
)
def test_files_of_no_tensors(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"\w+"):
        read_torch(tmp_path / "x.pt")


def test_a_flipped_bit_is_seen_in_our_own_files(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(1000.0)}, path)
    assert torch.equal(read_torch(path, checked=True)["a"], torch.arange(1000.0))
    content = bytearray(path.read_bytes())
    at = content.index(torch.arange(1000.0).numpy().tobytes()[400:440])
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data/0' is damaged"):
        read_torch(path, checked=True)


@pytest.mark.handles("sthggep rejects the file and states the reason.")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(
            (99 << 20).to_bytes(8, "little") + b"{" * 99, "a header of at most 16,777,216 bytes", id="a header of 99 MB"
        ),
        pytest.param(b"\xff" * 8, "a header of at most", id="a header of 18 exabytes"),
        pytest.param((8).to_bytes(8, "little") + b"[[[[[[[[", "header", id="a header that is no JSON"),
        pytest.param((2).to_bytes(8, "little") + b"{}" + b"x", r"[Hh]eader|[Mm]etadata", id="bytes that no tensor has"),
    ],
)
def test_safetensors_that_are_none(content, reason, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_safetensors(tmp_path / "x.safetensors")


def test_the_largest_header_is_far_above_that_of_a_model():
    assert MOST_HEADER_BYTES > 100 * 100_000
