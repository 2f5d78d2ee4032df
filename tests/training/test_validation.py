"""Held-out tissue: sections or blocks of tissue, never single spots; and the choices made on it."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from sthggep._inputs._section import Section, SectionWindow
from sthggep._slides._lattice import BLOCKS_ACROSS, spatial_blocks
from sthggep._slides._slide import Slide
from sthggep._training._networks import choose_share, held_out_pearson
from sthggep._training._presets import PRESETS
from sthggep._training._validation import FOLDS, apply_plan, hold_out, hold_out_blocks, plan_validation
from sthggep.nn import FeatureHGGEPNet, Output


def slides(*names: str, side: int = 8) -> list[Slide]:
    y, x = np.divmod(np.arange(side * side), side)
    xy = np.column_stack([x, y]) * 100.0
    return [Slide(name, AnnData(), np.arange(len(xy)), xy) for name in names]


def sections(of_slides: list[Slide], empty: int = 0) -> list[Section]:
    out = []
    for slide in of_slides:
        train = torch.ones(slide.n_spots, dtype=torch.bool)
        train[:empty] = False
        empty_values = torch.zeros(slide.n_spots, 0)
        out.append(
            Section(slide.name, (), empty_values, empty_values, empty_values[:, 0:0], train, torch.zeros_like(train))
        )
    return out


# --- the plan -----------------------------------------------------------------------------------------------------


def test_auto_holds_out_sections_if_there_are_several_else_blocks():
    assert plan_validation(slides("A", "B", "C"), "auto", 4) == [("A",), ("B",), ("C",), ("A",)]
    assert plan_validation(slides("A"), "auto", 7) == [0, 1, 2, 3, 4, 0, 1]


def test_plans_for_each_kind_of_argument():
    three = slides("A", "B", "C")
    assert plan_validation(three, None, 2) == [None, None]
    assert plan_validation(three, "B", 2) == [("B",), ("B",)]
    assert plan_validation(three, ["A", "C"], 1) == [("A", "C")]
    assert plan_validation(three, "blocks", 2) == [0, 1]
    assert plan_validation(three, "sections", 1) == [("A",)]


def with_patients(*patients: str) -> list[Slide]:
    def obs(patient: str, n_spots: int) -> pd.DataFrame:
        return pd.DataFrame({"patient": [patient] * n_spots}, index=[str(i) for i in range(n_spots)])

    named = zip(slides(*"ABCD"[: len(patients)]), patients, strict=True)
    return [replace(slide, adata=AnnData(obs=obs(patient, slide.n_spots))) for slide, patient in named]


def test_patients_are_held_out_with_all_their_sections():
    assert plan_validation(with_patients("1", "2", "1"), "patients", 3) == [("A", "C"), ("B",), ("A", "C")]


def test_patients_must_be_known():
    with pytest.raises(ValueError, match=r"two patients or more.*A: 1', 'B: 1"):
        plan_validation(with_patients("1", "1"), "patients", 2)
    with pytest.raises(ValueError, match=r"obs\['patient'\].*A: none', 'B: none"):
        plan_validation(slides("A", "B"), "patients", 2)


def test_too_few_spots_for_blocks(caplog):
    with caplog.at_level(logging.INFO, logger="sthggep"):
        assert plan_validation(slides("A", side=4), "blocks", 2) == [None, None]
    assert "Fewer than 20 spots: nothing is held out" in caplog.text


@pytest.mark.parametrize(
    ("names", "validation", "words"),
    [
        (
            ["A", "B"],
            "C",
            r"Unknown `validation` 'C'\. There is: 'auto', 'sections', 'patients', 'blocks', None.*'A', 'B'",
        ),
        (["A", "B"], ["A", "C"], "must name some of the sections.*'A', 'B'; found 'A', 'C'"),
        (["A", "B"], ["A", "B"], "leave others to train on"),
        (["A", "B"], [], "must name some of the sections.*found nothing"),
        (["A"], "A", "leave others to train on"),
        (["A"], "sections", "needs two sections or more, found 'A'"),
    ],
    ids=str,
)
def test_impossible_plans_are_refused(names, validation, words):
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
    held_out = spatial_blocks(xy, 2, FOLDS).reshape(16, 16)
    cells = held_out.reshape(BLOCKS_ACROSS, 4, BLOCKS_ACROSS, 4)
    # each block of 4 × 4 spots is held out completely or not at all
    complete, partial = cells.all(axis=(1, 3)), cells.any(axis=(1, 3))
    np.testing.assert_array_equal(complete, partial)
    # no two blocks touch, by a side or by a corner
    assert not (complete[1:] & complete[:-1]).any()
    assert not (complete[:, 1:] & complete[:, :-1]).any()
    assert not (complete[1:, 1:] & complete[:-1, :-1]).any()
    assert not (complete[1:, :-1] & complete[:-1, 1:]).any()


@pytest.mark.parametrize("xy", [[[5.0, 5.0]], [[1.0, 2.0], [1.0, 9.0]], [[3.0, 3.0], [3.0, 3.0]]])
def test_blocks_of_degenerate_sections(xy):
    folds = np.array([spatial_blocks(np.array(xy), fold, FOLDS) for fold in range(FOLDS)])
    np.testing.assert_array_equal(folds.sum(axis=0), 1)


# --- masks --------------------------------------------------------------------------------------------------------


def test_sections_held_out_are_not_trained_on():
    masked = hold_out(sections(slides("A", "B", "C"), empty=3), ["B"])
    assert [int(s.train.sum()) for s in masked] == [61, 0, 61]
    # spots without counts are in no mask
    assert [int(s.validate.sum()) for s in masked] == [0, 61, 0]


def test_blocks_held_out_are_not_trained_on():
    two_slides = slides("A", "B")
    masked = hold_out_blocks(sections(two_slides, empty=3), [s.xy for s in two_slides], 1, FOLDS)
    for section, slide in zip(masked, two_slides, strict=True):
        block = torch.from_numpy(spatial_blocks(slide.xy, 1, FOLDS))
        assert not (section.train & section.validate).any()
        assert (section.train | section.validate).sum() == 61
        assert torch.equal(section.validate, block & (torch.arange(64) >= 3))


def test_apply_plan():
    two_slides = slides("A", "B")
    whole_sections = sections(two_slides)
    unmasked = apply_plan(whole_sections, two_slides, None)
    assert [int(s.validate.sum()) for s in unmasked] == [0, 0]
    assert [s.name for s in apply_plan(whole_sections, two_slides, ("A",)) if s.validate.any()] == ["A"]
    assert all(s.validate.any() and s.train.any() for s in apply_plan(whole_sections, two_slides, 0))
    # the sections of the argument do not change
    assert all(s.train.all() and not s.validate.any() for s in whole_sections)


# --- choices --------------------------------------------------------------------------------------------------


class BlendedNet(FeatureHGGEPNet):
    """A network that receives its own prediction and that of its shortcut as inputs, and blends them."""

    def __init__(self, n_genes: int = 3) -> None:
        super().__init__([1], n_genes, dim=4, heads=1, rank=1)

    def forward(self, network: torch.Tensor, shortcut: torch.Tensor) -> Output:
        return Output(self.blend * network + (1 - self.blend) * shortcut, network)


def noise(seed: int, n: int = 40, n_genes: int = 3) -> torch.Tensor:
    return torch.randn(n, n_genes, generator=torch.Generator().manual_seed(seed))


def blended_section(
    target: torch.Tensor, network: torch.Tensor, shortcut: torch.Tensor, held_out: torch.Tensor
) -> SectionWindow:
    """A section with held-out spots, and the predictions of a network and of its shortcut."""
    inputs, ones = (network, shortcut), torch.ones(len(target))
    return SectionWindow.of_whole("S", inputs, target, target[:, :0], ones, ~held_out, held_out)


def chosen_share(*sections: SectionWindow) -> float:
    """The share that `choose_share` gives to all members, each of which holds out one section."""
    members = [BlendedNet() for _ in sections]
    choose_share(members, [[section] for section in sections], PRESETS["default"].recipe)
    (share,) = {member.blend.item() for member in members}
    return share


@pytest.mark.parametrize(("network_is_right", "share"), [(True, 0.25), (False, 0.0)])
def test_the_share_is_the_one_that_predicts_held_out_tissue_best(network_is_right, share):
    truth, wrong, mask = noise(0), noise(1), torch.ones(40, dtype=torch.bool)
    predicted = (truth, wrong) if network_is_right else (wrong, truth)
    assert chosen_share(blended_section(truth, *predicted, mask)) == share


def test_all_members_together_choose_the_share():
    """A small loss of one member does not outweigh a large gain of another."""
    truth, wrong, mask = noise(0), noise(1), torch.ones(40, dtype=torch.bool)
    small_loss = blended_section(truth, truth + 0.1 * wrong, truth + 0.2 * wrong, mask)
    large_gain = blended_section(truth, wrong, truth, mask)
    assert chosen_share(small_loss) == 0.25
    assert chosen_share(large_gain) == 0.0
    assert chosen_share(small_loss, large_gain) == 0.0
    assert chosen_share(large_gain, small_loss) == 0.0


@pytest.mark.parametrize("network_fits_training", [True, False])
def test_training_spots_do_not_choose_the_share(network_fits_training):
    """If blocks are held out, a prediction that fits only the training spots is not chosen."""
    truth, wrong, held_out = noise(0), noise(1), torch.arange(40) % 4 == 0
    fits_training_spots, fits_held_out_spots = (
        torch.where(held_out[:, None], wrong, 100 * truth),
        torch.where(held_out[:, None], truth, wrong),
    )
    predicted = (
        (fits_training_spots, fits_held_out_spots)
        if network_fits_training
        else (fits_held_out_spots, fits_training_spots)
    )
    assert chosen_share(blended_section(truth, *predicted, held_out)) == (0.0 if network_fits_training else 0.25)


def test_held_out_pearson_is_the_mean_over_sections_in_which_the_gene_varies():
    """A gene that is constant in a held-out section has no correlation there; it does not count as zero."""
    truth, predicted = [noise(seed) for seed in (0, 1)], [noise(seed) for seed in (2, 3)]
    truth[1][:, 1] = 2.0  # unknown in one section
    for part in truth:
        part[:, 2] = 2.0  # unknown in both
    held_out = torch.arange(40) % 4 == 0
    sections = [blended_section(t, p, p, held_out) for t, p in zip(truth, predicted, strict=True)]
    correlations = held_out_pearson([BlendedNet(), BlendedNet()], [[section] for section in sections])

    def r(section: int, gene: int) -> float:
        return np.corrcoef(truth[section][held_out, gene], predicted[section][held_out, gene])[0, 1]

    assert correlations == [pytest.approx((r(0, 0) + r(1, 0)) / 2, abs=1e-4), pytest.approx(r(0, 1), abs=1e-4), None]
    assert abs(r(0, 1)) > 0.1
    assert (
        held_out_pearson([BlendedNet()], [[sections[0]._replace(validate=torch.zeros(40, dtype=torch.bool))]]) is None
    )
