"""What is warned of though nothing fails: swapped coordinates, bare glass, tissue learned from, genes of elsewhere."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from sthggep import HGGEP, datasets, pp, tl
from sthggep._slides._placement import on_tissue
from sthggep._slides._resolve import resolve_one
from sthggep.tl._doubts import learned_from

QUICK = {"size_um": 160, "max_epochs": 1, "n_members": 1, "validation": None, "show_progress_bar": False}


def toy(seed: int = 0) -> AnnData:
    return datasets.toy(seed=seed, size_um=(2400.0, 1600.0), mpp=4.0, n_genes=12)


def said(call, *args, **options) -> list[str]:
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call(*args, **options)
    return [str(warning.message) for warning in found]


@pytest.fixture(scope="module")
def model() -> HGGEP:
    return tl.fit(toy(), genes=list(toy().var_names[:3]), weights="random", **QUICK)


def test_swapped_coordinates_that_fit_the_image_all_the_same():
    slide = toy()
    square = slide.uns["spatial"][next(iter(slide.uns["spatial"]))]
    image = square["images"]["hires"]
    # room for the swapped spots, white as glass
    side = max(image.shape[:2])
    padded = np.full((side, side, 3), 255, dtype=np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    square["images"]["hires"] = padded
    assert said(pp.features, slide, size_um=100, weights="random", show_progress_bar=False) == []
    swapped = slide.copy()
    swapped.obsm["spatial"] = slide.obsm["spatial"][:, ::-1].copy()
    share, other = on_tissue(resolve_one(swapped))
    assert other > share + 0.1
    (message,) = said(pp.features, swapped, size_um=120, weights="random", show_progress_bar=False)
    assert f"{other:.0%} would with x and y swapped" in message


@pytest.mark.parametrize("factor", [0.3, 0.55])
def test_coordinates_of_a_smaller_copy_of_the_image(factor: float):
    """They lie on tissue, and the spot pitch gives another scale: the tissue beyond the spots tells."""
    slide = datasets.toy(seed=3, size_um=(2400.0, 2400.0), mpp=2.0, n_genes=4)
    next(iter(slide.uns["spatial"].values()))["metadata"].pop("mpp", None)
    assert said(pp.features, slide.copy(), size_um=120, weights="random", show_progress_bar=False) == []
    slide.obsm["spatial"] = slide.obsm["spatial"] * factor
    (message,) = said(pp.features, slide, size_um=120, weights="random", show_progress_bar=False)
    assert "times as far as the spots" in message
    assert "full resolution" in message
    # an array on a part of the tissue is none: where it ends there is no scale in it
    part = datasets.toy(seed=3, size_um=(2400.0, 2400.0), mpp=2.0, n_genes=4)
    part = part[part.obsm["spatial"][:, 0] < 600].copy()
    assert said(pp.features, part, size_um=120, weights="random", show_progress_bar=False) == []


def test_spots_on_bare_glass():
    slide = toy()
    entry = slide.uns["spatial"][next(iter(slide.uns["spatial"]))]
    image = entry["images"]["hires"]
    height, width = image.shape[:2]
    wide = np.full((3 * height, 3 * width, 3), 255, dtype=np.uint8)
    wide[-height:, -width:] = image
    entry["images"]["hires"] = wide
    (message,) = said(pp.features, slide, size_um=100, weights="random", show_progress_bar=False)
    assert "only 0% of the spots lie on what looks like tissue" in message


@pytest.mark.parametrize("value", [0, 1, 255])
def test_an_image_of_one_color(model: HGGEP, value: int):
    """Such as one stored as 0 to 1 and cast to integers."""
    slide = recolored(toy(seed=6), lambda pixels: np.full_like(pixels, value))
    (message,) = said(tl.predict, slide, model, show_progress_bar=False)
    assert "sthggep finds no tissue in its image, which has one color throughout" in message


def test_tissue_that_the_model_has_learned_from(model: HGGEP, tmp_path: Path):
    model.save(tmp_path / "model")
    again = HGGEP.load(tmp_path / "model")
    seen, new = toy(), toy(seed=5)
    (message,) = said(tl.predict, seen, again, show_progress_bar=False)
    assert message.startswith("The prediction is of tissue that the model was trained on")
    assert [
        text
        for text in said(tl.evaluate, seen)
        if text.startswith("The score is of tissue that the model was trained on")
    ]
    # some of its spots are still the same tissue
    assert said(tl.predict, seen[10:40].copy(), again, show_progress_bar=False) == [message]
    assert said(tl.predict, new, again, show_progress_bar=False) == []
    assert not [text for text in said(tl.evaluate, new) if "trained on" in text]


def test_a_table_without_any_of_the_genes(model: HGGEP):
    mouse = toy(seed=6)
    mouse.var_names = [f"Mouse{i}" for i in range(mouse.n_vars)]
    (message,) = said(tl.predict, mouse, model, show_progress_bar=False)
    assert "None of the model's" in message
    assert "'Mouse0', 'Mouse1'" in message


def recolored(adata: AnnData, change) -> AnnData:
    """The slide with other pixels."""
    out = adata.copy()
    images = next(iter(out.uns["spatial"].values()))["images"]
    for key, pixels in images.items():
        images[key] = change(pixels)
    return out


def test_tissue_of_other_colors(model: HGGEP):
    new = toy(seed=6)
    lighter = recolored(new, lambda pixels: (255 - 0.9 * (255.0 - pixels)).astype(np.uint8))
    assert said(tl.predict, lighter, model, show_progress_bar=False) == []
    (message,) = said(tl.predict, recolored(new, lambda pixels: pixels[..., [1, 0, 2]]), model, show_progress_bar=False)
    assert "other colors than the model was trained on" in message
    assert "sthggep.pl.colors(data, model)" in message


def test_an_image_coarser_or_finer_than_those_of_the_training(model: HGGEP):
    """The model saw 4 µm/px; its patches of 160 µm in 112 px show no more than 1.4."""
    sharp = [
        text
        for mpp in (1.0, 12.0, 3.0)
        for text in said(
            tl.predict,
            datasets.toy(seed=7, size_um=(1600.0, 1600.0), mpp=mpp, n_genes=12),
            model,
            show_progress_bar=False,
        )
        if "µm/px" in text
    ]
    assert len(sharp) == 2
    assert "patches of 160 µm are sharper than those" in sharp[0]
    assert "patches of 160 µm are more blurred than those" in sharp[1]


def test_fine_tuned_models_know_the_colors_of_both(model: HGGEP):
    tuned = tl.fit(toy(seed=8), model=model, max_epochs=1, validation=None, show_progress_bar=False)
    assert tuned.training.colors[:1] == model.training.colors
    assert len(tuned.training.colors) == 2


def test_on_real_sections_spots_lie_on_tissue_and_would_not_if_swapped(data_root: Path):
    for name in ("B4", "C2", "C5"):
        slide = resolve_one(datasets.her2st(name, root=data_root / "her2st", fullres=False))
        share, swapped = on_tissue(slide)
        assert share > 0.75
        assert swapped < share - 0.1


def test_the_bundled_model_knows_its_sections(data_root: Path):
    known = HGGEP.from_pretrained("her2st")
    small = resolve_one(datasets.her2st("C2", root=data_root / "her2st", fullres=False))
    assert learned_from(known, [small]) == [small.name]
    mouse = resolve_one(datasets.mob("MOB1", root=data_root / "mob"))
    assert learned_from(known, [mouse]) == []
