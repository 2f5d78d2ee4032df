"""Tissue that is encoded once, in large tiles: features of a spot are means of feature maps over its windows."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sthggep import HGGEP, datasets, pp, tl
from sthggep._encoders import _tissue
from sthggep._encoders._block_store import BlockStore
from sthggep._encoders._encode import encode, make_encodings, sweep
from sthggep._encoders._entry import AROUND_UM
from sthggep._encoders._frozen import ENCODERS, FrozenEncoder
from sthggep._encoders._tissue import PART_PX, TissueEncoding
from sthggep._image._level import Level
from sthggep._slides._resolve import resolve_one

SIZE = 320.0
QUIET = {"show_progress_bar": False}


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
def small():
    """A section of a size that is encoded within a second: copy it before you change it."""
    return datasets.toy(seed=5, size_um=(1200.0, 1000.0), mpp=2.0, n_genes=4)


@pytest.fixture(scope="module")
def tissue(small):
    return resolve_one(small)


@pytest.fixture(scope="module")
def frozen() -> FrozenEncoder:
    return FrozenEncoder("shufflenet_he", None)


@pytest.fixture(scope="module")
def whole(tissue, frozen) -> np.ndarray:
    """Features of the spots and of the reference windows, whose tissue is read as one tile."""
    encoding = TissueEncoding(tissue, frozen, SIZE, flips=False)
    assert len(encoding.plan(np.arange(len(encoding.xy)))) == 4  # the image and what is left, right, above and below it
    return sweep(encoding, "Features")


def largest(mine: np.ndarray, other: np.ndarray, spread: np.ndarray) -> float:
    """Largest difference, in spreads of the feature."""
    varied = spread > 1e-6
    assert varied.mean() > 0.5
    return float((np.abs(mine - other)[:, varied] / spread[varied]).max())


def ramp(width: int = 500, height: int = 400) -> np.ndarray:
    """Image whose red is half of x and whose green is half of y."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([x // 2, y // 2, np.zeros_like(x)]).astype(np.uint8)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("size", [64.0, 90.0, 128.0])
def test_means_are_those_of_the_place(tissue, sampler, size, flips):
    xy = np.array([[100.0, 120.0], [251.5, 199.25], [350.3, 260.7]])
    slide = replace(tissue, xy=xy, rows=np.arange(3), levels=(Level(ramp()),), mpp=1.0)
    values = encode(slide, sampler, [size], flips=flips, encoding="tissue")[0].values * 255
    assert values.shape == (3, 3 * sampler.entry.dim)
    # Pixel x, whose center is x + .5, holds the whole part of x / 2: half a unit or nothing is lost
    expected = xy / 2 - 0.4
    np.testing.assert_allclose(values[:, 0:2], expected, atol=0.3)
    np.testing.assert_allclose(values[:, 3:5], expected, atol=1.0)


def test_wider_windows_hold_the_tissue_around(tissue, sampler):
    """Each window is a mean of its own: the part of it beyond the image is white."""
    xy = np.array([[250.0, 200.0], [40.0, 200.0]])
    slide = replace(tissue, xy=xy, rows=np.arange(2), levels=(Level(np.zeros((400, 500, 3), np.uint8)),), mpp=1.0)
    values = encode(slide, sampler, [64.0], flips=False, encoding="tissue")[0].values
    reds = values.reshape(2, 3, 6)[:, :, 0]
    for spot, (x, y) in enumerate(xy):
        for window, around in enumerate((0.0, *AROUND_UM)):
            half = (64 + around) / 2
            inside = (min(x + half, 500) - max(x - half, 0)) * (min(y + half, 400) - max(y - half, 0))
            assert reds[spot, window] == pytest.approx(1 - inside / (2 * half) ** 2, abs=0.02)


@pytest.mark.parametrize("encoding", ["tissue", "patches"])
def test_an_image_far_too_coarse_is_named_once(tissue, sampler, encoding):
    """64 pixels for 64 µm ask for 1 µm/px: 16 µm/px is read in silence, 17 µm/px with a warning, in every encoding."""
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    slide = replace(
        tissue, xy=np.array([[200.0, 160.0]]), rows=np.arange(1), levels=(Level(image, (0.1, 0.1)),), mpp=1.6
    )
    options = {"flips": False, "encoding": encoding}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(slide, sampler, [64.0, 128.0], **options)
    coarse = replace(slide, mpp=1.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(coarse, sampler, [128.0], **options)
    message = r"has 17 µm/px and is enlarged 17 times for a field of view of 64 µm, which has 64 px\."
    with pytest.warns(UserWarning, match=message) as caught:
        encode(coarse, sampler, [128.0, 64.0], **options)
    assert len(caught) == 1


def test_flips_make_a_mirrored_or_turned_slide_the_same(tissue, sampler):
    image = np.random.default_rng(0).integers(0, 255, (320, 480, 3), dtype=np.uint8)
    xy = np.array([[100.0, 120.0], [251.5, 199.25], [380.3, 200.7]])
    slide = replace(tissue, xy=xy, rows=np.arange(3), levels=(Level(image),), mpp=1.0)
    mirrored = replace(slide, xy=xy * (-1, 1) + (480, 0), levels=(Level(image[:, ::-1]),))
    turned = replace(slide, xy=xy[:, ::-1] * (-1, 1) + (320, 0), levels=(Level(np.rot90(image, -1).copy()),))
    for flips, same in ((True, True), (False, False)):
        options = {"flips": flips, "encoding": "tissue"}
        first, *others = (encode(each, sampler, [64.0], **options)[0] for each in (slide, mirrored, turned))
        for other in others:
            assert bool(np.abs(first.values - other.values).max() < 1e-5) is same
            assert bool(np.abs(first.moments.mean - other.moments.mean).max() < 1e-5) is same


def test_all_views_make_a_turned_slide_the_same(tissue, frozen):
    """With the encoder of the package: its coarsest cells, 32 pixels wide, end at the border of this image."""
    image = np.random.default_rng(0).integers(0, 255, (10, 12, 3), dtype=np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    xy = np.array([[100.0, 120.0], [251.5, 199.25], [300.3, 200.7]])
    slide = replace(tissue, xy=xy, rows=np.arange(3), levels=(Level(image),), mpp=1.0)
    turned = replace(slide, xy=xy[:, ::-1] * (-1, 1) + (320, 0), levels=(Level(np.rot90(image, -1).copy()),))
    options = {"windows_um": (224.0, 424.0)}
    for flips, same in ((True, True), (False, False)):
        first, second = (
            sweep(TissueEncoding(each, frozen, 224.0, each.xy, flips=flips, **options), "Features")
            for each in (slide, turned)
        )
        assert bool(largest(second, first, first.std(axis=0)) < 1e-3) is same


@pytest.mark.parametrize("tile_px", [40, 150, 1000])
def test_tiles_add_up_to_the_same_features(tissue, sampler, tile_px):
    """However tiles cut the windows, each spot and each reference window gets its mean, and no part twice."""
    plain = sweep(TissueEncoding(tissue, sampler, SIZE, flips=True), "Features")
    tiled = TissueEncoding(tissue, sampler, SIZE, flips=True, tile_px=tile_px)
    assert np.sort(np.concatenate(tiled.blocks)).tolist() == list(range(len(plain)))
    assert len(tiled.blocks) > 1 or tile_px > 100
    assert largest(sweep(tiled, "Features"), plain, plain.std(axis=0)) < 1e-4


def test_features_do_not_depend_on_tiles_or_company(tissue, frozen, whole):
    tiled = TissueEncoding(tissue, frozen, SIZE, flips=False, tile_px=300)
    n, spread = tissue.n_spots, whole.std(axis=0)
    assert largest(sweep(tiled, "Features"), whole, spread) < 1e-4
    few = np.random.default_rng(0).permutation(n)[:7]
    part = replace(tissue, xy=tissue.xy[few], rows=tissue.rows[few])
    alone = encode(part, frozen, [SIZE], flips=False, encoding="tissue")[0]
    assert largest(alone.values, whole[few], spread) < 1e-4
    assert alone.moments.n == len(whole) - n
    assert largest(alone.moments.mean[None], whole[n:].mean(axis=0)[None], spread) < 1e-4
    assert largest(alone.moments.spread[None], whole[n:].std(axis=0)[None], spread) < 1e-4


def test_windows_far_apart_are_read_one_by_one(frozen):
    pixels = np.random.default_rng(0).integers(0, 255, (1500, 6000, 3), dtype=np.uint8)
    xy = np.array([[400.0, 400.0], [5500.0, 1100.0], [2194.0, 700.0]])
    slide = replace(
        resolve_one(datasets.toy(seed=5, n_genes=4)), levels=(Level(pixels),), xy=xy, rows=np.arange(3), mpp=0.5
    )
    encoding = TissueEncoding(slide, frozen, 80.0, xy, flips=False, windows_um=(80.0, 280.0))
    rows = np.arange(3)
    tiles, squares = encoding.plan(rows), encoding._plan_squares(rows, rows)
    assert [tile.at.tolist() for tile in tiles] == [[0], [1], [2]]
    assert sum(map(encoding._area, tiles)) < 0.9 * sum(map(encoding._area, squares))
    total = np.zeros((3, encoding.dim))
    for tile in squares:
        total[tile.at] += encoding.encode(rows, tile)
    np.testing.assert_allclose(sweep(encoding, "Features"), total, atol=1e-5)


def test_less_context_would_show(tissue, frozen, whole):
    tiled = TissueEncoding(tissue, frozen, SIZE, flips=False, tile_px=300)
    tiled.maps = replace(tiled.maps, context_px=96)
    assert largest(sweep(tiled, "Features"), whole, whole.std(axis=0)) > 1e-2


def test_tissue_resembles_patches(tissue, frozen, whole):
    patches = encode(tissue, frozen, [SIZE], flips=True)[0]
    assert patches.moments is None
    once, patches = whole[: tissue.n_spots, : frozen.entry.dim], patches.values
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
    value = encode(slide, sampler, [128.0], flips=True, encoding="tissue")[0].values[0, 0]
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


def test_finished_blocks_are_read_again(tissue, sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(_tissue, "TILE_PX", 50)
    monkeypatch.setattr(sampler, "weights", "of this test")  # an encoder whose weights have no id keeps no blocks
    sizes = (160.0, SIZE)
    options = {"flips": False, "encoding": "tissue", "batch_size": 1}
    expected = encode(tissue, sampler, sizes, **options)
    encodings = make_encodings(tissue, sampler, sizes, **options)
    stores = [BlockStore.of(tmp_path, each) for each in encodings]
    tiles = [[len(each.plan(rows)) for rows in store.rows] for each, store in zip(encodings, stores, strict=True)]
    assert [len(each) > 1 and max(each) > 1 for each in tiles] == [True, True]
    stores[0].make(1)
    read, encode_tile = [], TissueEncoding.encode
    monkeypatch.setattr(TissueEncoding, "encode", lambda *args: read.append(args[2]) or encode_tile(*args))
    for n_tiles in (sum(map(sum, tiles)) - tiles[0][1], 0):
        read.clear()
        stages = encode(tissue, sampler, sizes, **options, block_folder=tmp_path)
        assert len(read) == n_tiles
        for mine, other in zip(stages, expected, strict=True):
            assert largest(mine.values, other.values, other.values.std(axis=0)) < 1e-4
            assert largest(mine.moments.mean[None], other.moments.mean[None], other.moments.spread) < 1e-4
    assert [store.missing() for store in stores] == [[], []]


def test_records_tell_encodings_apart(small):
    slide = small.copy()
    pp.features(slide, "shufflenet_he", size_um=640.0, encoding="tissue", flips=False, **QUIET)
    once, record = slide.obsm["X_shufflenet_he_640"].copy(), slide.uns["X_shufflenet_he_640"]
    assert (record["encoding"], record["around_um"]) == ("tissue", list(AROUND_UM))
    assert once.shape == (slide.n_obs, 3 * 1360)
    pp.features(slide, "shufflenet_he", size_um=640.0, flips=False, **QUIET)
    record = slide.uns["X_shufflenet_he_640"]
    assert not {"encoding", "around_um", "tissue_mean", "tissue_spread", "tissue_windows"} & set(record)
    assert slide.obsm["X_shufflenet_he_640"].shape == (slide.n_obs, 1360)
    assert not np.allclose(slide.obsm["X_shufflenet_he_640"], once[:, :1360])


def test_cache_tells_encodings_apart(small, tmp_path):
    arrays, moments = {}, []
    for encoding in ("patches", "tissue", "tissue"):
        slide = small.copy()
        options = {"flips": False, "cache": tmp_path, **QUIET}
        pp.features(slide, "shufflenet_he", size_um=640.0, encoding=encoding, **options)
        values = slide.obsm["X_shufflenet_he_640"]
        np.testing.assert_array_equal(values, arrays.setdefault(encoding, values))
        moments.append(slide.uns["X_shufflenet_he_640"].get("tissue_mean"))
    assert len(list(tmp_path.iterdir())) == 2
    assert not np.allclose(arrays["patches"], arrays["tissue"][:, :1360])
    # The cache holds the reference windows, too
    assert moments[0] is None
    np.testing.assert_array_equal(moments[1], moments[2])


def test_encoder_without_maps_is_refused(small):
    pp.register_encoder("flat", nn.Flatten(), size_px=8)
    try:
        with pytest.raises(ValueError, match=r"'flat' declares no feature maps.*encoding='patches'"):
            pp.features(small, "flat", size_um=SIZE, encoding="tissue")
        with pytest.raises(ValueError, match="'flat' declares no feature maps"):
            tl.fit(small, encoder="flat", encoding="tissue")
    finally:
        del ENCODERS["flat"]
    with pytest.raises(ValueError, match=r"'patches'.*'tissue'"):
        pp.features(small, size_um=SIZE, encoding="slide")


def test_a_model_predicts_as_it_was_trained(small, tmp_path):
    another = datasets.toy(seed=1, size_um=(1200.0, 1000.0), mpp=2.0, n_genes=4)
    options = {"size_um": 640.0, "n_members": 1, "max_epochs": 2, "validation": None, "device": "cpu", **QUIET}
    model = tl.fit(another, genes=list(small.var_names), **options)
    assert (model.inputs.encoding, model.inputs.flips) == ("tissue", False)
    assert "tissue encoded once" in str(model.inputs)
    model.save(tmp_path / "model")
    again = HGGEP.load(tmp_path / "model")
    assert again.inputs == model.inputs
    slide = small.copy()
    tl.predict(slide, again, device="cpu", **QUIET)
    # Features of patches beside it are not taken for those of the tissue
    prepared = small.copy()
    pp.features(prepared, size_um=640.0, **QUIET)
    tl.predict(prepared, again, device="cpu", **QUIET)
    np.testing.assert_array_equal(prepared.obsm["hggep"], slide.obsm["hggep"])
    with pytest.raises(ValueError, match="encoding"):
        tl.fit(small, model=again, encoding="patches")
    patches = tl.fit(another, genes=list(small.var_names), encoding="patches", **options)
    assert (patches.inputs.encoding, patches.inputs.flips) == ("patches", True)
    assert patches.members[0].config["feature_dims"] == [1360]
    assert not patches.members[0].config.get("linear", False)
