"""The architecture of the toy tissue, in microns: where the domains, fibers, fat cells and nuclei lie.

Nothing here knows about pixels or genes: the same tissue can be drawn at any resolution, and what is measured is what
is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Map = NDArray[np.float32]

DOMAINS = ("tumor", "stroma", "immune", "adipose")
CELLS = ("tumor", "stroma", "immune")  # the kinds of nuclei

GRID_UM = 10.0  # maps of domains
FINE_UM = 2.5  # map of fat cells, whose walls are thinner than a cell of the coarse grid
LOCAL_UM = 110.0  # side of the square a spot's expression looks at: a usual patch
NICHE_UM = 200.0  # Gaussian radius of the neighborhood


@dataclass(frozen=True)
class Tissue:
    """One section. Maps are indexed ``[y, x]``; an element spans ``GRID_UM`` (on the fine grid ``FINE_UM``) microns."""

    size_um: tuple[float, float]  # width, height
    weights: dict[str, Map]  # domain -> its share of every grid cell; the shares sum to 1
    inside: Map  # 1 in tissue, 0 on glass
    along: Map  # microns along the fibers
    across: Map  # microns across the fibers
    cleft: Map  # 1 where a white cleft parts a nest from its stroma
    fat: Map  # 1 in the empty middle of a fat cell (fine grid)
    nuclei: pd.DataFrame  # x, y, long, short (semi-axes), angle, dark, bend, kind (index into CELLS)


def grow(seed: np.random.SeedSequence, size_um: tuple[float, float]) -> Tissue:
    """Lay out a section of the given width and height."""
    rng = np.random.default_rng(seed)
    shape = (int(np.ceil(size_um[1] / GRID_UM)), int(np.ceil(size_um[0] / GRID_UM)))
    inside = _outline(rng, shape, size_um)
    # a small section still shows several domains
    blob_um = min(170.0, 0.13 * min(size_um))
    weights = _domains(rng, shape, blob_um)
    along, across = _fibers(rng, shape)
    edge = np.exp(-(((weights["tumor"] - 0.4) / 0.16) ** 2))
    cleft = (edge * (noise(rng, shape, 40.0) > 0.5)).astype(np.float32)
    fat = _fat_cells(rng, weights["adipose"], inside, size_um)
    nuclei = _nuclei(rng, weights, across, size_um, blob_um)
    free = (sample(fat, nuclei[["x", "y"]].to_numpy(), FINE_UM) < 0.25) & (
        sample(inside, nuclei[["x", "y"]].to_numpy(), GRID_UM) > 0.5
    )
    return Tissue(size_um, weights, inside, along, across, cleft, fat, nuclei[free].reset_index(drop=True))


def measure(tissue: Tissue, xy_um: NDArray[np.float64]) -> pd.DataFrame:
    """Measure what can be seen around each center: one row a center, one column a quantity.

    ``nuclear``: share of the patch under nuclei; ``size``: log mean nuclear area (square microns); ``immune``: share of
    the nuclei that are immune; ``fiber``: share of the patch that is stroma; ``fat``: share that is empty fat;
    ``niche``: immune share of the nuclei, Gaussian-weighted over the neighborhood.
    """
    nuclei = tissue.nuclei
    area = np.pi * nuclei["long"] * nuclei["short"]
    immune = nuclei["kind"] == CELLS.index("immune")
    number, covered, lymphoid = (_per_cell(tissue, w) for w in (np.ones(len(nuclei)), area, immune))
    fine = round(GRID_UM / FINE_UM)
    height, width = tissue.inside.shape
    fat = tissue.fat.reshape(height, fine, width, fine).mean(axis=(1, 3))
    fiber = tissue.weights["stroma"] * tissue.inside * (1 - fat)

    def local(values: Map) -> NDArray[np.float64]:
        return sample(ndimage.uniform_filter(values, round(LOCAL_UM / GRID_UM), mode="constant"), xy_um, GRID_UM)

    def around(values: Map) -> NDArray[np.float64]:
        return sample(ndimage.gaussian_filter(values, NICHE_UM / GRID_UM, truncate=2.5), xy_um, GRID_UM)

    # the small constants stand for a nucleus or so, where a patch has none
    columns = {
        "nuclear": local(covered) / GRID_UM**2,
        "size": np.log((local(covered) + 0.3) / (local(number) + 0.01)),
        "immune": local(lymphoid) / (local(number) + 0.01),
        "fiber": local(fiber),
        "fat": local(fat),
        "niche": around(lymphoid) / (around(number) + 0.01),
    }
    return pd.DataFrame(columns)


def main_domain(tissue: Tissue, xy_um: NDArray[np.float64]) -> pd.Categorical[str]:
    """The domain with the largest share of the patch around each center."""
    side = round(LOCAL_UM / GRID_UM)
    shares = [sample(ndimage.uniform_filter(tissue.weights[name], side), xy_um, GRID_UM) for name in DOMAINS]
    return pd.Categorical(np.array(DOMAINS)[np.argmax(shares, axis=0)], categories=list(DOMAINS))


def tissue_share(tissue: Tissue, xy_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the patch around each center that is tissue and not glass."""
    side = round(LOCAL_UM / GRID_UM)
    return sample(ndimage.uniform_filter(tissue.inside, side, mode="constant"), xy_um, GRID_UM)


def sample(values: Map, xy_um: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Read a map at points, linearly between cell centers."""
    where = xy_um[:, ::-1].T / step - 0.5
    return np.asarray(ndimage.map_coordinates(values, where, order=1, mode="nearest"), dtype=np.float64)


def _per_cell(tissue: Tissue, amount: pd.Series | NDArray[np.float64]) -> Map:
    """Sum of an amount over the nuclei of every grid cell."""
    nuclei = tissue.nuclei
    edges = [np.arange(n + 1) * GRID_UM for n in tissue.inside.shape]
    total, _, _ = np.histogram2d(nuclei["y"], nuclei["x"], bins=edges, weights=np.asarray(amount, dtype=np.float64))
    return np.asarray(total, dtype=np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, ...], length_um: float) -> Map:
    """Smooth random field of zero mean and unit variance, wrapped at the borders."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), length_um / GRID_UM, mode="wrap")
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), dtype=np.float32)


def _outline(rng: np.random.Generator, shape: tuple[int, int], size_um: tuple[float, float]) -> Map:
    """A ragged, rounded piece of tissue on glass."""
    y, x = ((np.arange(n) + 0.5) * GRID_UM for n in shape)
    short = min(size_um)
    # rounded corners: a superellipse, as a distance from its border in microns
    across_x, across_y = np.abs(2 * x / size_um[0] - 1) ** 5, np.abs(2 * y / size_um[1] - 1) ** 5
    depth = (1 - (across_y[:, None] + across_x[None, :]) ** 0.2) * short / 2
    depth = depth + 0.025 * short * noise(rng, shape, 0.09 * short) + 6 * noise(rng, shape, 18.0)
    return np.asarray(np.clip((depth - 0.05 * short) / 8, 0, 1), dtype=np.float32)


def _domains(rng: np.random.Generator, shape: tuple[int, int], blob_um: float) -> dict[str, Map]:
    """Shares of the domains: smooth fields compete, softly, with a frayed border."""
    favor = np.array([0.35, 0.65, -0.45, -0.35]) + 0.15 * rng.standard_normal(4)
    lengths = blob_um * np.array([0.8, 1.0, 0.5, 1.0])
    logits = np.stack(
        [f + noise(rng, shape, s) + 0.15 * noise(rng, shape, 15.0) for f, s in zip(favor, lengths, strict=True)]
    )
    # strands of stroma part the tumor into nests, along the zero lines of one more field
    logits[1] += 1.6 * np.exp(-((noise(rng, shape, 0.5 * blob_um) / 0.19) ** 2)) - 0.25
    shares = np.exp((logits - logits.max(axis=0)) / 0.07)
    shares /= shares.sum(axis=0)
    return dict(zip(DOMAINS, shares.astype(np.float32), strict=True))


def _fibers(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Map, Map]:
    """Coordinates along and across wavy fibers: fibers are the level lines of the second."""
    y, x = np.meshgrid(*(((np.arange(n) + 0.5) * GRID_UM) for n in shape), indexing="ij")
    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn) + 60 * noise(rng, shape, 120.0)
    across = y * np.cos(turn) - x * np.sin(turn) + 75 * noise(rng, shape, 160.0) + 7 * noise(rng, shape, 35.0)
    return along.astype(np.float32), across.astype(np.float32)


def _lattice(
    rng: np.random.Generator, size_um: tuple[float, float], pitch: float, jitter: float
) -> NDArray[np.float64]:
    """Points of a jittered hexagonal lattice: crowded, but never two at one place."""
    y, x = np.meshgrid(np.arange(0, size_um[1], pitch * 0.866), np.arange(0, size_um[0], pitch), indexing="ij")
    x[1::2] += pitch / 2
    points = np.column_stack([x.ravel(), y.ravel()])
    return points + rng.normal(0, jitter * pitch, points.shape)


def _fat_cells(rng: np.random.Generator, adipose: Map, inside: Map, size_um: tuple[float, float]) -> Map:
    """Empty middles of fat cells: polygons around jittered centers, less a thin wall."""
    fine = round(GRID_UM / FINE_UM)
    fat = np.zeros((adipose.shape[0] * fine, adipose.shape[1] * fine), dtype=np.float32)
    centers = _lattice(rng, size_um, 62.0, 0.17)
    full = (sample(adipose, centers, GRID_UM) > 0.5) & (sample(inside, centers, GRID_UM) > 0.5)
    if not full.any():
        return fat
    near = ndimage.maximum_filter(adipose > 0.5, size=9).repeat(fine, axis=0).repeat(fine, axis=1)
    rows, columns = np.nonzero(near)
    distance, cell = cKDTree(centers).query((np.column_stack([columns, rows]) + 0.5) * FINE_UM, k=2)
    # distances to the two nearest centers are equal on the wall between them; the second term rounds the corners
    depth = (distance[:, 1] - distance[:, 0]) / 2 - 0.0012 * distance[:, 0] ** 2
    fat[rows, columns] = np.where(full[cell[:, 0]], np.clip(depth / 3.0, 0, 1), 0)
    return fat


def _nuclei(
    rng: np.random.Generator, weights: dict[str, Map], across: Map, size_um: tuple[float, float], blob_um: float
) -> pd.DataFrame:
    """All nuclei: three kinds, each on its own crowded lattice, thinned where its domain is absent."""
    shape = across.shape
    cellular, grade, leak = (noise(rng, shape, length) for length in (blob_um, 1.3 * blob_um, 0.6 * blob_um))
    crowd = np.clip(0.62 + 0.24 * cellular, 0.15, 1)
    scatter = 0.05 * np.clip(leak, 0, 2) * (weights["tumor"] + weights["stroma"])
    keep = {
        "tumor": weights["tumor"] * crowd,
        "stroma": (weights["stroma"] * (0.25 + 0.35 * crowd) + 0.5 * weights["adipose"]) * 0.8,
        "immune": 0.8 * weights["immune"] + scatter,
    }
    rise, run = np.gradient(across)
    direction = np.arctan2(-run, rise).astype(np.float32)  # along the level lines of `across`
    pitch = {"tumor": 11.5, "stroma": 17.0, "immune": 8.0}
    tables = []
    for kind, name in enumerate(CELLS):
        xy = _lattice(rng, size_um, pitch[name], 0.2)
        xy = xy[rng.random(len(xy)) < sample(keep[name].astype(np.float32), xy, GRID_UM)]
        column, row = np.clip((xy / GRID_UM).astype(int), 0, np.array(shape)[::-1] - 1).T
        table = _shapes(rng, name, grade[row, column], direction[row, column])
        tables.append(table.assign(x=xy[:, 0], y=xy[:, 1], kind=kind))
    return pd.concat(tables, ignore_index=True)


def _shapes(rng: np.random.Generator, kind: str, grade: Map, direction: Map) -> pd.DataFrame:
    """Draw nuclei of one kind, in microns and radians; a higher grade is larger, paler and more varied."""
    n = len(grade)
    vary = rng.standard_normal((4, n))
    angle = rng.uniform(0, np.pi, n)
    if kind == "tumor":
        long = 5.0 * np.exp(0.2 * grade + (0.10 + 0.06 * np.clip(grade + 1, 0, 3)) * vary[0])
        short, dark, bend = long * np.clip(0.78 + 0.09 * vary[1], 0.5, 1), 0.95 - 0.1 * grade + 0.13 * vary[2], 0.1
    elif kind == "stroma":
        long = 7.0 * np.exp(0.22 * vary[0])
        short, dark, bend = 1.7 * np.exp(0.18 * vary[1]), 1.05 + 0.15 * vary[2], 0.3
        angle = direction + 0.16 * vary[1]
    else:
        long = 3.0 * np.exp(0.08 * vary[0])
        short, dark, bend = long * np.clip(0.93 + 0.05 * vary[1], 0.7, 1), 1.45 + 0.15 * vary[2], 0.0
    columns = {"long": np.clip(long, 2, 14), "short": np.clip(short, 1.2, 11), "angle": angle}
    return pd.DataFrame(columns).assign(dark=np.clip(dark, 0.5, 2), bend=bend * vary[3])
