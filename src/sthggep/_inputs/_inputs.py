"""The inputs that a model reads from a slide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sthggep._checks import listing


@dataclass(frozen=True)
class Inputs:
    """The inputs that a model reads: image patches, features of a frozen encoder, or arrays of ``obsm``."""

    kind: str
    """``"patches"``, ``"features"`` or ``"obsm"``."""
    sizes_um: tuple[float | None, ...] = (None,)
    """Fields of view in microns, one a stage. Patches have one; ``None`` is ``size_px`` full-resolution pixels."""
    size_px: int = 112
    """Side of a patch in pixels, as the network or the encoder reads it."""
    encoder: str = "shufflenet"
    """Name of the frozen encoder."""
    flips: bool = True
    """Whether features are means over the four flips of each patch, or over all turns and flips of each tile."""
    encoding: str = "patches"
    """Whether the encoder reads ``"patches"`` or the ``"tissue"`` in large tiles."""
    obsm: tuple[str, ...] = ()
    """Keys of the user's features, one a stage."""
    reference: bool = False
    """Whether the published network reads absolute array positions."""
    stain: str | None = None
    """Method of the stain normalization; the record of the training holds the target stain."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in plain types, for JSON."""
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if self.encoding == "patches":
            # Models on patches keep the id that they had before there was a choice
            del fields["encoding"]
        return fields

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inputs:
        """Make the inputs from what :meth:`to_dict` returned."""
        tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **tuples})

    def __str__(self) -> str:
        sizes = ", ".join(f"{size:g} µm" if size else f"{self.size_px} px" for size in self.sizes_um)
        once = " (tissue encoded once)" if self.encoding == "tissue" else ""
        by_kind = {"patches": f"patches of {sizes}", "features": f"{self.encoder} features of {sizes}{once}"}
        text = by_kind.get(self.kind, f"obsm {listing(self.obsm)}")
        return text if self.stain is None else f"{text}, stain normalized ({self.stain})"

    @property
    def fields_of_view(self) -> list[float]:
        """Fields of view in microns, without those in pixels."""
        return [size for size in self.sizes_um if size is not None]

    @property
    def needs_image(self) -> bool:
        """Whether the model reads the slide's image."""
        return self.kind != "obsm"
