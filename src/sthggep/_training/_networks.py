"""A fresh network for a preset, started from what the training spots say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthggep._log import log

# A quarter at most: networks overfit few patients more than a ridge does, and the held-out tissue that is asked also stopped
# their training, which flatters them
SHARES = (0.0, 0.25)
UNSETTLED = 0.25  # nothing held out to ask

if TYPE_CHECKING:
    from torch import nn

    from sthggep._inputs._section import Section
    from sthggep._training._presets import Preset
    from sthggep.nn._programs import Measured


def build_network(
    preset: Preset,
    sections: Sequence[Section],
    n_genes: int,
    weights: str | Path | None,
    seed: int,
    further: Sequence[Measured] = (),
) -> nn.Module:
    """The preset's network with fresh weights drawn from ``seed``; an image backbone starts at its ImageNet weights."""
    import torch

    from sthggep._encoders._frozen import ENCODERS
    from sthggep._encoders._weights import load_weights
    from sthggep.nn import FeatureHGGEPNet, HGGEPNet, load_backbone

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        options: dict[str, Any] = dict(preset.net)
        if preset.network == "HGGEPNet":
            net: nn.Module = HGGEPNet(n_genes, **options)
            if weights != "random":
                load_backbone(net.backbone, load_weights(ENCODERS["shufflenet"], weights))  # type: ignore[arg-type]
        else:
            widths = [stage.shape[1] for stage in sections[0].inputs[0]]
            net = FeatureHGGEPNet(widths, n_genes, **options)
    start(net, sections, further)
    return net


def start(net: Any, sections: Sequence[Section], further: Sequence[Measured] = ()) -> None:
    """Begin where the training spots' means, or solutions in closed form, are already."""
    import torch

    from sthggep.nn import FeatureHGGEPNet

    training = [section for section in sections if section.train.any()]
    if isinstance(net, FeatureHGGEPNet):
        net.start(
            [section.inputs[0] for section in training],
            [section.inputs[3] for section in training],
            [section.target for section in training],
            [section.library_sizes for section in training],
            [section.train for section in training],
            further,
            [statistics_of(section) for section in training],
        )
    else:
        net.heads.start_at(torch.cat([section.target[section.train] for section in training]).mean(dim=0))
        _calibrate(net, [section.inputs[0] for section in training])


def _calibrate(net: Any, patches: Sequence[Any]) -> None:
    """Give batch normalization the statistics of the training patches: ImageNet's are far off behind the gradient module.

    A running average would take hundreds of steps to forget them, and predictions would be of another network until then.
    """
    import torch

    layers = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momentum = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average over all that passes
    net.train()
    with torch.no_grad():
        for section in patches:
            net.encode(section)
    net.eval()
    for layer, kept in zip(layers, momentum, strict=True):
        layer.momentum = kept


def statistics_of(section: Section) -> Any:
    """Of the whole section, where this is a window of one; else ``None``."""
    from sthggep._inputs._windows import STATISTICS

    return section.inputs[STATISTICS] if len(section.inputs) > STATISTICS else None


def shape_of(preset: Preset) -> nn.Module:
    """A tiny network that reaches as far as the preset's own."""
    import torch

    from sthggep.nn import FeatureHGGEPNet, HGGEPNet

    if preset.network == "HGGEPNet":
        with torch.device("meta"):
            return HGGEPNet(1, **preset.net)
    with torch.device("meta"):
        return FeatureHGGEPNet([1], 1, **{**preset.net, "blocks": None})


def settle(members: Sequence[Any], splits: Sequence[Sequence[Section]], before: Sequence[float] | None = None) -> None:
    """How much of the prediction is the networks', how much the shortcuts': what all held-out tissue says, for all alike.

    One member's held-out section is too little to choose on; all members' together are all training tissue. Where nothing
    is held out, networks that were trained on keep the share they had ``before``.
    """
    import torch

    from sthggep.nn import FeatureHGGEPNet, correlation_loss

    asked = [(m, s) for m, split in zip(members, splits, strict=True) for s in split if s.validate.any()]
    if not isinstance(members[0], FeatureHGGEPNet):
        return
    if before is not None and not asked:
        for member, blend in zip(members, before, strict=True):
            member.blend.fill_(blend)
        return
    found = dict.fromkeys(SHARES if asked else (UNSETTLED,), 0.0)
    with torch.inference_mode():
        for share in found:
            for member in members:
                member.blend.fill_(share)
            losses = [correlation_loss(m(*s.inputs).expression[s.validate], s.target[s.validate]) for m, s in asked]
            found[share] = float(sum(losses))
    best = min(found, key=found.__getitem__)
    for member in members:
        member.blend.fill_(best)
    if asked:
        what = "the linear shortcut predicts alone" if best == 0 else "the rest is the linear shortcut's"
        log.info("Share of the networks in the prediction, by held-out tissue: %g; %s.", best, what)


def held_out_pearson(members: Sequence[Any], splits: Sequence[Sequence[Section]]) -> list[float | None] | None:
    """Mean over the held-out tissue of each gene's Pearson correlation within it; ``None`` where nothing was held out.

    Each member is asked on what it was not trained on. That tissue stopped its training, which flatters it a little.
    """
    import numpy as np
    import torch

    from sthggep._table._scores import column_pearson

    found = []
    with torch.inference_mode():
        for member, split in zip(members, splits, strict=True):
            for section in (s for s in split if s.validate.sum() > 2):
                predicted = member(*section.inputs).expression[section.validate].float().numpy()
                found.append(column_pearson(predicted, section.target[section.validate].numpy()))
    if not found:
        return None
    values = np.asarray(found)
    known = np.isfinite(values)
    means = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return [round(float(mean), 4) if n else None for mean, n in zip(means, known.sum(axis=0), strict=True)]
