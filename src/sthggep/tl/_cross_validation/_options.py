"""Options of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sthggep._checks import gene_list, one_of, unique
from sthggep._disk._run_folder import plain
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._table._mixed_panels import UNION
from sthggep._training._choices import Choices, find_preset, with_choices, without_counts
from sthggep._training._refusals import MASK, read_genes, refuse_gene_options, refuse_training_options
from sthggep.tl._cross_validation._baselines import BASELINES, NEED_FEATURES

if TYPE_CHECKING:
    from sthggep._training._presets import Preset
    from sthggep._training._task import TrainingOptions

VALIDATIONS = ("auto", "sections", "patients", "blocks")


@dataclass(frozen=True)
class Options:
    """Options of every fold: panel, preset, baselines, training."""

    group_key: str
    genes: list[str] | None
    """The panel; ``None`` if each fold chooses its own."""
    preset_name: str
    preset: Preset
    baselines: tuple[str, ...]
    training: TrainingOptions
    targets: str | list[str] | None = None
    """What is predicted instead of genes, as the user passed it."""
    intervals: tuple[float, ...] = ()
    """Levels of the intervals whose coverage is measured."""
    trust: bool = False
    """Whether verdicts are compared with the held-out sections."""
    mixed: bool = False
    """Whether sections may lack genes."""

    @classmethod
    def of(
        cls,
        group_key: str,
        genes: str | Sequence[str] | None,
        preset: str | Preset,
        choices: Choices,
        baselines: str | Sequence[str],
        training: TrainingOptions,
        targets: str | Sequence[str] | None = None,
        interval: float | Sequence[float] | None = None,
        *,
        trust: bool = False,
        absent: str = "refuse",
    ) -> Options:
        """Check the options of a call and combine preset and choices."""
        baselines = [baselines] if isinstance(baselines, str) else list(baselines)
        for name in baselines:
            one_of(name, BASELINES, "baseline")
        unique(baselines, "`baselines`", "Name each once.")
        if training.validation is not None:
            one_of(str(training.validation), VALIDATIONS, "`validation` (or None)")
        refuse_training_options(training)
        levels = _check_intervals(interval, training.validation)
        if trust and training.validation is None:
            msg = (
                "`trust` needs tissue that each fold holds out of its training, but `validation` is None. Leave it out."
            )
            raise ValueError(msg)
        preset_name, content = find_preset(preset)
        if targets is not None:
            refuse_gene_options(genes=genes, layer=training.layer)
            content = without_counts(content)
            targets = targets if isinstance(targets, str) else [str(name) for name in targets]
        content = with_choices(content, choices)
        genes, mixed = read_genes(genes, absent)
        panel = None if genes is None else gene_list(genes)
        return cls(group_key, panel, preset_name, content, tuple(baselines), training, targets, levels, trust, mixed)

    def parameters(self) -> dict[str, object]:
        """All options in plain types; weights by their content, not by their path."""
        options = self.training
        training = {name: plain(getattr(options, name)) for name in ("validation", "layer", "window", "trainer_kwargs")}
        return {
            "group_key": self.group_key,
            "genes": UNION if self.genes is None and self.mixed else self.genes,
            **({"absent": MASK} if self.genes is not None and self.mixed else {}),
            "targets": self.targets,
            "preset": self.preset_name,
            "baselines": list(self.baselines),
            "interval": list(self.intervals),
            "trust": self.trust,
            **training,
            "seed": options.compute.seed,
            **{name: plain(value) for name, value in asdict(self.preset).items()},
            "encoder_weights": self.encoder_weights,
        }

    @cached_property
    def encoder_weights(self) -> str | None:
        """Short name of the encoder's weights; ``None`` if the model reads features from ``obsm``."""
        if self.preset.inputs.kind == "obsm":
            return None
        return FrozenEncoder(self.preset.inputs.encoder, self.training.weights).weights

    @property
    def reads_features(self) -> bool:
        """Whether a baseline reads features."""
        return any(name in NEED_FEATURES for name in self.baselines)

    @property
    def borrows_features(self) -> bool:
        """Whether baselines read features of the default preset, since the model reads patches."""
        return self.preset.inputs.kind == "patches" and self.reads_features


def _check_intervals(
    interval: float | Sequence[float] | None, validation: str | Sequence[str] | None
) -> tuple[float, ...]:
    """Return the levels, each once and ascending; refuse them where no tissue is held out, by which to calibrate."""
    if interval is None:
        return ()
    levels = tuple(sorted({float(level) for level in np.atleast_1d(interval)}))
    if not levels:
        msg = "`interval` is empty. Pass a level such as 0.9, several, or leave `interval` out."
        raise ValueError(msg)
    if validation is None:
        msg = (
            "`interval` needs tissue that each fold holds out of its training, but `validation` is None. "
            "Pass `validation='auto'`."
        )
        raise ValueError(msg)
    return levels
