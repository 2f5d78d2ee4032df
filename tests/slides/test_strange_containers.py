"""Slides of a stranger, or of a failing disk, as files: AnnData and SpatialData."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from sthggep._slides._container_files import read_container


class Evil:
    """Runs a command of the system when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


ATTRIBUTES = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
STRINGS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}


def pickled_v2(path: Path, content: bytes) -> None:
    """A Zarr 2 store whose X is decoded by a pickle."""
    (path / "X").mkdir(parents=True)
    array = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "|O", "compressor": None, "fill_value": None}
    array |= {"order": "C", "filters": [{"id": "pickle", "protocol": 5}]}
    for name, value in {
        ".zgroup": {"zarr_format": 2},
        ".zattrs": ATTRIBUTES,
        "X/.zarray": array,
        "X/.zattrs": STRINGS,
    }.items():
        (path / name).write_text(json.dumps(value))
    (path / "X" / "0").write_bytes(content)


def pickled_v3(path: Path, content: bytes) -> None:
    """The same of Zarr 3."""
    (path / "X" / "c").mkdir(parents=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": ATTRIBUTES}
    array = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2],
        "data_type": "string",
        "fill_value": "",
        "attributes": STRINGS,
    }
    array |= {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}}}
    array |= {"chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "numcodecs.pickle", "configuration": {}}]}
    (path / "zarr.json").write_text(json.dumps(group))
    (path / "X" / "zarr.json").write_text(json.dumps(array))
    (path / "X" / "c" / "0").write_bytes(content)


def nested(path: Path, _: bytes) -> None:
    path.mkdir()
    (path / "zarr.json").write_text('{"attributes":' * 100_000)


@pytest.mark.handles("sthggep rejects the file and names it. No code in the file runs.")
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(pickled_v2, id="a Zarr 2 store of pickles"),
        pytest.param(pickled_v3, id="a Zarr 3 store of pickles"),
        pytest.param(nested, id="a Zarr store whose metadata are nested too deeply"),
        pytest.param(
            lambda path, content: (path.mkdir(), (path / "zarr.json").write_bytes(b"\xff")),
            id="metadata that are no text",
        ),
        pytest.param(lambda path, content: path.mkdir(), id="an empty folder"),
        pytest.param(lambda path, content: path.write_bytes(content), id="a pickle for a folder"),
    ],
)
def test_zarr(write, tmp_path):
    trace, path = tmp_path / "SthggepTestTrace", tmp_path / "slide.zarr"
    write(path, pickle.dumps(Evil(trace)))
    with pytest.raises(ValueError, match=r"slide\.zarr cannot be read"):
        read_container(path)
    assert not trace.exists()


@pytest.mark.handles("sthggep rejects the file and names it. No code in the file runs.")
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda evil: pickle.dumps(evil), id="a pickle"),
        pytest.param(lambda evil: b"", id="an empty file"),
        pytest.param(lambda evil: b"\x89HDF\r\n\x1a\n" + b"\xff" * 500, id="the start of HDF5"),
    ],
)
def test_h5ad(content, tmp_path):
    trace, path = tmp_path / "SthggepTestTrace", tmp_path / "slide.h5ad"
    path.write_bytes(content(Evil(trace)))
    with pytest.raises(ValueError, match=r"slide\.h5ad cannot be read"):
        read_container(path)
    assert not trace.exists()
