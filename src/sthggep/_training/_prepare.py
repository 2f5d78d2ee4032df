"""Network inputs of the training sections, made once from images and positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sthggep._encoders._frozen import FrozenEncoder

if TYPE_CHECKING:
    from sthggep._inputs._windows import WindowInputs
    from sthggep._slides._slide import Slide
    from sthggep._training._presets import Preset
    from sthggep._training._task import TrainingOptions
    from sthggep.model import HGGEP


class PreparedInputs(NamedTuple):
    """Network inputs of each slide, without counts, and the encoder that computed them."""

    windows: list[list[WindowInputs]]
    """Windows of each slide; one if the slide is read whole."""
    encoder: FrozenEncoder | None

    def subset(self, numbers: Sequence[int]) -> PreparedInputs:
        """Return the inputs of some of the slides."""
        return PreparedInputs([self.windows[number] for number in numbers], self.encoder)


def prepare(
    slides: Sequence[Slide],
    preset: Preset,
    options: TrainingOptions,
    *,
    parent: HGGEP | None = None,
    folder: Path | None = None,
    block_folder: Path | None = None,
) -> PreparedInputs:
    """Make the network inputs of the slides.

    Parameters
    ----------
    slides
        Sections.
    preset
        Inputs and network.
    options
        Device, batch size, weights of the encoder; ``window`` is the most spots of a window.
    parent
        The model to fine-tune, whose encoder and network are used.
    folder
        Folder for the features of sections of several windows; ``None`` reads all sections whole.
    block_folder
        Folder that keeps finished blocks of features.
    """
    from sthggep._inputs._windows import InputSource, store_windows
    from sthggep._training._networks import network_without_weights

    compute = options.compute
    encoder = parent.encoder(device=str(compute.device)) if parent else None
    if parent is None and preset.inputs.kind == "features":
        encoder = FrozenEncoder(preset.inputs.encoder, options.weights, compute.device)
    net = parent.members[0] if parent else network_without_weights(preset)
    source = InputSource(preset.inputs, encoder, net, compute, window=options.window, block_folder=block_folder)
    windows = [
        store_windows(source, slide, None if folder is None else folder / str(number))
        for number, slide in enumerate(slides)
    ]
    return PreparedInputs(windows, encoder)
