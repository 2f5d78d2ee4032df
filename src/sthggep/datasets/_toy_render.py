"""The toy tissue as a picture: amounts of hematoxylin and eosin in every pixel, then light through them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sthggep.datasets._toy_tissue import FINE_UM, GRID_UM, Map, Tissue, noise

# optical density of the two stains in red, green and blue, unit length (the usual reference stain matrix of H&E)
HEMATOXYLIN = np.array([0.62, 0.70, 0.36])
EOSIN = np.array([0.14, 0.86, 0.48])
TILE = 512  # pixels, side of a repeating texture
STREAK_UM = 1.2  # a pixel of the collagen texture, in microns of tissue


def render(tissue: Tissue, mpp: float, seed: np.random.SeedSequence) -> NDArray[np.uint8]:
    """Draw the section at ``mpp`` microns per pixel: RGB, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    vectors = _stains(rng)
    textures = _textures(rng, mpp)
    tone = 1 + 0.10 * noise(rng, tissue.inside.shape, 80.0)
    width, height = (max(1, round(side / mpp)) for side in tissue.size_um)
    nuclei = _draw_nuclei(tissue.nuclei, (height, width), mpp)
    image = np.empty((height, width, 3), dtype=np.uint8)
    # bands as high as the repeating textures: a large section then needs little memory
    for top in range(0, height, TILE):
        band = slice(top, min(top + TILE, height))
        stains = _stain_band(tissue, tone, nuclei[band], textures, band, mpp)
        _light(*stains, vectors, textures["sensor"], image[band])
    return image


def _stains(rng: np.random.Generator) -> NDArray[np.float64]:
    """Optical density of one unit of hematoxylin and of eosin, as this section's laboratory made them."""
    # uniform, not normal: far enough from each other, yet never gray
    tint, strength = rng.uniform(-0.045, 0.045, (2, 3)), np.exp(rng.uniform(-0.2, 0.2, 2))
    vectors = np.stack([HEMATOXYLIN, EOSIN]) + tint
    return np.asarray(vectors * strength[:, None] / np.linalg.norm(vectors, axis=1, keepdims=True))


def _textures(rng: np.random.Generator, mpp: float) -> dict[str, NDArray[np.float32]]:
    """Repeating square textures of unit variance: chromatin and cytoplasm, streaks of collagen, sensor noise."""
    tiles = {}
    for name, sigma in {"chromatin": 0.9 / mpp, "cytoplasm": 2.2 / mpp, "sensor": 0.5}.items():
        tiles[name] = ndimage.gaussian_filter(rng.standard_normal((TILE, TILE), dtype=np.float32), sigma, mode="wrap")
    white = rng.standard_normal((TILE, TILE), dtype=np.float32)
    streaks = ndimage.gaussian_filter(white, (0.9, 14), mode="wrap")
    bundles = ndimage.gaussian_filter(white.T, (4.0, 30), mode="wrap")
    tiles["collagen"] = streaks / streaks.std() + 0.8 * bundles / bundles.std()
    return {name: tile if name == "collagen" else tile / tile.std() for name, tile in tiles.items()}


def _stain_band(
    tissue: Tissue,
    tone: Map,
    nuclei: NDArray[np.float32],
    textures: dict[str, NDArray[np.float32]],
    band: slice,
    mpp: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hematoxylin and eosin in a band of rows."""

    def up(values: Map, step: float = GRID_UM) -> NDArray[np.float32]:
        return _enlarge(values, band, nuclei.shape[1], mpp / step)

    stroma, tumor = up(tissue.weights["stroma"] + tissue.weights["adipose"]), up(tissue.weights["tumor"])
    immune = up(tissue.weights["immune"])
    fiber = _along_fibers(textures["collagen"], up(tissue.along), up(tissue.across))
    mottle, grain = (_repeat(textures[name], nuclei.shape) for name in ("cytoplasm", "chromatin"))
    # deep pink where fibers lie close, white slits where they part
    eosin = stroma * np.clip(0.50 + 0.20 * fiber + 0.02 * grain, 0.02, 1.1)
    eosin += tumor * (0.44 + 0.06 * mottle) + immune * (0.27 + 0.08 * mottle)
    hematoxylin = 0.05 * stroma + tumor * (0.20 + 0.04 * mottle) + immune * (0.26 + 0.08 * mottle)
    fat = np.clip((up(tissue.fat, FINE_UM) - 0.3) * 4, 0, 1)
    solid = (1 - fat) * (1 - 0.85 * up(tissue.cleft)) * np.clip(up(tissue.inside) * 3 - 1, 0, 1)
    eosin *= solid * up(tone) * (1 - 0.6 * np.minimum(nuclei, 1))
    return hematoxylin * solid + nuclei * (1 + 0.2 * grain), eosin


def _draw_nuclei(nuclei: pd.DataFrame, shape: tuple[int, int], mpp: float) -> NDArray[np.float32]:
    """Hematoxylin of the nuclei: soft ellipses with a darker rim; the darker wins where two overlap."""
    table = nuclei.assign(reach=np.ceil(nuclei["long"] / mpp + 1.5).astype(int))
    margin = int(table["reach"].max()) + 1 if len(table) else 0
    canvas = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), dtype=np.float32)
    for reach in range(1, margin):
        group = table[table["reach"] == reach]
        size = max(1, 2_000_000 // (2 * reach + 1) ** 2)
        for start in range(0, len(group), size):
            _stamp(canvas, group.iloc[start : start + size], reach, margin, mpp)
    return canvas[margin : margin + shape[0], margin : margin + shape[1]]


def _stamp(canvas: NDArray[np.float32], nuclei: pd.DataFrame, reach: int, margin: int, mpp: float) -> None:
    """Draw nuclei that fit a square of ``2 * reach + 1`` pixels into the padded canvas."""
    columns = {name: nuclei[name].to_numpy(np.float32)[:, None, None] for name in nuclei.columns}
    # pixel i covers i to i + 1: its center is at i + 0.5
    x, y = columns["x"] / mpp - 0.5, columns["y"] / mpp - 0.5
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    step = np.arange(-reach, reach + 1)
    dx, dy = (column - x + step[None, None, :]).astype(np.float32), (row - y + step[None, :, None]).astype(np.float32)
    long, short = columns["long"] / mpp, columns["short"] / mpp
    cos, sin = np.cos(columns["angle"]), np.sin(columns["angle"])
    u, v = (dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short
    v += columns["bend"] * (u * u - 0.5)
    depth = (1 - np.sqrt(u * u + v * v)) * short  # pixels below the nuclear border
    rim = 0.82 + 0.18 * np.exp(-((depth * mpp / 0.9 - 0.6) ** 2))
    value = columns["dark"] * rim * np.clip(depth / 1.2 + 0.5, 0, 1)
    height, width = canvas.shape
    rows = np.clip(row + margin + step[None, :, None], 0, height - 1)
    places = rows * width + np.clip(column + margin + step[None, None, :], 0, width - 1)
    np.maximum.at(canvas.reshape(-1), places.ravel(), value.ravel())


def _along_fibers(tile: NDArray[np.float32], along: Map, across: Map) -> NDArray[np.float32]:
    """Streaks that follow the fibers: a stretched texture, read at (across, along)."""
    row, column = (np.floor(c / STREAK_UM).astype(np.int32) % TILE for c in (across, along))
    return np.asarray(tile.reshape(-1)[row * TILE + column])


def _repeat(tile: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.tile(tile[: shape[0]], (1, -(-shape[1] // TILE)))[:, : shape[1]]


def _enlarge(values: Map, band: slice, width: int, ratio: float) -> NDArray[np.float32]:
    """Bring rows of a map to pixels, linearly; one pixel spans ``ratio`` cells of the map."""
    rows, columns = values.shape
    box = (0.0, band.start * ratio, min(width * ratio, columns), min(band.stop * ratio, rows))
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    size = (width, band.stop - band.start)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box), dtype=np.float32)


def _light(
    hematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    vectors: NDArray[np.float64],
    grain: NDArray[np.float32],
    out: NDArray[np.uint8],
) -> None:
    """Beer-Lambert: transmitted light falls exponentially with the amount of stain; then a little sensor noise."""
    sensor = 1.5 * _repeat(grain, hematoxylin.shape)
    for channel, glass in enumerate((243.0, 241.0, 245.0)):
        density = hematoxylin * np.float32(vectors[0, channel]) + eosin * np.float32(vectors[1, channel])
        out[..., channel] = np.clip(np.float32(glass) * np.exp(-density) + sensor, 0, 255)
