"""A training, checked and ready to be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from sthggep._inputs._compute import Compute
    from sthggep._inputs._section import SectionWindow
    from sthggep._slides._slide import Slide
    from sthggep._table._targets import Targets
    from sthggep._training._presets import Preset
    from sthggep.model import HGGEP


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained, beside its preset."""

    compute: Compute
    validation: str | Sequence[str] | None = "auto"
    """What is held out; see :func:`sthggep.tl.fit`."""
    weights: str | Path | None = None
    """Weights of the image encoder."""
    layer: str | None = None
    """Layer of the raw counts."""
    window: int | str | None = "auto"
    """Most spots of a training sample."""
    trainer_kwargs: Mapping[str, Any] | None = None
    checkpoint_dir: str | Path | None = None
    """Folder of a training that may be interrupted and resumed."""


@dataclass(frozen=True)
class TrainingTask:
    """What a model is trained on, and how."""

    slides: Sequence[Slide]
    genes: Sequence[str]
    preset_name: str
    preset: Preset
    options: TrainingOptions
    parent: HGGEP | None = None
    """The model to fine-tune."""
    extra_sections: Sequence[Slide] = ()
    """Sections whose counts alone are used."""
    targets: Targets | None = None
    """What is predicted instead of genes."""

    @property
    def n_members(self) -> int:
        """Number of networks."""
        return self.preset.n_members


class BeginNetwork(Protocol):
    """Makes the network of one member of the ensemble from its training windows."""

    def __call__(self, preset: Preset, member: int, windows: Sequence[SectionWindow]) -> nn.Module:
        """A network of this preset, started from these windows."""
