"""The closed form of a model applied to feature maps: predictions at any place, without features of single spots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sthggep._encoders._encode import sweep
from sthggep._encoders._entry import AROUND_UM
from sthggep._encoders._readout import Readout
from sthggep._encoders._reference_windows import measure_moments
from sthggep._encoders._tissue import TissueEncoding
from sthggep.nn import ClosedFormNet
from sthggep.nn._stages import Moments

if TYPE_CHECKING:
    from torch import nn

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide
    from sthggep.model._novelty import Novelty


class StageWeights(NamedTuple):
    """The closed form at one field of view, on features as the encoder gives them."""

    weight: Tensor
    """(features, programs): of a spot's field of view, then of its wider windows."""
    mean: Tensor
    """(features,): of the section's tissue, at which the closed form predicts 0."""


def is_linear(net: nn.Module) -> bool:
    """Whether a network is a closed form that is linear in the encoder's features."""
    return type(net) is ClosedFormNet and bool(net.config.get("linear"))


class TissueFeatures(NamedTuple):
    """The tissue of a section at one field of view, as its reference windows show it."""

    moments: Moments
    """Mean and spread of the features."""
    xy: NDArray[np.float64]
    """Centers (n, 2) of the windows, in full-resolution pixels."""
    distance: NDArray[np.float64] | None
    """(n,): how far each lies from the training tissue; ``None`` where that is not asked for at this field of view."""


def measure_tissue(
    slide: Slide, frozen: FrozenEncoder, inputs: Inputs, novelty: Novelty | None = None, *, show: bool = False
) -> list[TissueFeatures]:
    """Measure mean and spread of the features over the tissue of a slide, and how unlike it is, at each field of view."""
    bases = {} if novelty is None else {basis.stage: basis for basis in novelty.stages}
    tissue = []
    for i, size in enumerate(inputs.fields_of_view):
        encoding = TissueEncoding(slide, frozen, size, flips=inputs.flips, spots=False)
        features = sweep(encoding, "Tissue", show=show)
        n, mean, spread = measure_moments(features)
        moments = Moments(n, torch.from_numpy(mean), torch.from_numpy(spread))
        tissue.append(TissueFeatures(moments, encoding.xy, bases[i].distance(features) if i in bases else None))
    return tissue


def distance_near(slide: Slide, tissue: Sequence[TissueFeatures]) -> NDArray[np.float64]:
    """Return the distance from the training tissue of the reference window that is next to each spot."""
    from scipy.spatial import cKDTree

    total = np.zeros(slide.n_spots)
    for part in tissue:
        if part.distance is not None:
            total += part.distance[cKDTree(part.xy).query(slide.xy)[1]]
    return total


def weights_by_stage(net: ClosedFormNet, moments: Sequence[Moments]) -> list[StageWeights]:
    """Turn the weights on scaled features into weights on the encoder's features, for a section of these moments."""
    stages, at = [], 0
    for scale, section in zip(net.scale, moments, strict=True):
        rows = net.shortcut.weight[at : at + len(section.mean)]
        mean, spread = scale.center(section)  # type: ignore[operator]
        stages.append(StageWeights(rows * (scale.share / spread * len(net.scale) ** -0.5).unsqueeze(1), mean))
        at += len(section.mean)
    return stages


def make_readout(weight: Tensor, frozen: FrozenEncoder) -> Readout:
    """Make the readout of weights (features of all windows, values)."""
    n_windows = 1 + len(AROUND_UM)
    return Readout(weight.reshape(n_windows, -1, weight.shape[1]).float().numpy(), frozen.maps.strides)


def read_scores(
    members: Sequence[nn.Module],
    slide: Slide,
    frozen: FrozenEncoder,
    inputs: Inputs,
    tissue: Sequence[TissueFeatures],
    *,
    show: bool = False,
) -> list[NDArray[np.float32]]:
    """Predict the program scores of each spot by each member, (n_spots, programs).

    The tissue at the reference windows, whose moments scale the weights, was read before; now it is read under the spots.
    """
    nets = [cast("ClosedFormNet", member) for member in members]
    moments = [part.moments for part in tissue]
    weights = [weights_by_stage(net, moments) for net in nets]
    ranks = [net.shortcut.weight.shape[1] for net in nets]
    total = np.zeros((slide.n_spots, sum(ranks)), dtype=np.float32)
    for i, size in enumerate(inputs.fields_of_view):
        readout = make_readout(torch.cat([each[i].weight for each in weights], dim=1), frozen)
        encoding = TissueEncoding(slide, frozen, size, slide.xy, flips=inputs.flips, readout=readout)
        total += sweep(encoding, "Prediction", show=show)
        total -= torch.cat([each[i].mean @ each[i].weight for each in weights]).numpy()
    return np.split(total, np.cumsum(ranks)[:-1], axis=1)
