"""Figure of the coverage and the width of intervals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from sthggep import pl

LEVELS = (0.5, 0.8, 0.95)


@pytest.fixture
def results() -> pd.DataFrame:
    """Two sections of 21 genes whose coverage is off by a known number, and a correlation that belongs to no level."""
    rows = []
    for section, shift in (("first", 0.0), ("second", -0.2)):
        for number in range(21):
            rows.append((section, f"g{number}", "pearson", 0.3, np.nan))
            for level in LEVELS:
                rows.append((section, f"g{number}", "coverage", level + shift + 0.01 * (number - 10), level))
                rows.append((section, f"g{number}", "width", level * (number + 1), level))
    return pd.DataFrame(rows, columns=["section", "gene", "metric", "value", "level"])


def test_curves_are_the_median_coverage_by_level(results, tmp_path):
    figure = pl.calibration(results, save=tmp_path / "calibration.png")
    curve, coverage, width = figure.axes
    diagonal, first, second = curve.lines
    assert diagonal.get_xdata()[0] == diagonal.get_ydata()[0]
    np.testing.assert_allclose(first.get_xydata(), [[level, level] for level in LEVELS])
    np.testing.assert_allclose(second.get_ydata(), np.array(LEVELS) - 0.2)
    # The level nearest to 0.9 is that of the panels by section
    assert coverage.get_title() == width.get_title() == "95 % intervals"
    points = [line.get_ydata()[0] for line in coverage.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [0.95, 0.75])
    segments = [np.asarray(each.get_segments()[0]) for each in coverage.collections]
    np.testing.assert_allclose([each[:, 1] for each in segments], [[0.90, 1.0], [0.70, 0.80]])
    assert [label.get_text() for label in coverage.get_xticklabels()] == ["first", "second"]
    np.testing.assert_allclose([line.get_ydata()[0] for line in width.lines], [0.95 * 11] * 2)
    names = {label.get_text(): to_hex(label.get_color()) for label in coverage.get_xticklabels()}
    assert names == {"first": to_hex(first.get_color()), "second": to_hex(second.get_color())}
    assert to_hex(first.get_color()) == to_hex(coverage.lines[0].get_color()) != to_hex(second.get_color())
    assert (tmp_path / "calibration.png").stat().st_size > 5000


@pytest.mark.parametrize("n", [8, 9, 30])
def test_no_two_sections_have_one_color(results, n):
    first = results[results["section"] == "first"]
    many = pd.concat([first.assign(section=f"s{number:02}") for number in range(n)])
    curve, coverage, _ = pl.calibration(many).axes
    colors = [to_hex(line.get_color()) for line in curve.lines[1:]]
    assert len(set(colors)) == len(colors) == n
    assert colors == [to_hex(label.get_color()) for label in coverage.get_xticklabels()]
    assert colors == [to_hex(line.get_color()) for line in coverage.lines if line.get_marker() == "o"]


def test_targets_are_called_so(results):
    results.attrs = {"parameters": {"targets": "fractions"}}
    curve, _, width = pl.calibration(results).axes
    assert curve.get_ylabel() == "coverage of the median target"
    assert width.texts[0].get_text().startswith("dot: median target")
    results.attrs = {"parameters": {"targets": None}}
    assert pl.calibration(results).axes[0].get_ylabel() == "coverage of the median gene"


def test_one_level_needs_no_curve(results):
    figure = pl.calibration(results[results["level"] == 0.8])
    assert [ax.get_title() for ax in figure.axes] == ["80 % intervals"] * 2


def test_results_without_intervals_are_refused(results):
    with pytest.raises(ValueError, match=r"no intervals. Pass `interval=0\.9` to `sthggep\.tl\.cross_validate`"):
        pl.calibration(results[results["metric"] == "pearson"])
    with pytest.raises(ValueError, match="no intervals"):
        pl.calibration(results.drop(columns="level"))
    with pytest.raises(
        TypeError, match=r"The table of `sthggep\.tl\.cross_validate` was expected, found SimpleNamespace"
    ):
        pl.calibration(SimpleNamespace())
    with pytest.raises(KeyError, match="'section'"):
        pl.calibration(results.drop(columns="section"))
