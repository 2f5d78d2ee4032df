"""Parts of the networks against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sthggep import nn
from sthggep.nn._attention import NeighborAttention, SelfAttention
from sthggep.nn._cbam import SteadyBatchNorm2d
from sthggep.nn._gradient import CrossDifferenceConv
from sthggep.nn._position import RelativePosition


def test_cross_difference_is_the_plus_kernel_minus_its_center():
    torch.manual_seed(0)
    conv, x = CrossDifferenceConv(2, 4), torch.randn(3, 2, 9, 8)
    plus = torch.zeros(4, 2, 3, 3)
    for tap, (row, column) in enumerate([(0, 1), (1, 0), (1, 1), (1, 2), (2, 1)]):
        plus[:, :, row, column] = conv.weight[:, :, 0, tap]
    center = conv.weight.sum(-1, keepdim=True)
    expected = F.conv2d(x, plus, stride=2, padding=1) - 0.7 * F.conv2d(x, center, stride=2)
    torch.testing.assert_close(conv(x), expected)


def test_backbone_has_the_names_of_the_published_state(spec):
    names = {name.removeprefix("backbone."): shape for name, shape in _shapes(nn.ShuffleNetV2()).items()}
    new_names = {"layer1": "conv1", "layer2": "stage2", "layer3": "stage3", "layer4": "stage4", "layer5": "conv5"}
    published_names = {
        f"{new_names[name[:6]]}{name[6:]}": tuple(shape)
        for name, (shape, _) in spec.items()
        if name.startswith("layer")
    }
    assert names == published_names


def test_backbone_loads_torchvision_weights(weights_folder):
    state = torch.load(weights_folder / "shufflenet_v2_x0_5_headless_bnrecal.pt", weights_only=True)
    backbone = nn.ShuffleNetV2()
    nn.load_backbone(backbone, state | {"fc.weight": torch.zeros(1000, 1024), "fc.bias": torch.zeros(1000)})
    torch.testing.assert_close(backbone.stage3[2].branch2[3].weight.data, state["stage3.2.branch2.3.weight"])


def test_wrong_backbone_weights_are_explained():
    backbone = nn.ShuffleNetV2()
    state = backbone.state_dict()
    with pytest.raises(ValueError, match="torchvision"):
        nn.load_backbone(backbone, {"features.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"\(24, 3, 3, 3\), found \(32, 3, 3, 3\)"):
        nn.load_backbone(backbone, state | {"conv1.0.weight": torch.zeros(32, 3, 3, 3)})


def test_maps_of_the_backbone():
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = nn.ShuffleNetV2().eval().maps(x)
        unpooled = nn.ShuffleNetV2(max_pool=False).eval().maps(x)
    assert [tuple(one.shape[1:]) for one in maps] == [(48, 8, 8), (96, 4, 4), (192, 2, 2), (1024, 2, 2)]
    assert unpooled.conv5.shape[-1] == 4


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_batch_norm_of_a_single_value():
    norm = SteadyBatchNorm2d(3)
    single = torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(norm.train()(single), single, rtol=1e-4, atol=1e-4)
    many = torch.randn(8, 3, 1, 1)
    assert norm(many).mean().abs() < 1e-5


def test_attention_is_explicit_softmax():
    torch.manual_seed(0)
    attention, x = SelfAttention(12, heads=3, head_dim=5, dropout=0.0), torch.randn(7, 12)
    q, k, v = (part.reshape(7, 3, 5) for part in attention.qkv(x).chunk(3, dim=-1))
    heads = [(q[:, h] @ k[:, h].T / 5**0.5).softmax(-1) @ v[:, h] for h in range(3)]
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, dim=1)))


def test_neighbor_attention_is_masked_softmax():
    torch.manual_seed(0)
    attention, x = NeighborAttention(12, heads=3, dropout=0.0), torch.randn(4, 12)
    neighbors = torch.tensor([[0, 1, 2], [1, -1, -1], [2, 0, -1], [-1, -1, -1]])
    offsets = torch.randn(4, 3, 2)
    q = attention.query(x).reshape(4, 3, 4)
    k, v = attention.key_value(x).reshape(4, 2, 3, 4).unbind(1)
    bias = attention.bias(offsets)
    expected = torch.zeros(4, 3, 4)
    for spot, row in enumerate(neighbors.tolist()):
        places = [place for place, other in enumerate(row) if other >= 0]
        neighbor_rows = [row[place] for place in places]
        for h in range(3):
            if places:
                weights = (k[neighbor_rows, h] @ q[spot, h] / 2 + bias[spot, places, h]).softmax(0)
                expected[spot, h] = weights @ v[neighbor_rows, h]
    torch.testing.assert_close(attention(x, neighbors, offsets), attention.out(expected.flatten(1)))


def test_relative_positions_ignore_a_shift_and_differ_between_spots(grid):
    position = RelativePosition(16)
    features = position(grid)
    torch.testing.assert_close(position(grid + np.array([1234.5, -77.25])), features, rtol=1e-4, atol=1e-5)
    distances = torch.cdist(features, features) + 10 * torch.eye(len(grid))
    assert distances.min() > 1e-3
