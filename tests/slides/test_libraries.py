"""`uns["spatial"]` in other forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from sthggep import pp, tl
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve, resolve_image, resolve_one
from sthggep._training._validation import plan_validation
from sthggep.pl._tissue import sections_of

Library = dict[str, Any]


@pytest.fixture
def slide(toy: ad.AnnData) -> ad.AnnData:
    return toy.copy()


def image(slide: ad.AnnData) -> np.ndarray:
    return slide.uns["spatial"]["toy1"]["images"]["hires"]


def census(slide: ad.AnnData, name: str = "fullres", **more: Any) -> Library:
    """As CELLxGENE lays it out: half the resolution as `hires`, and the whole image without a scale factor."""
    library = {
        "images": {"hires": image(slide)[::2, ::2], name: image(slide)},
        "scalefactors": {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": 50.0},
        "metadata": {"mpp": 2.0},
    }
    return {"toy1": library | more}


@pytest.mark.handles("sthggep reads the section and cuts patches from the image at full resolution.")
@pytest.mark.parametrize(
    "spatial",
    [
        pytest.param(
            lambda s: {"is_single": True, **census(s)}, id="CELLxGENE: is_single, and fullres without a factor"
        ),
        pytest.param(lambda s: {"is_single": np.bool_(True), **census(s)}, id="is_single as NumPy's truth value"),
        pytest.param(lambda s: {"is_single": np.array([True]), **census(s)}, id="is_single as an array of one"),
        pytest.param(lambda s: census(s, "fulres", use_quality="fulres"), id="stLearn: fulres and use_quality"),
        pytest.param(lambda s: {7: census(s)["toy1"]}, id="an integer as the name of the section"),
        pytest.param(lambda s: {**census(s), "note": "by hand", "n": 3}, id="notes beside the section"),
    ],
)
def test_forms_that_are_read(slide: ad.AnnData, spatial: Callable[[ad.AnnData], Library]):
    expected = pp.patches(slide, size_um=80)[:]
    slide.uns["spatial"] = spatial(slide)
    np.testing.assert_array_equal(pp.patches(slide, size_um=80)[:], expected)
    grid = pp.tissue_grid(slide, spacing_um=300, tissue=None)
    assert len(next(iter(grid.uns["spatial"].values()))["images"]) == 2


def test_a_factor_of_the_full_resolution_that_is_stated_is_used(slide: ad.AnnData):
    slide.uns["spatial"] = census(slide)
    slide.obsm["spatial"] = slide.obsm["spatial"] * 2
    slide.uns["spatial"]["toy1"]["scalefactors"] |= {"tissue_fullres_scalef": 0.5, "tissue_hires_scalef": 0.25}
    assert [level.scale[0] for level in resolve_one(slide, Places(mpp=1.0)).levels] == [0.5, 0.25]


@pytest.mark.handles("sthggep rejects `uns['spatial']` and names the expected form.")
@pytest.mark.parametrize(
    ("spatial", "words"),
    [
        pytest.param(
            lambda s: dict(s.uns["spatial"]["toy1"]),
            "without the level of the section",
            id="images without the level of the section",
        ),
        pytest.param(lambda s: {"images": {"hires": image(s)}}, "without the level of the section", id="images alone"),
        pytest.param(
            lambda s: {"tissue": image(s), "mask": image(s)[..., 0]},
            r"no sections: 'tissue' \(ndarray\), 'mask'",
            id="pictures instead of sections",
        ),
        pytest.param(image, "must be {section: .*found ndarray", id="a picture"),
        pytest.param(lambda s: pd.DataFrame({"x": [1]}), "found DataFrame", id="a table"),
        pytest.param(lambda s: "slide.tif", "found str", id="a path"),
        pytest.param(lambda s: {"is_single": True}, "no sections: 'is_single'", id="is_single alone"),
    ],
)
def test_forms_without_a_section(slide: ad.AnnData, spatial: Callable[[ad.AnnData], Any], words: str):
    slide.uns["spatial"] = spatial(slide)
    for call in (resolve, tl.fit, lambda data: resolve_image(data[:0].copy())):
        with pytest.raises(KeyError, match=words):
            call(slide)
    assert "several sections" not in words
    assert resolve(slide, need_image=False)[0].n_spots == slide.n_obs


def test_two_names_that_are_one(slide: ad.AnnData):
    library = slide.uns["spatial"]["toy1"]
    slide.uns["spatial"] = {1: library, "1": library}
    with pytest.raises(ValueError, match=r"sections in uns.* must be unique.*'1'"):
        resolve(slide)


def shaped(kind: str) -> Callable[[float], Any]:
    return {
        "array": lambda x: np.array([x]),
        "matrix": lambda x: np.array([[x]]),
        "scalar": np.array,
        "list": lambda x: [x],
        "text": str,
        "float32": np.float32,
    }[kind]


@pytest.mark.handles("sthggep reads the number.")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("array", id="a number as an array of one, as from R"),
        pytest.param("matrix", id="a number as a matrix of one"),
        pytest.param("scalar", id="a number as an array without axes"),
        pytest.param("list", id="a number as a list of one"),
        pytest.param("text", id="a number as text"),
        pytest.param("float32", id="a number of single precision"),
    ],
)
def test_numbers_of_length_one(slide: ad.AnnData, kind: str):
    expected = resolve_one(slide)
    library = slide.uns["spatial"]["toy1"]
    for part, names in (
        ("scalefactors", ("tissue_hires_scalef", "spot_diameter_fullres")),
        ("metadata", ("mpp", "pitch_um")),
    ):
        library[part] |= {name: shaped(kind)(library[part][name]) for name in names}
    section = resolve_one(slide)
    assert section.mpp == pytest.approx(expected.mpp)
    assert section.spot_diameter == pytest.approx(expected.spot_diameter)
    assert section.levels[0].scale == expected.levels[0].scale


@pytest.mark.handles("sthggep rejects the slide and names the scale factor.")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(np.array([0.5, 0.5]), id="two numbers as a scale factor"),
        pytest.param(np.array([]), id="an empty array as a scale factor"),
        pytest.param("half", id="a word as a scale factor"),
        pytest.param({"x": 0.5}, id="a dict as a scale factor"),
        pytest.param(10**400, id="an integer of 400 digits as a scale factor"),
    ],
)
def test_numbers_that_are_none(slide: ad.AnnData, value: object):
    slide.uns["spatial"]["toy1"]["scalefactors"]["tissue_hires_scalef"] = value
    with pytest.raises(ValueError, match=r"'toy1': tissue_hires_scalef must be (one|a positive) number"):
        resolve_one(slide)


@pytest.mark.handles("sthggep opens the file.")
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda p: np.array([p]), id="a path in an array of one"),
        pytest.param(lambda p: np.array([p.encode()]), id="a path as bytes in an array"),
        pytest.param(lambda p: [p], id="a path in a list of one"),
        pytest.param(lambda p: p.encode(), id="a path as bytes"),
    ],
)
def test_a_path_in_an_array_of_one(slide: ad.AnnData, tmp_path, wrap):
    import tifffile

    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, image(slide), photometric="rgb")
    expected = pp.patches(slide, size_um=80)[:]
    slide.uns["spatial"]["toy1"] = {"metadata": {"source_image_path": wrap(str(path)), "mpp": 2.0}}
    np.testing.assert_array_equal(pp.patches(slide, size_um=80)[:], expected)


@pytest.mark.handles("sthggep matches each spot to the image of its section.")
@pytest.mark.parametrize(
    ("ids", "names"),
    [
        pytest.param([0, 1], ["0", "1"], id="integers in obs, text in uns"),
        pytest.param([0, 1], [0, 1], id="integers in both"),
        pytest.param(["0", "1"], [0, 1], id="text in obs, integers in uns"),
        pytest.param([0.0, 1.0], ["0", "1"], id="numbers with decimals in obs"),
        pytest.param([0.0, 1.0], [0.0, 1.0], id="numbers with decimals in both"),
        pytest.param(["A ", "B"], ["A", "B"], id="spaces after a name"),
    ],
)
@pytest.mark.parametrize("category", [False, True], ids=["", "as categories"])
def test_library_ids_of_another_type(slide: ad.AnnData, ids: list[Any], names: list[Any], category: bool):
    library = slide.uns["spatial"]["toy1"]
    inverted = library | {"images": {"hires": 255 - library["images"]["hires"]}}
    half = slide.n_obs // 2
    column = pd.Series([ids[0]] * half + [ids[1]] * (slide.n_obs - half), index=slide.obs_names)
    slide.obs["library"] = column.astype("category") if category else column
    slide.uns["spatial"] = dict(zip(names, (library, inverted), strict=True))
    first, second = resolve(slide, Places(library_key="library"))
    assert (first.n_spots, second.n_spots) == (half, slide.n_obs - half)
    np.testing.assert_array_equal(first.levels[0].array, library["images"]["hires"])
    np.testing.assert_array_equal(second.levels[0].array, 255 - library["images"]["hires"])


# --- names of sections --------------------------------------------------------------------------------------------


def renamed(slide: ad.AnnData, name: object) -> ad.AnnData:
    (library,) = slide.uns["spatial"].values()
    slide.uns["spatial"] = {name: library}
    return slide


@pytest.mark.handles("An .h5ad file splits such a name at its slashes. sthggep restores the name and the image.")
@pytest.mark.parametrize("name", ["P1/2", "study/P1/2"], ids=["a section with a slash", "a section with two slashes"])
def test_names_that_files_split(slide: ad.AnnData, tmp_path: Path, name: str):
    expected = pp.patches(slide, size_um=80)[:]
    (nested,) = slide.uns["spatial"].values()
    for part in reversed(name.split("/")):
        nested = {part: nested}
    slide.uns["spatial"] = nested
    slide.write_h5ad(tmp_path / "slide.h5ad")
    slide = ad.read_h5ad(tmp_path / "slide.h5ad")
    assert resolve_one(slide).name == name
    np.testing.assert_array_equal(pp.patches(slide, size_um=80)[:], expected)


def test_a_section_and_one_below_its_name(slide: ad.AnnData):
    library = slide.uns["spatial"]["toy1"]
    slide.uns["spatial"] = {"P1": library | {"2": library, "notes": {"metadata": {"by": "hand"}}}}
    slide.obs["section"] = ["P1", "P1/2"] * (slide.n_obs // 2) + ["P1"] * (slide.n_obs % 2)
    assert [each.name for each in resolve(slide, Places(library_key="section"))] == ["P1", "P1/2"]
    with pytest.raises(ValueError, match=r"several sections: 'P1', 'P1/2'"):
        resolve(slide)


@pytest.mark.handles(
    "`tl.fit` and `tl.cross_validate` reject the name before work starts, because no file can store it."
)
@pytest.mark.parametrize(
    "name",
    [pytest.param("a\0b", id="a section with NUL in its name"), pytest.param("a\udcff", id="a section whose name is no UTF-8")],
)  # fmt: skip
def test_names_that_no_file_can_hold(slide: ad.AnnData, name: str):
    words = r"name of a section must be text that files can hold.*Rename it in `uns"
    options = {"obsm": "morphology", "show_progress_bar": False}
    odd, other = renamed(slide.copy(), name), slide
    with pytest.raises(ValueError, match=words):
        tl.fit(odd, **options)
    with pytest.raises(ValueError, match=words):
        tl.fit(other, expression=odd, **options)
    with pytest.raises(ValueError, match=words):
        tl.cross_validate([odd, other], group_key="section", **options)


def test_blanks_around_a_name_do_not_matter(slide: ad.AnnData):
    plan = plan_validation(resolve(renamed(slide.copy(), "b")) + resolve(renamed(slide, " a ")), [" a "], 1)
    assert plan == [("a",)]
    assert [each.name for each in sections_of(slide, Places(), [" a "])] == ["a"]
