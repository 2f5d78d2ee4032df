"""Warnings without an error: swapped coordinates, bare glass, tissue of the training, other genes."""

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


def warnings_of(call, *args, **options) -> list[str]:
    """Return the messages of the warnings of a call."""
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        call(*args, **options)
    return [str(warning.message) for warning in records]


@pytest.fixture(scope="module")
def model() -> HGGEP:
    return tl.fit(toy(), genes=list(toy().var_names[:3]), weights="random", **QUICK)


def test_swapped_coordinates_that_fit_the_image():
    slide = toy()
    library = slide.uns["spatial"][next(iter(slide.uns["spatial"]))]
    image = library["images"]["hires"]
    # white margin, like glass, for the swapped spots
    side = max(image.shape[:2])
    canvas = np.full((side, side, 3), 255, dtype=np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    library["images"]["hires"] = canvas
    assert warnings_of(pp.features, slide, size_um=100, weights="random", show_progress_bar=False) == []
    swapped_slide = slide.copy()
    swapped_slide.obsm["spatial"] = slide.obsm["spatial"][:, ::-1].copy()
    share, swapped_share = on_tissue(resolve_one(swapped_slide))
    assert swapped_share > share + 0.1
    (message,) = warnings_of(pp.features, swapped_slide, size_um=120, weights="random", show_progress_bar=False)
    assert f"{swapped_share:.0%} would with x and y swapped" in message


@pytest.mark.parametrize("factor", [0.3, 0.55])
def test_coordinates_of_a_smaller_copy_of_the_image(factor: float):
    """Spots lie on tissue and their pitch gives another scale; the tissue beyond the spots reveals it."""
    slide = datasets.toy(seed=3, size_um=(2400.0, 2400.0), mpp=2.0, n_genes=4)
    next(iter(slide.uns["spatial"].values()))["metadata"].pop("mpp", None)
    assert warnings_of(pp.features, slide.copy(), size_um=120, weights="random", show_progress_bar=False) == []
    slide.obsm["spatial"] = slide.obsm["spatial"] * factor
    (message,) = warnings_of(pp.features, slide, size_um=120, weights="random", show_progress_bar=False)
    assert "times as far as the spots" in message
    assert "full resolution" in message
    # an array on a part of the tissue is correct: its extent does not look like a scale
    part = datasets.toy(seed=3, size_um=(2400.0, 2400.0), mpp=2.0, n_genes=4)
    part = part[part.obsm["spatial"][:, 0] < 600].copy()
    assert warnings_of(pp.features, part, size_um=120, weights="random", show_progress_bar=False) == []


def test_spots_on_bare_glass():
    slide = toy()
    entry = slide.uns["spatial"][next(iter(slide.uns["spatial"]))]
    image = entry["images"]["hires"]
    height, width = image.shape[:2]
    wide = np.full((3 * height, 3 * width, 3), 255, dtype=np.uint8)
    wide[-height:, -width:] = image
    entry["images"]["hires"] = wide
    (message,) = warnings_of(pp.features, slide, size_um=100, weights="random", show_progress_bar=False)
    assert "only 0% of the spots lie on what looks like tissue" in message


@pytest.mark.handles("`tl.predict` warns: it lists the values of the image and asks whether the image is the H&E.")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda p: np.full_like(p, 255), "no tissue in its image, which has one color", id="a white image"),
        pytest.param(lambda p: np.zeros_like(p), "nearly black, with values up to 0 of 255", id="a black image"),
        pytest.param(lambda p: p // 16, "nearly black, with values up to 15 of 255", id="an image of 4 bits in 8"),
        pytest.param(
            lambda p: np.where(p[..., :1] < 180, 255, 0).repeat(3, axis=-1).astype(np.uint8),
            "holds only the two gray values 0 and 255, as a mask does",
            id="a mask of 0 and 255",
        ),
    ],
)
def test_images_that_cannot_be_the_he(model: HGGEP, change, words: str):
    slide = with_pixels(toy(seed=6), change)
    message = warnings_of(tl.predict, slide, model, show_progress_bar=False)[0]
    assert words in message
    assert "Is it the H&E image, with values from 0 to 255 (or 0 to 1 as float)?" in message


def test_tissue_of_the_training(model: HGGEP, tmp_path: Path):
    model.save(tmp_path / "model")
    loaded = HGGEP.load(tmp_path / "model")
    training, new = toy(), toy(seed=5)
    (message,) = warnings_of(tl.predict, training, loaded, show_progress_bar=False)
    assert message.startswith("The prediction is of tissue that the model was trained on")
    assert [
        text
        for text in warnings_of(tl.evaluate, training)
        if text.startswith("The score is of tissue that the model was trained on")
    ]
    # some of its spots are the same tissue
    assert warnings_of(tl.predict, training[10:40].copy(), loaded, show_progress_bar=False) == [message]
    assert warnings_of(tl.predict, new, loaded, show_progress_bar=False) == []
    assert not [text for text in warnings_of(tl.evaluate, new) if "trained on" in text]


def test_a_table_without_any_of_the_genes(model: HGGEP):
    mouse = toy(seed=6)
    mouse.var_names = [f"Mouse{i}" for i in range(mouse.n_vars)]
    (message,) = warnings_of(tl.predict, mouse, model, show_progress_bar=False)
    assert "None of the model's" in message
    assert "'Mouse0', 'Mouse1'" in message


def with_pixels(adata: AnnData, change) -> AnnData:
    """Return the slide with changed pixels."""
    out = adata.copy()
    images = next(iter(out.uns["spatial"].values()))["images"]
    for key, pixels in images.items():
        images[key] = change(pixels)
    return out


def test_tissue_of_other_colors(model: HGGEP):
    new = toy(seed=6)
    lighter_slide = with_pixels(new, lambda pixels: (255 - 0.9 * (255.0 - pixels)).astype(np.uint8))
    assert warnings_of(tl.predict, lighter_slide, model, show_progress_bar=False) == []
    (message,) = warnings_of(
        tl.predict, with_pixels(new, lambda pixels: pixels[..., [1, 0, 2]]), model, show_progress_bar=False
    )
    assert "other colors than the model was trained on" in message
    assert "sthggep.pl.colors(data, model)" in message


def test_an_image_coarser_or_finer_than_those_of_the_training(model: HGGEP):
    """The model was trained at 4 µm/px; its patches of 160 µm in 112 px resolve 1.4 µm/px at most."""
    sharp = [
        text
        for mpp in (1.0, 12.0, 3.0)
        for text in warnings_of(
            tl.predict,
            datasets.toy(seed=7, size_um=(1600.0, 1600.0), mpp=mpp, n_genes=12),
            model,
            show_progress_bar=False,
        )
        if "than those that the model was trained on" in text
    ]
    assert len(sharp) == 2
    assert "patches of 160 µm are sharper than those" in sharp[0]
    assert "patches of 160 µm are more blurred than those" in sharp[1]


def test_fine_tuned_models_hold_the_colors_of_both_trainings(model: HGGEP):
    child = tl.fit(toy(seed=8), model=model, max_epochs=1, validation=None, show_progress_bar=False)
    assert child.training.colors[:1] == model.training.colors
    assert len(child.training.colors) == 2


def test_on_real_sections_spots_lie_on_tissue_and_would_not_if_swapped(data_root: Path):
    for name in ("B4", "C2", "C5"):
        slide = resolve_one(datasets.her2st(name, root=data_root / "her2st", fullres=False))
        share, swapped_share = on_tissue(slide)
        assert share > 0.75
        assert swapped_share < share - 0.1


def test_the_bundled_model_recognizes_its_sections(data_root: Path):
    bundled = HGGEP.from_pretrained("her2st")
    small = resolve_one(datasets.her2st("C2", root=data_root / "her2st", fullres=False))
    assert learned_from(bundled, [small]) == [small.name]
    mouse = resolve_one(datasets.mob("MOB1", root=data_root / "mob"))
    assert learned_from(bundled, [mouse]) == []
