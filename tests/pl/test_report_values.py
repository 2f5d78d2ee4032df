"""Values of the report page, packed and unpacked: exact where the page says so, and small."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest

from sthggep._table._counts import log10_cp10k
from sthggep.pl._report_values import pack_bytes, pack_end, pack_observed, pack_predicted, pack_words


def unpack(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=kind)


def of_factors(packed: dict, n_spots: int, n_genes: int) -> np.ndarray:
    spots = unpack(packed["spots"], "<i2").reshape(-1, n_spots).astype(float)
    genes = unpack(packed["genes"], "<i2").reshape(-1, n_genes).astype(float)
    return unpack(packed["means"], "<f4") + unpack(packed["widths"], "<f4") * (
        (spots.T * np.array(packed["weights"])) @ genes
    )


def low_rank(rank: int, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    programs = rng.random((300, rank)) * 0.5 ** np.arange(rank)
    values = programs @ rng.random((rank, 60)) * np.geomspace(0.01, 10, 60)
    return (values + noise * values.std(axis=0) * rng.standard_normal(values.shape)).astype(np.float32)


def test_a_prediction_of_few_programs_is_packed_by_its_factors():
    values = low_rank(5)
    packed = pack_predicted(values)
    assert packed["kind"] == "factors"
    assert len(packed["weights"]) <= 5
    again = of_factors(packed, *values.shape)
    assert (np.abs(again - values) <= 0.51 / 254 * np.ptp(values, axis=0)).all()
    size, size_of_bytes = (len(str(each)) for each in (packed, pack_bytes(values)))
    assert size < 0.5 * size_of_bytes


@pytest.mark.parametrize("case", ["noise", "a gap"])
def test_any_other_prediction_is_packed_in_bytes(case):
    values = low_rank(5, noise=1.0) if case == "noise" else low_rank(5)
    if case == "a gap":
        values[3, 7] = np.nan
    packed = pack_predicted(values)
    assert packed["kind"] == "bytes"
    coded = unpack(packed["data"], "u1").reshape(60, 300).T
    low, high = np.array(packed["ends"]).T
    again = np.where(coded == 255, np.nan, low + (high - low) * coded / 254)
    np.testing.assert_allclose(again, values, atol=0.51 / 254 * np.ptp(values[:3]) + 0.1, equal_nan=True)
    assert (np.isnan(again) == np.isnan(values)).all()


def test_a_constant_gene_and_one_without_values():
    values = np.column_stack([np.full(9, 2.5), np.full(9, np.nan), np.arange(9)]).astype(np.float32)
    packed = pack_predicted(values)
    assert packed["ends"] == [(2.5, 2.5), (0.0, 0.0), (0.0, 8.0)]
    assert (unpack(packed["data"], "u1").reshape(3, 9)[1] == 255).all()


def test_measured_values_are_packed_as_counts():
    rng = np.random.default_rng(1)
    panel = rng.poisson(rng.uniform(0, 200, 12), (50, 12)).astype(np.float32)
    panel[0] = 0
    panel[1, 2] = 700
    packed = pack_observed(log10_cp10k(panel)[:, :4], panel[:, :4], panel.sum(axis=1))
    assert packed["kind"] == "counts"
    low, high = (unpack(packed[name], "u1").reshape(4, 50).T.astype(int) for name in ("low", "high"))
    assert (low + 256 * high == panel[:, :4]).all()
    assert (unpack(packed["totals"], "<f4") == panel.sum(axis=1)).all()


@pytest.mark.parametrize("case", ["targets", "another scale", "too many"])
def test_measured_values_that_are_no_such_counts(case):
    panel = np.random.default_rng(1).poisson(5, (50, 4)).astype(np.float32)
    if case == "too many":
        panel[0, 0] = 70_000
    values = np.sqrt(panel) if case == "another scale" else log10_cp10k(panel)
    counts = (None, None) if case == "targets" else (panel, panel.sum(axis=1))
    assert pack_observed(values, *counts)["kind"] == "bytes"


def test_small_counts_have_no_upper_bytes():
    panel = np.random.default_rng(1).poisson(5, (50, 4)).astype(np.float32)
    assert pack_observed(log10_cp10k(panel), panel, panel.sum(axis=1))["high"] is None


def test_ends_of_intervals_at_one_distance_take_two_numbers_a_gene():
    predicted = low_rank(3)
    lower = np.maximum(predicted - np.float32(0.4), np.float32(0.1))
    packed = pack_end(lower, predicted)
    assert packed["kind"] == "shift"
    again = np.maximum(predicted + unpack(packed["by"], "<f4"), unpack(packed["least"], "<f4"))
    np.testing.assert_allclose(again, lower, atol=1e-4)
    assert pack_end(lower * predicted, predicted)["kind"] == "bytes"
    assert pack_end(np.where(predicted > 1, np.nan, lower), predicted)["kind"] == "bytes"


def test_names_are_one_a_line():
    packed = pack_words(["a", "b\nc", "d\u2028e", "half \ud800"])
    assert zlib.decompress(base64.b64decode(packed)).decode().split("\n") == ["a", "b c", "d e", "half ?"]
