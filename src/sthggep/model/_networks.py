"""Networks of a saved model, built from the record of their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sthggep import nn as nets

NETWORKS: dict[str, type[nn.Module]] = {"HGGEPNet": nets.HGGEPNet, "FeatureHGGEPNet": nets.FeatureHGGEPNet}


def build_network(entry: Mapping[str, Any]) -> nn.Module:
    """Build a network from its class name and options, without changing the state of torch's generator."""
    with torch.random.fork_rng(devices=[]):
        return NETWORKS[entry["class"]](**entry["config"])
