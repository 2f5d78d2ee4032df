"""Calibration of intervals by held-out tissue."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sthggep import HGGEP, tl
from sthggep._arguments import LEVELS
from sthggep._training._calibration import LEAST_SPOTS, HeldOutSection, calibrate, predict_held_out
from sthggep.model._calibration import PROBABILITIES, Calibration

SPREADS = np.array([0.2, 1.0, 3.0])


def section(n: int, rng: np.random.Generator, shift: float = 0.0) -> HeldOutSection:
    """Errors of known spread around predictions of 0."""
    return HeldOutSection(
        np.arange(n), np.zeros((n, 3), np.float32), (shift + SPREADS * rng.standard_normal((n, 3))).astype(np.float32)
    )


def test_quantiles_are_those_of_the_errors():
    calibration = calibrate([section(40_000, np.random.default_rng(0))], None, None)
    from scipy.stats import norm

    for probability in (0.05, 0.5, 0.8, 0.95):
        np.testing.assert_allclose(
            calibration.quantile(probability), SPREADS * norm.ppf(probability), atol=0.03 * SPREADS.max()
        )
    assert (np.diff(calibration.quantiles, axis=0) >= 0).all()
    assert (calibration.noise_free == 1).all()


def test_intervals_cover_new_spots_of_small_calibrations():
    rng, inside = np.random.default_rng(1), []
    for _ in range(300):
        calibration = calibrate([section(60, rng)], None, None)
        new = section(50, rng)
        lower, upper = calibration.interval(new.predicted, 0.9, "measurement", None, least=None)
        inside.append((new.measured >= lower) & (new.measured <= upper))
    assert 0.89 <= np.mean(inside) <= 0.93


def test_each_section_has_the_same_weight():
    rng = np.random.default_rng(2)
    small, large = section(200, rng, shift=10.0), section(20_000, rng)
    calibration = calibrate([small, large], None, None)
    # Half of the mass lies around 10, though one spot in a hundred does
    assert abs(calibration.quantile(0.75)[0] - 10) < 0.2
    assert abs(calibration.quantile(0.25)[0]) < 0.2


def test_spots_unlike_the_training_tissue_have_the_errors_on_held_out_patients():
    rng = np.random.default_rng(4)
    known, patients = (
        [section(8000, rng)],
        [
            {"a": section(4000, rng, shift=2.0), "b": section(4000, rng, shift=2.0)},
            {"c": section(500, rng, shift=-2.0)},
        ],
    )
    calibration = calibrate(known, None, None, of_patients=patients)
    predicted, novelty = np.zeros((4, 3), np.float32), np.array([0.5, 0.99, 0.95, np.nan], np.float32)
    lower, upper = calibration.interval(predicted, 0.9, "measurement", None, least=None, novelty=novelty)
    of_known = calibrate(known, None, None).interval(predicted, 0.9, "measurement", None, least=None)
    for rows in ([0], [2], [3]):  # like the training tissue, at the limit, and of unknown novelty
        np.testing.assert_array_equal(lower[rows], of_known[0][rows])
        np.testing.assert_array_equal(upper[rows], of_known[1][rows])
    # Two patients of equal weight, 2 above and 2 below: the ends are their 10 % tails
    np.testing.assert_allclose(upper[1], 2 + 1.282 * SPREADS, rtol=0.05)
    np.testing.assert_allclose(lower[1], -2 - 1.282 * SPREADS, rtol=0.15)
    # Without novelty, or with one patient, all spots are taken for known tissue
    np.testing.assert_array_equal(calibration.interval(predicted, 0.9, "measurement", None, least=None)[1], of_known[1])
    assert calibrate(known, None, None, of_patients=patients[:1]).patient_quantiles is None


def test_quantiles_of_patients_are_on_the_scale_of_the_targets_and_in_the_file():
    rng = np.random.default_rng(5)
    patients = [{"a": section(300, rng)}, {"b": section(300, rng)}]
    calibration = calibrate([section(300, rng)], None, [1.0, 10.0, 1.0], of_patients=patients)
    assert 4 < calibration.patient_quantiles[-1, 1] / calibration.patient_quantiles[-1, 0] / 10 < 6
    tensors = calibration.to_tensors()
    again = Calibration.from_tensors(tensors)
    np.testing.assert_array_equal(again.patient_quantiles, calibration.patient_quantiles)
    expected = dict(Calibration.expected_tensors(tensors, 3, 0, 0))
    assert {name: tuple(value.shape) for name, value in expected.items()} == {
        name: tuple(value.shape) for name, value in tensors.items()
    }


def test_a_gene_that_the_patients_do_not_hold_has_the_quantiles_of_the_sections():
    rng = np.random.default_rng(6)
    lacking = section(300, rng)
    lacking.measured[:, 2] = np.nan
    calibration = calibrate([section(300, rng)], None, None, of_patients=[{"a": lacking}, {"b": lacking}])
    np.testing.assert_array_equal(calibration.patient_quantiles[:, 2], calibration.quantiles[:, 2])
    assert not np.allclose(calibration.patient_quantiles[:, 0], calibration.quantiles[:, 0])


def test_noise_is_taken_out_of_the_interval():
    rng = np.random.default_rng(3)
    truth = rng.standard_normal((20_000, 3))
    noise = np.array([0.0, 0.5, 1.0])
    measured = (truth + noise * rng.standard_normal(truth.shape)).astype(np.float32)
    predicted = (truth + 0.5 * rng.standard_normal(truth.shape)).astype(np.float32)
    ceiling = 1 / np.sqrt(1 + noise**2)  # the correlation of truth and measurement
    calibration = calibrate([HeldOutSection(np.arange(len(predicted)), predicted, measured)], ceiling.tolist(), None)
    np.testing.assert_allclose(calibration.noise_free, 0.5 / np.sqrt(0.25 + noise**2), rtol=0.05)
    lower, upper = calibration.interval(predicted, 0.9, "expression", None, least=None)
    np.testing.assert_allclose(((truth >= lower) & (truth <= upper)).mean(axis=0), 0.9, atol=0.02)


def test_scale_of_targets_least_value_and_columns():
    one, ten = (calibrate([section(100, np.random.default_rng(4))], None, std) for std in (None, [10.0, 10.0, 10.0]))
    np.testing.assert_allclose(ten.quantiles, 10 * one.quantiles, rtol=1e-5)
    lower, upper = one.interval(np.zeros((2, 2), np.float32), 0.8, "measurement", np.array([2, 0]), least=0.0)
    assert (lower == 0).all()
    np.testing.assert_allclose(upper[0], one.quantile(0.9)[[2, 0]])


def test_levels_are_nested():
    calibration = calibrate([section(300, np.random.default_rng(5))], None, None)
    widths = []
    for level in np.linspace(*LEVELS["interval"], 20):
        lower, upper = calibration.interval(np.zeros((1, 3), np.float32), level, "measurement", None, least=None)
        widths.append(upper - lower)
    assert (np.diff(np.concatenate(widths), axis=0) >= 0).all()
    np.testing.assert_allclose(
        PROBABILITIES[[0, -1]], [0.5 * (1 - LEVELS["interval"][1]), 0.5 * (1 + LEVELS["interval"][1])]
    )


def test_too_few_spots_give_no_calibration():
    rng = np.random.default_rng(6)
    assert calibrate([section(LEAST_SPOTS - 1, rng)], None, None) is None
    assert calibrate([], None, None) is None
    assert calibrate([section(LEAST_SPOTS, rng)], None, None) is not None


def test_held_out_spots_are_predicted_once_by_a_member_that_had_not_seen_them():
    def member(value: float):
        return lambda x: SimpleNamespace(expression=torch.full((len(x), 1), value))

    def window(name: str, held_out: list[int]):
        validate = torch.zeros(4, dtype=torch.bool)
        validate[held_out] = True
        return SimpleNamespace(
            name=name,
            inputs=(torch.zeros(4, 1),),
            validate=validate,
            target=torch.arange(4.0).reshape(4, 1),
            rows=torch.arange(10, 14),
        )

    splits = [[window("a", [0, 1]), window("b", [])], [window("a", [1, 3]), window("b", [2])]]
    found = predict_held_out([member(1.0), member(2.0)], splits)
    assert list(found) == ["a", "b"]
    assert found["a"].predicted.ravel().tolist() == [1, 1, 2]
    assert found["a"].measured.ravel().tolist() == [0, 1, 3]
    assert found["a"].rows.tolist() == [10, 11, 13]
    assert found["b"].measured.ravel().tolist() == [2]


# ---------------------------------------------------------------- models


@pytest.fixture(scope="module")
def alone(_sections, fit_options) -> HGGEP:
    """A closed form, trained on the first two sections."""
    return tl.fit(_sections[:2], **fit_options | {"n_members": 0})


def test_fit_calibrates_on_the_sections_that_it_holds_out(alone):
    model = alone
    assert model.training.calibrated_on == model.training.sections == ["toy1", "toy2"]
    assert model.calibration.quantiles.shape == (len(PROBABILITIES), len(model.genes))
    assert (model.calibration.noise_free <= 1).all()
    assert (model.calibration.noise_free > 0).all()


def test_intervals_hold_on_a_section_that_nobody_has_seen(alone, slides):
    from sthggep._table._counts import log10_cp10k, read_panel_counts

    slide = slides[2]
    tl.predict(slide, alone, interval=0.9, show_progress_bar=False)
    measured = log10_cp10k(read_panel_counts(slide, alone.genes))
    inside = (measured >= slide.obsm["hggep_lower"]) & (measured <= slide.obsm["hggep_upper"])
    assert 0.8 <= np.median(inside.mean(axis=0)) <= 0.97
    assert slide.obsm["hggep_lower"].min() >= 0
    expression = slide.copy()
    tl.predict(expression, alone, interval=0.9, interval_of="expression", show_progress_bar=False)
    widths = [each.obsm["hggep_upper"] - each.obsm["hggep_lower"] for each in (expression, slide)]
    assert (widths[0] <= widths[1] + 1e-6).all()
    assert widths[0].mean() < 0.95 * widths[1].mean()


def test_expression_intervals_hold_for_the_expression_of_each_spot(alone, slides):
    from sthggep._table._counts import log10_cp10k
    from sthggep.datasets._toy_genes import DISPERSION

    slide, rng = slides[2], np.random.default_rng(0)
    tl.predict(slide, alone, interval=0.9, interval_of="expression", show_progress_bar=False)
    columns = [slide.var_names.get_loc(gene) for gene in alone.genes]
    rate = np.asarray(slide.layers["true_rate"])[:, columns].astype(float)
    depth = np.asarray(slide.X.sum(axis=1)).ravel() / np.asarray(slide.layers["true_rate"]).sum(axis=1)

    def coverage(expected: np.ndarray) -> float:
        truth = np.mean([log10_cp10k(rng.poisson(expected).astype(np.float32)) for _ in range(40)], axis=0)
        inside = (truth >= slide.obsm["hggep_lower"]) & (truth <= slide.obsm["hggep_upper"])
        return float(np.median(inside.mean(axis=0)))

    # What a spot expresses scatters around its rate, which is no noise of counting: the interval is of both
    scatter = [rng.gamma(1 / DISPERSION, DISPERSION, rate.shape) for _ in range(3)]
    assert 0.85 <= np.mean([coverage(rate * depth[:, None] * each) for each in scatter]) <= 0.95
    assert coverage(rate * depth[:, None]) > 0.93


def test_a_model_without_held_out_tissue_gives_no_interval(slides, fit_options):
    bare = tl.fit(slides[:1], **fit_options | {"n_members": 0, "validation": None})
    assert bare.calibration is None
    with pytest.raises(ValueError, match=r"held out of the training.*validation='auto'"):
        tl.predict(slides[2], bare, interval=0.9, show_progress_bar=False)


def test_the_calibration_is_saved_and_part_of_the_id(alone, monkeypatch, tmp_path):
    model = alone
    model.save(tmp_path / "model")
    loaded = HGGEP.load(tmp_path / "model")
    assert loaded.id == model.id
    for name in ("quantiles", "noise_free"):
        np.testing.assert_array_equal(getattr(loaded.calibration, name), getattr(model.calibration, name))
    monkeypatch.setattr(model, "calibration", None)
    assert model.id != loaded.id
