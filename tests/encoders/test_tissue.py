"""Tissue that is encoded once, in large tiles: features of a spot are means of feature maps over its field of view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sthggep import HGGEP, datasets, pp, tl
from sthggep._encoders import _tissue
from sthggep._encoders._encode import encode, make_encodings
from sthggep._encoders._frozen import ENCODERS, FrozenEncoder
from sthggep._encoders._kept_blocks import BlockStore
from sthggep._encoders._tissue import PART_PX, TissueEncoding
from sthggep._image._level import Level
from sthggep._slides._resolve import resolve_one

SIZE = 160.0


class Sampler(nn.Module):
    """Maps of the pixels themselves, at strides 4 and 16: the first cell lies on the first pixel."""

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Every fourth and every sixteenth pixel."""
        return [images[:, :, ::4, ::4], images[:, :, ::16, ::16]]


@pytest.fixture
def sampler():
    pp.register_encoder("sampler", Sampler(), size_px=64, mean=(0, 0, 0), std=(1, 1, 1), strides=(4, 16), context_px=0)
    yield FrozenEncoder("sampler", None)
    del ENCODERS["sampler"]


@pytest.fixture(scope="module")
def tissue():
    return resolve_one(datasets.toy(seed=5, size_um=(1400.0, 1000.0), mpp=2.0, n_genes=4))


@pytest.fixture(scope="module")
def frozen() -> FrozenEncoder:
    return FrozenEncoder("shufflenet_he", None)


def features_of(encoding: TissueEncoding) -> np.ndarray:
    values = np.empty((encoding.slide.n_spots, encoding.frozen.entry.dim), dtype=np.float32)
    rows = np.concatenate(encoding.blocks)
    for _, at, part in encoding.run(rows):
        values[rows[at]] = part
    return values


def ramp(width: int = 500, height: int = 400) -> np.ndarray:
    """Image whose red is half of x and whose green is half of y."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([x // 2, y // 2, np.zeros_like(x)]).astype(np.uint8)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("size", [64.0, 90.0, 128.0])
def test_means_are_those_of_the_place(tissue, sampler, size, flips):
    xy = np.array([[100.0, 120.0], [251.5, 199.25], [350.3, 260.7]])
    slide = replace(tissue, xy=xy, rows=np.arange(3), levels=(Level(ramp()),), mpp=1.0)
    values = encode(slide, sampler, [size], flips=flips, encoding="tissue")[0] * 255
    # Pixel x, whose center is x + .5, holds the whole part of x / 2: half a unit or nothing is lost
    expected = xy / 2 - 0.4
    np.testing.assert_allclose(values[:, 0:2], expected, atol=0.3)
    np.testing.assert_allclose(values[:, 3:5], expected, atol=1.0)


def test_flips_make_a_mirrored_slide_the_same(tissue, sampler):
    image = np.random.default_rng(0).integers(0, 255, (320, 480, 3), dtype=np.uint8)
    xy = np.array([[100.0, 120.0], [251.5, 199.25], [380.3, 200.7]])
    slide = replace(tissue, xy=xy, rows=np.arange(3), levels=(Level(image),), mpp=1.0)
    mirrored = replace(slide, xy=xy * (-1, 1) + (480, 0), levels=(Level(image[:, ::-1]),))
    for flips, same in ((True, True), (False, False)):
        first, second = (encode(s, sampler, [64.0], flips=flips, encoding="tissue")[0] for s in (slide, mirrored))
        assert bool(np.abs(first - second).max() < 1e-5) is same


def test_features_do_not_depend_on_tiles_or_company(tissue, frozen):
    whole = features_of(TissueEncoding(tissue, frozen, SIZE, flips=False))
    spread = whole.std(axis=0)
    tiled = TissueEncoding(tissue, frozen, SIZE, flips=False, tile_px=512)
    assert len(tiled.blocks) >= 8
    assert (np.abs(features_of(tiled) - whole)[:, spread > 0] / spread[spread > 0]).max() < 1e-4
    few = np.random.default_rng(0).permutation(tissue.n_spots)[:7]
    part = replace(tissue, xy=tissue.xy[few], rows=tissue.rows[few])
    alone = features_of(TissueEncoding(part, frozen, SIZE, flips=False))
    assert (np.abs(alone - whole[few])[:, spread > 0] / spread[spread > 0]).max() < 1e-4


def test_less_context_would_show(tissue, frozen):
    whole = features_of(TissueEncoding(tissue, frozen, SIZE, flips=False))
    tiled = TissueEncoding(tissue, frozen, SIZE, flips=False, tile_px=512)
    tiled.maps = replace(tiled.maps, context_px=96)
    spread = whole.std(axis=0)
    assert (np.abs(features_of(tiled) - whole)[:, spread > 0] / spread[spread > 0]).max() > 1e-2


def test_tissue_resembles_patches(tissue, frozen):
    once = features_of(TissueEncoding(tissue, frozen, SIZE, flips=False))
    patches = encode(tissue, frozen, [SIZE], flips=True)[0]
    varied = (once.std(axis=0) > 1e-3) & (patches.std(axis=0) > 1e-3)
    pairs = [np.corrcoef(once[:, i], patches[:, i])[0, 1] for i in np.flatnonzero(varied)[:144]]
    assert np.median(pairs) > 0.9


def test_white_beyond_the_image(tissue, sampler):
    slide = replace(
        tissue,
        xy=np.array([[0.0, 0.0]]),
        rows=np.arange(1),
        levels=(Level(np.zeros((200, 200, 3), np.uint8)),),
        mpp=1.0,
    )
    # A quarter of the field of view lies on the black image
    value = encode(slide, sampler, [128.0], flips=True, encoding="tissue")[0][0, 0]
    assert value == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("zoom", [0.4, 3.0], ids=["enlarged", "reduced"])
def test_parts_of_the_grid_join_without_seams(tissue, sampler, zoom):
    slide = replace(tissue, xy=np.array([[200.0, 200.0]]), rows=np.arange(1), levels=(Level(ramp()),), mpp=1.0)
    encoding = TissueEncoding(slide, sampler, 64 * zoom, flips=False)
    side = 2 * PART_PX if zoom < 1 else PART_PX // 2
    pixels = encoding.read(np.array([PART_PX - side // 2, 0]), np.array([side, 40]))[..., 0].astype(int)
    inside = pixels[20][4 : int(490 / zoom) - (PART_PX - side // 2)]
    assert set(np.diff(inside).tolist()) <= {0, 1, 2}
    shifted = encoding.read(np.array([PART_PX - side // 2 + 3, 0]), np.array([side - 3, 40]))[..., 0]
    np.testing.assert_array_equal(shifted, pixels[:, 3:])


def test_finished_tiles_are_read_again(tissue, frozen, tmp_path, monkeypatch):
    monkeypatch.setattr(_tissue, "TILE_PX", 512)
    sizes = (SIZE, 320.0)
    options = {"flips": False, "encoding": "tissue", "batch_size": 1}
    expected = encode(tissue, frozen, sizes, **options)
    stores = [BlockStore.of(tmp_path, e) for e in make_encodings(tissue, frozen, sizes, **options)]
    assert [len(store.rows) > 1 for store in stores] == [True, True]
    stores[0].make(1)
    windows = []
    read = TissueEncoding.read
    monkeypatch.setattr(TissueEncoding, "read", lambda *args: windows.append(args[1].tolist()) or read(*args))
    values = encode(tissue, frozen, sizes, **options, block_folder=tmp_path)
    assert len(windows) == sum(len(store.rows) for store in stores) - 1
    for mine, other in zip(values, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert [store.missing() for store in stores] == [[], []]


def test_records_tell_encodings_apart(toy):
    slide = toy.copy()
    pp.features(slide, "shufflenet_he", size_um=SIZE, encoding="tissue", flips=False, show_progress_bar=False)
    once = slide.obsm["X_shufflenet_he_160"].copy()
    assert slide.uns["X_shufflenet_he_160"]["encoding"] == "tissue"
    pp.features(slide, "shufflenet_he", size_um=SIZE, flips=False, show_progress_bar=False)
    assert "encoding" not in slide.uns["X_shufflenet_he_160"]
    assert not np.allclose(slide.obsm["X_shufflenet_he_160"], once)


def test_cache_tells_encodings_apart(toy, tmp_path):
    arrays = {}
    for encoding in ("patches", "tissue", "tissue"):
        slide = toy.copy()
        options = {"flips": False, "cache": tmp_path, "show_progress_bar": False}
        pp.features(slide, "shufflenet_he", size_um=640.0, encoding=encoding, **options)
        values = slide.obsm["X_shufflenet_he_640"]
        np.testing.assert_array_equal(values, arrays.setdefault(encoding, values))
    assert len(list(tmp_path.iterdir())) == 2
    assert not np.allclose(arrays["patches"], arrays["tissue"])


def test_encoder_without_maps_is_refused(toy):
    pp.register_encoder("flat", nn.Flatten(), size_px=8)
    try:
        with pytest.raises(ValueError, match=r"'flat' declares no feature maps.*encoding='patches'"):
            pp.features(toy, "flat", size_um=SIZE, encoding="tissue")
        with pytest.raises(ValueError, match="'flat' declares no feature maps"):
            tl.fit(toy, encoder="flat", encoding="tissue")
    finally:
        del ENCODERS["flat"]
    with pytest.raises(ValueError, match=r"'patches'.*'tissue'"):
        pp.features(toy, size_um=SIZE, encoding="slide")


def test_a_model_predicts_as_it_was_trained(toy, tmp_path):
    another = datasets.toy(seed=1, size_um=(2000.0, 2000.0), mpp=2.0, n_genes=toy.n_vars)
    options = {"size_um": 320.0, "n_members": 1, "max_epochs": 2, "validation": None, "show_progress_bar": False}
    model = tl.fit(another, genes=list(toy.var_names), encoding="tissue", device="cpu", **options)
    assert (model.inputs.encoding, model.inputs.flips) == ("tissue", False)
    assert "tissue encoded once" in str(model.inputs)
    model.save(tmp_path / "model")
    again = HGGEP.load(tmp_path / "model")
    assert again.inputs == model.inputs
    slide = toy.copy()
    tl.predict(slide, again, device="cpu", show_progress_bar=False)
    # Features of patches beside it are not taken for those of the tissue
    prepared = toy.copy()
    pp.features(prepared, size_um=320.0, show_progress_bar=False)
    tl.predict(prepared, again, device="cpu", show_progress_bar=False)
    np.testing.assert_array_equal(prepared.obsm["hggep"], slide.obsm["hggep"])
    with pytest.raises(ValueError, match="encoding"):
        tl.fit(toy, model=again, encoding="patches")
