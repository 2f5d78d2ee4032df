"""The record of a training in a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class TrainingRecord:
    """Sections, options and held-out results of a training, in plain types; lists over sections have one entry each."""

    sections: list[str] = field(default_factory=list)
    """Names of the training sections."""
    n_spots: list[int] = field(default_factory=list)
    """Spots that the training used: of a partly measured slide the measured ones."""
    mpp: list[float | None] = field(default_factory=list)
    """Microns per full-resolution pixel."""
    pitch_um: list[float | None] = field(default_factory=list)
    """Microns between neighboring spots."""
    image_mpp: list[float | None] = field(default_factory=list)
    """Microns per pixel of the finest image level; after fine-tuning, those of the earlier training come first."""
    fingerprints: list[dict[str, Any]] = field(default_factory=list)
    """Fingerprints by which a training section is recognized; after fine-tuning, the earlier ones come first."""
    colors: list[dict[str, Any]] = field(default_factory=list)
    """Tissue colors; after fine-tuning, the earlier ones come first."""
    validation: list[str] = field(default_factory=list)
    """Held-out tissue of each network."""
    seed: int | None = None
    encoder_weights: str | None = None
    """Short name of the weights of the frozen encoder."""
    ceiling: list[float] | None = None
    """Noise ceiling of each gene, its mean over the training sections."""
    held_out_pearson: list[float | None] | None = None
    """Mean correlation of each gene on the tissue that the networks held out."""
    calibrated_on: list[str] = field(default_factory=list)
    """Sections whose held-out predictions calibrated the intervals."""
    gene_n_sections: list[int] = field(default_factory=list)
    """Training sections that measured each gene; empty if all of them measured all genes."""
    gene_n_spots: list[int] = field(default_factory=list)
    """Training spots in which each gene was measured; likewise."""
    scaled_by: str | None = None
    """``"all"`` if expression is scaled by all counts of a spot, since the panel is small; ``None`` for the panel's counts."""
    stain: dict[str, object] | None = None
    """Stain that slides are normalized to."""
    targets: dict[str, Any] | None = None
    """Location of targets that are not genes, with their mean and standard deviation."""
    gene_sets: dict[str, list[str]] = field(default_factory=dict)
    """Gene sets of which the model knows how well it predicts them, with their genes among the panel."""
    expression: list[str] = field(default_factory=list)
    """Extra sections, of which the training read only the counts."""
    obsm_columns: dict[str, list[str] | None] = field(default_factory=dict)
    """Column names of the user's features."""
    model: str | None = None
    """Id of the model that was fine-tuned."""
    model_sections: list[str] = field(default_factory=list)
    """Training sections of that model and of those before it."""

    @property
    def all_counts(self) -> bool:
        """Whether expression is scaled by all counts of a spot."""
        return self.scaled_by is not None

    @property
    def all_sections(self) -> list[str]:
        """All sections that the model was trained on, before and during fine-tuning."""
        return [*self.model_sections, *self.sections]

    def to_dict(self) -> dict[str, object]:
        """Return the fields in plain types, for JSON, without empty entries."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value not in ([], {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingRecord:
        """Make the record from what :meth:`to_dict` returned."""
        return cls(**values)
