"""The same tissue twice in a training or a cross-validation, under other names, genes, pixels or spots."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from anndata import AnnData
from PIL import Image
from scipy import sparse

from sthggep import HGGEP, datasets, tl
from sthggep._slides._fingerprint import ModelFingerprint, model_fingerprint
from sthggep._slides._resolve import resolve, resolve_one
from sthggep.tl._cross_validation._folds import spelling_key
from sthggep.tl._cross_validation._leaks import refuse_copies
from sthggep.tl._doubts import learned_from

QUICK = {"obsm": "X_mine", "n_members": 1, "max_epochs": 1, "device": "cpu", "show_progress_bar": False}


def toy(seed: int) -> AnnData:
    slide = datasets.toy(seed=seed, size_um=(2400.0, 2400.0), mpp=4.0, n_genes=8)
    slide.obsm["X_mine"] = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    return slide


@pytest.fixture(scope="module")
def drawn() -> list[AnnData]:
    return [toy(0), toy(1)]


@pytest.fixture
def one(drawn) -> AnnData:
    return drawn[0].copy()


def pixels_of(slide: AnnData) -> tuple[dict[str, np.ndarray], str]:
    images = next(iter(slide.uns["spatial"].values()))["images"]
    return images, next(iter(images))


def with_pixels(slide: AnnData, change: Callable[[np.ndarray], np.ndarray]) -> AnnData:
    images, key = pixels_of(slide)
    images[key] = np.ascontiguousarray(change(images[key]))
    return slide


def jpeg(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def cropped(slide: AnnData, px: int = 3) -> AnnData:
    slide = with_pixels(slide, lambda pixels: pixels[px:, px:])
    slide.obsm["spatial"] = slide.obsm["spatial"] - px
    return slide[(slide.obsm["spatial"] >= 0).all(axis=1)].copy()


def mirrored(slide: AnnData) -> AnnData:
    width = pixels_of(slide)[0][pixels_of(slide)[1]].shape[1]
    slide = with_pixels(slide, lambda pixels: pixels[:, ::-1])
    slide.obsm["spatial"] = np.column_stack([width - slide.obsm["spatial"][:, 0], slide.obsm["spatial"][:, 1]])
    slide.obs["array_x"] = slide.obs["array_x"].max() - slide.obs["array_x"]
    return slide


def turned(slide: AnnData) -> AnnData:
    height = pixels_of(slide)[0][pixels_of(slide)[1]].shape[0]
    slide = with_pixels(slide, lambda pixels: np.rot90(pixels, -1))
    x, y = slide.obsm["spatial"].T
    slide.obsm["spatial"] = np.column_stack([height - y, x])
    slide.obs["array_x"], slide.obs["array_y"] = slide.obs["array_y"].max() - slide.obs["array_y"], slide.obs["array_x"]
    return slide


def thinned(slide: AnnData, share: float) -> AnnData:
    return slide[np.random.default_rng(0).random(slide.n_obs) < share].copy()


def other_genes(slide: AnnData) -> AnnData:
    slide.var_names = [f"ENSG{i:05d}" for i in range(slide.n_vars)]
    return slide


def other_counts(slide: AnnData) -> AnnData:
    slide.X = sparse.csr_matrix(np.random.default_rng(1).poisson(3.0, slide.shape).astype(np.float32))
    return slide


IMAGE_COPIES = [
    pytest.param(lambda s: with_pixels(s, jpeg), id="a JPEG of the same scan"),
    pytest.param(lambda s: cropped(s), id="an image without its first three rows and columns"),
    pytest.param(lambda s: cropped(s, 37), id="a larger crop"),
    pytest.param(lambda s: with_pixels(s, lambda p: (0.7 * p + 30).astype(np.uint8)), id="other contrast"),
    pytest.param(lambda s: with_pixels(s, lambda p: p[..., [1, 2, 0]]), id="other stain colors"),
    pytest.param(lambda s: thinned(cropped(s), 0.6), id="a crop with fewer spots"),
    pytest.param(lambda s: mirrored(with_pixels(s, jpeg)), id="a mirrored JPEG"),
    pytest.param(lambda s: turned(with_pixels(s, jpeg)), id="a JPEG turned by 90°"),
    pytest.param(lambda s: cropped(s)[s.obsm["spatial"][:, 0] < 300].copy(), id="half of the tissue, on a crop"),
]


def refusal(slides: list[AnnData], *, need_image: bool) -> str:
    try:
        refuse_copies([s for slide in slides for s in resolve(slide, need_image=need_image)], "auto", None)
    except ValueError as error:
        return str(error)
    return ""


def renamed(slide: AnnData, name: str = "copy") -> AnnData:
    slide.uns["spatial"] = {name: next(iter(slide.uns["spatial"].values()))}
    return slide


@pytest.mark.handles("`tl.fit` and `tl.cross_validate` reject copies of a section.")
@pytest.mark.parametrize("change", IMAGE_COPIES)
def test_copies_are_recognized_by_their_image(one, change):
    copy = other_counts(other_genes(renamed(change(one.copy()))))
    assert "'toy1' and 'copy' share the image" in refusal([one, copy], need_image=True)


@pytest.mark.handles("`tl.fit` and `tl.cross_validate` reject copies of a section.")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda s: s, "the counts", id="the same section under another name"),
        pytest.param(other_genes, "the counts", id="genes under other names"),
        pytest.param(lambda s: thinned(other_genes(s), 0.5), "the counts", id="other gene names, half of the spots"),
        pytest.param(lambda s: s[::-1, ::-1].copy(), "the counts", id="rows and genes in another order"),
        pytest.param(lambda s: s[1:].copy(), "the occupied places of the array", id="one spot dropped"),
    ],
)
def test_copies_are_recognized_by_counts_and_array(one, change, words):
    assert words in refusal([one, renamed(change(one.copy()))], need_image=False)


def test_counts_of_another_release(one):
    """Twice the counts, of genes with other names, half of the spots: the depth varies alike over the array."""
    copy = thinned(other_genes(renamed(one.copy())), 0.6)
    copy.X = copy.X * 2
    assert "share the counts" in refusal([one, copy], need_image=False)


def test_different_sections_are_no_copies():
    """No pair of 8 sections that look alike, nor halves of one section."""
    sections = [datasets.toy(seed=seed, size_um=(1800.0, 1800.0), mpp=4.0, n_genes=8) for seed in range(8)]
    assert refusal(sections, need_image=True) == ""
    whole, x = sections[0], sections[0].obsm["spatial"][:, 0]
    halves = [whole[x < np.median(x)].copy(), renamed(whole[x >= np.median(x)].copy())]
    assert refusal(halves, need_image=True) == ""


def test_serial_sections_of_a_patient_are_no_copies(data_root):
    sections = [datasets.her2st(name, root=data_root / "her2st", fullres=False) for name in ("C2", "C4")]
    assert refusal(sections, need_image=True) == ""


@pytest.mark.parametrize(
    ("validation", "refused"),
    [("auto", True), ("blocks", True), (["copy"], True), (["toy2"], False), (None, False)],
)
def test_fit_refuses_copies_where_tissue_is_held_out(drawn, validation, refused):
    a, b = (slide.copy() for slide in drawn)
    slides = [a, b, renamed(a.copy())]
    if refused:
        with pytest.raises(ValueError, match=r"hold out tissue.*'toy1' and 'copy' share the counts.*validation=None"):
            tl.fit(slides, validation=validation, **QUICK)
    else:
        model = tl.fit(slides, genes=list(a.var_names), validation=validation, **QUICK)
        assert model.training.sections == ["toy1", "toy2", "copy"]


def test_fit_refuses_the_counts_of_a_section_that_it_holds_out(drawn):
    a, b = drawn
    with pytest.raises(ValueError, match=r"'toy1' and 'copy' of `expression` share the counts"):
        tl.fit([a, b], expression=renamed(a.copy()), **QUICK)


# ---------------------------------------------------------------- patients


@pytest.mark.handles("`tl.cross_validate` rejects two spellings of a patient and lists them.")
@pytest.mark.parametrize(
    ("one_name", "other_name"),
    [
        pytest.param("P1", "p1 ", id="another case and a space"),
        pytest.param("P1", "P-1", id="a hyphen"),
        pytest.param("P1", "P01", id="a leading zero"),
        pytest.param("P1", "patient 1", id="the word patient"),
        pytest.param("1", "1.0", id="a number read as text and as float"),
        pytest.param("José", "Jose", id="an accent"),
        pytest.param("HER2_A", "her2-a", id="an underscore"),
    ],
)
def test_a_patient_in_two_spellings(drawn, one_name, other_name):
    a, b = (slide.copy() for slide in drawn)
    a.obs["patient"], b.obs["patient"] = one_name, other_name
    with pytest.raises(ValueError, match=r"spell one patient in several ways: .*Spell each patient in one way"):
        tl.cross_validate([a, b], **QUICK)


def test_different_patients_have_different_spellings():
    names = [
        "P",
        "Q",
        "P1",
        "P10",
        "P2",
        "1-2",
        "12",
        "A1",
        "B1",
        "1A",
        "control 1",
        "TCGA-A1-01",
        "TCGA-A1-10",
        "-",
        "·",
    ]
    assert len({spelling_key(name) for name in names}) == len(names)


# ---------------------------------------------------------------- the mark of a model


@pytest.fixture(scope="module")
def model(drawn) -> HGGEP:
    return tl.fit(drawn[0], genes=list(drawn[0].var_names[:3]), size_um=160, weights="random", validation=None,
                  max_epochs=1, n_members=1, show_progress_bar=False)  # fmt: skip


@pytest.mark.handles("The model recognizes a section that it was trained on. `predict`, `evaluate` and `summary` warn.")
@pytest.mark.parametrize("change", IMAGE_COPIES)
def test_models_recognize_their_sections(one, model, change, tmp_path):
    model.save(tmp_path / "model")
    copy = renamed(change(one.copy()))
    assert learned_from(HGGEP.load(tmp_path / "model"), resolve(copy)) == ["copy"]


@pytest.mark.parametrize("change", [mirrored, turned, lambda s: s])
def test_models_recognize_the_array_without_the_image(one, model, change):
    """A spot dropped, the image of another section."""
    copy = change(one.copy())[1:].copy()
    noise = np.random.default_rng(0)
    copy = with_pixels(copy, lambda pixels: noise.integers(0, 255, pixels.shape, dtype=np.uint8))
    assert learned_from(model, resolve(copy)) == ["toy1"]


def test_fine_tuning_on_the_same_tissue_warns(drawn):
    model = tl.fit(drawn[0], genes=list(drawn[0].var_names), validation=None, **QUICK)
    options = {"model": model, "device": "cpu", "max_epochs": 1}
    with pytest.warns(UserWarning, match="trained on 'copy' before: what validation holds out .* is not new to it"):
        tl.fit([renamed(drawn[0].copy()), drawn[1]], show_progress_bar=False, **options)


def test_other_sections_are_new_to_a_model(model):
    assert learned_from(model, [resolve_one(toy(seed)) for seed in range(1, 5)]) == []


def test_records_of_earlier_versions_are_read(one):
    mark = model_fingerprint(resolve_one(one))
    for part in ("image", "layout"):
        earlier = ModelFingerprint.from_dict({"name": "a", "image": None, "layout": None, part: getattr(mark, part)})
        assert mark.same_tissue(earlier)
    assert not mark.same_tissue(ModelFingerprint.from_dict({"name": "a", "image": "0" * 16, "layout": "1" * 16}))
    assert mark.same_tissue(ModelFingerprint.from_dict(mark.to_dict()))
