"""What is held out of training: sections or blocks of tissue, never single spots."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from anndata import AnnData

from sthggep._inputs._section import Section
from sthggep._slides._lattice import BLOCKS_ACROSS, spatial_blocks
from sthggep._slides._slide import Slide
from sthggep._training._validation import FOLDS, apply_plan, hold_out, hold_out_blocks, plan_validation


def slides(*names: str, side: int = 8) -> list[Slide]:
    y, x = np.divmod(np.arange(side * side), side)
    xy = np.column_stack([x, y]) * 100.0
    return [Slide(name, AnnData(), np.arange(len(xy)), xy) for name in names]


def sections(found: list[Slide], empty: int = 0) -> list[Section]:
    out = []
    for slide in found:
        train = torch.ones(slide.n_spots, dtype=torch.bool)
        train[:empty] = False
        nothing = torch.zeros(slide.n_spots, 0)
        out.append(Section(slide.name, (), nothing, nothing, nothing[:, 0:0], train, torch.zeros_like(train)))
    return out


# --- the plan -----------------------------------------------------------------------------------------------------


def test_auto_holds_out_sections_where_there_are_several_and_blocks_otherwise():
    assert plan_validation(slides("A", "B", "C"), "auto", 4) == [("A",), ("B",), ("C",), ("A",)]
    assert plan_validation(slides("A"), "auto", 7) == [0, 1, 2, 3, 4, 0, 1]


def test_what_is_asked_for():
    three = slides("A", "B", "C")
    assert plan_validation(three, None, 2) == [None, None]
    assert plan_validation(three, "B", 2) == [("B",), ("B",)]
    assert plan_validation(three, ["A", "C"], 1) == [("A", "C")]
    assert plan_validation(three, "blocks", 2) == [0, 1]
    assert plan_validation(three, "sections", 1) == [("A",)]


def test_too_few_spots_for_blocks(caplog):
    with caplog.at_level(logging.INFO, logger="sthggep"):
        assert plan_validation(slides("A", side=4), "blocks", 2) == [None, None]
    assert "Fewer than 20 spots: nothing is held out" in caplog.text


@pytest.mark.parametrize(
    ("names", "validation", "words"),
    [
        (["A", "B"], "C", r"Unknown `validation` 'C'\. There is: 'auto', 'sections', 'blocks', None.*'A', 'B'"),
        (["A", "B"], ["A", "C"], "must name some of the sections.*'A', 'B'; found 'A', 'C'"),
        (["A", "B"], ["A", "B"], "leave others to train on"),
        (["A", "B"], [], "must name some of the sections.*found nothing"),
        (["A"], "A", "leave others to train on"),
        (["A"], "sections", "needs two sections or more, found 'A'"),
    ],
    ids=str,
)
def test_plans_that_cannot_be(names, validation, words):
    with pytest.raises(ValueError, match=words):
        plan_validation(slides(*names), validation, 1)


# --- blocks of tissue ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (20, 12), (5, 5)])
def test_folds_of_blocks_cover_every_spot_once(shape):
    y, x = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    xy = np.column_stack([x * 100.0, y * 80.0]) + 500
    folds = np.array([spatial_blocks(xy, fold, FOLDS) for fold in range(FOLDS)])
    np.testing.assert_array_equal(folds.sum(axis=0), 1)
    assert folds.any(axis=1).all()
    assert folds.mean(axis=1).max() < 0.35


def test_blocks_are_compact():
    xy = np.column_stack([a.ravel() for a in np.meshgrid(np.arange(16.0), np.arange(16.0))])
    held = spatial_blocks(xy, 2, FOLDS).reshape(16, 16)
    cells = held.reshape(BLOCKS_ACROSS, 4, BLOCKS_ACROSS, 4)
    # each block of 4 × 4 spots is held out whole or not at all
    whole, some = cells.all(axis=(1, 3)), cells.any(axis=(1, 3))
    np.testing.assert_array_equal(whole, some)
    # and no two of them touch, by a side or by a corner
    assert not (whole[1:] & whole[:-1]).any()
    assert not (whole[:, 1:] & whole[:, :-1]).any()
    assert not (whole[1:, 1:] & whole[:-1, :-1]).any()
    assert not (whole[1:, :-1] & whole[:-1, 1:]).any()


@pytest.mark.parametrize("xy", [[[5.0, 5.0]], [[1.0, 2.0], [1.0, 9.0]], [[3.0, 3.0], [3.0, 3.0]]])
def test_blocks_of_degenerate_sections(xy):
    folds = np.array([spatial_blocks(np.array(xy), fold, FOLDS) for fold in range(FOLDS)])
    np.testing.assert_array_equal(folds.sum(axis=0), 1)


# --- masks --------------------------------------------------------------------------------------------------------


def test_sections_held_out_are_not_trained_on():
    found = hold_out(sections(slides("A", "B", "C"), empty=3), ["B"])
    assert [int(s.train.sum()) for s in found] == [61, 0, 61]
    # spots without counts are not validated on either
    assert [int(s.validate.sum()) for s in found] == [0, 61, 0]


def test_blocks_held_out_are_not_trained_on():
    both = slides("A", "B")
    found = hold_out_blocks(sections(both, empty=3), [s.xy for s in both], 1, FOLDS)
    for section, slide in zip(found, both, strict=True):
        block = torch.from_numpy(spatial_blocks(slide.xy, 1, FOLDS))
        assert not (section.train & section.validate).any()
        assert (section.train | section.validate).sum() == 61
        assert torch.equal(section.validate, block & (torch.arange(64) >= 3))


def test_apply_plan():
    both = slides("A", "B")
    given = sections(both)
    untouched = apply_plan(given, both, None)
    assert [int(s.validate.sum()) for s in untouched] == [0, 0]
    assert [s.name for s in apply_plan(given, both, ("A",)) if s.validate.any()] == ["A"]
    assert all(s.validate.any() and s.train.any() for s in apply_plan(given, both, 0))
    # the sections given are not changed
    assert all(s.train.all() and not s.validate.any() for s in given)
