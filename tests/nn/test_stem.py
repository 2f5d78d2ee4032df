"""The stem of the image encoder in strips: the same maps as those of the whole image."""

from __future__ import annotations

import pytest
import torch

from sthggep.nn import ShuffleNetV2, _backbone


@pytest.fixture(scope="module")
def backbone() -> ShuffleNetV2:
    torch.manual_seed(0)
    net = ShuffleNetV2().eval()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # an untrained one would leave the values as they are
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2.0)
            layer.bias.data.normal_(0, 0.1)
    return net


@pytest.mark.parametrize("height", [1, 2, 3, 7, 8, 9, 61, 62, 63, 64, 65, 130])
@pytest.mark.parametrize("n_strips", [1, 2, 3, 5, 40])
def test_strips_are_the_plain_stem(backbone, height, n_strips):
    image = torch.randn(1, 3, height, 51, generator=torch.Generator().manual_seed(height))
    with torch.inference_mode():
        expected = backbone.maxpool(backbone.conv1(image))
        found = backbone._stem_in_strips(image, n_strips)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 97, 131), (3, 66, 64), (2, 33, 250)])
def test_large_images_are_read_in_strips(backbone, monkeypatch, shape):
    n, height, width = shape
    images = torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))
    strips, in_strips = [], ShuffleNetV2._stem_in_strips
    monkeypatch.setattr(ShuffleNetV2, "_stem_in_strips", lambda *args: strips.append(args[2]) or in_strips(*args))
    with torch.inference_mode():
        expected = backbone.maps(images)
        assert strips == []
        monkeypatch.setattr(_backbone, "STEM_VALUES", 24 * height * width // 4 // 3)
        found = backbone.maps(images)
    assert len(strips) == n
    assert min(strips) >= 3
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
