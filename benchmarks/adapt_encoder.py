"""Adapt ShuffleNetV2 ×0.5 to unlabeled H&E by contrastive learning: how the encoder `shufflenet_he` was made.

    python benchmarks/adapt_encoder.py --her2st $STHGGEP_DATA/her2st --mob $STHGGEP_DATA/mob --out shufflenet_he.safetensors

Two views of a place of tissue (shifted, turned, mirrored, scaled, stains jittered in optical density, some blurred as a coarse scan
would be) should agree, against other places of the same section at the same scale. No counts are read. Half an hour on one core.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import sthggep
from sthggep._encoders._families import IMAGENET_MEAN, IMAGENET_STD
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._image._level import Level
from sthggep._slides._resolve import resolve_one
from sthggep._slides._slide import Slide

SIZE = 112
GROUPS, PLACES = 4, 48  # sections a step, places of each
TEMPERATURE = 0.15
COARSEST_MPP = 2.9


class Tissue:
    """Crops of one section at any scale, around places on tissue."""

    def __init__(self, slide: Slide) -> None:
        self.name, mpp = slide.name, slide.require_mpp()
        self.levels = [(mpp, slide.levels[0])]
        while self.levels[-1][0] <= COARSEST_MPP and min(self.levels[-1][1].shape) >= 1200:
            mpp, level = self.levels[-1]
            self.levels.append((2 * mpp, Level(_halved(np.asarray(level.array)))))
        mpp, level = self.levels[-1]
        pixels = np.asarray(level.array).astype(int)
        stained = (np.ptp(pixels, axis=2) > 25) & (pixels.mean(axis=2) < 235)
        self.places = np.argwhere(stained)[:, ::-1] * mpp
        # As fine as the scan allows, as coarse as the default preset looks
        self.range_mpp = (0.36, COARSEST_MPP) if self.levels[0][0] < 2 else (2.2, 5.0)

    def crops(self, centers: np.ndarray, mpp: float, rng: np.random.Generator) -> Tensor:
        """Float (n, 3, size, size) in 0-255, turned and mirrored at random, some blurred."""
        fine_enough = [level for level in self.levels if level[0] <= mpp * 1.05]
        own, level = fine_enough[-1] if fine_enough else self.levels[0]
        width = max(16, round(SIZE * mpp / own))
        corner = np.rint(centers / own - width / 2).astype(int)
        found = [_turned(patch, rng) for patch in level.read(np.hstack([corner, corner + width]))]
        out = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float()
        if rng.random() < 0.4 and width > 60:
            coarse = max(24, int(width / rng.uniform(1.5, 3.5)))
            out = F.interpolate(out, size=(coarse, coarse), mode="bilinear", antialias=True)
        return F.interpolate(out, size=(SIZE, SIZE), mode="bilinear", antialias=out.shape[-1] > SIZE)


def _halved(pixels: np.ndarray) -> np.ndarray:
    even = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2].astype(np.uint16)
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) // 4).astype(np.uint8)


def _turned(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    patch = np.rot90(patch, rng.integers(4))
    return np.ascontiguousarray(patch[:, ::-1] if rng.random() < 0.5 else patch)


def views(tissues: list[Tissue], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Two views of each place, the second half below the first; and the group of each place."""
    first, second = [], []
    for _ in range(GROUPS):
        tissue = tissues[rng.integers(len(tissues))]
        mpp = float(np.exp(rng.uniform(*np.log(tissue.range_mpp))))
        centers = tissue.places[rng.integers(len(tissue.places), size=PLACES)] + rng.uniform(-3, 3, (PLACES, 2))
        for found in (first, second):
            shift = rng.uniform(-0.25, 0.25, (PLACES, 2)) * mpp * SIZE
            found.append(tissue.crops(centers + shift, mpp * float(np.exp(rng.uniform(-0.25, 0.25))), rng))
    return torch.cat([*first, *second]), torch.arange(GROUPS).repeat_interleave(PLACES)


def restained(images: Tensor) -> Tensor:
    """Stains mixed and scaled at random, in optical density."""
    n = len(images)
    density = -torch.log((images + 1) / 256)
    mix = (torch.eye(3) + 0.06 * torch.randn(n, 3, 3)) * torch.exp(0.2 * torch.randn(n, 1, 1))
    density = torch.bmm(mix, density.flatten(2)) + 0.03 * torch.randn(n, 3, 1)
    return ((-density).exp() * 256 - 1).clamp(0, 255).view(images.shape)


def agreement(projected: Tensor, group: Tensor) -> Tensor:
    """Cross-entropy of finding the other view among places of the same group."""
    n = len(group)
    unit = F.normalize(projected, dim=1)
    alike = unit @ unit.T / TEMPERATURE
    other = (group[:, None] != group[None]).repeat(2, 2) | torch.eye(2 * n, dtype=torch.bool)
    partner = torch.cat([torch.arange(n) + n, torch.arange(n)])
    return F.cross_entropy(alike.masked_fill(other, -1e9), partner)


def head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128))


def adapt(tissues: list[Tissue], steps: int, learning_rate: float, seed: int) -> nn.Module:
    """The encoder after so many steps."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = FrozenEncoder("shufflenet").module.requires_grad_(True).train().to(memory_format=torch.channels_last)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.03
    early, late = head(48 + 96 + 192), head(1024)
    weights = [*net.parameters(), *early.parameters(), *late.parameters()]
    optimizer = torch.optim.AdamW(weights, learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    start = time.perf_counter()
    for step in range(steps):
        images, group = views(tissues, rng)
        images = ((restained(images) / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        pooled = [found.mean(dim=(2, 3)) for found in net.maps(images)]
        loss = agreement(early(torch.cat(pooled[:3], dim=1)), group) + agreement(late(pooled[3]), group)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    return net.eval()


def main() -> None:
    """Read, adapt, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--her2st", default=None, help="root of her2st")
    parser.add_argument("--mob", default=None, help="root of the olfactory bulb sections")
    parser.add_argument("--sections", nargs="+", default=["B4", "C2", "C3", "C4", "C5", "MOB1", "MOB3"])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    tissues = []
    for name in options.sections:
        mob = name.startswith("MOB")
        read = sthggep.datasets.mob if mob else sthggep.datasets.her2st
        tissues.append(Tissue(resolve_one(read(name, root=options.mob if mob else options.her2st))))
        print(f"{name}: {len(tissues[-1].places)} places, {[round(mpp, 2) for mpp, _ in tissues[-1].levels]} µm/px")
    net = adapt(tissues, options.steps, options.learning_rate, options.seed)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
