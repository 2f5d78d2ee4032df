"""Our ShuffleNetV2 beside torchvision's, where torchvision is installed."""

from __future__ import annotations

import pytest
import torch

from sthggep import nn

models = pytest.importorskip("torchvision.models", reason="torchvision is not installed", exc_type=ImportError)


def test_backbone_computes_what_torchvision_computes():
    torch.manual_seed(0)
    theirs, ours = models.shufflenet_v2_x0_5(weights=None).eval(), nn.ShuffleNetV2().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics as after training
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    nn.load_backbone(ours, theirs.state_dict())
    theirs.fc = torch.nn.Identity()
    images = torch.randn(3, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6)
