"""What a model says about the spots of a section, all at once or a window after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from sthggep._inputs._windows import STATISTICS, network_inputs, window_size, windowed_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide
    from sthggep.nn import Output

Columns = NDArray[np.intp] | None


@dataclass(frozen=True)
class Ensemble:
    """Networks whose predictions are averaged, with what a forward pass needs to know of the model."""

    members: nn.ModuleList
    inputs: Inputs
    pitch_um: float | None
    """Microns between neighboring spots of the training sections."""
    on_scale: Callable[[Tensor, Columns], Tensor]
    """Turns outputs of the networks into predictions."""


class Predicted(NamedTuple):
    """What a model says about the spots of one section; ``None`` where it was not asked for."""

    expression: NDArray[np.float32]
    """``(n, genes)``, on the model's scale."""
    latent: NDArray[np.float32] | None = None
    """``(n, networks × dim)``: the fused features of all networks side by side."""
    counts: NDArray[np.float32] | None = None
    """``(n, genes)``: mean counts of a spot of median depth."""
    spread: NDArray[np.float32] | None = None
    """``(n, genes)``: standard deviation over the networks, of expression."""

    def of(self, rows: NDArray[np.intp]) -> Predicted:
        """Some of the spots."""
        return Predicted(*(None if values is None else values[rows] for values in self))  # type: ignore[arg-type]


def describe_windows(
    ensemble: Ensemble,
    slide: Slide,
    *,
    columns: Columns = None,
    latent: bool = False,
    counts: bool = False,
    spread: bool = False,
    window: int | str | None = "auto",
    encoder: FrozenEncoder | None,
    batch_size: int,
    device: torch.device,
    show: bool = False,
    halo: int | None = None,
    blocks: Path | None = None,
) -> Iterator[tuple[NDArray[np.intp], Predicted]]:
    """Spots of the section, and what the model says of them: all at once where they fit one window.

    ``halo`` leaves out steps of the network around a window; ``None`` leaves out none, and the windows do not show.
    ``blocks`` is a folder of finished blocks of features, which stay there.
    """
    net: Any = ensemble.members[0]
    size = window_size(ensemble.inputs, slide, window)
    asked: dict[str, Any] = {"latent": latent, "counts": counts, "spread": spread}
    options: dict[str, Any] = {"batch_size": batch_size, "show": show, "pitch_um": ensemble.pitch_um, "blocks": blocks}
    if size is None:
        neighbors = int(getattr(net, "n_neighbors", 1))
        given = network_inputs(slide, ensemble.inputs, encoder, n_neighbors=neighbors, **options)
        yield np.arange(slide.n_spots), describe_inputs(ensemble, given, device, columns, **asked)
        return
    with tempfile.TemporaryDirectory(prefix="sthggep-") as folder:
        options |= {"folder": Path(folder), "halo": halo, "members": list(ensemble.members)}
        parts = windowed_inputs(slide, ensemble.inputs, encoder, net, size, **options)
        for (rows, core), given in parts:
            yield rows[core], describe_inputs(ensemble, given, device, columns, **asked).of(core)


def gathered(parts: Iterable[tuple[NDArray[np.intp], Predicted]]) -> Predicted:
    """Windows put together, in the order of the section's spots."""
    rows, found = zip(*parts, strict=True)
    if len(found) == 1:
        whole: Predicted = found[0]
        return whole
    stacked = (None if kind[0] is None else np.concatenate(kind) for kind in zip(*found, strict=True))
    return Predicted(*stacked).of(np.argsort(np.concatenate(rows)))  # type: ignore[arg-type]


@torch.inference_mode()
def describe_inputs(
    ensemble: Ensemble,
    given: tuple[Any, ...],
    device: torch.device,
    columns: Columns = None,
    *,
    latent: bool = False,
    counts: bool = False,
    spread: bool = False,
) -> Predicted:
    """What the networks say of what they are fed."""
    given = move_data_to_device(given, device)
    found: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
    try:
        for number, member in enumerate(ensemble.members.to(device)):
            # Of a window, each network has the section's statistics on its own scale
            out: Output = member(*(part[number] if i == STATISTICS else part for i, part in enumerate(given)))
            expected = out.expected_counts() if counts else None
            found.append(
                (_chosen(out.expression, columns), out.latent if latent else None, _chosen(expected, columns))  # type: ignore[arg-type]
            )
    finally:
        ensemble.members.cpu()
    expression, latents, means = zip(*found, strict=True)
    stacked = ensemble.on_scale(torch.stack(expression), columns)
    return Predicted(
        _array(stacked.mean(dim=0)),
        _array(torch.cat(latents, dim=1)) if latent else None,
        _array(torch.stack(means).mean(dim=0)) if counts else None,
        _array(stacked.std(dim=0)) if spread else None,
    )


def _chosen(values: Tensor | None, columns: Columns) -> Tensor | None:
    """Some columns, in that order; ``None`` takes all."""
    if values is None or columns is None:
        return values
    return values[:, torch.from_numpy(columns).to(values.device)]


def _array(values: Tensor) -> NDArray[np.float32]:
    out: NDArray[np.float32] = values.float().cpu().numpy()
    return out
