"""What the networks of a training are fed, made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._slides._slide import Slide
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP


class Prepared(NamedTuple):
    """What the networks are fed of each slide (no counts are in it), and the encoder behind it.

    Of a slide that is gone through in windows, their list stands in place of the tensors.
    """

    inputs: list[Any]
    encoder: FrozenEncoder | None

    def at(self, chosen: Sequence[int]) -> Prepared:
        """The same of some of the slides."""
        return Prepared([self.inputs[i] for i in chosen], self.encoder)


def prepare(
    slides: Sequence[Slide],
    preset: Preset,
    weights: str | Path | None,
    *,
    batch_size: int,
    device: torch.device,
    show: bool,
    parent: HGGEP | None = None,
    window: int | str | None = None,
    folder: Path | None = None,
    blocks: Path | None = None,
) -> Prepared:
    """What the networks are fed, from images and positions alone; that of windows is kept in ``folder``.

    ``blocks`` is a folder of finished blocks of features, which stay there, of sections in windows.
    """
    from sthggep._encoders._frozen import FrozenEncoder
    from sthggep._inputs._windows import kept_windows, network_inputs, window_size
    from sthggep._training._networks import shape_of

    encoder = parent.encoder(device=str(device)) if parent else None
    if parent is None and preset.inputs.kind == "features":
        encoder = FrozenEncoder(preset.inputs.encoder, weights, device)

    # What prediction asks the network for; networks on patches find their neighbors themselves
    neighbors = int(preset.net.get("n_neighbors", 1))
    options: dict[str, Any] = {"batch_size": batch_size, "show": show}
    inputs: list[Any] = []
    for number, slide in enumerate(slides):
        size = window_size(preset.inputs, slide, window)
        if size is None or folder is None:
            inputs.append(network_inputs(slide, preset.inputs, encoder, n_neighbors=neighbors, **options))
        else:
            net = parent.members[0] if parent else shape_of(preset)
            kept = folder / str(number)
            inputs.append(kept_windows(kept, slide, preset.inputs, encoder, net, size, blocks=blocks, **options))
    return Prepared(inputs, encoder)
