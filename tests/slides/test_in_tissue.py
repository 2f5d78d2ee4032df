"""Spots on tissue (`obs["in_tissue"]`) in other spellings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sthggep import pp, tl
from sthggep._slides._resolve import resolve_one


@pytest.fixture
def slide(toy: AnnData) -> AnnData:
    return toy.copy()


def spelled(yes: object, no: object, name: str) -> object:
    return pytest.param(yes, no, id=name)


SPELLINGS = [
    spelled("True", "False", "True and False as text"),
    spelled("TRUE", "FALSE", "TRUE and FALSE, as R writes them"),
    spelled("true", "false", "true and false as text"),
    spelled("T", "F", "T and F"),
    spelled("yes", "no", "yes and no"),
    spelled("1", "0", "1 and 0 as text"),
    spelled("1.0", "0.0", "1.0 and 0.0 as text"),
    spelled(" 1 ", '"0"', "with spaces and quotes"),
    spelled(b"1", b"0", "bytes"),
    spelled(True, False, "truth values"),
    spelled(1.0, 0.0, "numbers with decimals"),
    spelled(np.uint8(1), np.uint8(0), "small integers"),
]


@pytest.mark.handles("sthggep excludes the spots that the column marks as off the tissue.")
@pytest.mark.parametrize("category", [False, True], ids=["", "as categories"])
@pytest.mark.parametrize(("yes", "no"), SPELLINGS)
def test_spellings(slide: AnnData, yes: object, no: object, category: bool):
    values = pd.Series([yes] * 12 + [no] * (slide.n_obs - 12), index=slide.obs_names)
    slide.obs["in_tissue"] = values.astype("category") if category else values
    assert resolve_one(slide).rows.tolist() == list(range(12))
    assert len(pp.patches(slide, size_um=80)) == 12


@pytest.mark.handles("sthggep uses all spots, as without the column.")
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.nan, id="NaN throughout"),
        pytest.param(None, id="None throughout"),
        pytest.param("NA", id="NA as text throughout"),
    ],
)
def test_no_value_at_all(slide: AnnData, values: object):
    slide.obs["in_tissue"] = pd.Series([values] * slide.n_obs, index=slide.obs_names, dtype=object)
    assert resolve_one(slide).n_spots == slide.n_obs


def test_a_column_that_marks_only_spots_off_the_tissue(slide: AnnData):
    slide.obs["in_tissue"] = [0.0] * 12 + [np.nan] * (slide.n_obs - 12)
    assert resolve_one(slide).rows.tolist() == list(range(12, slide.n_obs))


@pytest.mark.handles("sthggep rejects the column and lists its values.")
@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param(["1", "maybe"], "in_tissue.* found 'maybe'", id="a word that says neither yes nor no"),
        pytest.param([1, 2], "found '2'", id="a number other than 0 and 1"),
        pytest.param([1, 0.5], "found '0.5'", id="a fraction"),
        pytest.param([1, -1], "found '-1'", id="a negative number"),
        pytest.param(["tumor", "glass"], "found 'tumor', 'glass'", id="labels"),
        pytest.param([[1], [0]], r"found '\[1\]', '\[0\]'", id="lists"),
        pytest.param([1, np.nan], "is missing for .* spots of", id="1 for some spots and nothing for the others"),
        pytest.param([1, None], "is missing for .* spots of", id="1 for some and None for the others"),
        pytest.param([0, 0], "is 0 for all", id="0 throughout"),
    ],
)
def test_refused_values(slide: AnnData, values: list[object], words: str):
    column = (values * slide.n_obs)[: slide.n_obs]
    slide.obs["in_tissue"] = pd.Series(column, index=slide.obs_names, dtype=object)
    for call in (resolve_one, lambda data: pp.patches(data, size_um=80), pp.gene_panel, tl.fit):
        with pytest.raises(ValueError, match=words):
            call(slide)


def test_two_columns_of_that_name(slide: AnnData):
    slide.obs["in_tissue"] = 1
    slide.obs = pd.concat([slide.obs, slide.obs[["in_tissue"]]], axis=1)
    with pytest.raises(ValueError, match="one column 'in_tissue', found 2"):
        resolve_one(slide)
