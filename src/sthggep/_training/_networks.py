"""Networks of a preset: build them, start them from training windows, weight them against the closed form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from sthggep._inputs._section import SectionWindow
    from sthggep._training._presets import Preset, Recipe
    from sthggep.nn import ClosedFormNet, HGGEPNet
    from sthggep.nn._section import CountsOnly

CLOSED_FORM_OPTIONS = ("blocks", "rank", "penalty", "damping", "hypergraph", "linear", "n_windows")


def build_network(
    preset: Preset,
    windows: Sequence[SectionWindow],
    n_genes: int,
    weights: str | Path | None,
    seed: int,
    extra: Sequence[CountsOnly] = (),
) -> nn.Module:
    """Build a network of the preset with weights drawn from ``seed``, and start it from training windows.

    An image backbone starts from its ImageNet weights. ``extra`` holds the counts of extra sections.
    """
    import torch

    from sthggep._encoders._frozen import ENCODERS
    from sthggep._encoders._weights import load_weights
    from sthggep.nn import FeatureHGGEPNet, HGGEPNet, load_backbone
    from sthggep.nn._section import FeatureInputs

    net: FeatureHGGEPNet | HGGEPNet
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if preset.network == "HGGEPNet":
            net = HGGEPNet(n_genes, **preset.net)
            if weights != "random":
                load_backbone(net.backbone, load_weights(ENCODERS["shufflenet"], weights))
        else:
            inputs = windows[0].inputs
            assert isinstance(inputs, FeatureInputs)
            net = FeatureHGGEPNet([stage.shape[1] for stage in inputs.features], n_genes, **preset.net)
    start_network(net, windows, extra)
    return net


def build_closed_form(
    preset: Preset,
    windows: Sequence[SectionWindow],
    n_genes: int,
    extra: Sequence[CountsOnly] = (),
    *,
    programs_only: bool = False,
) -> ClosedFormNet:
    """Build the closed form of the preset and solve it on the training spots.

    ``programs_only`` leaves out the ridge, for whoever solves it for several penalties. ``extra`` holds the counts of extra
    sections.
    """
    import torch

    from sthggep.nn import ClosedFormNet
    from sthggep.nn._section import FeatureInputs

    training = [window for window in windows if window.train.any()]
    inputs = training[0].inputs
    assert isinstance(inputs, FeatureInputs)
    options = {name: value for name, value in preset.net.items() if name in CLOSED_FORM_OPTIONS}
    with torch.random.fork_rng(devices=[]):
        net = ClosedFormNet([stage.shape[1] for stage in inputs.features], n_genes, **options)
    samples = [window.sample(window.train) for window in training]
    if programs_only:
        net.start_programs(samples, extra)
    else:
        net.start(samples, extra)
    return net.eval()


def start_network(net: nn.Module, windows: Sequence[SectionWindow], extra: Sequence[CountsOnly] = ()) -> None:
    """Start a network from the training spots: solve its closed forms, or set its outputs to the means of the genes."""
    import torch

    from sthggep.nn import FeatureHGGEPNet, HGGEPNet

    training = [window for window in windows if window.train.any()]
    if isinstance(net, FeatureHGGEPNet):
        net.start([window.sample(window.train) for window in training], extra)
        return
    assert isinstance(net, HGGEPNet)
    targets = torch.cat([window.target[window.train] for window in training])
    # A gene that no training section holds starts at 0
    net.heads.start_at(targets.mean(dim=0) if not targets.isnan().any() else targets.nanmean(dim=0).nan_to_num(0.0))
    _calibrate(net, training)


def _calibrate(net: HGGEPNet, windows: Sequence[SectionWindow]) -> None:
    """Set the statistics of batch normalization to those of the training patches.

    ImageNet's statistics do not hold after the gradient module, and a running average needs hundreds of steps to
    replace them.
    """
    import torch

    from sthggep.nn._section import PatchInputs

    layers = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momentum = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average over all patches
    net.train()
    with torch.no_grad():
        for window in windows:
            assert isinstance(window.inputs, PatchInputs)
            net.encode(window.inputs.patches)
    net.eval()
    for layer, value in zip(layers, momentum, strict=True):
        layer.momentum = value


def network_without_weights(preset: Preset) -> nn.Module:
    """Make a network with the neighbors and steps of the preset's network, but without weights."""
    import torch

    from sthggep.nn import FeatureHGGEPNet, HGGEPNet

    with torch.device("meta"):
        if preset.network == "HGGEPNet":
            return HGGEPNet(1, **preset.net)
        return FeatureHGGEPNet([1], 1, **{**preset.net, "blocks": None, "n_windows": 1})


def choose_share(
    members: Sequence[nn.Module],
    splits: Sequence[Sequence[SectionWindow]],
    recipe: Recipe,
) -> float | None:
    """Choose the share of the networks in the prediction on all held-out tissue; the closed form has the rest.

    All members get the same share, chosen on the held-out tissue of all members together: that of one member is too
    little.

    Returns
    -------
    The share; ``None`` for networks without a closed form.
    """
    import torch

    from sthggep.nn import FeatureHGGEPNet, correlation_loss

    nets = [member for member in members if isinstance(member, FeatureHGGEPNet)]
    if not nets:
        return None
    pairs = [
        (net, window) for net, split in zip(nets, splits, strict=False) for window in split if window.validate.any()
    ]
    losses = dict.fromkeys(recipe.shares if pairs else (recipe.default_share,), 0.0)
    with torch.inference_mode():
        for share in losses:
            for net in nets:
                net.blend.fill_(share)
            losses[share] = float(
                sum(correlation_loss(net(*w.inputs).expression[w.validate], w.target[w.validate]) for net, w in pairs)
            )
    best = min(losses, key=losses.__getitem__)
    for net in nets:
        net.blend.fill_(best)
    return best


def held_out_pearson(
    members: Sequence[nn.Module], splits: Sequence[Sequence[SectionWindow]]
) -> list[float | None] | None:
    """Compute the mean Pearson correlation of each gene on held-out tissue; ``None`` if nothing is held out.

    Each member predicts the tissue that it held out. Early stopping used the same tissue, so the correlations are
    slightly optimistic. A gene without a correlation in any section is ``None``.
    """
    import numpy as np
    import torch

    from sthggep._inputs._section import hide_untaught
    from sthggep._table._scores import column_pearson

    correlations = []
    with torch.inference_mode():
        for member, split in zip(members, splits, strict=False):
            for window in (w for w in hide_untaught(split) if w.validate.sum() > 2):
                predicted = member(*window.inputs).expression[window.validate].float().numpy()
                correlations.append(column_pearson(predicted, window.target[window.validate].numpy()))
    if not correlations:
        return None
    values = np.asarray(correlations)
    finite = np.isfinite(values)
    means = np.where(finite, values, 0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    return [round(float(mean), 4) if n else None for mean, n in zip(means, finite.sum(axis=0), strict=True)]
