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


def parts(figure: Figure) -> tuple[Axes, list[Axes]]:
    """The tissue, and the axes that hold a patch."""
    tissue, *others = figure.axes
    return tissue, [ax for ax in others if ax.images]


def squares(tissue: Axes) -> np.ndarray:
    """x0, y0, x1, y1 of the black squares."""
    found = [p.get_bbox().extents for p in tissue.patches if p.get_edgecolor()[:3] == (0, 0, 0)]
    return np.array(found)


def test_squares_stand_where_patches_were_cut(section: Make):
    adata = section()
    tissue, _ = parts(pl.patches(adata, size_um=120, size_px=30, spots=["0x0", "5x3"]))
    # 120 µm at 2 µm a pixel around (100, 100) and (600, 400)
    np.testing.assert_allclose(squares(tissue), [[70, 70, 130, 130], [570, 370, 630, 430]], atol=1)
    (dots,) = tissue.collections
    np.testing.assert_array_equal(dots.get_offsets(), adata.obsm["spatial"])


def test_patches_show_what_their_squares_hold(section: Make):
    figure = pl.patches(section(), size_um=120, size_px=30, n=5, seed=1)
    tissue, shown = parts(figure)
    boxes = squares(tissue)
    assert len(boxes) == len(shown) == 5
    for (x0, y0, x1, y1), ax in zip(boxes, shown, strict=True):
        patch = np.asarray(ax.images[0].get_array(), dtype=float)
        assert patch[..., 0].mean() == pytest.approx((x0 + x1) / 2 / 800 * 255, abs=2)  # red is x
        assert patch[..., 1].mean() == pytest.approx((y0 + y1) / 2 / 600 * 255, abs=2)  # green is y


def test_swapped_coordinates_show(section: Make):
    """Spots (x, y) of a wide section, swapped but still inside: dots and squares leave the tissue."""
    adata = section()
    right, _ = parts(pl.patches(adata, spots=["5x0"]))
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1] * 0.9
    swapped, shown = parts(pl.patches(adata, spots=["5x0"], mpp=2.0))
    before, after = squares(right)[0], squares(swapped)[0]
    assert before[0] > before[1]
    assert after[0] < after[1]
    patch = np.asarray(shown[0].images[0].get_array(), dtype=float)
    assert patch[..., 0].mean() < patch[..., 1].mean()


def test_swapped_coordinates_of_a_square_section_are_said():
    """Tissue as wide as high covers the image: its outline does not tell, the array does."""
    adata = datasets.toy(size_um=(1600.0, 1600.0), mpp=4.0, n_genes=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pl.patches(adata, n=1)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    with pytest.warns(UserWarning, match=r"columns of the array run down the image.*as if x and y were swapped"):
        pl.patches(adata, n=1)


def test_numbers_names_and_size(section: Make):
    figure = pl.patches(section(), size_um=120, n=4)
    tissue, shown = parts(figure)
    assert [text.get_text() for text in tissue.texts[:4]] == ["1", "2", "3", "4"]
    assert [ax.texts[0].get_text() for ax in shown] == ["1", "2", "3", "4"]
    assert tissue.get_title() == "S1: 24 spots"
    heading = figure.subfigs[1].get_suptitle()
    assert "4 of 24 patches" in heading
    assert "120 × 120 µm in 112 × 112 px" in heading
    names = [ax.get_xlabel() for ax in shown]
    assert len(set(names)) == 4
    assert set(names) <= set(section().obs_names)


def test_size_without_microns(section: Make):
    adata = section()
    adata.uns["spatial"]["S1"]["metadata"] = {}
    heading = pl.patches(adata, size_px=40).subfigs[1].get_suptitle()
    assert "40 × 40 px of full resolution" in heading
    with pytest.raises(ValueError, match="mpp="):
        pl.patches(adata, size_um=100)


def test_same_seed_same_spots(section: Make):
    def drawn(seed: int) -> list[float]:
        return squares(parts(pl.patches(section(), seed=seed, n=3))[0]).ravel().tolist()

    assert drawn(0) == drawn(0)
    assert any(drawn(0) != drawn(seed) for seed in (1, 2, 3))


def test_more_patches_than_spots(section: Make):
    _, shown = parts(pl.patches(section()[:3].copy(), n=6, mpp=2.0))
    assert len(shown) == 3


def test_errors(section: Make, tmp_path):
    with pytest.raises(KeyError, match="not spots of section 'S1': '99x99'"):
        pl.patches(section(), spots=["0x0", "99x99"])
    with pytest.raises(ValueError, match="positive"):
        pl.patches(section(), n=0)
    pl.patches(section(), n=2, save=tmp_path / "patches.png")
    assert (tmp_path / "patches.png").exists()
