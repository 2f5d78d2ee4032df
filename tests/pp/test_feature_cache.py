"""The cache of features on disk: reused if nothing changed, computed again otherwise."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile

from sthggep import pp
from sthggep._encoders import _sweep
from sthggep._encoders._cache import VARIABLE, FeatureCache, image_fingerprint
from sthggep._encoders._encode import encode
from sthggep._encoders._entry import UNVERSIONED
from sthggep._encoders._frozen import ENCODERS, FrozenEncoder
from sthggep._encoders._sweep import run_ahead
from sthggep._image._level import Level, open_levels
from sthggep._slides._resolve import resolve_one

QUICK = {"encoder": "shufflenet", "weights": "random", "flips": False, "show_progress_bar": False}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ENCODERS, "shufflenet", replace(ENCODERS["shufflenet"], size_px=64))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the encoder received."""
    sizes: list[int] = []
    original = FrozenEncoder.__call__
    monkeypatch.setattr(
        FrozenEncoder, "__call__", lambda self, patches, **o: sizes.append(len(patches)) or original(self, patches, **o)
    )
    return sizes


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_second_run_reads_the_cache(section, calls, tmp_path):
    first, second = section(), section()
    pp.features(first, size_um=[60, 120], cache=tmp_path, **QUICK)
    assert len(calls) == 2
    pp.features(second, size_um=[120, 60, 80], cache=tmp_path, **QUICK)
    assert len(calls) == 3
    for key in ("X_shufflenet_60", "X_shufflenet_120"):
        np.testing.assert_array_equal(first.obsm[key], second.obsm[key])
    assert [sorted(file.name for file in entry.iterdir()) for entry in entries(tmp_path)] == [
        ["features.npy", "record.json"]
    ] * 3


def test_the_cache_is_off_by_default(section, calls, tmp_path, monkeypatch):
    pp.features(section(), size_um=60, **QUICK)
    pp.features(section(), size_um=60, **QUICK)
    assert len(calls) == 2
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept"))
    pp.features(section(), size_um=60, **QUICK)
    pp.features(section(), size_um=60, **QUICK)
    assert len(calls) == 3
    assert len(entries(tmp_path / "kept")) == 1


def change_pixels(adata):
    image = adata.uns["spatial"]["S1"]["images"]["hires"]
    image[3, 3] = 255 - image[3, 3]


def move_spot(adata):
    adata.obsm["spatial"] = adata.obsm["spatial"] + np.array([[1.0, 0.0]] + [[0.0, 0.0]] * 8)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (change_pixels, {}),
        (move_spot, {}),
        (None, {"mpp": 2.1}),
        (None, {"flips": True}),
        (None, {"size_um": 61}),
    ],
    ids=["pixels", "spots", "mpp", "flips", "field of view"],
)
def test_changed_inputs_are_computed_again(section, calls, tmp_path, change, options):
    before = {"size_um": 60, "cache": tmp_path, **QUICK}
    other = section()
    if change:
        change(other)
    pp.features(section(), **before)
    pp.features(other, **before | options)
    assert len(calls) == 2
    assert len(entries(tmp_path)) == 2


def test_other_weights_have_other_entries_and_unversioned_weights_none(section, calls, tmp_path):
    frozen = FrozenEncoder("shufflenet", "random")
    slide = resolve_one(section())
    for n, weights in enumerate(("one", "two", UNVERSIONED), start=1):
        frozen.weights = weights
        encode(slide, frozen, [60.0], flips=False, cache=tmp_path)
        assert len(calls) == n
    assert len(entries(tmp_path)) == 2


def test_the_name_of_the_section_does_not_matter(section, calls, tmp_path):
    pp.features(section("A"), size_um=60, cache=tmp_path, **QUICK)
    pp.features(section("B"), size_um=60, cache=tmp_path, **QUICK)
    assert len(calls) == 1


@pytest.mark.parametrize("fault", ["cut off", "a bit", "no record", "other record"])
def test_damaged_entries_are_computed_again(section, calls, tmp_path, fault, caplog):
    first, second, third = section(), section(), section()
    pp.features(first, size_um=60, cache=tmp_path, **QUICK)
    (entry,) = entries(tmp_path)
    values = (entry / "features.npy").read_bytes()
    if fault == "cut off":
        (entry / "features.npy").write_bytes(values[:-10])
    elif fault == "a bit":
        (entry / "features.npy").write_bytes(values[:-10] + bytes([values[-10] ^ 1]) + values[-9:])
    elif fault == "no record":
        (entry / "record.json").unlink()
    else:
        (entry / "record.json").write_text(json.dumps({"section": "S1"}))
    pp.features(second, size_um=60, cache=tmp_path, **QUICK)
    assert "are damaged" in caplog.text
    np.testing.assert_array_equal(first.obsm["X_shufflenet_60"], second.obsm["X_shufflenet_60"])
    pp.features(third, size_um=60, cache=tmp_path, **QUICK)
    assert len(calls) == 2
    assert len(entries(tmp_path)) == 1


def test_a_fault_leaves_no_entry(section, tmp_path, monkeypatch):
    monkeypatch.setattr(FrozenEncoder, "__call__", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        pp.features(section(), size_um=60, cache=tmp_path, **QUICK)
    assert entries(tmp_path) == []


def test_processes_may_write_the_same_entry_at_once(tmp_path):
    cache = FeatureCache(tmp_path)
    record = {"section": "S1"}
    with cache.writing("key", record, (2, 3)) as late:
        late[:] = np.ones((2, 3))
        with cache.writing("key", record, (2, 3)) as early:
            early[:] = np.full((2, 3), 2.0)
    # The first complete entry stays; the other process continues with its own
    np.testing.assert_array_equal(cache.find("key", (2, 3))[:], np.full((2, 3), 2.0))
    np.testing.assert_array_equal(late[:], np.ones((2, 3)))
    assert len(entries(tmp_path)) == 1
    with ThreadPoolExecutor(4) as pool:

        def work(_: int) -> float:
            entry = cache.find("busy", (4, 2))
            if entry is None:
                with cache.writing("busy", record, (4, 2)) as entry:
                    entry[:] = np.full((4, 2), 7.0)
            return float(entry[:].sum())

        assert set(pool.map(work, range(40))) == {56.0}
    assert len(entries(tmp_path)) == 2


# --- fingerprints of images ---------------------------------------------------------------------------------------


def pyramid(path: Path, image: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as tif:
        tif.write(image, tile=(64, 64), subifds=1, photometric="rgb")
        tif.write(image[::2, ::2], tile=(64, 64), subfiletype=1, photometric="rgb")


def test_fingerprint_of_a_file_depends_on_content_and_time(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    pyramid(tmp_path / "a.tiff", image)
    before = image_fingerprint(open_levels(tmp_path / "a.tiff"))
    assert image_fingerprint(open_levels(tmp_path / "a.tiff")) == before
    (tmp_path / "a.tiff").rename(tmp_path / "b.tiff")
    assert image_fingerprint(open_levels(tmp_path / "b.tiff")) == before
    os.utime(tmp_path / "b.tiff", ns=(1, 1))
    assert image_fingerprint(open_levels(tmp_path / "b.tiff")) != before


def test_a_lazy_image_of_one_level_is_read_block_by_block():
    image = np.random.default_rng(0).integers(0, 255, (3000, 2000, 3), dtype=np.uint8)
    other = image.copy()
    other[700, 1100] ^= 1
    fingerprints = []
    for pixels in (image, image.copy(), other):
        level = Level(da.from_array(pixels, chunks=(500, 500, 3)))
        fingerprints.append(image_fingerprint([level]))
        assert level.blocks.n_read <= 24 + 25
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


# --- the sweep ----------------------------------------------------------------------------------------------------


def test_all_fields_of_view_read_each_block_about_once(section):
    """With a lazy image, spots in any order give the same features as in memory, and blocks are read once."""
    adata = section(side=8)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    adata = adata[order].copy()
    frozen = FrozenEncoder("shufflenet", "random")
    expected = encode(resolve_one(adata), frozen, [60.0, 120.0], flips=False)
    library = adata.uns["spatial"]["S1"]
    library["images"]["hires"] = da.from_array(library["images"]["hires"], chunks=(64, 64, 3))
    slide = resolve_one(adata)
    features = encode(slide, frozen, [60.0, 120.0], flips=False, batch_size=8)
    for a, b in zip(features, expected, strict=True):
        np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-5)
    blocks = slide.levels[0].blocks
    assert blocks.n_read == (len(blocks.edges[0]) - 1) * (len(blocks.edges[1]) - 1)
    assert len(blocks._cache) == 0


def test_patches_are_cut_ahead_in_order_up_to_a_limit():
    started: list[int] = []
    events = [threading.Event() for _ in range(50)]

    def task(i: int) -> int:
        started.append(i)
        events[i].set()
        return i

    results = run_ahead((lambda i=i: task(i)) for i in range(50))
    assert next(results) == 0
    # Threads work on the next tasks before their results are needed
    assert all(event.wait(10) for event in events[1 : 1 + _sweep.AHEAD])
    assert max(started) < 1 + _sweep.AHEAD + _sweep.MOST_THREADS
    assert list(results) == list(range(1, 50))


def test_a_fault_while_cutting_is_raised():
    def fault() -> int:
        msg = "damaged"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="damaged"):
        list(run_ahead([lambda: 1, fault, lambda: 2]))
