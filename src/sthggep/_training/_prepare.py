"""Inputs of the networks of a training, made once from images and positions."""

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


class Prepared(NamedTuple):
    """Inputs of the networks for each slide (no counts are in them), and the encoder behind them."""

    windows: list[list[WindowInputs]]
    """Windows of each slide: one of a slide that is read whole."""
    encoder: FrozenEncoder | None

    def at(self, chosen: Sequence[int]) -> Prepared:
        """The same for some of the slides."""
        return Prepared([self.windows[i] for i in chosen], self.encoder)


def prepare(
    slides: Sequence[Slide],
    preset: Preset,
    options: TrainingOptions,
    *,
    parent: HGGEP | None = None,
    folder: Path | None = None,
    blocks: Path | None = None,
) -> Prepared:
    """Read what the networks are fed.

    Parameters
    ----------
    slides
        Sections.
    preset
        What is read of them, for which network.
    options
        How it is computed; ``window`` is the most spots of a window.
    parent
        The model to fine-tune, whose encoder and network are used.
    folder
        Where features of sections of several windows are written; ``None`` reads all sections whole.
    blocks
        Folder of finished blocks of features, which stay there.
    """
    from sthggep._inputs._windows import InputSource, store_windows
    from sthggep._training._networks import shape_of

    compute = options.compute
    encoder = parent.encoder(device=str(compute.device)) if parent else None
    if parent is None and preset.inputs.kind == "features":
        encoder = FrozenEncoder(preset.inputs.encoder, options.weights, compute.device)
    net = parent.members[0] if parent else shape_of(preset)
    source = InputSource(preset.inputs, encoder, net, compute, window=options.window, blocks=blocks)
    windows = [
        store_windows(source, slide, None if folder is None else folder / str(number))
        for number, slide in enumerate(slides)
    ]
    return Prepared(windows, encoder)
