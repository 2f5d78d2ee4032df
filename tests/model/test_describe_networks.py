"""Words for what predicts: true for every share of the networks."""

from __future__ import annotations

import pytest
import torch

from sthggep.model._networks import describe_networks
from sthggep.nn import FeatureHGGEPNet


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((1.0, 1.0), "2 networks, 0.0 M weights"),
        ((0.25, 0.25), "2 networks (share 0.25, the closed form has the rest), 0.0 M weights"),
        ((0.0, 0.0), "closed form; 2 networks without a share, 0.0 M weights"),
    ],
)
def test_the_share_of_networks_is_said(shares, words):
    members = torch.nn.ModuleList(FeatureHGGEPNet([3], 2, dim=8, heads=2, rank=2) for _ in shares)
    for member, share in zip(members, shares, strict=True):
        member.blend.fill_(share)
    assert describe_networks(members) == words
