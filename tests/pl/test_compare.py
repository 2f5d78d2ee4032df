from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sthggep import pl, tl

GENES = [f"G{i}" for i in range(12)]
LEVELS = {"ours": 0.3, "theirs": 0.2, "a third": 0.1, "four": 0.15, "five": 0.05, "six": 0.0, "seven": 0.0}


def comparison(sections: list[str], n_methods: int = 3, leaks: dict[str, str] | None = None) -> tl.Comparison:
    """Results as `tl.compare` returns them."""
    rng = np.random.default_rng(0)
    methods = list(LEVELS)[:n_methods]
    rows, differences = [], []
    for section in sections:
        for method in [*methods, "mean"]:
            values = np.zeros(len(GENES)) if method == "mean" else LEVELS[method] + rng.normal(0, 0.05, len(GENES))
            columns = {"section": section, "method": method, "gene": GENES, "pearson": values}
            rows.append(pd.DataFrame({**columns, "ceiling": rng.uniform(0.5, 0.6, len(GENES))}))
    scores = pd.concat(rows, ignore_index=True)
    means = scores.groupby(["method", "section"])["pearson"].mean()
    for method in [*methods[1:], "mean"]:
        for section in sections:
            d = means[method, section] - means["ours", section]
            differences += [(method, section, unit, d, d - w, d + w) for unit, w in (("genes", 0.01), ("spots", 0.03))]
        if len(sections) > 1:
            d = (means[method] - means["ours"]).mean()
            differences.append((method, "all sections", "patients", d, d - 0.08, d + 0.08))
            differences.append((method, "all sections", "genes", d, d - 0.01, d + 0.01))
    table = pd.DataFrame(differences, columns=["method", "section", "unit", "difference", "low", "high"])
    summary = pd.DataFrame({"leak": [(leaks or {}).get(m, "") for m in [*methods, "mean"]]}, index=[*methods, "mean"])
    return tl.Comparison(scores, summary, table, pd.DataFrame(), {"level": 0.95})


def markers(ax, label: str):
    (match,) = [line for line in ax.lines if line.get_label() == label]
    return match


def spans(ax) -> np.ndarray:
    """Ends of all horizontal lines that are drawn as collections, in their order."""
    segments = [collection.get_segments() for collection in ax.collections]
    return np.array([segment[:, 0] for several in segments for segment in several if np.ptp(segment[:, 1]) == 0])


def test_means_quartiles_and_ceiling():
    result = comparison(["B4", "C2"])
    sections, _, _ = pl.compare(result).axes
    by_section = result.scores.groupby(["method", "section"], sort=False)
    means = by_section["pearson"].mean()
    for method in ("ours", "theirs", "a third"):
        expected = list(means[method])
        np.testing.assert_allclose(markers(sections, method).get_xdata(), [*expected, np.mean(expected)])
    quartiles = by_section["pearson"].quantile([0.25, 0.75])
    np.testing.assert_allclose(spans(sections)[0], quartiles["ours", "B4"])
    ceiling = list(by_section["ceiling"].mean()["ours"])
    bars = sections.collections[-1].get_segments()
    np.testing.assert_allclose([bar[0, 0] for bar in bars], [*ceiling, np.mean(ceiling)])
    assert [text.get_text() for text in sections.get_yticklabels()] == ["B4", "C2", "all sections"]


def test_differences_have_the_widest_interval_of_each_row():
    result = comparison(["B4", "C2"])
    _, differences, _ = pl.compare(result).axes
    drawn = spans(differences)
    np.testing.assert_allclose(np.diff(drawn).ravel(), [0.06, 0.06, 0.16] * 2)
    own = result.differences.query("method == 'theirs' and section == 'B4'")["difference"].iloc[0]
    np.testing.assert_allclose(drawn[0].mean(), own)
    assert differences.get_title() == "95 % intervals over blocks of spots,\nlast row over patients"
    assert differences.get_xlabel() == "difference to ours"


def test_genes_of_two_methods():
    result = comparison(["B4", "C2"])
    means = result.scores.groupby(["method", "gene"])["pearson"].mean()
    for method in ("theirs", "a third"):
        ax = pl.compare(result, method=method).axes[2]
        (dots,) = [line for line in ax.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(np.sort(dots.get_xdata()), np.sort(means["ours"]))
        np.testing.assert_allclose(np.sort(dots.get_ydata()), np.sort(means[method]))
        better = int((means[method] > means["ours"]).sum())
        assert ax.get_title() == f"{method} better in {better} of 12 genes"
        assert ax.get_xlim() == ax.get_ylim()


def test_leaks_are_marked():
    result = comparison(["B4"], leaks={"theirs": "not known", "a third": "training tissue"})
    figure = pl.compare(result)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "theirs (?)", "a third*", "noise ceiling"]


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("sections", [["one"], [f"a long name of section {i}" for i in range(9)]])
def test_rows_and_markers_do_not_overlap(n: int, sections: list[str]):
    figure = pl.compare(comparison(sections, n))
    figure.canvas.draw()
    axes = figure.axes
    assert len(axes) == (3 if n > 1 else 1)
    places = np.sort(np.concatenate([markers(axes[0], method).get_ydata() for method in list(LEVELS)[:n]]))
    assert len(places) == n * (len(sections) + (len(sections) > 1))
    if len(places) > 1:
        points = np.diff(axes[0].transData.transform(np.column_stack([0 * places, places]))[::-1, 1])
        assert points.min() > 4
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(ax.get_window_extent()) for ax in axes)
    labels = [text.get_window_extent() for text in axes[0].get_yticklabels()]
    assert not any(one.overlaps(other) for i, one in enumerate(labels) for other in labels[:i])
    assert min(label.x0 for label in labels) >= 0


def test_file(tmp_path):
    pl.compare(comparison(["B4"]), save=tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 0


def test_errors():
    result = comparison(["B4"])
    with pytest.raises(TypeError, match=r"What `sthggep.tl.compare` returns was expected, found DataFrame"):
        pl.compare(result.scores)
    with pytest.raises(ValueError, match="Did you mean 'theirs'"):
        pl.compare(result, method="their")
    with pytest.raises(ValueError, match="found 7"):
        pl.compare(comparison(["B4"], 7))
