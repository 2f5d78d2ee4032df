"""Several sections that look like one."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest

from sthggep import datasets, pp, tl
from sthggep._slides._places import Places
from sthggep._slides._resolve import resolve

OPTIONS = {"size_um": (1000.0, 1000.0), "mpp": 2.0, "n_genes": 8, "section": "ST"}


@pytest.fixture(scope="module")
def sections() -> list[ad.AnnData]:
    return [datasets.toy(seed=seed, **OPTIONS) for seed in (3, 4, 5)]


def joined(sections: list[ad.AnnData], columns: tuple[str, str] | None = None) -> ad.AnnData:
    both = ad.concat(dict(zip("abc", sections, strict=False)), label="sample", index_unique="-", uns_merge="first")
    if columns is not None:
        both.obs = both.obs.rename(columns=dict(zip(("array_x", "array_y"), columns, strict=True)))
    return both


def as_text(both: ad.AnnData) -> ad.AnnData:
    both.obs = both.obs.assign(array_x=both.obs["array_x"].astype(str), array_y=both.obs["array_y"].astype(str))
    return both


@pytest.mark.handles(
    "sthggep rejects the slide, because two spots share an array position. The message names the columns that distinguish the sections."
)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda s: joined(s[:2]), id="two sections of one library after concat"),
        pytest.param(lambda s: joined(s), id="three sections"),
        pytest.param(
            lambda s: joined(s[:2], ("array_col", "array_row")), id="two sections with array_row and array_col"
        ),
        pytest.param(lambda s: as_text(joined(s[:2])), id="two sections with array places as text"),
        pytest.param(lambda s: joined([s[0], s[1][:3].copy()]), id="two sections, of which one has three spots"),
    ],
)
def test_doubled_array_places(sections: list[ad.AnnData], make):
    both = make(sections)
    for call in (resolve, tl.fit, pp.gene_panel, lambda data: pp.features(data, size_um=80, weights="random")):
        with pytest.raises(
            ValueError, match=r"place of its own on the array, but \d+ of \d+ .*`library_key=` \('sample'"
        ):
            call(both)
    with pytest.raises(ValueError, match="place of its own on the array"):
        resolve(both, need_image=False)


def test_the_sections_by_their_column(sections: list[ad.AnnData]):
    one, other = (section.copy() for section in sections[:2])
    for name, section in (("a", one), ("b", other)):
        section.uns["spatial"] = {name: section.uns["spatial"]["ST"]}
    both = ad.concat({"a": one, "b": other}, label="sample", index_unique="-", uns_merge="unique")
    first, second = resolve(both, Places(library_key="sample"))
    assert (first.n_spots, second.n_spots) == (one.n_obs, other.n_obs)
    np.testing.assert_array_equal(second.xy, other.obsm["spatial"])
    np.testing.assert_array_equal(second.levels[0].array, other.uns["spatial"]["b"]["images"]["hires"])


@pytest.mark.handles("sthggep reads the slide and warns: pass `library_key=`.")
@pytest.mark.parametrize("n_shared", [pytest.param(20, id="two sections without an array on the same pixels")])
def test_doubled_pixels(sections: list[ad.AnnData], n_shared: int):
    one = sections[0][:n_shared].copy()
    one.obs = one.obs.drop(columns=["array_x", "array_y"])
    both = ad.concat({"a": one, "b": one}, label="sample", index_unique="-", uns_merge="first")
    with pytest.warns(
        UserWarning, match=rf"{n_shared} of {2 * n_shared} spots have the coordinates of another.*'sample'|library_key"
    ):
        resolve(both)


@pytest.mark.parametrize("kind", ["zeros", "refined", "few cells"])
def test_places_that_are_no_fault(sections: list[ad.AnnData], kind: str):
    slide = sections[0].copy()
    if kind == "zeros":
        slide.obs["array_x"] = slide.obs["array_y"] = 0
    elif kind == "refined":  # two places that only rounding makes one
        slide.obs = slide.obs.astype({"array_x": float, "array_y": float})
        slide.obs.iloc[:2, slide.obs.columns.get_indexer(["array_x", "array_y"])] = [[1.1, 0.1], [1.4, 0.2]]
    else:
        slide.obs = slide.obs.drop(columns=["array_x", "array_y"])
        slide = ad.concat([slide] * 1)
        slide.uns = sections[0].uns
        slide.obsm["spatial"][1] = slide.obsm["spatial"][0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*of another spot")
        (section,) = resolve(slide)
    assert section.n_spots == slide.n_obs
