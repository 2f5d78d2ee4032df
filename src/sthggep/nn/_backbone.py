"""ShuffleNetV2 at half width, with the parameter names of torchvision's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sthggep.nn._convolution import ConvSequence, channels_last

CHANNELS = {"conv1": 24, "stage2": 48, "stage3": 96, "stage4": 192, "conv5": 1024}
REPEATS = {"stage2": 4, "stage3": 8, "stage4": 4}
STEM_VALUES = 3 << 20  # values of the widest maps that are made at once (12 MB): more are waited for
CLASSIFIER = ("fc.weight", "fc.bias")


class FeatureMaps(NamedTuple):
    """Feature maps of one pass through the backbone, finest first."""

    stage2: Tensor
    stage3: Tensor
    stage4: Tensor
    conv5: Tensor


def _pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    ]


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Channels of two maps in turn: concatenated and shuffled, in one copy.

    Parameters
    ----------
    first, second
        Feature maps ``(n, channels, h, w)``.

    Returns
    -------
    Maps ``(n, 2 * channels, h, w)``, channels last.
    """
    one, two = first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)
    # A complex number lays its two parts side by side: a third of the time of a stack
    complexes = one.dtype == torch.float32 and not torch.is_grad_enabled()
    pair = torch.view_as_real(torch.complex(one, two)) if complexes else torch.stack([one, two], dim=-1)
    return pair.flatten(3).permute(0, 3, 1, 2)


class ShuffleUnit(nn.Module):
    """Unit of ShuffleNetV2 (Ma et al. 2018): transform one part, keep the other, shuffle.

    Parameters
    ----------
    in_channels
        Channels of the input.
    out_channels
        Channels of the output, two equal branches.
    stride
        2 halves the maps and transforms both branches, 1 passes half of the channels through untouched.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.stride = stride
        reduced = _depthwise(in_channels, stride) + _pointwise(in_channels, half) if stride > 1 else []
        self.branch1 = ConvSequence(*reduced)
        entry = in_channels if stride > 1 else half
        self.branch2 = ConvSequence(*_pointwise(entry, half), *_depthwise(half, stride), *_pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        """Transform feature maps ``(n, in, h, w)``."""
        unchanged, changed = (x, x) if self.stride > 1 else x.chunk(2, dim=1)
        return interleave(self.branch1(unchanged), self.branch2(changed))


def _stage(name: str, in_channels: int) -> nn.Sequential:
    width = CHANNELS[name]
    units = [ShuffleUnit(in_channels, width, 2)] + [ShuffleUnit(width, width, 1) for _ in range(REPEATS[name] - 1)]
    return nn.Sequential(*units)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 x0.5 without its classifier.

    Parameters
    ----------
    max_pool
        Pool after the stem, as the ImageNet network does. HGGEP leaves the pooling out: its gradient enhancement
        has halved the patch already.
    """

    def __init__(self, *, max_pool: bool = True) -> None:
        super().__init__()
        stem: list[nn.Module] = [
            nn.Conv2d(3, CHANNELS["conv1"], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS["conv1"]),
            nn.ReLU(inplace=True),
        ]
        self.conv1 = ConvSequence(*stem)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if max_pool else nn.Identity()
        self.stage2 = _stage("stage2", CHANNELS["conv1"])
        self.stage3 = _stage("stage3", CHANNELS["stage2"])
        self.stage4 = _stage("stage4", CHANNELS["stage3"])
        self.conv5 = ConvSequence(*_pointwise(CHANNELS["stage4"], CHANNELS["conv5"]))

    def maps(self, x: Tensor) -> FeatureMaps:
        """Feature maps of the three stages and of the last convolution.

        Parameters
        ----------
        x
            Images ``(n, 3, h, w)``.

        Returns
        -------
        Maps of 48, 96, 192 and 1024 channels.
        """
        stage2 = self.stage2(self._stem(channels_last(x)))
        stage3 = self.stage3(stage2)
        stage4 = self.stage4(stage3)
        return FeatureMaps(stage2, stage3, stage4, self.conv5(stage4))

    def _stem(self, x: Tensor) -> Tensor:
        """First convolution and pooling: of a few images at a time where none waits for the others."""
        if self.training or torch.is_grad_enabled():
            out: Tensor = self.maxpool(self.conv1(x))
            return out
        values = CHANNELS["conv1"] * x.shape[2] * x.shape[3] // 4
        if values > STEM_VALUES and isinstance(self.maxpool, nn.MaxPool2d):
            return torch.cat([self._stem_in_strips(image, -(-values // STEM_VALUES)) for image in torch.split(x, 1)])
        at_once = max(1, STEM_VALUES // values)
        return torch.cat([self.maxpool(self.conv1(part)) for part in torch.split(x, at_once)])

    def _stem_in_strips(self, image: Tensor, n_strips: int) -> Tensor:
        """The stem of one large image, strip by strip: its maps are many times larger than the image."""
        height = image.shape[2]
        n_rows = -(-height // 4)
        step = -(-n_rows // n_strips)
        parts = []
        for first in range(0, n_rows, step):
            last = min(first + step, n_rows)
            # A row of the result sees the 7 rows around its first row of the image; one more row of maps above is cut off
            top, bottom = max(0, 4 * first - 4), min(height, 4 * last + 4)
            pooled = self.maxpool(self.conv1(image[:, :, top:bottom]))
            skip = (4 * first - top) // 4
            parts.append(pooled[:, :, skip : skip + last - first])
        return torch.cat(parts, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled 1024 features of images ``(n, 3, h, w)``."""
        return self.maps(x).conv5.mean(dim=(2, 3))


def load_backbone(backbone: ShuffleNetV2, state: Mapping[str, Tensor]) -> None:
    """Load ImageNet weights under torchvision's names, with or without the 1000-class layer.

    Parameters
    ----------
    backbone
        Network to fill, in place.
    state
        Entries of ``shufflenetv2_x0.5-f707e7126e.pth`` or of a file without ``fc.weight`` and ``fc.bias``.

    Raises
    ------
    ValueError
        If an entry is missing, unknown or of another shape.
    """
    entries = {name: value for name, value in state.items() if name not in CLASSIFIER}
    expected = backbone.state_dict()
    missing = sorted(set(expected) - set(entries))
    unknown = sorted(set(entries) - set(expected))
    if missing or unknown:
        msg = (
            f"Expected the {len(expected)} entries of torchvision's shufflenet_v2_x0_5, found {len(entries)}: "
            f"missing {missing[:4]}, not known {unknown[:4]}. Pass the state dict of that model."
        )
        raise ValueError(msg)
    wrong = [name for name in expected if expected[name].shape != entries[name].shape]
    if wrong:
        name = wrong[0]
        msg = (
            f"Expected {name!r} of shape {tuple(expected[name].shape)}, found {tuple(entries[name].shape)} "
            f"({len(wrong)} such entries): the weights are of another width than x0.5."
        )
        raise ValueError(msg)
    backbone.load_state_dict(entries)
