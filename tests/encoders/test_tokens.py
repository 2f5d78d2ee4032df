"""Tissue by patch tokens: an encoder whose tokens see their whole input reads overlapping squares of that size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sthggep import HGGEP, datasets, pp, tl
from sthggep._encoders import _squares
from sthggep._encoders._encode import encode, sweep
from sthggep._encoders._entry import FeatureMapping
from sthggep._encoders._frozen import ENCODERS, FrozenEncoder
from sthggep._encoders._pooling import Boxes, pool_map
from sthggep._encoders._squares import read_squares
from sthggep._encoders._tissue import TissueEncoding
from sthggep._encoders._tokens import default_context
from sthggep._image._level import Level
from sthggep._slides._resolve import resolve_one

PATCH, SIZE_PX, WIDTH = 8, 64, 12
SIZE = 128.0
QUIET = {"show_progress_bar": False}


class Tokens(nn.Module):
    """A vision transformer of one block: position embeddings, a class token, attention over the whole input."""

    def __init__(self, extra: int = 1, patch: int = PATCH, size: int = SIZE_PX) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.extra, side = extra, size // patch
            self.patch_embed = nn.Conv2d(3, WIDTH, patch, stride=patch)
            self.patch_embed.patch_size = (patch, patch)
            self.first = nn.Parameter(torch.randn(1, extra, WIDTH))
            self.position = nn.Parameter(0.5 * torch.randn(1, side**2, WIDTH))
            self.attention = nn.MultiheadAttention(WIDTH, 3, batch_first=True)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """All tokens, as timm's models return them."""
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.position
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1)
        return x + 3 * self.attention(3 * x, 3 * x, x, need_weights=False)[0]

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_features(images)[:, self.extra :]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class token beside the mean token: more values than a token has."""
        x = self.forward_features(images)
        return torch.cat([x[:, 0], x[:, self.extra :].mean(dim=1)], dim=1)


class Colors(nn.Module):
    """Tokens that hold the mean color of their patch, and their place in the square."""

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        means = nn.functional.avg_pool2d(images, PATCH)
        side = means.shape[2]
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        return torch.cat([means, torch.stack([x, y]).expand(len(images), -1, -1, -1)], dim=1).flatten(2).transpose(1, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Register two encoders with tokens; remove what a test registers."""
    before = dict(ENCODERS)
    pp.register_encoder("tokens", Tokens(), size_px=SIZE_PX, patch_px=PATCH, context_px=16)
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    pp.register_encoder("colors", Colors(), size_px=SIZE_PX, patch_px=PATCH, context_px=16, **plain)
    yield
    ENCODERS.clear()
    ENCODERS.update(before)


@pytest.fixture(scope="module")
def tissue():
    return resolve_one(datasets.toy(seed=5, size_um=(1400.0, 1000.0), mpp=2.0, n_genes=4))


def features_of(encoding: TissueEncoding) -> np.ndarray:
    """Features of the spots, without those of the reference windows."""
    return sweep(encoding, "Features")[: encoding.slide.n_spots]


def encoded(slide, frozen: FrozenEncoder, size: float = SIZE, *, flips: bool = False) -> np.ndarray:
    """Features of all windows of the spots."""
    return encode(slide, frozen, [size], flips=flips, encoding="tissue")[0].values


def largest(mine: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, in spreads of the feature."""
    return float((np.abs(mine - other) / other.std(axis=0)).max())


# ---------------------------------------------------------------- squares


def test_the_cores_of_squares_make_one_map():
    mapping = FeatureMapping(lambda *_: [], (4, 8), context_px=8, centered=False, input_px=32)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    asked = []

    def read(squares: np.ndarray) -> list[np.ndarray]:
        asked.append(squares.shape)
        x = squares.transpose(0, 3, 1, 2).astype(np.float32)
        return [x[:, :, ::4, ::4], x[:, :, ::8, ::8]]

    fine, coarse = read_squares(pixels, mapping, read)
    assert asked == [(6, 32, 32, 3)]
    for values, stride in ((fine, 4), (coarse, 8)):
        expected = pixels.transpose(2, 0, 1)[:, ::stride, ::stride].astype(np.float32)
        rim = 8 // stride
        np.testing.assert_array_equal(values[:, rim:-rim, rim:-rim], expected[:, rim:-rim, rim:-rim])
        assert not values[:, :rim].any()
        assert not values[:, :, -rim:].any()


def test_windows_begin_on_the_lattice_of_cores():
    mapping = FeatureMapping(lambda *_: [], (8,), context_px=16, centered=False, input_px=64)
    for start, stop in (((0.0, 5.0), (70.0, 80.0)), ((-100.5, 31.0), (-90.0, 200.0))):
        corner, size = mapping.window(np.array(start), np.array(stop))
        assert ((corner + 16) % 32 == 0).all()
        assert (size % 32 == 0).all()
        assert (corner + 16 <= np.array(start)).all()
        assert (corner + size - 16 >= np.array(stop)).all()
        assert (size <= np.array(stop) - start + 2 * 16 + 2 * 32 + 8).all()


@pytest.mark.parametrize("flips", [False, True])
def test_features_do_not_depend_on_tiles_or_company(tissue, flips, monkeypatch):
    frozen = FrozenEncoder("tokens")
    whole = features_of(TissueEncoding(tissue, frozen, SIZE, flips=flips))
    assert whole.shape == (tissue.n_spots, 3 * WIDTH)
    tiled = TissueEncoding(tissue, frozen, SIZE, flips=flips, tile_px=100)
    assert len(tiled.blocks) >= 2
    assert largest(features_of(tiled), whole) <= 1e-4
    few = np.random.default_rng(0).permutation(tissue.n_spots)[:7]
    part = replace(tissue, xy=tissue.xy[few], rows=tissue.rows[few])
    alone = features_of(TissueEncoding(part, frozen, SIZE, flips=flips))
    assert (np.abs(alone - whole[few]) / whole.std(axis=0)).max() <= 1e-4
    monkeypatch.setattr(_squares, "AT_ONCE", 3)
    assert largest(features_of(TissueEncoding(tissue, frozen, SIZE, flips=flips)), whole) <= 1e-4


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("flip", [(False, False), (True, True)])
def test_squares_without_a_field_of_view_are_left_out(centered, flip):
    mapping = FeatureMapping(lambda *_: [], (8,), context_px=8, centered=centered, input_px=32)
    pixels = np.random.default_rng(0).integers(0, 255, (16 * 9, 16 * 9, 3), dtype=np.uint8)
    asked = []

    def read(squares: np.ndarray) -> list[np.ndarray]:
        asked.append(len(squares))
        return [squares.transpose(0, 3, 1, 2)[:, :, ::8, ::8].astype(np.float32)]

    # Cores begin at 8 + 16 n; the last field of view is one core
    borders = [((28.5, 28.5), (35.5, 35.5)), ((21.0, 37.0), (99.0, 43.0)), ((24.0, 24.0), (39.9, 39.9))]
    counts = []
    for start, stop in borders:
        box = Boxes(np.array([start]), np.array([stop]))
        whole = pool_map(read_squares(pixels, mapping, read)[0], 8, flip, box, centered=centered)
        asked.clear()
        part = pool_map(read_squares(pixels, mapping, read, box)[0], 8, flip, box, centered=centered)
        np.testing.assert_allclose(part, whole, rtol=1e-6)
        counts.append(sum(asked))
        asked.clear()
    assert counts == [1, 12, 9 if centered else 1]


def test_other_squares_would_show(tissue):
    """The tokens of this encoder see their whole square, so that the test before this one has something to find."""
    whole = features_of(TissueEncoding(tissue, FrozenEncoder("tokens"), SIZE, flips=False))
    pp.register_encoder("tokens", Tokens(), size_px=SIZE_PX, patch_px=PATCH, context_px=24, overwrite=True)
    other = features_of(TissueEncoding(tissue, FrozenEncoder("tokens"), SIZE, flips=False))
    assert largest(other, whole) > 1e-2


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("size", [64.0, 90.0, 128.0])
def test_tokens_lie_where_their_pixels_lie(tissue, size, flips):
    y, x = np.mgrid[:400, :500]
    ramp = np.dstack([x // 2, y // 2, np.zeros_like(x)]).astype(np.uint8)
    xy = np.array([[100.0, 120.0], [251.5, 199.25], [350.3, 260.7]])
    slide = replace(tissue, xy=xy, rows=np.arange(3), levels=(Level(ramp),), mpp=1.0)
    values = encoded(slide, FrozenEncoder("colors"), size, flips=flips)[:, :5]
    # Pixel x, whose center is x + .5, holds the whole part of x / 2
    np.testing.assert_allclose(values[:, :2] * 255, xy / 2 - 0.5, atol=0.2)
    # Tokens 2 to 5 of 8 are the core; a field of view of 64 px has two whole cores of 32
    np.testing.assert_allclose(values[:, 3:], 3.5, atol=1e-5)


def test_only_core_tokens_are_used(tissue):
    values = FrozenEncoder("colors").encode_maps(np.zeros((128, 96, 3), np.uint8), (False, False))[0]
    assert values.shape == (5, 16, 12)
    assert np.unique(values[3:, 2:-2, 2:-2]).tolist() == [2, 3, 4, 5]


def test_flips_make_a_mirrored_slide_the_same(tissue):
    image = np.random.default_rng(0).integers(0, 255, (320, 480, 3), dtype=np.uint8)
    xy = np.array([[100.0, 120.0], [251.5, 199.25], [380.3, 200.7]])
    slide = replace(tissue, xy=xy, rows=np.arange(3), levels=(Level(image),), mpp=1.0)
    # The width is a multiple of a core, so that squares of the mirrored slide mirror those of the slide
    mirrored = replace(slide, xy=xy * (-1, 1) + (480, 0), levels=(Level(image[:, ::-1]),))
    for flips, same in ((True, True), (False, False)):
        first, second = (encoded(s, FrozenEncoder("tokens"), 64.0, flips=flips)[:, :WIDTH] for s in (slide, mirrored))
        assert bool(np.abs(first - second).max() < 1e-5) is same


# ---------------------------------------------------------------- your own encoder


def test_patches_and_tissue_have_their_own_length(tmp_path):
    slide = datasets.toy(seed=5, size_um=(1000.0, 1000.0), mpp=4.0, n_genes=4)
    for encoding, length in (("patches", 2 * WIDTH), ("tissue", 3 * WIDTH), ("tissue", 3 * WIDTH)):
        other = slide.copy()
        pp.features(other, "tokens", size_um=SIZE, encoding=encoding, cache=tmp_path, **QUIET)
        assert other.obsm["X_tokens_128"].shape == (slide.n_obs, length)
    assert len(list(tmp_path.iterdir())) == 2
    assert other.uns["X_tokens_128"]["context_px"] == 16
    # Another context gives other features: neither those in the table nor those in the cache are used
    pp.register_encoder("tokens", Tokens(), size_px=SIZE_PX, patch_px=PATCH, context_px=24, overwrite=True)
    before = other.obsm["X_tokens_128"].copy()
    for again in (other, slide.copy()):
        pp.features(again, "tokens", size_um=SIZE, encoding="tissue", cache=tmp_path, **QUIET)
        assert np.abs(again.obsm["X_tokens_128"] - before).max() > 1e-3


def test_a_model_reads_tokens(tmp_path):
    slides = [datasets.toy(seed=seed, size_um=(1000.0, 1000.0), mpp=4.0, n_genes=4) for seed in (0, 1)]
    options = {"n_members": 1, "max_epochs": 2, "validation": None, "device": "cpu", **QUIET}
    model = tl.fit(slides[:1], encoder="tokens", size_um=SIZE, encoding="tissue", **options)
    assert model.members[0].config["feature_dims"] == [3 * WIDTH]
    model.save(tmp_path / "model")
    tl.predict(slides[1], HGGEP.load(tmp_path / "model"), device="cpu", **QUIET)
    assert np.isfinite(slides[1].obsm["hggep"]).all()


def test_numpy_tokens_of_an_object(tissue):
    module = Tokens().eval()

    class Own:
        def tokens(self, images):
            return module.tokens(images.cpu()).detach().numpy()

        def encode_image(self, images):
            return module(images)

    pp.register_encoder("own", Own(), size_px=SIZE_PX, patch_px=PATCH, context_px=16)
    few = replace(tissue, xy=tissue.xy[:3], rows=tissue.rows[:3])
    own, mine = (encoded(few, FrozenEncoder(name)) for name in ("own", "tokens"))
    np.testing.assert_allclose(own, mine, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size_px": 60}, r"whole number of patches wide, found 60 px and patches of 8 px"),
        ({"context_px": 12}, r"`context_px` must be a multiple of the stride, 8 px, found 12"),
        ({"context_px": 32}, r"wider than twice the context by 8 px, found 64 px and `context_px=32`"),
        ({"strides": (8,)}, r"Leave out \['strides'\], or `patch_px`"),
        ({"blocks": (8, 4)}, r"Leave out \['blocks'\], or `patch_px`"),
        ({"patch_px": 0}, "patch_px"),
    ],
)
def test_squares_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        pp.register_encoder("mine", Tokens(), **({"size_px": SIZE_PX, "patch_px": PATCH} | options))
    assert "mine" not in ENCODERS


def test_encoders_without_the_tokens_are_refused():
    with pytest.raises(TypeError, match=r"encoder with `tokens\(images\)`.*found Flatten without it"):
        pp.register_encoder("mine", nn.Flatten(), size_px=SIZE_PX, patch_px=PATCH)
    slide = datasets.toy(seed=5, size_um=(1000.0, 1000.0), mpp=4.0, n_genes=4)
    pp.register_encoder("late", lambda: nn.Flatten(), size_px=SIZE_PX, patch_px=PATCH)
    with pytest.raises(ValueError, match=r"'late' cannot read the tissue: `patch_px` needs an encoder with `tokens"):
        pp.features(slide, "late", size_um=SIZE, encoding="tissue", **QUIET)
    module = Tokens()
    module.tokens = module.forward_features
    pp.register_encoder("class", module, size_px=SIZE_PX, patch_px=PATCH)
    with pytest.raises(
        ValueError, match=r"8 × 8 = 64 patch tokens of 8 px without class and register tokens, found 65"
    ):
        tl.fit(slide, encoder="class", encoding="tissue", size_um=SIZE, **QUIET)
    module.tokens = lambda images: images.mean()
    pp.register_encoder("number", module, size_px=SIZE_PX, patch_px=PATCH)
    with pytest.raises(ValueError, match=r"must give patch tokens \(n, tokens, width\) or a map.*encoding='patches'"):
        pp.features(slide, "number", size_um=SIZE, encoding="tissue", **QUIET)
    assert "X_number_128" not in slide.obsm


def test_tokens_in_random_order_are_refused():
    module = Tokens()
    ordered = module.tokens
    module.tokens = lambda images: ordered(images)[:, torch.randperm((SIZE_PX // PATCH) ** 2)]
    pp.register_encoder("shuffled", module, size_px=SIZE_PX, patch_px=PATCH)
    with pytest.raises(ValueError, match="same and in the same order, found others on a second call"):
        FrozenEncoder("shuffled").maps  # noqa: B018


@pytest.mark.parametrize(("size", "patch", "context"), [(224, 16, 32), (224, 14, 42), (518, 14, 84), (32, 16, 16)])
def test_default_context_holds_whole_tokens(size, patch, context):
    assert default_context(size, patch) == context


# ---------------------------------------------------------------- other packages


class Convolutions(nn.Module):
    """Convolutions that average, so that their map of a ramp says where their cells are."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
                nn.init.zeros_(layer.bias)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).mean(dim=(2, 3))


def timm_model(monkeypatch, module: nn.Module, size: int = SIZE_PX) -> FrozenEncoder:
    """A module with timm's interface, under its family's name."""
    plan = {"input_size": (3, size, size), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    data = SimpleNamespace(resolve_model_data_config=lambda _: plan)
    fake = SimpleNamespace(create_model=lambda *_, **__: module, data=data)
    monkeypatch.setitem(sys.modules, "timm", fake)
    return FrozenEncoder("timm:tiny")


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_patch_tokens_of_timm(monkeypatch, extra):
    frozen = timm_model(monkeypatch, Tokens(extra))
    maps = frozen.maps
    assert (maps.strides, maps.input_px, maps.dim, maps.centered) == ((PATCH,), SIZE_PX, WIDTH, False)
    assert maps.context_px == default_context(SIZE_PX, PATCH) == 8
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels / 255.0).float().permute(2, 0, 1)[None]
    expected = Tokens(extra).tokens(x).detach()[0].T.reshape(WIDTH, 8, 8)
    values = frozen.encode_maps(pixels, (False, False))[0]
    np.testing.assert_allclose(values[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-5)


PADDED = (nn.Conv2d(3, 4, 7, stride=2, padding=3), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1))
PATCHED = (nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 4, 7, padding=3), nn.Conv2d(4, 4, 2, stride=2))


@pytest.mark.parametrize(
    ("layers", "stride", "centered"), [(PADDED, 4, True), (PATCHED, 8, False)], ids=["padded", "patched"]
)
def test_cells_of_convolutions_lie_where_their_pixels_lie(monkeypatch, tissue, layers, stride, centered):
    if layers is PADDED:  # the mean in place of the maximum, which moves cells toward larger values
        layers = (*layers[:2], nn.AvgPool2d(3, stride=2, padding=1))
    frozen = timm_model(monkeypatch, Convolutions(*layers))
    assert (frozen.maps.strides, frozen.maps.centered, frozen.maps.dim) == ((stride,), centered, 4)
    ramp = np.repeat(np.arange(SIZE_PX, dtype=np.uint8)[None, :, None], SIZE_PX, axis=0).repeat(3, axis=2)
    x = torch.from_numpy(ramp / 255.0).float().permute(2, 0, 1)[None]
    cell = SIZE_PX // stride // 2
    place = float(frozen.maps.read(frozen.module, x)[0][0, 0, cell, cell]) * 255
    assert place == pytest.approx(cell * stride + (0 if centered else (stride - 1) / 2), abs=1e-3)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((nn.Conv2d(3, 4, 3, stride=2),), "must be square, with cells of whole pixels, found 31 × 31 cells"),
        ((nn.Conv2d(3, 4, 2, stride=4),), r"centered on the first pixel or begin there, found its center 0\.5 px"),
        ((nn.AvgPool2d(2), nn.Upsample(scale_factor=2)), r"give the stride of its map, 1 px, found \[2\]"),
        ((nn.Conv2d(3, 4, (2, 1), stride=2),), r"rows and columns alike, found \(2, 1\)"),
        ((nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(4, 4, 2, padding="same")), r"its center 1\.5 px"),
        ((nn.Conv2d(3, 4, 2, padding="same"), nn.Conv2d(4, 4, 2, stride=2)), "its layers disagree on where the cells"),
    ],
    ids=["cut off", "gaps", "enlarged", "oblong", "even kernel", "two shifts"],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_cells_at_unknown_places_are_refused(monkeypatch, layers, words):
    frozen = timm_model(monkeypatch, Convolutions(*layers))
    with pytest.raises(ValueError, match=rf"'timm:tiny' cannot read the tissue: .*({words}).*encoding='patches'"):
        frozen.maps  # noqa: B018


def test_models_without_readable_tokens_are_refused(monkeypatch):
    def refused(module: nn.Module, words: str, size: int = SIZE_PX) -> None:
        frozen = timm_model(monkeypatch, module, size)
        with pytest.raises(ValueError, match=rf"'timm:tiny' cannot read the tissue: .*{words}.*encoding='patches'"):
            frozen.maps  # noqa: B018

    flat = nn.Sequential(nn.AvgPool2d(SIZE_PX), nn.Flatten())
    refused(flat, "expected a model with `forward_features`, as timm's have it, found Sequential without it")
    oblong = Tokens()
    oblong.patch_embed.patch_size = (16, 4)
    refused(oblong, "patches must be square, found patches of 16 × 4 px")
    fewer = Tokens()
    fewer.patch_embed.patch_size = 4
    refused(fewer, "16 × 16 = 256 patch tokens of 4 px behind class and register tokens, found 65 tokens")
    unknown = Tokens()
    del unknown.patch_embed.patch_size
    refused(unknown, "found neither")
    rest = Tokens()
    rest.patch_embed.patch_size = 24
    refused(rest, "whole number of patches wide, found 64 px and patches of 24 px")
    rows_last = Convolutions(*PATCHED)
    rows_last.forward_features = lambda images: rows_last.layers(images).permute(0, 2, 3, 1)
    refused(rows_last, "must be square, with cells of whole pixels, found 8 × 4 cells")


class LazySlideModel:
    """An object like those of lazyslide-models, with a model of timm inside."""

    img_size, encode_dim, license = SIZE_PX, 2 * WIDTH, "MIT"
    transform = staticmethod(lambda patch: torch.from_numpy(patch.copy()).permute(2, 0, 1).float() / 255)

    def __init__(self, model: object = None) -> None:
        self.model = Tokens() if model is None else model

    def get_transform(self):
        return self.transform

    def encode_image(self, images):
        return Tokens()(images)


def lazyslide_model(monkeypatch, card: object) -> FrozenEncoder:
    monkeypatch.setitem(sys.modules, "lazyslide_models", SimpleNamespace(MODEL_REGISTRY={"tiny": card}))
    return FrozenEncoder("lazyslide:tiny")


def test_patch_tokens_of_lazyslide(monkeypatch, tissue):
    frozen = lazyslide_model(monkeypatch, LazySlideModel)
    assert (frozen.dim("patches"), frozen.dim("tissue")) == (2 * WIDTH, WIDTH)
    few = replace(tissue, xy=tissue.xy[:3], rows=tissue.rows[:3])
    mine, other = encoded(few, frozen), encoded(few, timm_model(monkeypatch, Tokens()))
    np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda x: nn.functional.avg_pool2d(x, 2), r"square of 64 px in its place, found images of \(32, 32\) px"),
        (lambda x: nn.functional.avg_pool2d(x, 3, stride=1, padding=1), "found that it resamples or moves them"),
        (lambda x: x.flip(2), "found that it resamples or moves them"),
    ],
    ids=["halved", "blurred", "mirrored"],
)
def test_transforms_that_move_pixels_are_refused(monkeypatch, transform, words):
    class Moved(LazySlideModel):
        transform = staticmethod(lambda patch: transform(LazySlideModel.transform(patch)))

        def encode_image(self, images):
            return torch.zeros(len(images), self.encode_dim)

    with pytest.raises(ValueError, match=words):
        lazyslide_model(monkeypatch, Moved).maps  # noqa: B018


def test_lazyslide_models_without_tokens_are_refused(monkeypatch):
    frozen = lazyslide_model(monkeypatch, lambda: LazySlideModel(SimpleNamespace()))
    with pytest.raises(ValueError, match="a model of timm or transformers as its `model`, found SimpleNamespace"):
        frozen.maps  # noqa: B018


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SQUARE = {"image_size": 56, "patch_size": 14}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
MODELS = {
    "vit": ("ViTModel", "ViTConfig", SMALL | SQUARE),
    "dinov2": ("Dinov2Model", "Dinov2Config", SMALL | SQUARE),
    "registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", SMALL | SQUARE | {"num_register_tokens": 4}),
    "distilled": ("DeiTModel", "DeiTConfig", SMALL | SQUARE),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", SMALL | SQUARE),
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", SMALL | SQUARE),
    "resnet": ("ResNetModel", "ResNetConfig", {"embedding_size": 8, **STAGES}),
    "convnext": ("ConvNextModel", "ConvNextConfig", STAGES | {"num_stages": 2}),
    "masked": ("ViTMAEModel", "ViTMAEConfig", SMALL | SQUARE | {"mask_ratio": 0.0}),
    "windows": (
        "SwinModel",
        "SwinConfig",
        {"image_size": 56, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
    ),
    "oblong": ("ViTModel", "ViTConfig", SMALL | {"image_size": 56, "patch_size": (14, 7)}),
    "another size": ("ViTModel", "ViTConfig", SMALL | {"image_size": 112, "patch_size": 14}),
    "cut off": ("SiglipVisionModel", "SiglipVisionConfig", SMALL | {"image_size": 56, "patch_size": 16}),
}


def saved_model(kind: str, folder) -> str:
    """Save a tiny model with an image processor of 56 px, and return the name of its encoder."""
    transformers = pytest.importorskip("transformers", reason="Needs the extra: pip install 'sthggep[transformers]'")
    model, config, options = MODELS[kind]
    torch.manual_seed(3)
    getattr(transformers, model)(getattr(transformers, config)(**options)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return f"transformers:{folder}"


@pytest.mark.parametrize(
    ("kind", "extra"),
    [("vit", 1), ("dinov2", 1), ("registers", 5), ("distilled", 2), ("clip", 1), ("siglip", 0)],
)
def test_patch_tokens_of_transformers(kind, extra, tmp_path, tissue):
    frozen = FrozenEncoder(saved_model(kind, tmp_path))
    maps = frozen.maps
    assert (maps.strides, maps.context_px, maps.input_px, maps.dim, maps.centered) == ((14,), 14, 56, 16, False)
    # Two squares, 28 px apart: each gives its two core tokens
    pixels = np.random.default_rng(0).integers(0, 255, (56, 84, 3), dtype=np.uint8)
    squares = torch.from_numpy(np.stack([pixels[:, :56], pixels[:, 28:]]) / 255.0).float().permute(0, 3, 1, 2)
    with torch.inference_mode():
        tokens = frozen.module(pixel_values=(squares - 0.5) / 0.5).last_hidden_state
    assert tokens.shape[1] == 16 + extra
    grid = tokens[:, extra:].reshape(2, 4, 4, 16).permute(0, 3, 1, 2)[:, :, 1:3, 1:3]
    values = frozen.encode_maps(pixels, (False, False))[0]
    np.testing.assert_allclose(values[:, 1:3, 1:5], np.concatenate([grid[0], grid[1]], axis=2), rtol=1e-3, atol=1e-5)
    few = replace(tissue, xy=tissue.xy[:3], rows=tissue.rows[:3])
    assert encoded(few, frozen, flips=True).shape == (3, 3 * 16)


@pytest.mark.parametrize(("kind", "stride", "centered"), [("resnet", 8, True), ("convnext", 8, False)])
def test_maps_of_transformers(kind, stride, centered, tmp_path):
    frozen = FrozenEncoder(saved_model(kind, tmp_path))
    maps = frozen.maps
    assert (maps.strides, maps.input_px, maps.dim, maps.centered) == ((stride,), 56, 16, centered)
    assert maps.context_px == 8
    values = frozen.encode_maps(np.full((96, 96, 3), 200, dtype=np.uint8), (True, False))[0]
    assert values.shape == (16, 12, 12)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("masked", "same and in the same order, found others on a second call"),
        ("windows", "28 × 28 = 784 patch tokens of 2 px behind class and register tokens, found 196 tokens"),
        ("oblong", "patches must be square, found patches of 14 × 7 px"),
        ("cut off", "whole number of patches wide, found 56 px and patches of 16 px"),
    ],
)
def test_models_of_transformers_without_readable_tokens_are_refused(kind, words, tmp_path):
    frozen = FrozenEncoder(saved_model(kind, tmp_path))
    with pytest.raises(ValueError, match=rf"cannot read the tissue: .*{words}.*encoding='patches'"):
        frozen.maps  # noqa: B018


def test_position_embeddings_are_not_interpolated(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read images of 56 px.*does not interpolate position embeddings"):
        FrozenEncoder(saved_model("another size", tmp_path))
