"""Lengths of a tissue grid that a slide cannot be meant for, such as a typo of the unit."""

from __future__ import annotations

import numpy as np
import pytest

from sthggep import datasets, pp
from sthggep.pp._grid import MOST_PLACES


@pytest.fixture(scope="module")
def slide():
    return datasets.toy(seed=3, size_um=(1000.0, 500.0), mpp=4.0, n_genes=4)


@pytest.mark.handles(
    "`pp.tissue_grid` rejects the value before it places a spot. The message states the smallest or the largest valid length."
)
@pytest.mark.parametrize("layout", ["square", "hex"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"spacing_um": 1e9}, "`spacing_um` is 1e.09, wider than the slide", id="a spacing of a kilometer"),
        pytest.param({"spacing_um": 1001}, "`spacing_um` is 1001, wider", id="a spacing wider than the slide"),
        pytest.param(
            {"spacing_um": 0.01}, r"makes 5e\+09 places, 50,000,000 at most.*of 0\.1 or more", id="a spacing of 10 nm"
        ),
        pytest.param({"spacing_um": 1e-300}, "makes inf places", id="a spacing of nearly nothing"),
        pytest.param({"size_um": 1e9}, "`size_um` is 1e.09, wider than the slide", id="a square of a kilometer"),
        pytest.param({"spacing_um": np.nan}, "must be a positive number, found nan", id="a spacing that is no number"),
        pytest.param({"spacing_um": np.inf}, "must be a positive number, found inf", id="an infinite spacing"),
        pytest.param({"spacing_um": -5}, "must be a positive number", id="a negative spacing"),
        pytest.param({"min_tissue": np.nan}, "must be a share from 0 to 1, found nan", id="a share that is no number"),
    ],
)
def test_refused_before_work(slide, layout, options, message, monkeypatch):
    monkeypatch.setattr("sthggep.pp._grid.lay_out", lambda *_: pytest.fail("places were laid out"))
    with pytest.raises(ValueError, match=message):
        pp.tissue_grid(slide, layout=layout, **options)


@pytest.mark.handles("`pp.tissue_grid` rejects the type.")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"spacing_um": "100"}, id="a spacing as text"),
        pytest.param({"spacing_um": None}, id="no spacing"),
        pytest.param({"size_um": [5]}, id="a list of sizes"),
        pytest.param({"min_tissue": "half"}, id="a share in words"),
    ],
)
def test_no_numbers(slide, options):
    with pytest.raises(TypeError, match=r"must be a number, found"):
        pp.tissue_grid(slide, **options)


def test_the_least_spacing_that_a_message_names_is_taken(slide, monkeypatch):
    monkeypatch.setattr("sthggep.pp._grid.MOST_PLACES", 500)
    with pytest.raises(ValueError, match=r"Pass `spacing_um` of 32 or more"):
        pp.tissue_grid(slide, spacing_um=31, tissue=None)
    assert pp.tissue_grid(slide, spacing_um=32, tissue=None).n_obs <= 500


def test_dense_grids_of_large_arrays_stay_allowed():
    assert MOST_PLACES > (11_000 / 2) ** 2  # Visium HD, a place for each of its smallest bins
