"""Evidence of held-out tissue: correlations, scales, errors of regions and of sections."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sthggep import HGGEP, tl
from sthggep._table._counts import log10_cp10k
from sthggep._table._evidence import REGION_SPOTS, SCALES_UM, Evidence
from sthggep._training._evidence import HeldOutMap, Squares, measure_evidence

SIDE, PITCH = 24, 100.0
XY = PITCH * np.column_stack([axis.ravel() for axis in np.meshgrid(np.arange(SIDE), np.arange(SIDE))]).astype(float)


def smooth(n: int, seed: int, sigma: float = 3.0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((n, SIDE, SIDE))
    maps = np.array([gaussian_filter(each, sigma) for each in noise]).reshape(n, -1).T
    return ((maps - maps.mean(axis=0)) / maps.std(axis=0)).astype(np.float32)


def held_out(predicted: np.ndarray, measured: np.ndarray, **changes) -> HeldOutMap:
    return HeldOutMap(XY, True, PITCH, predicted.astype(np.float32), measured.astype(np.float32), None)._replace(
        **changes
    )


def test_white_noise_averages_out_and_a_shift_does_not():
    rng = np.random.default_rng(0)
    shifts = np.array([-1.0, 1.0, 1.0, -1.0])
    sections = [held_out(np.zeros((len(XY), 50)), shift + rng.standard_normal((len(XY), 50))) for shift in shifts]
    evidence = measure_evidence(sections, [])
    # Squares of a side of so many pitches hold about as many spots, and the mean error falls with their root
    expected = np.sqrt(1 / np.array(REGION_SPOTS))
    np.testing.assert_allclose(evidence.region_spread.mean(axis=1), expected, rtol=0.12)
    np.testing.assert_allclose(evidence.offset_spread, 1, atol=0.1)


def test_smooth_errors_do_not_average_out():
    evidence = measure_evidence([held_out(np.zeros((len(XY), 20)), smooth(20, seed)) for seed in range(3)], [])
    assert (evidence.region_spread[2] > 0.8).all()


def test_the_only_section_of_a_patient_does_not_speak_for_sections_of_known_ones():
    rng = np.random.default_rng(1)
    sections = [held_out(np.zeros((len(XY), 10)), rng.standard_normal((len(XY), 10))) for _ in range(3)]
    lone = held_out(np.zeros((len(XY), 10)), 5 + rng.standard_normal((len(XY), 10)), lone=True)
    evidence = measure_evidence([*sections, lone], [[lone], sections])
    assert (evidence.offset_spread < 0.2).all()
    assert (evidence.patient_offset_spread > 1).all()
    assert evidence.pearson.shape == (4, 10)
    assert evidence.patient_pearson.shape == evidence.patient_z.shape == (2, 10)


def test_scale_at_which_noisy_counts_agree():
    truth = smooth(8, 4, sigma=4.0)
    rates = np.exp(0.8 * truth) * 0.6
    raw = np.random.default_rng(2).poisson(rates).astype(np.float32)
    section = held_out(truth, log10_cp10k(raw), raw=raw)
    evidence = measure_evidence([section], [])
    spot, region = SCALES_UM.index(100.0), SCALES_UM.index(350.0)
    assert (evidence.scale_pearson[region] > evidence.scale_pearson[spot] + 0.1).all()
    assert (evidence.scale_ceiling[region] > evidence.scale_ceiling[spot]).all()
    np.testing.assert_allclose(evidence.detected, (raw > 0).mean(axis=0))
    assert (evidence.scale_pearson[SCALES_UM.index(55.0)] == 0).all()  # smaller than the pitch
    # 2,400 µm hold four squares of 1,000 µm: too few
    assert (evidence.scale_pearson[SCALES_UM.index(2000.0)] == 0).all()
    without = measure_evidence([section._replace(in_microns=False)], [])
    assert (without.scale_pearson == 0).all()
    np.testing.assert_allclose(without.z, evidence.z)


def test_combinations_of_genes_are_judged_on_the_scale_of_the_panel():
    from sthggep._training._evidence import combined

    truth = smooth(8, 4, sigma=4.0)
    raw = np.random.default_rng(2).poisson(np.exp(0.8 * truth) * 0.3).astype(np.float32)
    section = held_out(truth, log10_cp10k(raw), raw=raw)
    unit = measure_evidence([combined(section, np.eye(8, dtype=np.float32))], [])
    for name, values in measure_evidence([section], []).to_arrays().items():
        np.testing.assert_allclose(unit.to_arrays()[name], values, atol=1e-5, err_msg=name)
    pair = np.zeros((8, 1), np.float32)
    pair[[1, 5]] = 0.5
    evidence = measure_evidence([combined(section, pair)], [])
    np.testing.assert_allclose(evidence.detected, [(raw[:, [1, 5]] > 0).any(axis=1).mean()])
    mean = [values[:, [1, 5]].mean(axis=1) for values in (truth, log10_cp10k(raw))]
    np.testing.assert_allclose(evidence.pearson, [[np.corrcoef(*mean)[0, 1]]], atol=1e-5)
    half = np.random.default_rng(0).binomial(raw.astype(int), 0.5).astype(np.float32)
    r = np.corrcoef(*(log10_cp10k(each)[:, [1, 5]].mean(axis=1) for each in (half, raw - half)))[0, 1]
    np.testing.assert_allclose(evidence.ceiling, np.sqrt(2 * r / (1 + r)), atol=1e-5)


def test_very_many_spots_are_thinned_for_maps_and_cut_for_regions(monkeypatch):
    from sthggep._training import _evidence

    values = np.arange(len(XY), dtype=np.float32)[:, None]
    section = held_out(values, values, raw=np.ones_like(values))
    assert _evidence.thinned(section) is section is _evidence.contiguous_part(section)
    monkeypatch.setattr(_evidence, "MOST_SPOTS", SIDE**2 // 4)
    coarse, part = _evidence.thinned(section), _evidence.contiguous_part(section)
    assert len(coarse.xy) == SIDE**2 // 4
    assert coarse.pitch == 2 * PITCH
    assert {tuple(xy) for xy in coarse.xy % (2 * PITCH)} == {(0.0, 0.0)}
    assert len(part.xy) == SIDE**2 // 4
    assert part.pitch == PITCH
    # About a disk of a quarter of the area
    assert np.ptp(part.xy, axis=0).max() < 0.65 * np.ptp(XY, axis=0).max()
    for each in (coarse, part):
        np.testing.assert_array_equal(XY[each.predicted[:, 0].astype(int)], each.xy)
        assert len(each.raw) == len(each.measured) == len(each.xy)


def test_squares_average_their_spots_and_leave_out_the_rest():
    squares = Squares(XY, 2 * PITCH, (0.0, 0.0), None)
    values = XY.astype(np.float32)
    means = squares.mean(values)
    assert len(means) == (SIDE // 2) ** 2
    assert means[0].tolist() == [PITCH / 2, PITCH / 2]
    # Cut to 23 columns, the last squares hold half of their spots; to a quarter, they are left out
    few = XY[(XY[:, 0] < 23 * PITCH) & ~((XY[:, 0] == 22 * PITCH) & (XY[:, 1] % (2 * PITCH) > 0))]
    assert len(Squares(few, 2 * PITCH, (0.0, 0.0), None).kept) == SIDE // 2 * 11


@pytest.fixture(scope="module")
def alone(_sections, fit_options) -> HGGEP:
    return tl.fit(_sections[:2], **fit_options | {"n_members": 0})


def test_a_model_holds_it_and_keeps_it(alone, tmp_path):
    evidence = alone.calibration.evidence
    assert evidence.pearson.shape == (2, len(alone.genes))
    assert evidence.patient_pearson.shape == (2, len(alone.genes))  # each toy section is of its own patient
    np.testing.assert_allclose(evidence.pearson.mean(axis=0), alone.training.held_out_pearson, atol=1e-3)
    alone.save(tmp_path / "model")
    loaded = HGGEP.load(tmp_path / "model")
    assert loaded.id == alone.id
    for name, values in evidence.to_arrays().items():
        np.testing.assert_array_equal(loaded.calibration.evidence.to_arrays()[name], values)
    some = evidence.take(np.array([3, 1]))
    np.testing.assert_array_equal(some.z, evidence.z[:, [3, 1]])
    again = Evidence.from_arrays({name: values.tolist() for name, values in some.to_arrays().items()}, 2)
    assert again.patient_z.shape == (2, 2)
    none = {**some.to_arrays(), "patient_z": np.empty(0)}
    assert Evidence.from_arrays(none, 2).patient_z.shape == (0, 2)


def test_patients_are_held_out_as_a_whole(slides, fit_options):
    for slide, patient in zip(slides, ("a", "a", "b"), strict=True):
        slide.obs["patient"] = patient
    evidence = tl.fit(slides, **fit_options | {"n_members": 0}).calibration.evidence
    assert evidence.patient_pearson.shape == (2, evidence.pearson.shape[1])
    # Patient b has one section: held out as a section or as a patient, the model is the same but for its penalty
    np.testing.assert_allclose(evidence.patient_pearson[1], evidence.pearson[2], atol=0.15)


def test_nothing_held_out_is_no_evidence(slides, fit_options):
    model = tl.fit(slides[:1], **fit_options | {"n_members": 0, "validation": None})
    assert model.calibration is None


def test_a_record_of_other_shapes_is_refused(alone, tmp_path):
    from safetensors.torch import load_file, save_file

    alone.save(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    for name, change in (
        ("calibration.evidence.z", lambda values: values[:1]),
        ("calibration.program_evidence.ceiling", lambda values: values[:-1]),
        ("calibration.novelty.quantiles", lambda values: values[:-1]),
    ):
        save_file({**tensors, name: change(tensors[name]).contiguous()}, path)
        with pytest.raises(ValueError, match="do not belong together"):
            HGGEP.load(tmp_path / "model")
    save_file({**tensors, "calibration.other": tensors["calibration.quantiles"].clone()}, path)
    with pytest.raises(ValueError, match="calibration holds 'other'"):
        HGGEP.load(tmp_path / "model")
