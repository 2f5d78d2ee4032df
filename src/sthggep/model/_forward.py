"""Forward passes: predictions of a model's networks for the spots of a section, window by window."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from sthggep._inputs._stages import missing_sizes
from sthggep._inputs._windows import InputSource, window_size
from sthggep.model._closed_form_maps import distance_near, is_linear, measure_tissue, read_scores
from sthggep.nn._section import FeatureInputs

if TYPE_CHECKING:
    from torch import Tensor

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._compute import Compute
    from sthggep._inputs._inputs import Inputs
    from sthggep._inputs._windows import WindowInputs
    from sthggep._slides._slide import Slide
    from sthggep.model._novelty import Novelty
    from sthggep.nn import Output

Columns = NDArray[np.intp] | None


@dataclass(frozen=True)
class Ensemble:
    """Networks whose predictions are averaged, with the inputs and the scale of the model."""

    members: nn.ModuleList
    inputs: Inputs
    pitch_um: float | None
    """Microns between neighboring spots of the training sections."""
    on_scale: Callable[[Tensor, Columns], Tensor]
    """Turns outputs of the networks into predictions."""


class Predictions(NamedTuple):
    """Predictions for the spots of one section; ``None`` for quantities that are not requested."""

    expression: NDArray[np.float32]
    """``(n, genes)``, on the model's scale."""
    latent: NDArray[np.float32] | None = None
    """``(n, networks × dim)``: the fused features of all networks side by side."""
    counts: NDArray[np.float32] | None = None
    """``(n, genes)``: mean counts of a spot of median depth."""
    lower: NDArray[np.float32] | None = None
    """``(n, genes)``: lower end of the interval, on the model's scale."""
    upper: NDArray[np.float32] | None = None
    """``(n, genes)``: upper end of the interval, on the model's scale."""
    novelty: NDArray[np.float32] | None = None
    """``(n, 1)``: share of held-out training tissue whose image is less unusual."""

    def take(self, rows: NDArray[np.intp]) -> Predictions:
        """Return the predictions for some of the spots, in that order."""
        return Predictions(*(None if values is None else values[rows] for values in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Quantities:
    """Genes to predict, and quantities to predict beside the expression."""

    columns: Columns = None
    """Genes, as columns of the networks' outputs; ``None`` for all."""
    latent: bool = False
    counts: bool = False
    novelty: Novelty | None = None
    """What the image of the training tissue is like; ``None`` leaves out how unlike each spot is."""


def predict_windows(
    ensemble: Ensemble,
    slide: Slide,
    *,
    encoder: FrozenEncoder | None,
    compute: Compute,
    quantities: Quantities | None = None,
    window: int | str | None = "auto",
    halo: int | None = None,
    block_folder: Path | None = None,
) -> Iterator[tuple[NDArray[np.intp], Predictions]]:
    """Predict a section window by window, and yield spots with their predictions.

    Parameters
    ----------
    ensemble
        The networks.
    slide
        The section.
    encoder
        The frozen encoder; ``None`` if the networks read patches or ``obsm``.
    compute
        Device, batch size, progress.
    quantities
        Genes and quantities. Default: the expression of all genes.
    window
        Most spots of a window; ``"auto"`` is 5,000 for networks whose result does not change.
    halo
        Steps of the network that a window's halo covers; ``None`` covers all, and windows do not change the result.
    block_folder
        Folder that keeps finished blocks of features.
    """
    members, net = list(ensemble.members), ensemble.members[0]
    quantities = quantities or Quantities()
    most = window_size(ensemble.inputs, slide, window)
    linear = block_folder is None and all(map(is_linear, members))
    # Features that are there already need no encoder
    if most and encoder and linear and missing_sizes(slide, ensemble.inputs, encoder):
        yield from _predict_from_maps(ensemble, slide, encoder, compute, quantities, most)
        return
    source = InputSource(
        ensemble.inputs,
        encoder,
        net,
        compute,
        ensemble.pitch_um,
        members,
        window=window,
        halo=halo,
        block_folder=block_folder,
    )
    with tempfile.TemporaryDirectory(prefix="sthggep-") as folder:
        for part in source.windows(slide, Path(folder)):
            rows, core = part.window
            predictions = predict_window(ensemble, part, compute.device, quantities)
            yield rows[core], predictions if len(core) == len(rows) else predictions.take(core)


def _predict_from_maps(
    ensemble: Ensemble,
    slide: Slide,
    encoder: FrozenEncoder,
    compute: Compute,
    quantities: Quantities,
    most: int,
) -> Iterator[tuple[NDArray[np.intp], Predictions]]:
    """Predict a section by closed forms on feature maps, and yield ``most`` spots at a time."""
    columns, novelty, show = quantities.columns, quantities.novelty, compute.show_progress
    tissue = measure_tissue(slide, encoder, ensemble.inputs, novelty, show=show)
    scores = read_scores(list(ensemble.members), slide, encoder, ensemble.inputs, tissue, show=show)
    unlike = None if novelty is None else novelty.share_below(distance_near(slide, tissue))
    for first in range(0, slide.n_spots, most):
        rows = np.arange(first, min(first + most, slide.n_spots))
        parts = [torch.from_numpy(part[rows]) for part in scores]
        with torch.inference_mode():
            decoded = [
                member.programs(part, columns)  # type: ignore[operator]
                for member, part in zip(ensemble.members, parts, strict=True)
            ]
            stacked = ensemble.on_scale(torch.stack(decoded), columns)
        _refuse_non_finite(stacked)
        yield (
            rows,
            Predictions(
                _array(stacked.mean(dim=0)),
                _array(torch.cat(parts, dim=1)) if quantities.latent else None,
                novelty=None if unlike is None else unlike[rows, None],
            ),
        )


def gather(parts: Iterable[tuple[NDArray[np.intp], Predictions]]) -> Predictions:
    """Join the predictions of all windows in the order of the section's spots."""
    rows, predictions = zip(*parts, strict=True)
    if len(predictions) == 1:
        whole: Predictions = predictions[0]
        return whole
    stacked = (None if kind[0] is None else np.concatenate(kind) for kind in zip(*predictions, strict=True))
    return Predictions(*stacked).take(np.argsort(np.concatenate(rows)))  # type: ignore[arg-type]


@torch.inference_mode()
def predict_window(
    ensemble: Ensemble, window: WindowInputs, device: torch.device, quantities: Quantities
) -> Predictions:
    """Predict all spots of a window: the mean over the networks."""
    columns, unlike = quantities.columns, None
    if quantities.novelty is not None and isinstance(window.inputs, FeatureInputs):
        unlike = quantities.novelty.of_spots(window.inputs.features)[:, None]
    window = move_data_to_device(window, device)
    expressions, latents, means = [], [], []
    try:
        for number, member in enumerate(ensemble.members.to(device)):
            out: Output = member(*window.of_member(number))
            expressions.append(_columns_of(out.expression, columns))
            if quantities.latent:
                latents.append(out.latent)
            if quantities.counts and (expected := out.expected_counts()) is not None:
                means.append(_columns_of(expected, columns))
    finally:
        ensemble.members.cpu()
    stacked = ensemble.on_scale(torch.stack(expressions), columns)
    _refuse_non_finite(stacked)
    return Predictions(
        _array(stacked.mean(dim=0)),
        _array(torch.cat(latents, dim=1)) if latents else None,
        _array(torch.stack(means).mean(dim=0)) if means else None,
        novelty=unlike,
    )


def _refuse_non_finite(stacked: Tensor) -> None:
    """Refuse predictions that are no numbers, of finite weights that are far out of range."""
    broken = ~stacked.isfinite().all(dim=-1).all(dim=0)
    if bool(broken.any()):
        msg = (
            f"The networks predict NaN or infinity at {int(broken.sum())} of {len(broken)} spots: their weights, or the features "
            "of these spots, are out of range. Look at the features, or train the model again."
        )
        raise ValueError(msg)


def _columns_of(values: Tensor, columns: Columns) -> Tensor:
    """Select columns in that order; ``None`` selects all."""
    return values if columns is None else values[:, torch.from_numpy(columns).to(values.device)]


def _array(values: Tensor) -> NDArray[np.float32]:
    out: NDArray[np.float32] = values.float().cpu().numpy()
    return out
