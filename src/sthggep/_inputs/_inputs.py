"""What a model takes from a slide."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sthggep._checks import listing


@dataclass(frozen=True)
class Inputs:
    """What a model looks at: patches end to end, features of a frozen encoder, or arrays that are in ``obsm``.

    ``sizes_um`` holds one field of view a stage; patches take the first, and ``None`` there means pixels as published.
    ``stain`` names a normalization; what it was fitted to is in the record of the training.
    """

    kind: str
    sizes_um: tuple[float | None, ...] = (None,)
    size_px: int = 112
    encoder: str = "shufflenet"
    flips: bool = True
    obsm: tuple[str, ...] = ()
    reference: bool = False
    stain: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Inputs:
        """Back from JSON."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def __str__(self) -> str:
        sizes = ", ".join(f"{size:g} µm" if size else f"{self.size_px} px" for size in self.sizes_um)
        looks = {"patches": f"patches of {sizes}", "features": f"{self.encoder} features of {sizes}"}
        found = looks.get(self.kind, f"obsm {listing(self.obsm)}")
        return found if self.stain is None else f"{found}, stain normalized ({self.stain})"

    @property
    def needs_image(self) -> bool:
        """Whether the slide's image is looked at."""
        return self.kind != "obsm"
