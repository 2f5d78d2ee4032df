"""The network of the paper preset written plainly: what the speed of ours is measured against.

float32 throughout, contiguous tensors, attention with explicit weight matrices, one loop turn a spot for neighbors and
hyperedges, one pass a distillation copy. It takes its weights from one of our networks and gives the same numbers
(`tests/test_benchmarks.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sthggep.nn import HGGEPNet, Output, augment_section, self_distillation, spatial_incidence, zinb_nll


def in_turn(layers: Any, x: Tensor) -> Tensor:
    """One layer after the other, nothing folded."""
    for layer in layers:
        x = layer(x)
    return x


def gradient_enhancement(module: Any, x: Tensor) -> Tensor:
    """Both branches, the edge filter as two convolutions."""
    plain = in_turn(module.plain, x)
    edge = module.cross[0]
    taps = edge.weight.squeeze(2)
    cross = torch.zeros(*taps.shape[:2], 9)
    cross[..., [1, 3, 4, 5, 7]] = taps
    center = taps.sum(dim=-1)[..., None, None]
    theta = -float(edge.spread[0, 4])
    response = F.conv2d(x, cross.reshape(*taps.shape[:2], 3, 3), stride=2, padding=1)
    response = response - theta * F.conv2d(x, center, stride=2)
    return in_turn(module.merge, torch.cat([plain, in_turn(list(module.cross)[1:], response)], dim=1))


def shuffle_unit(unit: Any, x: Tensor) -> Tensor:
    """Concatenate, then shuffle the channels."""
    kept, changed = (x, x) if unit.stride > 1 else x.chunk(2, dim=1)
    joined = torch.cat([in_turn(unit.branch1, kept), in_turn(unit.branch2, changed)], dim=1)
    n, channels, height, width = joined.shape
    return joined.reshape(n, 2, channels // 2, height, width).transpose(1, 2).reshape(joined.shape)


def encode(net: HGGEPNet, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three levels of all patches at once."""
    backbone = net.backbone
    x = in_turn(backbone.conv1, gradient_enhancement(net.gradient, patches.float()))
    for stage in (backbone.stage2, backbone.stage3, backbone.stage4):
        for unit in stage:
            x = shuffle_unit(unit, x)
    last = in_turn(backbone.conv5, x)
    return net.level4(x), net.level5(last), net.level6(last.amax(dim=(2, 3), keepdim=True))


def attention(module: Any, x: Tensor) -> Tensor:
    """Softmax attention with its weight matrices held as they are, (heads, spots, spots)."""
    n = len(x)
    q, k, v = module.qkv(x).reshape(n, 3, module.heads, -1).permute(1, 2, 0, 3)
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return module.drop(module.out((weights @ v).transpose(0, 1).reshape(n, -1)))


def transform(blocks: nn.Module, x: Tensor) -> Tensor:
    """Pre-norm transformer blocks."""
    for block in blocks:  # type: ignore[attr-defined]
        x = x + attention(block.attention, block.attention_norm(x))
        x = x + in_turn(block.feed.children(), block.feed_norm(x))
    return x


def neighbors(positions: np.ndarray, k: int, reach: float = 2.0) -> list[list[int]]:
    """The nearest spots of each spot within reach, itself first, ties settled by the offset."""
    found = []
    for i, spot in enumerate(positions):
        dx, dy = np.round(positions - spot, 6).T
        distance = np.round(np.hypot(dx, dy), 6)
        distance[i] = -1.0
        order = np.lexsort((dx, dy, distance))
        found.append([int(j) for j in order[: k + 1] if distance[j] <= reach])
    return found


@torch.no_grad()
def hyperedges(features: Tensor, near: list[list[int]], n_selected: int) -> Tensor:
    """Each spot with the most similar of its neighbors."""
    rows = torch.full((len(near), n_selected + 1), -1)
    for i, own in enumerate(near):
        others = torch.tensor([j for j in own if j != i], dtype=torch.long)
        distance = (features[others] - features[i]).square().sum(dim=1)
        chosen = others[distance.topk(min(n_selected, len(others)), largest=False).indices]
        rows[i, : len(chosen) + 1] = torch.cat([torch.tensor([i]), chosen])
    return spatial_incidence(rows)


def forward(net: HGGEPNet, patches: Tensor, positions: np.ndarray) -> Output:
    """Predict one section."""
    where = net.position(positions)
    refined = [
        transform(blocks, level + where) for blocks, level in zip(net.transformers, encode(net, patches), strict=True)
    ]
    features = torch.stack(refined).sum(dim=0)
    incidence = hyperedges(features, neighbors(positions, net.n_neighbors), net.n_selected)
    tied = net.hypergraph(features, incidence, len(features))
    fused = net.fusion.lstm(torch.stack([*refined, tied]))[0].mean(dim=0)
    return net.heads(fused)


def training_loss(
    net: HGGEPNet,
    patches: Tensor,
    positions: np.ndarray,
    target: Tensor,
    counts: Tensor,
    *,
    n_copies: int = 5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Loss of the paper preset on one section: one pass for the section, one for each copy."""
    out = forward(net, patches, positions)
    copies = [forward(net, augment_section(patches, generator=generator), positions) for _ in range(n_copies)]
    distilled = self_distillation(
        out.expression, [one.expression for one in copies], [net.distillation(one.latent) for one in copies]
    )
    factors = torch.ones(len(target))
    nll = zinb_nll(counts, out.mean, out.dispersion, out.dropout, factors)
    return F.mse_loss(out.expression, target) + 0.25 * nll + 0.5 * distilled
