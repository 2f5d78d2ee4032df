"""A checked training task: slides, genes, preset and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sthggep._slides._measured import measured_alone

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sthggep._inputs._compute import Compute
    from sthggep._inputs._section import SectionWindow
    from sthggep._slides._slide import Slide
    from sthggep._table._targets import Targets
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training that are not part of the preset."""

    compute: Compute
    validation: str | Sequence[str] | None = "auto"
    """Held-out tissue; see :func:`sthggep.tl.fit`."""
    weights: str | Path | None = None
    """Weights of the image encoder."""
    layer: str | None = None
    """Layer of the raw counts; ``None`` searches for them."""
    window: int | str | None = "auto"
    """Most spots that a window predicts."""
    trainer_kwargs: Mapping[str, object] | None = None
    """Options of Lightning's ``Trainer``."""
    checkpoint_dir: str | Path | None = None
    """Folder of the checkpoints of a training that may be interrupted."""


@dataclass(frozen=True)
class TrainingTask:
    """Slides, outputs, preset and options of a training."""

    slides: Sequence[Slide]
    genes: Sequence[str]
    preset_name: str
    preset: Preset
    options: TrainingOptions
    parent: HGGEP | None = None
    """The model to fine-tune."""
    extra_sections: Sequence[Slide] = ()
    """Sections of which the training reads only the counts."""
    targets: Targets | None = None
    """Targets that replace genes."""
    gene_sets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Gene sets to judge, with their genes among ``genes``."""
    measured: Sequence[NDArray[np.bool_] | None] = ()
    """Spots of each slide whose counts may be used; ``None`` for all, and nothing for all of all slides."""
    min_counts: int = 1
    """Fewest counts of a spot to learn from."""
    mixed: bool = False
    """Whether slides may lack genes; they teach the genes that they hold."""
    all_counts: bool = False
    """Whether expression is scaled by all counts of a spot, since the panel is small."""

    def measured_of(self, number: int) -> NDArray[np.bool_] | None:
        """Spots of a slide whose counts may be used; ``None`` for all."""
        return self.measured[number] if self.measured else None

    def slides_of_counts(self) -> list[Slide]:
        """Return the slides with the spots alone whose counts may be used."""
        return measured_alone(self.slides, self.measured)

    @property
    def n_members(self) -> int:
        """Number of networks."""
        return self.preset.n_members

    @property
    def most_networks(self) -> int:
        """Most networks that the training may train: 0 if it solves the closed form alone."""
        if self.preset.network != "HGGEPNet" and (self.parent is not None or max(self.preset.recipe.shares) == 0):
            return 0
        return self.n_members


class NetworkFactory(Protocol):
    """A function that makes the network of one member of the ensemble from its training windows."""

    def __call__(self, preset: Preset, member: int, windows: Sequence[SectionWindow]) -> nn.Module:
        """Make a network of this preset and start it from these windows."""
