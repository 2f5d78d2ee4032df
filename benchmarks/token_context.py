"""How much a patch token depends on its place in the square that a vision transformer reads.

    pip install 'sthggep[transformers]'
    python benchmarks/token_context.py                # a small ViT with random weights
    python benchmarks/token_context.py --steps 1500   # trained before on toy tissue, to predict masked patches

Each token is computed twice: in a square in whose middle it lies, and in a square in which it begins some pixels from the
border. The script prints the correlation of the two over places of the toy tissue, mean over channels; the same for the
features of spots, next to those at the largest context; and how many pixels the encoder reads for each pixel of tissue.
Prints the table of docs/performance_times.md. Some minutes on two cores.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from torch import nn

from sthggep import datasets, pp
from sthggep._encoders._encode import encode
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._slides._resolve import resolve_one

SIZE_PX, PATCH_PX, CONTEXTS = 224, 16, (0, 16, 32, 48, 64)
LARGEST = 96  # one or two tokens of each square are used
SIDE = SIZE_PX // PATCH_PX
N_PLACES = 600


class Vit(nn.Module):
    """A small ViT of transformers, its patch tokens and a head that predicts the pixels of masked patches."""

    def __init__(self) -> None:
        from transformers import ViTConfig, ViTModel

        super().__init__()
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=256,
            image_size=SIZE_PX,
            patch_size=PATCH_PX,
        )
        self.vit = ViTModel(config, add_pooling_layer=False, use_mask_token=True)
        self.head = nn.Linear(64, 3 * PATCH_PX**2)

    def tokens(self, images: torch.Tensor, masked: torch.Tensor | None = None) -> torch.Tensor:
        return self.vit(pixel_values=images, bool_masked_pos=masked).last_hidden_state[:, 1:]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.tokens(images).mean(dim=1)


def normalized(squares: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 127.5 - 1


def squares_at(image: np.ndarray, corners: np.ndarray) -> np.ndarray:
    return np.stack([image[y : y + SIZE_PX, x : x + SIZE_PX] for y, x in corners])


def train(net: Vit, image: np.ndarray, steps: int) -> None:
    """Train to predict the pixels of masked patches from the others."""
    rng, optimizer = np.random.default_rng(1), torch.optim.AdamW(net.parameters(), lr=1e-3)
    for step in range(steps):
        x = normalized(squares_at(image, rng.integers(0, np.array(image.shape[:2]) - SIZE_PX, (16, 2))))
        x = torch.rot90(x, int(rng.integers(4)), (2, 3))
        masked = torch.from_numpy(rng.random((len(x), SIDE**2)) < 0.5)
        wanted = nn.functional.unfold(x, PATCH_PX, stride=PATCH_PX).transpose(1, 2)
        loss = (net.head(net.tokens(x, masked)) - wanted)[masked].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: {loss.item():.4f} of the variance {wanted[masked].var().item():.4f}", flush=True)


@torch.inference_mode()
def tokens_at(net: Vit, image: np.ndarray, places: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Tokens whose patches begin at these places (y, x), in squares in which they are these cells (row, column)."""
    parts = []
    for start in range(0, len(places), 32):
        at = slice(start, start + 32)
        tokens = net.tokens(normalized(squares_at(image, places[at] - cells[at] * PATCH_PX)))
        parts.append(tokens[torch.arange(len(tokens)), cells[at, 0] * SIDE + cells[at, 1]].numpy())
    return np.concatenate(parts)


def at_depth(depth: int, rng: np.random.Generator) -> np.ndarray:
    """One cell for each place, ``depth`` cells from the nearest border and at any place along it."""
    along = rng.integers(depth, SIDE - depth, N_PLACES)
    across = np.where(rng.random(N_PLACES) < 0.5, depth, SIDE - 1 - depth)
    swap = rng.random(N_PLACES)[:, None] < 0.5
    return np.where(swap, np.column_stack([along, across]), np.column_stack([across, along]))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(first.T, second.T, strict=True)]))


def main() -> None:
    """Print one row a context."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=0)
    options = parser.parse_args()
    slides = [resolve_one(datasets.toy(seed=seed, pitch_um=100.0)) for seed in (0, 1)]
    images = [np.asarray(slide.levels[0].array) for slide in slides]
    net = Vit()
    train(net, images[0], options.steps)
    net.eval()
    rng = np.random.default_rng(0)
    places = rng.integers(SIZE_PX, np.array(images[1].shape[:2]) - 2 * SIZE_PX, (N_PLACES, 2))
    middle = tokens_at(net, images[1], places, np.full((N_PLACES, 2), SIDE // 2))
    rows = {}
    features = {}
    for context in (*CONTEXTS, LARGEST):
        half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        pp.register_encoder("vit", net, size_px=SIZE_PX, patch_px=PATCH_PX, context_px=context, overwrite=True, **half)
        frozen = FrozenEncoder("vit")
        features[context] = encode(slides[1], frozen, [float(SIZE_PX)], flips=False, encoding="tissue")[0]
    for context in CONTEXTS:
        cells = at_depth(context // PATCH_PX, np.random.default_rng(2))
        rows[context] = {
            "token": correlation(tokens_at(net, images[1], places, cells), middle),
            "spot": correlation(features[context], features[LARGEST]),
            "pixels read": (SIZE_PX / (SIZE_PX - 2 * context)) ** 2,
        }
    print(f"{slides[1].n_spots} spots, {N_PLACES} places")
    print(pd.DataFrame(rows).T.rename_axis("context, px").round(3).to_string())


if __name__ == "__main__":
    main()
