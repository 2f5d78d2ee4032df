"""A fresh network for a preset, started from what the training spots say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from sthggep._data import Section
    from sthggep._presets import Preset


def build_network(
    preset: Preset, sections: Sequence[Section], n_genes: int, weights: str | Path | None, seed: int
) -> nn.Module:
    """The preset's network with fresh weights drawn from ``seed``; an image backbone starts at its ImageNet weights."""
    import torch

    from sthggep.nn import FeatureHGGEPNet, HGGEPNet, load_backbone
    from sthggep.pp._encoders import ENCODERS
    from sthggep.pp._weights import load_weights

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options: dict[str, Any] = dict(preset.net)
        if preset.network == "HGGEPNet":
            net: nn.Module = HGGEPNet(n_genes, **options)
            if weights != "random":
                load_backbone(net.backbone, load_weights(ENCODERS["shufflenet"], weights))  # type: ignore[arg-type]
        else:
            widths = [stage.shape[1] for stage in sections[0].inputs[0]]
            net = FeatureHGGEPNet(widths, n_genes, **options)
    mean = torch.cat([section.target[section.train] for section in sections]).mean(dim=0)
    net.heads.start_at(mean)  # type: ignore[operator,union-attr]
    return net
