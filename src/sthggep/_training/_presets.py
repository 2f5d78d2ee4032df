"""Presets of `tl.fit`: inputs, network and recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sthggep._encoders._entry import AROUND_UM
from sthggep._inputs._inputs import Inputs

# For features of unit norm: from almost no ridge to one that leaves only the strongest effects
PENALTIES = tuple(float(penalty) for penalty in np.geomspace(0.03, 100, 15).round(3))

ON_TISSUE = {"linear": True, "n_windows": 1 + len(AROUND_UM)}  # options of a network on features of the tissue
ON_SPOTS = {"linear": False, "n_windows": 1}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: weights of the losses, optimizer, schedule, choices on held-out tissue."""

    max_epochs: int
    """Most epochs."""
    learning_rate: float
    """Learning rate of AdamW at the start."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    patience: int = 20
    """Epochs without a better held-out correlation before training stops."""
    step_epochs: int | None = None
    """Epochs between reductions of the learning rate; ``None`` keeps it constant."""
    step_factor: float = 0.9
    """Factor of each reduction of the learning rate."""
    mse: float = 1.0
    """Weight of the squared error of the expression."""
    correlation: float = 0.0
    """Weight of 1 - the mean correlation of the genes within a section."""
    count_nll: float = 0.0
    """Weight of the negative log-likelihood of the counts, for networks with a count head."""
    distillation: float = 0.0
    """Weight of the squared distance to the prediction of augmented copies."""
    n_copies: int = 5
    """Augmented copies of a section, for self-distillation."""
    clip: float | None = None
    """Largest norm of the gradients; ``None`` does not clip."""
    precision: str = "32-true"
    """Precision of Lightning's trainer; ``"auto"`` is bfloat16 on devices where it is clearly faster."""
    min_steps: int = 1
    """Fewest steps of an epoch; fewer windows are split where they are large, and repeated."""
    penalties: tuple[float, ...] = PENALTIES
    """Candidate ridge penalties, compared on held-out tissue."""
    shares: tuple[float, ...] = (0.0, 0.25)
    """Candidate shares of the networks in the prediction, compared on held-out tissue.

    The largest is 25 %: networks overfit few patients more than a ridge does, and early stopping used the same tissue,
    which favors the networks."""
    default_share: float = 0.25
    """Share of the networks if nothing is held out."""


@dataclass(frozen=True)
class Preset:
    """Inputs, network and recipe of a training."""

    inputs: Inputs
    """Patches, encoder features or keys of ``obsm``."""
    network: str
    """Name of the network's class: ``"FeatureHGGEPNet"`` or ``"HGGEPNet"``."""
    recipe: Recipe
    """Losses, optimizer and schedule."""
    n_members: int = 1
    """Number of networks whose predictions are averaged."""
    net: dict[str, Any] = field(default_factory=dict)
    """Options of the network's constructor."""


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
        inputs=Inputs(
            "features",
            encoder="shufflenet_he",
            sizes_um=(80.0, 160.0, 320.0, 640.0),
            size_px=224,
            flips=False,
            encoding="tissue",
        ),
        network="FeatureHGGEPNet",
        recipe=Recipe(max_epochs=40, learning_rate=1e-3, weight_decay=0.05, patience=10, min_steps=4),
        net={"blocks": (48, 96, 192, 1024), "depth": 0, "rank": 12, "penalty": 1.0, **ON_TISSUE},
        n_members=5,
    ),
}
