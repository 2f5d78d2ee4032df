"""Colors of tissue: those of a section, and their distance to the colors of the training sections."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from sthggep import HGGEP, datasets
from sthggep._image._level import Level
from sthggep._slides._colors import FAR, ColorRange, Colors, image_mpp, read_colors, tissue_colors
from sthggep._slides._resolve import resolve_one
from sthggep._slides._slide import Slide

STAIN = (150, 60, 140)
SPOTS = np.stack(np.meshgrid(np.arange(120, 300, 20), np.arange(120, 300, 20)), axis=-1).reshape(-1, 2).astype(float)


def tissue_image(stain: tuple[int, int, int] = STAIN, glass: int = 245) -> np.ndarray:
    """Glass, a square of tissue, and a blot of green ink beside it."""
    image = np.full((400, 400, 3), glass, dtype=np.uint8)
    image[100:300, 100:300] = stain
    image[20:60, 20:60] = (20, 160, 40)
    return image


def section(image: np.ndarray, name: str = "S", scale: float = 1.0) -> Slide:
    spots = ad.AnnData(np.zeros((len(SPOTS), 1), np.float32))
    return Slide(name, spots, np.arange(len(SPOTS)), SPOTS / scale, (Level(image, (scale, scale)),), mpp=2.0 * scale)


def test_the_color_is_that_of_the_tissue_under_the_spots_alone():
    from skimage.color import rgb2lab

    colors = tissue_colors(section(tissue_image()))
    assert colors is not None
    np.testing.assert_allclose(colors.mean, rgb2lab(np.array(STAIN) / 255.0), atol=0.01)
    np.testing.assert_allclose(colors.spread, 0, atol=0.01)
    assert Colors.from_dict(colors.to_dict()) == colors


def test_images_without_tissue_color_have_none():
    assert tissue_colors(section(np.full((400, 400, 3), 200, dtype=np.uint8))) is None
    assert tissue_colors(replace(section(tissue_image()), levels=())) is None


def test_distance_is_to_the_nearest_color_of_the_range():
    pale, dark = (Colors(str(light), (light, 10.0, -20.0), (1.0, 1.0, 1.0)) for light in (70.0, 50.0))
    color_range = ColorRange.of([pale, dark])
    assert color_range.distance(replace(pale, mean=(60.0, 10.0, -20.0))) == 0
    assert color_range.distance(replace(pale, mean=(73.0, 14.0, -20.0))) == pytest.approx(5)


def test_resolution_is_that_of_the_stored_image():
    assert image_mpp(section(tissue_image(), scale=0.25)) == pytest.approx(2.0)
    assert image_mpp(replace(section(tissue_image()), mpp=None)) is None


def test_real_sections_of_one_tissue_are_near_and_those_of_another_far(data_root: Path):
    training_colors = read_colors(HGGEP.from_pretrained("her2st").training.colors)
    assert [colors.name for colors in training_colors] == ["B4", "C2", "C3", "C4", "C5"]
    assert max(ColorRange.of([a]).distance(b) for a, b in permutations(training_colors, 2)) == pytest.approx(
        7.92, abs=0.01
    )
    c2 = tissue_colors(resolve_one(datasets.her2st("C2", root=data_root / "her2st", fullres=False)))
    assert c2 is not None
    np.testing.assert_allclose(c2.mean, training_colors[1].mean, atol=0.1)
    bulb = resolve_one(datasets.mob("MOB1", root=data_root / "mob"))
    bulb_colors = tissue_colors(bulb)
    assert bulb_colors is not None
    assert ColorRange.of(training_colors).distance(bulb_colors) > FAR + 1
