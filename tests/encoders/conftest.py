"""A small slide and the encoder that comes with the package."""

from __future__ import annotations

import pytest
import torch

from sthggep import datasets
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._slides._resolve import resolve_one


@pytest.fixture(scope="module")
def slide():
    """A section of toy tissue."""
    return resolve_one(datasets.toy(seed=5, size_um=(1200.0, 1200.0), mpp=4.0, n_genes=4))


@pytest.fixture(scope="module")
def frozen() -> FrozenEncoder:
    """The encoder adapted to H&E."""
    return FrozenEncoder("shufflenet_he", None, torch.device("cpu"))
