"""What carries a prediction: its parts by field of view, and what each piece of the tissue adds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor

from sthggep._encoders._encode import sweep
from sthggep._encoders._readout import Readout
from sthggep._encoders._tissue import TissueEncoding
from sthggep._inputs._windows import InputSource
from sthggep.model._closed_form_maps import StageWeights, measure_tissue, weights_by_stage
from sthggep.nn import ClosedFormNet, FeatureHGGEPNet

if TYPE_CHECKING:
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._compute import Compute
    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP
    from sthggep.nn._stages import Moments

Floats = NDArray[np.float32]


class Target(NamedTuple):
    """The gene or the program whose prediction is split."""

    gene: int | None
    program: int | None

    def direction(self, net: ClosedFormNet) -> Tensor:
        """Weight of each program score in the target, ``(rank,)``."""
        if self.gene is None:
            return torch.eye(len(net.programs.damp))[cast("int", self.program)]
        programs = net.programs
        return programs.spread[self.gene] * programs.damp * programs.loadings[:, self.gene]

    def mean(self, net: ClosedFormNet) -> Tensor:
        """What the network predicts for the mean tissue of a section."""
        return torch.zeros(()) if self.gene is None else net.programs.mean[self.gene]


class Parts(NamedTuple):
    """Parts of the prediction of each spot, which add up to it."""

    stages: Floats
    """(n_spots, stages, 2): of the spot's own field of view, and of what is around it."""
    mean: Floats
    """(n_spots,)."""
    network: Floats
    """(n_spots,): the share of the networks."""
    moments: Sequence[Moments] | None = None
    """Of the tissue, by which the features were scaled; ``None`` for features of spots."""


@torch.inference_mode()
def split_prediction(
    model: HGGEP, slide: Slide, target: Target, encoder: FrozenEncoder | None, compute: Compute
) -> Parts:
    """Split the prediction of each spot of a section."""
    nets = [cast("ClosedFormNet", member) for member in model.members]
    n_stages = len(nets[0].feature_dims)
    moments: Sequence[Moments] | None = None
    out = Parts(np.zeros((slide.n_spots, n_stages, 2), np.float32), *np.zeros((2, slide.n_spots), np.float32))
    offset, factor = scale_of(model, target)
    source = InputSource(model.inputs, encoder, nets[0], compute, model.pitch_um, nets)
    with tempfile.TemporaryDirectory(prefix="sthggep-") as folder:
        for window in source.windows(slide, Path(folder)):
            window = move_data_to_device(window, torch.device("cpu"))
            rows, core = window.window
            for number, net in enumerate(nets):
                inputs = window.of_member(number)
                blend = share_of(net)
                stages = (1 - blend) * net.parts(inputs, target.direction(net))
                mean = target.mean(net).expand(len(rows))
                network = torch.zeros(len(rows))
                if blend:  # programs of networks differ, so the target is a gene
                    network = net(*inputs).expression[:, target.gene] - stages.sum(dim=(1, 2)) - mean
                at = rows[core]
                out.stages[at] += (factor * stages[core] / len(nets)).numpy()
                out.mean[at] += ((factor * mean[core] + offset) / len(nets)).numpy()
                out.network[at] += (factor * network[core] / len(nets)).numpy()
                if model.inputs.encoding == "tissue":
                    moments = inputs.statistics.stages
    return out._replace(moments=moments)


def share_of(net: ClosedFormNet) -> float:
    """Share of the network in a prediction; the closed form has the rest."""
    return float(net.blend) if isinstance(net, FeatureHGGEPNet) else 0.0


def scale_of(model: HGGEP, target: Target) -> tuple[float, float]:
    """Offset and factor from a network's output to the scale of the prediction."""
    if target.gene is None:
        return 0.0, 1.0
    zero, one = model.on_scale(torch.tensor([[0.0], [1.0]]), np.array([target.gene])).flatten().tolist()
    return zero, one - zero


def map_tissue(
    model: HGGEP,
    slide: Slide,
    target: Target,
    encoder: FrozenEncoder,
    *,
    centers: NDArray[np.float64],
    size_um: float,
    moments: Sequence[Moments] | None = None,
    show: bool = False,
) -> Floats:
    """What the tissue in squares of ``size_um`` adds by the closed form, (stages, n_squares).

    The weights of all windows of a field of view are added up: the value is for a spot all of whose windows look like the
    square.

    Parameters
    ----------
    centers
        Centers (x, y) of the squares in full-resolution pixels.
    moments
        Of the section's tissue. Default: the function measures them.
    """
    nets = [cast("ClosedFormNet", member) for member in model.members]
    moments = moments or [part.moments for part in measure_tissue(slide, encoder, model.inputs, show=show)]
    weights = [weights_by_stage(net, moments) for net in nets]
    _, factor = scale_of(model, target)
    values = []
    for i, size in enumerate(model.inputs.fields_of_view):
        total, constant = _add_windows(nets, [stage[i] for stage in weights], target)
        readout = Readout(total.float().numpy()[None, :, None], encoder.maps.strides)
        encoding = TissueEncoding(
            slide, encoder, size, centers, flips=model.inputs.flips, windows_um=(size_um,), readout=readout
        )
        values.append(factor * (sweep(encoding, "Attribution", show=show)[:, 0] - constant))
    return np.stack(values)


def _add_windows(nets: Sequence[ClosedFormNet], stages: Sequence[StageWeights], target: Target) -> tuple[Tensor, float]:
    """Weights of the target on the encoder's features, of all windows together, and what mean tissue adds."""
    total, constant = torch.zeros(()), 0.0
    for net, stage in zip(nets, stages, strict=True):
        column = (1 - share_of(net)) * (stage.weight @ target.direction(net)) / len(nets)
        total = total + column.reshape(net.n_windows, -1).sum(dim=0)
        constant += float(stage.mean @ column)
    return total, constant
