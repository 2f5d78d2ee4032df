"""Models of earlier formats: what they called differently, and how their id was computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sthggep._encoders._weights import hash_weights

if TYPE_CHECKING:
    from torch import Tensor

# Names that formats before 3 used, in the tensors and in the record of the training
OLD_TENSOR_NAMES = {".programmes.": ".programs."}
OLD_TRAINING_NAMES = {"colours": "colors", "marks": "fingerprints"}


def upgrade(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Rename what a format before 3 wrote, and drop its id, which was computed from the old names."""
    training = {OLD_TRAINING_NAMES.get(name, name): value for name, value in dict(config.get("training", {})).items()}
    for old, new in OLD_TENSOR_NAMES.items():
        tensors = {name.replace(old, new): value for name, value in tensors.items()}
    return {**config, "training": training, "id": None}, tensors


def former_id(config: Mapping[str, Any], members: Mapping[str, Tensor], encoder: Mapping[str, Tensor]) -> str:
    """Compute the id of a model of format 3, which covered weights, genes, targets and stain."""
    training = config["training"]
    name = training.get("encoder_weights") if config["inputs"]["kind"] == "features" else None
    content = [hash_weights(dict(members)), hash_weights(dict(encoder)) if encoder else name or hash_weights({})]
    content += config["genes"]
    content += [repr(training[key]) for key in ("targets", "stain") if training.get(key) is not None]
    return f"hggep-{config['preset']}-{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"
