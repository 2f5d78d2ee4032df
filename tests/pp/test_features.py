"""Features of frozen encoders: what is written, what is computed again, where weights come from."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

from sthggep import datasets, pp
from sthggep._encoders import _frozen as _encoders
from sthggep._encoders._encode import encode
from sthggep._encoders._frozen import ENCODERS, FrozenEncoder
from sthggep._encoders._record import feature_record, has_features
from sthggep._encoders._weights import hash_weights
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve_one
from sthggep.nn import ShuffleNetV2

QUICK = {"encoder": "shufflenet", "weights": "random", "flips": False, "show_progress_bar": False}
DIM = 1360


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    """Use the same encoder on fewer pixels, without weights of this machine and without downloads."""
    monkeypatch.setitem(ENCODERS, "shufflenet", replace(ENCODERS["shufflenet"], size_px=64))
    monkeypatch.delenv("STHGGEP_WEIGHTS", raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the encoder received."""
    sizes: list[int] = []
    original = FrozenEncoder.__call__

    def counting_call(self, patches, *, flips=True):
        sizes.append(len(patches))
        return original(self, patches, flips=flips)

    monkeypatch.setattr(FrozenEncoder, "__call__", counting_call)
    return sizes


# --- what is written ----------------------------------------------------------------------------------------------


def test_keys_and_record(section, state):
    adata = section()
    before = state(adata)
    assert pp.features(adata, size_um=120, **QUICK) is None
    features = adata.obsm["X_shufflenet_120"]
    assert (features.dtype, features.shape) == (np.float32, (9, DIM))
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0
    record = adata.uns["X_shufflenet_120"]
    assert {key: record[key] for key in ("tool", "encoder", "weights", "size_um", "size_px", "flips")} == {
        "tool": "sthggep",
        "encoder": "shufflenet",
        "weights": FrozenEncoder("shufflenet", "random").weights,
        "size_um": 120.0,
        "size_px": 64,
        "flips": False,
    }
    assert (record["sections"].tolist(), record["mpp"].tolist()) == (["S1"], [2.0])
    del adata.obsm["X_shufflenet_120"], adata.uns["X_shufflenet_120"]
    assert state(adata) == before


def test_the_encoder_reads_the_patch_around_the_spot(section):
    adata = section()
    pp.features(adata, size_um=120, **QUICK)
    frozen = FrozenEncoder("shufflenet", "random")
    patch = pp.patches(adata, size_um=120, size_px=64)[4]
    np.testing.assert_allclose(
        adata.obsm["X_shufflenet_120"][4], frozen(patch[None], flips=False)[0], rtol=1e-4, atol=1e-5
    )
    # mean maps of stages 2 to 5, in torchvision's normalization
    x = (torch.from_numpy(patch / 255.0).float() - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    with torch.inference_mode():
        maps = frozen.module.maps(x.permute(2, 0, 1)[None])
    expected = torch.cat([m.mean((2, 3)) for m in maps], dim=1)[0].numpy()
    np.testing.assert_allclose(adata.obsm["X_shufflenet_120"][4], expected, rtol=1e-3, atol=1e-5)


def test_several_fields_of_view_and_a_name(section):
    adata = section(side=2)
    pp.features(adata, size_um=[60, 120.5], **QUICK)
    assert {"X_shufflenet_60", "X_shufflenet_120.5"} <= set(adata.obsm)
    assert not np.allclose(adata.obsm["X_shufflenet_60"], adata.obsm["X_shufflenet_120.5"])
    pp.features(adata, size_um=np.int64(60), key_added="X_mine", **QUICK)
    np.testing.assert_array_equal(adata.obsm["X_mine"], adata.obsm["X_shufflenet_60"])
    with pytest.raises(ValueError, match=r"`key_added` names one field of view, found 2: \[60\.0, 120\.0\]"):
        pp.features(adata, size_um=(60, 120), key_added="X_two", **QUICK)


def test_random_weights_are_reproducible_and_do_not_change_the_seed(section):
    torch.manual_seed(1)
    expected = torch.rand(1)
    first, second = section(side=2), section(side=2)
    torch.manual_seed(1)
    pp.features(first, size_um=60, **QUICK)
    assert torch.rand(1) == expected
    pp.features(second, size_um=60, **QUICK)
    np.testing.assert_array_equal(first.obsm["X_shufflenet_60"], second.obsm["X_shufflenet_60"])


def test_batch_size_does_not_matter(section, calls):
    features = []
    for batch_size in (1, 4, 64):
        adata = section()
        pp.features(adata, size_um=120, batch_size=batch_size, **QUICK)
        features.append(adata.obsm["X_shufflenet_120"])
    assert calls == [1] * 9 + [4, 4, 1] + [9]
    np.testing.assert_allclose(features[0], features[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features[1], features[2], rtol=1e-4, atol=1e-5)


def test_flips_make_features_invariant(section):
    patches = pp.patches(section(), size_um=120, size_px=64)[:3]
    frozen = FrozenEncoder("shufflenet", "random")
    plain = frozen(patches)
    for flipped in (patches[:, ::-1], patches[:, :, ::-1], patches[:, ::-1, ::-1]):
        np.testing.assert_allclose(frozen(np.ascontiguousarray(flipped)), plain, rtol=1e-4, atol=1e-5)
    without_averaging = frozen(np.ascontiguousarray(patches[:, ::-1]), flips=False)
    assert np.abs(without_averaging - frozen(patches, flips=False)).max() > 1e-3


def test_copy(section, state):
    adata = section(side=2)
    before = state(adata)
    out = pp.features(adata, size_um=60, copy=True, **QUICK)
    assert "X_shufflenet_60" in out.obsm
    assert state(adata) == before


# --- features that exist ------------------------------------------------------------------------------------------


def test_existing_features_are_not_computed_again(section, calls, tmp_path: Path):
    adata = section()
    pp.features(adata, size_um=60, **QUICK)
    pp.features(adata, size_um=[60, 120], **QUICK)
    assert calls == [9, 9]
    adata.write_h5ad(tmp_path / "a.h5ad")
    copy = ad.read_h5ad(tmp_path / "a.h5ad")
    pp.features(copy, size_um=[60, 120], **QUICK)
    assert calls == [9, 9]
    copy.write_zarr(tmp_path / "a.zarr")
    pp.features(ad.read_zarr(tmp_path / "a.zarr"), size_um=[60, 120], **QUICK)
    assert calls == [9, 9]


@pytest.mark.parametrize("change", [{"flips": True}, {"mpp": 1.0}, {"weights": "other"}])
def test_features_of_other_options_are_computed_again(section, calls, change, tmp_path: Path):
    adata = section(side=2)
    pp.features(adata, size_um=60, **QUICK)
    first = adata.obsm["X_shufflenet_60"].copy()
    if "weights" in change:
        torch.manual_seed(5)
        torch.save(ShuffleNetV2().state_dict(), tmp_path / "w.pt")
        change = {"weights": tmp_path / "w.pt"}
    pp.features(adata, size_um=60, **(QUICK | change))
    assert len(calls) == 2
    assert np.abs(adata.obsm["X_shufflenet_60"] - first).max() > 1e-4
    if "mpp" in change:
        assert adata.uns["X_shufflenet_60"]["mpp"].tolist() == [1.0]


def test_has_features_checks_all_spots_or_one_section(section):
    adata = section(side=2)
    frozen = FrozenEncoder("shufflenet", "random")
    record = feature_record(frozen, 60.0, flips=False, encoding="patches")
    slide = resolve_one(adata)
    assert not has_features(adata, "X_shufflenet_60", record)
    pp.features(adata, size_um=60, **QUICK)
    assert has_features(adata, "X_shufflenet_60", record)
    assert has_features(adata, "X_shufflenet_60", record, slide)
    assert not has_features(adata, "X_shufflenet_60", record, resolve_one(adata, Places(mpp=1.0)))
    assert not has_features(adata, "X_shufflenet_60", feature_record(frozen, 60.0, flips=True, encoding="patches"))
    adata.obsm["X_shufflenet_60"][0] = np.nan
    assert not has_features(adata, "X_shufflenet_60", record)
    assert not has_features(adata, "X_shufflenet_60", record, slide)


# --- several sections, SpatialData --------------------------------------------------------------------------------


def test_sections_are_cut_from_their_own_images(two_sections, section):
    pp.features(two_sections, size_um=120, library_key="section", **QUICK)
    for name, seed in (("A", 0), ("B", 1)):
        single = section(name, seed=seed)
        pp.features(single, size_um=120, **QUICK)
        rows = two_sections[single.obs_names].obsm["X_shufflenet_120"]
        np.testing.assert_allclose(rows, single.obsm["X_shufflenet_120"], rtol=1e-4, atol=1e-5)
    assert sorted(two_sections.uns["X_shufflenet_120"]["sections"]) == ["A", "B"]


def regions(section: Callable[..., ad.AnnData]):
    """Two regions of one table, each with its image."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity

    images, shapes, tables = {}, {}, []
    for seed, name in enumerate("AB"):
        adata = section(name, side=2, seed=seed)
        image = np.moveaxis(adata.uns["spatial"][name]["images"]["hires"], -1, 0)
        images[f"{name}_full_image"] = Image2DModel.parse(
            image, dims=("c", "y", "x"), transformations={name: Identity()}
        )
        shapes[name] = ShapesModel.parse(
            adata.obsm["spatial"], geometry=0, radius=12, transformations={name: Identity()}
        )
        adata.obs["spot_id"] = np.arange(adata.n_obs)
        tables.append(adata)
    table = ad.concat(tables)
    table.obs["region"] = table.obs["section"].astype("category")
    table = TableModel.parse(table, region=["A", "B"], region_key="region", instance_key="spot_id")
    return SpatialData(images=images, shapes=shapes, tables={"table": table})


def test_regions_one_after_the_other(section, calls):
    sdata = regions(section)
    table = sdata.tables["table"]
    pp.features(sdata, size_um=60, mpp=2.0, shapes_key="A", **QUICK)
    features = table.obsm["X_shufflenet_60"]
    assert np.isfinite(features[:4]).all()
    assert np.isnan(features[4:]).all()
    first_region = features[:4].copy()
    pp.features(sdata, size_um=60, mpp=2.0, shapes_key="B", **QUICK)
    pp.features(sdata, size_um=60, mpp=2.0, **QUICK)
    assert calls == [4, 4]
    np.testing.assert_array_equal(table.obsm["X_shufflenet_60"][:4], first_region)
    single = section("B", side=2, seed=1)
    pp.features(single, size_um=60, **QUICK)
    np.testing.assert_allclose(table.obsm["X_shufflenet_60"][4:], single.obsm["X_shufflenet_60"], rtol=1e-4, atol=1e-5)


def test_spatialdata_table(calls):
    options = {"size_um": (1000.0, 1000.0), "mpp": 2.0, "n_genes": 4}
    adata, sdata = datasets.toy(**options), datasets.toy(**options, as_spatialdata=True)
    pp.features(adata, size_um=120, **QUICK)
    out = pp.features(sdata, size_um=120, copy=True, **QUICK)
    assert "X_shufflenet_120" not in sdata.tables["table"].obsm
    np.testing.assert_array_equal(out.tables["table"].obsm["X_shufflenet_120"], adata.obsm["X_shufflenet_120"])


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"encoder": "shuflenet"}, ValueError, r"Unknown encoder 'shuflenet'\. Did you mean 'shufflenet'\?"),
        ({"size_um": 0}, ValueError, "`size_um` must be a positive"),
        ({"size_um": []}, ValueError, "`size_um` is empty"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be a positive"),
        ({"key_added": "mine"}, ValueError, "'mine' exists already and sthggep did not write it"),
        ({"library_key": "batch"}, KeyError, "'batch' is not in obs"),
        ({"image_key": "lowres"}, KeyError, "'lowres' is not in"),
        ({"weights": "/nowhere/file.pt"}, FileNotFoundError, r"'/nowhere/file\.pt'.*no such file or folder"),
        ({"device": "abacus"}, ValueError, "Device 'abacus' cannot be used"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_work_starts(section, state, calls, options, error, words):
    adata = section(side=2)
    adata.obsm["mine"] = np.zeros((4, 2))
    before = state(adata)
    with pytest.raises(error, match=words):
        pp.features(adata, **({"size_um": 60} | QUICK | options))
    assert calls == []
    assert state(adata) == before


def test_unknown_microns_of_any_section_are_refused_before_encoding(two_sections, state, calls):
    two_sections.uns["spatial"]["B"]["metadata"] = {}
    before = state(two_sections)
    with pytest.raises(ValueError, match="'B': microns per pixel are not known"):
        pp.features(two_sections, size_um=60, library_key="section", **QUICK)
    assert calls == []
    assert state(two_sections) == before


def test_a_failure_halfway_leaves_nothing_behind(section, state, monkeypatch: pytest.MonkeyPatch):
    adata = section()
    before = state(adata)
    monkeypatch.setattr(FrozenEncoder, "__call__", lambda *a, **k: (_ for _ in ()).throw(MemoryError("full")))
    with pytest.raises(MemoryError):
        pp.features(adata, size_um=60, **QUICK)
    assert state(adata) == before


# --- weights ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(11)
    return ShuffleNetV2().state_dict()


def encode_with(state_dict: dict[str, torch.Tensor], adata: ad.AnnData) -> np.ndarray:
    return encode(resolve_one(adata), FrozenEncoder("shufflenet", state_dict), [60.0], flips=False)[0].values


def test_weights_from_a_file_a_folder_and_the_environment(section, state_dict, tmp_path: Path, monkeypatch):
    from safetensors.torch import save_file

    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(state_dict, folder / "shufflenetv2_x0.5-abc.pth")
    save_file(state_dict, tmp_path / "any.safetensors")
    expected = encode_with(state_dict, section(side=2))
    for weights in (folder / "shufflenetv2_x0.5-abc.pth", str(folder), tmp_path / "any.safetensors", None):
        if weights is None:
            monkeypatch.setenv("STHGGEP_WEIGHTS", str(folder))
        adata = section(side=2)
        pp.features(adata, size_um=60, **(QUICK | {"weights": weights}))
        np.testing.assert_allclose(adata.obsm["X_shufflenet_60"], expected, rtol=1e-5, atol=1e-6)
        # the id depends on the content, not on the place
        assert adata.uns["X_shufflenet_60"]["weights"] == hash_weights(state_dict)
    assert len(hash_weights(state_dict)) == 12


def test_folders_without_the_file(section, tmp_path: Path, monkeypatch):
    (tmp_path / "resnet.pth").write_bytes(b"x")
    words = r"expected a file like 'shufflenet_v2_x0_5\*\.pt', .*, found 'resnet\.pth'"
    with pytest.raises(FileNotFoundError, match="`weights` is.*" + words):
        FrozenEncoder("shufflenet", tmp_path)
    monkeypatch.setenv("STHGGEP_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"\$STHGGEP_WEIGHTS is.*" + words):
        pp.features(section(side=2), "shufflenet", size_um=60)
    monkeypatch.setenv("STHGGEP_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        pp.features(section(side=2), "shufflenet", size_um=60)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_without_weights_are_refused(state_dict, tmp_path: Path, suffix: str):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match=rf"w{suffix}' cannot be read as weights of 'shufflenet'"):
        FrozenEncoder("shufflenet", path)


def test_weights_of_another_network_are_refused(state_dict, tmp_path: Path):
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"must hold a state dict.*found list"):
        FrozenEncoder("shufflenet", tmp_path / "list.pt")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt'\) do not fit the encoder 'shufflenet'.*missing"):
        FrozenEncoder("shufflenet", tmp_path / "other.pt")
    wide = {name: torch.zeros(2, *value.shape[1:]) if value.ndim else value for name, value in state_dict.items()}
    torch.save(wide, tmp_path / "wide.pt")
    with pytest.raises(ValueError, match="of another width"):
        FrozenEncoder("shufflenet", tmp_path / "wide.pt")


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


def test_weights_are_read_without_running_their_code(tmp_path: Path):
    torch.save({"layer": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt' cannot be read"):
        FrozenEncoder("shufflenet", tmp_path / "evil.pt")


# --- download -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, state_dict, monkeypatch) -> Iterator[tuple[str, Path]]:
    """A web server with the weights under a name that holds their hash, and a cache of its own."""
    folder = tmp_path / "www"
    folder.mkdir()
    torch.save(state_dict, folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()[:10]
    (folder / "w.pth").rename(folder / f"shufflenet-{digest}.pth")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/shufflenet-{digest}.pth", folder / f"shufflenet-{digest}.pth"
        web.shutdown()
        thread.join()


def from_url(monkeypatch: pytest.MonkeyPatch, url: str) -> FrozenEncoder:
    monkeypatch.setitem(ENCODERS, "shufflenet", replace(_encoders.ENCODERS["shufflenet"], url=url))
    return FrozenEncoder("shufflenet")


def test_download_is_checked_and_cached(server, state_dict, monkeypatch):
    url, file = server
    assert from_url(monkeypatch, url).weights == hash_weights(state_dict)
    file.unlink()
    assert from_url(monkeypatch, url).weights == hash_weights(state_dict)  # from the cache


def test_download_of_another_file(server, monkeypatch, tmp_path: Path):
    url, file = server
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"is not the file with the weights of 'shufflenet' \(invalid hash value"):
        from_url(monkeypatch, url)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []  # no broken file stays


def test_a_broken_file_in_the_cache(server, monkeypatch, tmp_path: Path):
    url, _ = server
    from_url(monkeypatch, url)
    (file,) = (tmp_path / "cache").rglob("*.pth")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"Delete '{file}'"):
        from_url(monkeypatch, url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/shufflenet-0123456789.pth", "missing"])
def test_offline(server, monkeypatch, url: str):
    url = server[0].replace("shufflenet-", "gone-") if url == "missing" else url
    with pytest.raises(
        FileNotFoundError, match=r"could not be downloaded.*\$STHGGEP_WEIGHTS.*`weights=<file>`.*'random'"
    ):
        from_url(monkeypatch, url)


# --- real weights -------------------------------------------------------------------------------------------------


def test_imagenet_weights(section, weights_root: Path):
    frozen, random = FrozenEncoder("shufflenet", weights_root), FrozenEncoder("shufflenet", "random")
    published = torch.load(next(weights_root.glob("shufflenet_v2_x0_5*.pt")), weights_only=True)
    state = frozen.module.state_dict()
    assert set(state) <= set(published)
    assert all(torch.equal(state[name], published[name]) for name in state)
    assert frozen.weights != random.weights
    slide = resolve_one(section(side=2))
    features, random_features = (encode(slide, encoder, [120.0])[0].values for encoder in (frozen, random))
    assert features.shape == (4, DIM)
    assert np.isfinite(features).all()
    assert np.abs(features - random_features).max() > 0.1
