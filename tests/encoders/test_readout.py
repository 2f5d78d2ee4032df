"""Weights on feature maps that are then pooled: the same as pooling, and then weights on features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sthggep import datasets, pp
from sthggep._encoders._encode import sweep
from sthggep._encoders._frozen import ENCODERS, FrozenEncoder
from sthggep._encoders._readout import Readout
from sthggep._encoders._tissue import TissueEncoding
from sthggep._slides._resolve import resolve_one

VALUES = 4


class Pixels(nn.Module):
    """Maps of the pixels at strides 8, 4 and 8 again."""

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        fine, coarse = images[:, :, ::4, ::4], images[:, :, ::8, ::8]
        return [coarse, fine.square(), coarse[:, :1].square()]


class Tokens(nn.Module):
    """Tokens that depend on their place in the square that is read."""

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        means = nn.functional.avg_pool2d(images, 8)
        place = torch.linspace(-1, 1, means.shape[2]).expand_as(means[:, :1])
        return torch.cat([means, means[:, :2] * place], dim=1).flatten(2).transpose(1, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def slide():
    return resolve_one(datasets.toy(seed=5, size_um=(1200.0, 1000.0), mpp=2.0, n_genes=4))


@pytest.fixture(scope="module", params=["pixels", "tokens", "shufflenet_he"])
def frozen(request) -> FrozenEncoder:
    """Maps of several strides, squares of tokens, and the encoder of the package."""
    pp.register_encoder("pixels", Pixels(), size_px=64, strides=(8, 4, 8), context_px=0)
    pp.register_encoder("tokens", Tokens(), size_px=64, patch_px=8, context_px=16)
    yield FrozenEncoder(request.param)
    del ENCODERS["pixels"], ENCODERS["tokens"]


def size_of(frozen: FrozenEncoder) -> float:
    """A field of view at which the section is some hundred pixels wide."""
    return 640.0 if frozen.entry.size_px > 64 else 320.0


def random_weight(frozen: FrozenEncoder, n_windows: int = 3) -> np.ndarray:
    """Weights for each window: those of the second and third differ from those of the first."""
    shape = (n_windows, frozen.dim("tissue"), VALUES)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("flips", [False, True])
def test_weights_on_maps_are_weights_on_features(slide, frozen, flips):
    weight, size = random_weight(frozen), size_of(frozen)
    features = sweep(TissueEncoding(slide, frozen, size, slide.xy, flips=flips), "Features")
    expected = features @ weight.reshape(-1, VALUES)
    readout = Readout(weight, frozen.maps.strides)
    tile_px = 400 if frozen.entry.size_px > 64 else 150
    encoding = TissueEncoding(slide, frozen, size, slide.xy, flips=flips, tile_px=tile_px, readout=readout)
    assert (encoding.dim, len(encoding.plan(np.arange(slide.n_spots))) > 1) == (VALUES, True)
    values = sweep(encoding, "Prediction")
    assert (np.abs(values - expected) / expected.std(axis=0)).max() < 1e-4
    # The windows are told apart
    turned = features @ weight[::-1].reshape(-1, VALUES)
    assert (np.abs(values - turned) / expected.std(axis=0)).max() > 0.1


def test_windows_of_ones_own(slide, frozen):
    weight, size = random_weight(frozen, 1), size_of(frozen)
    options = {"flips": False, "windows_um": (500.0,)}
    features = sweep(TissueEncoding(slide, frozen, size, slide.xy, **options), "Features")
    assert features.shape == (slide.n_spots, frozen.dim("tissue"))
    readout = Readout(weight, frozen.maps.strides)
    values = sweep(TissueEncoding(slide, frozen, size, slide.xy, readout=readout, **options), "Prediction")
    expected = features @ weight[0]
    assert (np.abs(values - expected) / expected.std(axis=0)).max() < 1e-4
    # Features of a window do not depend on what other windows there are
    both = sweep(TissueEncoding(slide, frozen, size, slide.xy, flips=False, windows_um=(size, 500.0)), "Features")
    np.testing.assert_allclose(both[:, frozen.dim("tissue") :], features, atol=1e-4 * features.std(axis=0).max())


def test_maps_of_one_stride_are_added_before_they_are_pooled():
    weight = np.random.default_rng(0).standard_normal((2, 6, VALUES)).astype(np.float32)
    readout = Readout(weight, (8, 4, 8))
    assert (readout.width, readout.strides) == (VALUES, [4, 8])
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, n, side, side, generator=generator) for n, side in ((3, 5), (2, 10), (1, 5))]
    fine, coarse = readout.apply(maps)
    assert (fine.shape, coarse.shape) == ((1, 2 * VALUES, 10, 10), (1, 2 * VALUES, 5, 5))
    flat = np.concatenate(list(weight), axis=1)  # values of the first window, then of the second
    joined = torch.cat([maps[0], maps[2]], dim=1)[0].numpy()
    np.testing.assert_allclose(coarse[0], np.einsum("cyx,cv->vyx", joined, flat[[0, 1, 2, 5]]), atol=1e-5)
    np.testing.assert_allclose(fine[0], np.einsum("cyx,cv->vyx", maps[1][0].numpy(), flat[3:5]), atol=1e-5)
