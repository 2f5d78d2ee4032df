"""The registry of encoders: the rules for each, how to add one, and the families of other packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sthggep import datasets, pp, tl
from sthggep._encoders._entry import UNVERSIONED
from sthggep._encoders._families import FAMILIES
from sthggep._encoders._frozen import ENCODERS, FrozenEncoder, find_encoder

BUILT_IN = list(ENCODERS)
QUIET = {"show_progress_bar": False}


class Pooled(nn.Module):
    """Twelve numbers a patch, from a convolution of its pixels."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 12, 5, stride=3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(images)).mean(dim=(2, 3))


class Slide:
    """An object like those of lazyslide-models: a model inside, `encode_image`, and a transform."""

    img_size = (20, 20)
    encode_dim = 12
    license = ("MIT", "Apache-2.0")

    def __init__(self) -> None:
        self.model = Pooled().train()

    def get_transform(self):
        return lambda patch: torch.from_numpy(patch.copy()).permute(2, 0, 1).float() / 127.5 - 1

    def encode_image(self, image):
        return self.model(image)

    def to(self, device):
        self.model.to(device)
        return self


class Brightness:
    """An encoder that is no module, has no weights and returns numpy arrays."""

    def encode_image(self, batch):
        return batch.cpu().numpy().mean(axis=(2, 3)).astype(np.float64)


EXAMPLES = {
    "a module": lambda: pp.register_encoder("a module", Pooled(), size_px=32, dim=12, blocks=(4, 8), size_um=100),
    "an object": lambda: pp.register_encoder("an object", Slide()),
    "a function": lambda: pp.register_encoder("a function", Pooled, size_px=32),
    "no weights": lambda: pp.register_encoder("no weights", Brightness(), size_px=16, dim=3),
}


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove the encoders that a test registers."""
    before = dict(ENCODERS)
    monkeypatch.delenv("STHGGEP_WEIGHTS", raising=False)
    yield
    ENCODERS.clear()
    ENCODERS.update(before)


# ---------------------------------------------------------------- rules for every encoder


@pytest.fixture(params=[*BUILT_IN, *EXAMPLES])
def name(request: pytest.FixtureRequest) -> str:
    """Every encoder of the package, and one for each way to register an encoder."""
    if request.param in EXAMPLES:
        EXAMPLES[request.param]()
    return request.param


def frozen(name: str) -> FrozenEncoder:
    return FrozenEncoder(name, "random" if ENCODERS[name].files else None)


def random_patches(encoder: FrozenEncoder, n: int = 3, seed: int = 0) -> np.ndarray:
    size = encoder.entry.size_px
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_one_finite_row_a_patch(name):
    encoder = frozen(name)
    patches = random_patches(encoder)
    before = patches.copy()
    vectors = encoder(patches)
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, encoder.entry.dim))
    assert np.isfinite(vectors).all()
    assert np.abs(vectors[0] - vectors[1]).max() > 0
    np.testing.assert_array_equal(patches, before)
    for gray in (0, 255):
        assert np.isfinite(encoder(np.full_like(patches, gray))).all()


def test_encoders_are_reproducible(name):
    encoder, patches = frozen(name), random_patches(frozen(name))
    first, other = encoder(patches), frozen(name)
    np.testing.assert_array_equal(encoder(patches), first)
    np.testing.assert_array_equal(other(patches), first)
    assert other.weights == encoder.weights
    np.testing.assert_allclose(encoder(patches[:1]), first[:1], rtol=1e-4, atol=1e-5)


def test_flips_do_not_change_the_vectors(name):
    encoder, patches = frozen(name), random_patches(frozen(name))
    for flipped in (patches[:, ::-1], patches[:, :, ::-1]):
        np.testing.assert_allclose(encoder(np.ascontiguousarray(flipped)), encoder(patches), rtol=1e-4, atol=1e-5)
    views = [encoder(np.ascontiguousarray(patches[:, ::y, ::x]), flips=False) for y in (1, -1) for x in (1, -1)]
    np.testing.assert_allclose(np.mean(views, axis=0), encoder(patches), rtol=1e-4, atol=1e-5)


def test_entries_say_what_they_are(name):
    entry = ENCODERS[name]
    assert entry.name == name
    assert entry.blocks is None or entry.dim is None or sum(entry.blocks) == entry.dim
    assert len(entry.mean) == len(entry.std) == 3
    assert entry.license
    assert not entry.files or entry.url or entry.bundled
    row = pp.encoders().loc[name]
    assert row["size_px"] == entry.size_px
    assert row["how"]


def test_unsuitable_weights_are_refused(name, tmp_path):
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other\.pt'\) do not fit the encoder '{name}'"):
        FrozenEncoder(name, tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FrozenEncoder(name, tmp_path / "nowhere.pt")


def test_frozen_and_of_one_device(name):
    encoder = frozen(name)
    module = encoder.module if isinstance(encoder.module, nn.Module) else getattr(encoder.module, "model", None)
    if module is not None:
        assert not module.training
        assert {p.device.type for p in module.parameters()} == {"cpu"}
        assert len(encoder.weights) == 12
    else:
        assert encoder.weights == UNVERSIONED


# ---------------------------------------------------------------- registering


def test_pixels_arrive_normalized():
    pp.register_encoder("seen", Brightness(), size_px=8, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    vectors = FrozenEncoder("seen")(np.full((2, 8, 8, 3), 255, dtype=np.uint8))
    np.testing.assert_allclose(vectors, [[1.0, 3.0, 0.5]] * 2, rtol=1e-6)
    pp.register_encoder("own", Brightness(), transform=lambda p: torch.full((3, 4, 4), float(p.max())), dim=3)
    np.testing.assert_allclose(FrozenEncoder("own")(np.full((1, 8, 8, 3), 7, dtype=np.uint8)), [[7.0] * 3])


def test_transform_and_size_of_an_object_are_used():
    pp.register_encoder("slide", Slide())
    encoder = FrozenEncoder("slide")
    assert (encoder.entry.size_px, encoder.entry.dim) == (20, 12)
    white = np.full((1, 20, 20, 3), 255, dtype=np.uint8)
    expected = Pooled()(torch.ones(1, 3, 20, 20)).detach().numpy()
    np.testing.assert_allclose(encoder(white), expected, rtol=1e-5)


def test_the_module_of_the_user_does_not_change():
    module = Pooled().double().train()
    pp.register_encoder("mine", module, size_px=16)
    before = FrozenEncoder("mine").weights
    assert module.training
    assert module.conv.weight.requires_grad
    assert module.conv.weight.dtype == torch.float64
    assert FrozenEncoder("mine").weights == before


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("shufflenet", Pooled()), ValueError, "'shufflenet' already.*overwrite=True"),
        (("timm:mine", Pooled()), ValueError, "cannot be a name"),
        (("", Pooled()), ValueError, "cannot be a name"),
        (("mine", 3), TypeError, "`encode_image.batch.`.*found int"),
    ],
)
def test_what_cannot_be_registered(arguments, error, words):
    with pytest.raises(error, match=words):
        pp.register_encoder(*arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (0.5,)}, "three channels"),
        ({"std": (0.5, 0.0, 0.5)}, "positive"),
        ({"size_px": 0}, "`size_px`"),
        ({"size_um": (100, -1)}, "`size_um`"),
        ({"dim": 12, "blocks": (4, 4)}, "add up to `dim`.*sum 8"),
    ],
)
def test_invalid_numbers_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        pp.register_encoder("mine", Pooled(), **options)
    assert "mine" not in ENCODERS


def test_overwriting_needs_the_argument():
    pp.register_encoder("mine", Pooled(), size_px=16)
    first = FrozenEncoder("mine").weights
    pp.register_encoder("mine", Pooled(1), size_px=16, overwrite=True)
    assert FrozenEncoder("mine").weights != first


def test_encoders_with_wrong_outputs_are_refused():
    patches = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    pp.register_encoder("wide", Pooled(), size_px=16, dim=99)
    with pytest.raises(ValueError, match=r"'wide' must return 99 values a patch.*found 12"):
        FrozenEncoder("wide")(patches)
    pp.register_encoder("maps", nn.Conv2d(3, 4, 3), size_px=16)
    with pytest.raises(ValueError, match=r"'maps' must return one row of numbers a patch.*shape \(1, 4, 14, 14\)"):
        FrozenEncoder("maps")
    pp.register_encoder("words", SimpleNamespace(encode_image=lambda batch: {"a": batch}), size_px=16)
    with pytest.raises(ValueError, match="found dict"):
        FrozenEncoder("words")


def test_table_of_encoders(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    EXAMPLES["a module"]()
    table = pp.encoders()
    assert list(table) == ["dim", "size_px", "size_um", "license", "available", "how"]
    assert set(table.index) >= {"shufflenet", "a module", *(family.pattern for family in FAMILIES.values())}
    assert table.loc["shufflenet", "dim"] == 1360
    assert not table.loc["shufflenet", "available"]
    assert table.loc["shufflenet", "how"].startswith("downloaded when first used, from https://")
    assert table.loc["a module"].tolist() == [12, 32, "100", "not stated", True, "registered in this session"]
    assert pd.isna(table.loc["timm:<name>", "dim"])
    (tmp_path / "shufflenetv2_x0.5-abc.pth").write_bytes(b"")
    monkeypatch.setenv("STHGGEP_WEIGHTS", str(tmp_path))
    assert pp.encoders().loc["shufflenet", "available"]


def test_unknown_names():
    with pytest.raises(ValueError, match=r"Unknown encoder 'shuffle'.*'shufflenet'"):
        find_encoder("shuffle")
    with pytest.raises(ValueError, match="'other:thing'"):
        find_encoder("other:thing")
    with pytest.raises(ValueError, match=r"names no model.*timm:<name>"):
        find_encoder("timm:")


# ---------------------------------------------------------------- from features to models


@pytest.fixture
def pair():
    return [datasets.toy(seed=seed, size_um=(1400.0, 1400.0), mpp=4.0, n_genes=8) for seed in (0, 1)]


FIT = {"n_members": 1, "max_epochs": 2, "device": "cpu", **QUIET}


def test_features_of_a_registered_encoder(pair, tmp_path):
    pp.register_encoder("lab: my/net", Pooled(), size_px=24)
    pp.features(pair[0], "lab: my/net", size_um=100, **QUIET)
    assert pair[0].obsm["X_net_100"].shape == (pair[0].n_obs, 12)
    assert pair[0].uns["X_net_100"]["encoder"] == "lab: my/net"
    pair[0].write_h5ad(tmp_path / "slide.h5ad")
    # An encoder with the same last part of the name is another encoder
    pp.register_encoder("net", Pooled(1), size_px=24)
    before = pair[0].obsm["X_net_100"].copy()
    pp.features(pair[0], "net", size_um=100, **QUIET)
    assert np.abs(pair[0].obsm["X_net_100"] - before).max() > 1e-3


def test_fit_with_an_encoder(pair):
    EXAMPLES["a module"]()
    model = tl.fit(pair, encoder="a module", **FIT)
    assert (model.inputs.encoder, model.inputs.sizes_um, model.inputs.size_px) == ("a module", (100.0,), 32)
    assert model.members[0].config["blocks"] == [4, 8]
    assert model.members[0].config["feature_dims"] == [12]
    assert "a module features of 100 µm" in repr(model)
    two_views = tl.fit(pair, encoder="a module", size_um=(80, 160), **FIT)
    assert two_views.members[0].config["feature_dims"] == [12, 12]
    tl.predict(pair[0], two_views, **QUIET)
    assert np.isfinite(pair[0].obsm["hggep"]).all()
    # Stored features give the same model
    for slide in pair:
        pp.features(slide, "a module", size_um=100, **QUIET)
    assert tl.fit(pair, encoder="a module", **FIT).id == model.id


@pytest.mark.parametrize("keep", [False, True])
def test_saved_models_find_their_encoder_again(pair, tmp_path, keep):
    from sthggep import HGGEP

    pp.register_encoder("mine", Pooled(), size_px=24, size_um=100, keep_weights=keep)
    model = tl.fit(pair, encoder="mine", **FIT)
    assert (model.encoder_state is not None) == keep
    model.save(tmp_path / "model")
    tl.predict(pair[0], model, **QUIET)
    back = HGGEP.load(tmp_path / "model")
    assert back.id == model.id
    tl.predict(pair[0], back, key_added="back", **QUIET)
    np.testing.assert_array_equal(pair[0].obsm["back"], pair[0].obsm["hggep"])
    # Other weights under that name: the model uses its own, or an error names the difference
    pp.register_encoder("mine", Pooled(1), size_px=24, size_um=100, overwrite=True)
    assert HGGEP.load(tmp_path / "model").id == model.id
    if keep:
        tl.predict(pair[0], back, key_added="back", **QUIET)
        np.testing.assert_array_equal(pair[0].obsm["back"], pair[0].obsm["hggep"])
    else:
        with pytest.raises(ValueError, match="'mine' has other weights here"):
            tl.predict(pair[0], back, **QUIET)
    del ENCODERS["mine"]
    with pytest.raises(ValueError, match=r"encoder 'mine', which cannot be loaded here.*register_encoder"):
        tl.predict(pair[0], back, **QUIET)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "shuffle"}, "Unknown encoder 'shuffle'"),
        ({"encoder": "shufflenet", "preset": "paper"}, "`encoder` computes features"),
        ({"encoder": "shufflenet", "obsm": "X"}, "`obsm` holds computed features"),
        ({"size_um": 100, "obsm": "X"}, "`obsm` holds computed features"),
        ({"size_um": []}, "`size_um` must hold"),
        ({"size_um": 0}, "`size_um` must be a positive"),
        ({"size_um": (50, 100), "preset": "paper"}, "must hold one field of view in microns, found"),
    ],
)
def test_contradictory_options_are_refused(pair, options, words):
    with pytest.raises(ValueError, match=words):
        tl.fit(pair, **(FIT | options))


# ---------------------------------------------------------------- other packages


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("transformers:owner/model", "transformers", r"pip install 'sthggep\[transformers\]'"),
        ("timm:resnet18", "timm", "pip install timm"),
        ("lazyslide:uni", "lazyslide_models", "pip install lazyslide-models"),
    ],
)
def test_missing_packages_are_named(name, package, install, monkeypatch, pair):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"'{name}' needs the package '{package}'.*{install}"):
        pp.features(pair[0], name, size_um=100)


def test_timm_models_by_name(monkeypatch, pair):
    """A module with timm's interface replaces timm, which needs torchvision."""
    calls = []
    plan = {"input_size": (3, 28, 28), "mean": (0.5,) * 3, "std": (0.25,) * 3}

    def create_model(name, pretrained, num_classes):
        calls.append((name, pretrained, num_classes))
        if name == "gated":
            msg = "401 Client Error\nlong text"
            raise OSError(msg)
        net = Pooled(0 if pretrained else 1)
        net.pretrained_cfg = {"license": "apache-2.0"}
        return net

    data = SimpleNamespace(resolve_model_data_config=lambda _: plan)
    fake = SimpleNamespace(create_model=create_model, data=data)
    monkeypatch.setitem(sys.modules, "timm", fake)
    encoder = FrozenEncoder("timm:tiny.lab")
    assert calls == [("tiny.lab", True, 0)]
    entry = encoder.entry
    assert (entry.dim, entry.size_px, entry.mean, entry.std, entry.license) == (
        12,
        28,
        (0.5,) * 3,
        (0.25,) * 3,
        "apache-2.0",
    )
    white = np.full((1, 28, 28, 3), 255, dtype=np.uint8)
    np.testing.assert_allclose(encoder(white), Pooled()(torch.full((1, 3, 28, 28), 2.0)).detach(), rtol=1e-5)
    pp.features(pair[0], "timm:tiny.lab", size_um=100, **QUIET)
    assert "X_tiny.lab_100" in pair[0].obsm
    model = tl.fit(pair, encoder="timm:tiny.lab", size_um=100, **FIT)
    assert model.encoder_state is None
    tl.predict(pair[1], model, **QUIET)
    with pytest.raises(FileNotFoundError, match=r"'timm:gated' cannot be loaded \(401 Client Error\)"):
        FrozenEncoder("timm:gated")


def test_lazyslide_models_by_name(monkeypatch):
    class Gated(Slide):
        def __init__(self):
            msg = "You don't have access to it"
            raise OSError(msg)

    cards = {"tiny": Slide, "gated": Gated, "cells": lambda: SimpleNamespace(segment=None)}
    monkeypatch.setitem(sys.modules, "lazyslide_models", SimpleNamespace(MODEL_REGISTRY=cards))
    encoder = FrozenEncoder("lazyslide:tiny")
    assert (encoder.entry.dim, encoder.entry.size_px, encoder.entry.license) == (12, 20, "MIT, Apache-2.0")
    assert encoder(np.zeros((2, 20, 20, 3), dtype=np.uint8)).shape == (2, 12)
    with pytest.raises(ValueError, match=r"Unknown model of lazyslide-models 'tini'\. Did you mean 'tiny'\?"):
        FrozenEncoder("lazyslide:tini")
    with pytest.raises(FileNotFoundError, match=r"'lazyslide:gated' cannot be loaded.*don't have access"):
        FrozenEncoder("lazyslide:gated")
    with pytest.raises(ValueError, match="encodes no images"):
        FrozenEncoder("lazyslide:cells")
    with pytest.raises(ValueError, match="has only its own weights"):
        FrozenEncoder("lazyslide:tiny", "random")


def test_normalization_of_processors():
    from sthggep._encoders._families import _read_scale, _read_size

    plain = SimpleNamespace(image_mean=[0.5, 0.4, 0.3], image_std=[0.2] * 3, do_rescale=True, rescale_factor=1 / 255)
    assert _read_scale(plain) == (pytest.approx((0.5, 0.4, 0.3)), pytest.approx((0.2,) * 3))
    pixels = SimpleNamespace(image_mean=[127.5] * 3, image_std=[51.0] * 3, do_rescale=False)
    assert _read_scale(pixels) == (pytest.approx((0.5,) * 3), pytest.approx((0.2,) * 3))
    assert _read_scale(SimpleNamespace(do_normalize=False))[1] == pytest.approx((1.0,) * 3)
    sizes = [
        ({"size": 96}, 96),
        ({"size": {"height": 32, "width": 32}}, 32),
        ({"size": {"shortest_edge": 36}, "crop_size": {"height": 28, "width": 28}, "do_center_crop": True}, 28),
        ({"size": {"shortest_edge": 36}, "crop_size": {"height": 28, "width": 28}, "do_center_crop": False}, 36),
        ({"size": SimpleNamespace(height=None, width=None, shortest_edge=40)}, 40),
    ]
    assert [_read_size(SimpleNamespace(**fields), "m") for fields, _ in sizes] == [size for _, size in sizes]
    with pytest.raises(ValueError, match="patches are square"):
        _read_size(SimpleNamespace(size={"height": 32, "width": 64}), "m")


def _saved(kind: str, folder: Path) -> Path:
    """Save a tiny model of that kind in the form of the hub's models."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    square = {"height": 28, "width": 28}
    if kind == "vit":
        config = transformers.ViTConfig(**small, intermediate_size=48, image_size=28, patch_size=14)
        model, processor = transformers.ViTModel(config), transformers.ViTImageProcessor(size=square)
    elif kind == "dinov2":
        config = transformers.Dinov2Config(**small, mlp_ratio=2, image_size=28, patch_size=14)
        scale = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
        size = {"size": {"shortest_edge": 36}, "crop_size": square}
        model, processor = transformers.Dinov2Model(config), transformers.BitImageProcessor(**size, **scale)
    elif kind == "siglip":
        config = transformers.SiglipVisionConfig(**small, intermediate_size=48, image_size=28, patch_size=14)
        model, processor = transformers.SiglipVisionModel(config), transformers.ViTImageProcessor(size=square)
    else:
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 32], depths=[1, 1])
        model, processor = (
            transformers.ResNetModel(config),
            transformers.ConvNextImageProcessor(size={"shortest_edge": 28}),
        )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["vit", "dinov2", "siglip", "resnet"])
def test_transformers_models_from_a_folder(kind, tmp_path):
    """Runs where transformers is installed."""
    transformers = pytest.importorskip("transformers", reason="Needs the extra: pip install 'sthggep[transformers]'")
    folder = _saved(kind, tmp_path / kind)
    encoder = FrozenEncoder(f"transformers:{folder}")
    entry, patches = encoder.entry, random_patches(encoder)
    assert (entry.dim, entry.size_px) == (32, 28)
    if kind == "dinov2":
        assert (entry.mean, entry.std) == (pytest.approx((0.1, 0.2, 0.3)), pytest.approx((0.4, 0.5, 0.6)))
    x = (torch.from_numpy(patches / 255.0).float() - torch.tensor(entry.mean)) / torch.tensor(entry.std)
    with torch.inference_mode():
        last = (
            transformers.AutoModel.from_pretrained(folder).eval()(pixel_values=x.permute(0, 3, 1, 2)).last_hidden_state
        )
    expected = {"resnet": lambda: last.mean(dim=(2, 3)), "siglip": lambda: last.mean(dim=1)}.get(
        kind, lambda: last[:, 0]
    )()
    np.testing.assert_allclose(encoder(patches, flips=False), expected, rtol=1e-3, atol=1e-5)
    other = FrozenEncoder(f"transformers:{folder}", "random")
    assert other.weights != encoder.weights
    copy = FrozenEncoder(f"transformers:{folder}", encoder.module.state_dict())
    assert copy.weights == encoder.weights


def test_missing_transformers_models_are_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(FileNotFoundError, match=r"cannot be loaded.*folder that holds the saved model"):
        FrozenEncoder(f"transformers:{tmp_path / 'nowhere'}")
