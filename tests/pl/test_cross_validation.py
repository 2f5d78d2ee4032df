from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sthggep import pl

GENES = [f"G{i}" for i in range(12)]
LEVELS = {"hggep": 0.3, "mean": 0.0, "nearest_patch": 0.1, "ridge": 0.25, "ceiling": 0.5}


def table(groups: dict[str, list[str]], leaks: tuple[str, ...] = (), key: str = "patient") -> pd.DataFrame:
    """Results as `tl.cross_validate` returns them."""
    rng = np.random.default_rng(0)
    rows = []
    for fold, (group, sections) in enumerate(groups.items()):
        for section in sections:
            for method, level in LEVELS.items():
                for metric in ("ceiling",) if method == "ceiling" else ("pearson", "spearman", "rmse"):
                    values = level + rng.normal(0, 0.05, len(GENES)) + (1 if metric == "rmse" else 0)
                    columns = {"fold": fold, "group": group, "section": section, "method": method, "gene": GENES}
                    rows.append(pd.DataFrame({**columns, "metric": metric, "value": values}))
    results = pd.concat(rows, ignore_index=True)
    results["leak"] = np.where(results["section"].isin(leaks), "same patient", "")
    results.attrs = {"parameters": {"group_key": key}}
    return results


def means(results: pd.DataFrame, method: str, metric: str, sections: list[str]) -> list[float]:
    scores = results[(results["method"] == method) & (results["metric"] == metric)]
    values = scores.groupby("section")["value"].mean()[sections]
    return [*values, values.mean()]


def markers(ax, label: str):
    (match,) = [line for line in ax.lines if line.get_label() == label]
    return match


def test_means_quartiles_and_ceiling():
    results = table({"B": ["B4"], "C": ["C2", "C3"]})
    (ax,) = pl.cross_validation(results).axes
    names = ["B4", "C2", "C3"]
    for label, method in {"HGGEP": "hggep", "mean": "mean", "nearest patch": "nearest_patch", "ridge": "ridge"}.items():
        np.testing.assert_allclose(markers(ax, label).get_ydata(), means(results, method, "pearson", names))
    quartiles, ceiling = ax.collections[0], ax.collections[-1]
    one = results.query("method == 'hggep' and metric == 'pearson' and section == 'B4'")["value"]
    np.testing.assert_allclose(quartiles.get_segments()[0][:, 1], [one.quantile(0.25), one.quantile(0.75)])
    np.testing.assert_allclose(
        [segment[0, 1] for segment in ceiling.get_segments()], means(results, "ceiling", "ceiling", names)
    )
    model, best = means(results, "hggep", "pearson", names)[-1], means(results, "ridge", "pearson", names)[-1]
    top = means(results, "ceiling", "ceiling", names)[-1]
    assert ax.get_title() == (
        f"HGGEP {model:.3f}, {100 * model / top:.0f} % of the noise ceiling ({top:.3f})\nbest baseline: ridge {best:.3f}"
    )
    assert [text.get_text() for text in ax.get_xticklabels()] == [*names, "mean"]
    assert ax.get_xlabel() == "held-out section, by patient"
    assert [text.get_text() for text in ax.texts] == ["B", "C"]
    assert ax.get_legend().get_title().get_text() == "mean; line = quartiles of genes"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "HGGEP",
        "mean",
        "nearest patch",
        "ridge",
        "noise ceiling",
    ]


def test_markers_of_a_section_do_not_overlap():
    (ax,) = pl.cross_validation(table({"B": ["B4"], "C": ["C2"]})).axes
    first = sorted(markers(ax, label).get_xdata()[0] for label in ("HGGEP", "mean", "nearest patch", "ridge"))
    assert np.diff(first).min() > 0.15
    assert max(map(abs, first)) < 0.4


def test_sections_of_a_group_stand_together():
    results = table({"A": ["A1"], "B": ["B1"]})
    more = table({"A": ["A2"]})
    (ax,) = pl.cross_validation(pd.concat([results, more])).axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["A1", "A2", "B1", "mean"]


def test_shared_patients_are_starred():
    results = table({"B4": ["B4"], "C2": ["C2"], "C3": ["C3"]}, leaks=("C2", "C3"), key="section")
    (ax,) = pl.cross_validation(results).axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["B4", "C2*", "C3*", "mean"]
    assert ax.get_xlabel() == "held-out section   (* trained on other sections of the same patient)"
    assert len(ax.texts) == 0


def test_low_is_good_for_rmse():
    results = table({"A": ["A1"], "B": ["B1"]})
    (ax,) = pl.cross_validation(results, metric="rmse").axes
    assert ax.get_ylabel() == "RMSE"
    assert "best baseline: mean" in ax.get_title()
    assert "noise ceiling" not in [text.get_text() for text in ax.get_legend().get_texts()]


def test_genes_without_a_score_are_left_out():
    results = table({"A": ["A1"], "B": ["B1"]})
    results.loc[results["gene"] == "G0", "value"] = np.nan
    (ax,) = pl.cross_validation(results).axes
    np.testing.assert_allclose(
        markers(ax, "HGGEP").get_ydata(), means(results.dropna(), "hggep", "pearson", ["A1", "B1"])
    )


@pytest.mark.parametrize("n", [2, 40])
def test_names_fit_beside_each_other(n: int):
    groups = {f"P{i}": [f"P{i}_section"] for i in range(n)}
    figure = pl.cross_validation(table(groups))
    figure.canvas.draw()
    (ax,) = figure.axes
    boxes = [text.get_window_extent() for text in ax.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    legend = ax.get_legend().get_window_extent()
    assert legend.x1 <= ax.get_window_extent().x1
    largest = max(line.get_ydata().max() for line in ax.lines if line.get_label() in {"HGGEP", "ridge"})
    assert ax.transData.transform((0, largest))[1] < legend.y0


def test_own_axes_and_file(tmp_path):
    results = table({"A": ["A1"], "B": ["B1"]})
    _, ax = plt.subplots()
    assert pl.cross_validation(results, ax=ax, save=tmp_path / "cv.png") is ax
    assert (tmp_path / "cv.png").stat().st_size > 0


def test_errors():
    results = table({"A": ["A1"], "B": ["B1"]})
    with pytest.raises(KeyError, match="'value' are missing"):
        pl.cross_validation(results.drop(columns="value"))
    with pytest.raises(ValueError, match="Did you mean 'pearson'"):
        pl.cross_validation(results, metric="person")
