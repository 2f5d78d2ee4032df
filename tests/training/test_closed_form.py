"""Choice of ridge penalty and number of programs on held-out tissue, and the final refit on all tissue."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from sthggep import datasets, tl
from sthggep._inputs._compute import Compute
from sthggep._inputs._section import SectionWindow, section_of_counts, windows_of
from sthggep._inputs._windows import InputSource
from sthggep._slides._resolve import resolve_one
from sthggep._training import _closed_form, _validation
from sthggep._training._closed_form import choose_ridge
from sthggep._training._presets import PENALTIES, PRESETS
from sthggep.nn import ClosedFormNet, FeatureHGGEPNet
from sthggep.nn._programs import spot_weights
from sthggep.nn._section import FeatureInputs
from sthggep.nn._shortcut import LinearShortcut

QUICK = {"obsm": "X_mine", "n_members": 2, "max_epochs": 1, "device": "cpu", "show_progress_bar": False}


def toy(seed: int, noise: float = 0.0, width: int = 300):
    """A section with many features: the first few determine how its genes vary, the others are ``noise``."""
    slide = datasets.toy(seed=seed, size_um=(2000.0, 2000.0), mpp=8.0, n_genes=8)
    rng = np.random.default_rng(seed)
    informative = slide.obsm["morphology"].to_numpy(dtype=np.float32)
    slide.obsm["X_mine"] = np.hstack([informative, noise * rng.normal(size=(slide.n_obs, width))]).astype(np.float32)
    return slide


def penalty(model) -> float:
    (value,) = {member.config["penalty"] for member in model.members}
    assert {member.shortcut.penalty for member in model.members} == {value}
    return value


def test_penalty_is_larger_for_noisy_features():
    """Constant features have no effect, so informative features stand alone in one case, and in noise in the other."""
    without_noise, with_noise = ([toy(seed, noise) for seed in range(3)] for noise in (0.0, 1.0))
    genes = list(without_noise[0].var_names)
    low, high = (penalty(tl.fit(slides, genes=genes, **QUICK)) for slides in (without_noise, with_noise))
    assert low < high
    assert low in PENALTIES


def test_the_penalty_is_the_one_that_predicts_held_out_tissue_best(caplog):
    """No other penalty predicts better the sections that the choice held out."""
    slides = [toy(seed, 1.0) for seed in range(3)]
    genes = list(slides[0].var_names)

    def held_out(*penalties: float) -> tuple[float, float]:
        default = PRESETS["default"]
        preset = replace(default, recipe=replace(default.recipe, shares=(0.0,), penalties=penalties))
        model = tl.fit(slides, genes=genes, preset=preset, **{**QUICK, "n_members": 3})
        assert [type(member) for member in model.members] == [ClosedFormNet]
        return penalty(model), float(np.mean(model.training.held_out_pearson))

    with caplog.at_level(logging.INFO, logger="sthggep"):
        choice, best = held_out(*PENALTIES)
    assert f"Chosen on held-out tissue: ridge penalty {choice:g}, " in caplog.text
    assert PENALTIES[0] < choice < PENALTIES[-1]
    # The others chose for each held-out section, so the gain is smaller than that of the best choice for it
    assert best > max(held_out(value)[1] for value in (PENALTIES[0], PENALTIES[-1])) + 0.005


def test_all_networks_have_the_chosen_penalty(networks):
    slides = [toy(seed, 1.0) for seed in range(3)]
    genes = list(slides[0].var_names)
    model = tl.fit(slides, genes=genes, **{**QUICK, "n_members": 3})
    assert [type(member) for member in model.members] == [FeatureHGGEPNet] * 3
    default = PRESETS["default"]
    alone = replace(default, recipe=replace(default.recipe, shares=(0.0,)))
    assert penalty(model) == penalty(tl.fit(slides, genes=genes, preset=alone, **{**QUICK, "n_members": 3}))


def test_blocks_of_a_single_section_choose_as_sections_do():
    without_noise, with_noise = toy(0), toy(0, 1.0)
    low, high = (penalty(tl.fit(slide, genes=list(slide.var_names), **QUICK)) for slide in (without_noise, with_noise))
    assert low < high


def test_the_preset_decides_if_nothing_is_held_out():
    slides = [toy(0), toy(1)]
    assert penalty(tl.fit(slides, genes=list(slides[0].var_names), validation=None, **QUICK)) == 1.0


def test_the_choice_uses_a_part_of_many_spots(monkeypatch):
    monkeypatch.setattr(_closed_form, "MOST_SPOTS", 4)
    long, short = two_genes(1.0, held_out=False), two_genes(1.0, held_out=True)
    masks = [torch.arange(60) < 7, (torch.arange(60) > 0) & (torch.arange(60) < 3)]
    first, second = _closed_form._thin([long.sample(masks[0]), short.sample(masks[1])])
    assert first.mask.nonzero().ravel().tolist() == [0, 3, 6]
    assert second.mask.nonzero().ravel().tolist() == [1]
    # Both the training spots and the held-out spots
    net, n_spots = FeatureHGGEPNet([2], 2, rank=2, dim=4, heads=1, hypergraph=False), []
    shortcut_features = net.shortcut_features

    def spy(samples):
        n_spots.append(sum(int(sample.mask.sum()) for sample in samples))
        return shortcut_features(samples)

    monkeypatch.setattr(net, "shortcut_features", spy)
    split = [two_genes(1.0, held_out=False), two_genes(1.0, held_out=True)]
    assert choose_ridge(PRESETS["default"], [split], lambda *_, **__: net).preset.net["rank"] == 2
    assert n_spots == [4, 4]


def test_networks_without_a_shortcut_do_not_change():
    assert choose_ridge(PRESETS["paper"], [], lambda *_: pytest.fail("nothing to begin")).preset is PRESETS["paper"]


def test_path_is_the_solution_at_each_penalty():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 60, generator=generator), torch.randn(40, 2, generator=generator)
    weights = torch.rand(40, generator=generator)
    parts = [x[:10], x[10:]], [y[:10], y[10:]], [weights[:10], weights[10:]]
    penalties = (0.1, 2.0)
    for value, weight in zip(penalties, LinearShortcut(30, 2).path(*parts, penalties), strict=True):
        shortcut = LinearShortcut(30, 2, value)
        shortcut.start(*parts)
        torch.testing.assert_close(weight, shortcut.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("n_slides", "parts"), [(3, ["toy1", "toy2", "toy3"]), (1, [0, 1, 2, 3, 4])])
def test_the_choice_uses_all_parts_for_a_single_network(monkeypatch, networks, n_slides, parts):
    """A single network holds out one part, but the choice uses all parts."""
    records, apply_plan = [], _validation.apply_plan
    monkeypatch.setattr(_validation, "apply_plan", lambda *a: records.append(a[2]) or apply_plan(*a))
    slides = [toy(seed, 1.0) for seed in range(n_slides)]
    genes = list(slides[0].var_names)
    single = tl.fit(slides, genes=genes, **{**QUICK, "n_members": 1})
    of_the_network, *of_choices = [part[0] if isinstance(part, tuple) else part for part in records]
    assert of_the_network == parts[0]
    assert sorted(set(of_choices)) == parts
    assert penalty(single) == penalty(tl.fit(slides, genes=genes, **{**QUICK, "n_members": 5}))


def two_genes(correlation: float, *, held_out: bool) -> SectionWindow:
    """A section of two independent genes: one feature equals the first, the other correlates with the second."""
    n = 60
    values = torch.randn(n, 3, generator=torch.Generator().manual_seed(int(held_out)))
    first, second, noise = (torch.linalg.qr(values - values.mean(dim=0))[0] * n**0.5).T
    features = torch.stack([first, correlation * second + (1 - correlation**2) ** 0.5 * noise], dim=1)
    inputs = FeatureInputs([features], torch.zeros(n, 1, dtype=torch.int64), torch.zeros(n, 1, 2), None, n)
    every, counts = torch.ones(n, dtype=torch.bool), torch.full((n, 2), 1e3)
    masks = (~every, every) if held_out else (every, ~every)
    return SectionWindow.of_whole(
        str(held_out), inputs, torch.stack([first, second], dim=1), counts, torch.ones(n), *masks
    )


@pytest.mark.parametrize(("damping", "rank"), [(1.0, 1), (0.2, 2)])
def test_programs_are_damped_where_their_number_is_chosen(damping, rank):
    """A weak program lowers the held-out correlation at full weight and raises it at its damped weight."""
    net = FeatureHGGEPNet([2], 2, rank=2, dim=4, heads=1, hypergraph=False)
    net.programs.loadings.copy_(torch.eye(2))
    net.programs.damp.copy_(torch.tensor([1.0, damping]))
    split = [two_genes(1.0, held_out=False), two_genes(0.2, held_out=True)]
    assert choose_ridge(PRESETS["default"], [split], lambda *_, **__: net).preset.net["rank"] == rank


@pytest.mark.parametrize("validation", ["sections", "blocks"])
@pytest.mark.parametrize(("share", "n_members"), [(0.25, 2), (0.0, 1)], ids=["beside networks", "alone"])
def test_the_closed_form_is_solved_on_held_out_tissue_too(validation, share, n_members):
    """The weights of each member are the ridge over all spots of all slides, not only over its training section."""
    slides, default = [toy(seed, 1.0, width=5) for seed in range(2)], PRESETS["default"]
    preset = replace(default, recipe=replace(default.recipe, shares=(share,)))
    model = tl.fit(slides, genes=list(slides[0].var_names), validation=validation, preset=preset, **QUICK)
    assert len(model.members) == n_members
    source = InputSource(model.inputs, None, model.members[0], Compute(torch.device("cpu")))
    sections = [resolve_one(slide) for slide in slides]
    windows = windows_of(
        [section_of_counts(section, model.genes, None, list(source.windows(section))) for section in sections]
    )

    def solve(member, windows: list[SectionWindow]) -> np.ndarray:
        x = torch.cat(list(member.shortcut_features([window.sample(window.train) for window in windows])))
        weights = [spot_weights(window.library_sizes) for window in windows]
        y = torch.cat(member.programs.adapt([window.target for window in windows], weights, 0.0))
        x, y, w = (part.double().numpy() for part in (x, y, torch.cat(weights)[:, None]))
        ridge = member.shortcut.penalty * np.eye(x.shape[1])
        return np.linalg.solve(x.T @ (w * x) + ridge, x.T @ (w * y))

    for member, other in zip(model.members, reversed(windows), strict=False):
        weight = member.shortcut.weight.numpy()
        size = np.abs(weight).max()
        np.testing.assert_allclose(weight, solve(member, windows), atol=1e-3 * size)
        assert np.abs(weight - solve(member, [other])).max() > 0.05 * size
