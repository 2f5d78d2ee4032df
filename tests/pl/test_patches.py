from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sthggep import datasets, pl

Make = Callable[..., AnnData]


def tissue_and_patches(figure: Figure) -> tuple[Axes, list[Axes]]:
    """Return the axes of the tissue, and those that hold a patch."""
    tissue, *rest = figure.axes
    return tissue, [ax for ax in rest if ax.images]


def squares(tissue: Axes) -> np.ndarray:
    """x0, y0, x1, y1 of the black squares."""
    boxes = [p.get_bbox().extents for p in tissue.patches if p.get_edgecolor()[:3] == (0, 0, 0)]
    return np.array(boxes)


def test_squares_show_the_places_of_the_patches(section: Make):
    adata = section()
    tissue, _ = tissue_and_patches(pl.patches(adata, size_um=120, size_px=30, spots=["0x0", "5x3"]))
    # 120 µm at 2 µm a pixel around (100, 100) and (600, 400)
    np.testing.assert_allclose(squares(tissue), [[70, 70, 130, 130], [570, 370, 630, 430]], atol=1)
    (dots,) = tissue.collections
    np.testing.assert_array_equal(dots.get_offsets(), adata.obsm["spatial"])


def test_patches_show_the_image_inside_their_squares(section: Make):
    figure = pl.patches(section(), size_um=120, size_px=30, n=5, seed=1)
    tissue, patches = tissue_and_patches(figure)
    boxes = squares(tissue)
    assert len(boxes) == len(patches) == 5
    for (x0, y0, x1, y1), ax in zip(boxes, patches, strict=True):
        patch = np.asarray(ax.images[0].get_array(), dtype=float)
        assert patch[..., 0].mean() == pytest.approx((x0 + x1) / 2 / 800 * 255, abs=2)  # red is x
        assert patch[..., 1].mean() == pytest.approx((y0 + y1) / 2 / 600 * 255, abs=2)  # green is y


def test_swapped_coordinates_are_visible(section: Make):
    """If x and y of a wide section are swapped but inside the image, dots and squares leave the tissue."""
    adata = section()
    tissue, _ = tissue_and_patches(pl.patches(adata, spots=["5x0"]))
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1] * 0.9
    swapped_tissue, patches = tissue_and_patches(pl.patches(adata, spots=["5x0"], mpp=2.0))
    square, swapped_square = squares(tissue)[0], squares(swapped_tissue)[0]
    assert square[0] > square[1]
    assert swapped_square[0] < swapped_square[1]
    patch = np.asarray(patches[0].images[0].get_array(), dtype=float)
    assert patch[..., 0].mean() < patch[..., 1].mean()


def test_swapped_coordinates_of_a_square_section_are_warned_of():
    """If square tissue covers the image, its outline does not reveal a swap, but the array does."""
    adata = datasets.toy(size_um=(1600.0, 1600.0), mpp=4.0, n_genes=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pl.patches(adata, n=1)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    with pytest.warns(UserWarning, match=r"columns of the array run down the image.*as if x and y were swapped"):
        pl.patches(adata, n=1)


def test_numbers_names_and_size(section: Make):
    figure = pl.patches(section(), size_um=120, n=4)
    tissue, patches = tissue_and_patches(figure)
    assert [text.get_text() for text in tissue.texts[:4]] == ["1", "2", "3", "4"]
    assert [ax.texts[0].get_text() for ax in patches] == ["1", "2", "3", "4"]
    assert tissue.get_title() == "S1: 24 spots"
    heading = figure.subfigs[1].get_suptitle()
    assert "4 of 24 patches" in heading
    assert "120 × 120 µm in 112 × 112 px" in heading
    assert heading.endswith("under each: its spot, as array column x row")  # such as 8x2
    names = [ax.get_xlabel() for ax in patches]
    assert len(set(names)) == 4
    assert set(names) <= set(section().obs_names)


def test_names_that_are_no_places(section: Make):
    adata = section()
    adata.obs_names = [f"ACGT-{i}" for i in range(adata.n_obs)]
    assert pl.patches(adata, size_um=120, n=2).subfigs[1].get_suptitle().endswith("under each: its spot")


def test_long_names_stay_distinct(section: Make):
    adata = section()
    adata.obs_names = [f"AAACAAGTATCTCCCA-{i}" for i in range(adata.n_obs)]
    _, patches = tissue_and_patches(pl.patches(adata, size_um=120, n=4))
    names = [ax.get_xlabel() for ax in patches]
    assert len(set(names)) == 4
    assert all(name.startswith("AAACAAGT…") and max(map(len, names)) < 17 for name in names)


def test_size_without_microns(section: Make):
    adata = section()
    adata.uns["spatial"]["S1"]["metadata"] = {}
    heading = pl.patches(adata, size_px=40).subfigs[1].get_suptitle()
    assert "40 × 40 px of full resolution" in heading
    with pytest.raises(ValueError, match="mpp="):
        pl.patches(adata, size_um=100)


def test_same_seed_same_spots(section: Make):
    def titles(seed: int) -> list[float]:
        return squares(tissue_and_patches(pl.patches(section(), seed=seed, n=3))[0]).ravel().tolist()

    assert titles(0) == titles(0)
    assert any(titles(0) != titles(seed) for seed in (1, 2, 3))


def test_more_patches_than_spots(section: Make):
    _, patches = tissue_and_patches(pl.patches(section()[:3].copy(), n=6, mpp=2.0))
    assert len(patches) == 3


def test_errors(section: Make, tmp_path):
    with pytest.raises(KeyError, match="not spots of section 'S1': '99x99'"):
        pl.patches(section(), spots=["0x0", "99x99"])
    with pytest.raises(ValueError, match="positive"):
        pl.patches(section(), n=0)
    pl.patches(section(), n=2, save=tmp_path / "patches.png")
    assert (tmp_path / "patches.png").exists()
