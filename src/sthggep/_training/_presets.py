"""What `tl.fit(preset=...)` stands for: what is looked at, by which network, trained how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sthggep._inputs._inputs import Inputs

# For features whose squares add up to one a spot: from hardly any ridge to one that leaves the strongest effects only
PENALTIES = tuple(float(penalty) for penalty in np.geomspace(0.1, 100, 13).round(3))


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: weights of the losses, optimizer, length."""

    max_epochs: int
    learning_rate: float
    weight_decay: float = 0.0
    patience: int = 20
    step_epochs: int | None = None
    step_factor: float = 0.9
    mse: float = 1.0
    correlation: float = 0.0
    count_nll: float = 0.0
    distillation: float = 0.0
    n_copies: int = 5
    clip: float | None = None
    precision: str = "32-true"
    min_steps: int = 1
    penalties: tuple[float, ...] = PENALTIES
    """Ridge penalties that are tried on held-out tissue."""
    shares: tuple[float, ...] = (0.0, 0.25)
    """Shares of the networks in the prediction that are tried on held-out tissue. A quarter at most: networks overfit few
    patients more than a ridge does, and that tissue also stopped their training, which flatters them."""
    default_share: float = 0.25
    """Share of the networks where nothing is held out to choose on."""


@dataclass(frozen=True)
class Preset:
    """One way to train."""

    inputs: Inputs
    network: str
    recipe: Recipe
    n_members: int = 1
    net: dict[str, Any] = field(default_factory=dict)


PRESETS = {
    # Sizes and losses as published; bfloat16 only where it is faster
    "paper": Preset(
        inputs=Inputs("patches", size_px=112),
        network="HGGEPNet",
        recipe=Recipe(
            max_epochs=350,
            learning_rate=1e-5,
            patience=50,
            step_epochs=50,
            step_factor=0.9,
            count_nll=0.25,
            distillation=0.5,
            precision="auto",
        ),
    ),
    "default": Preset(
        inputs=Inputs("features", encoder="shufflenet_he", sizes_um=(80.0, 160.0, 320.0, 640.0), size_px=224),
        network="FeatureHGGEPNet",
        recipe=Recipe(max_epochs=40, learning_rate=1e-3, weight_decay=0.05, patience=10, min_steps=4),
        net={"blocks": (48, 96, 192, 1024), "depth": 0, "rank": 12, "penalty": 1.0},
        n_members=5,
    ),
}
