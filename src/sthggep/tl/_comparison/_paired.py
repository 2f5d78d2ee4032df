"""Paired differences of methods to the first one, with intervals over genes, spots, sections and patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sthggep.tl._comparison._scored import Compared

ALL = "all sections"
UNITS = ("patients", "sections", "spots", "genes")
"""What the interval of a difference samples, the widest claim first."""
FEWEST = 3  # sections or patients of an interval
COLUMNS = ["method", "section", "unit", "n", "difference", "low", "high", "better"]
Floats = NDArray[np.float64]
Row = dict[str, object]


def paired_differences(compared: Mapping[str, Compared], scores: pd.DataFrame, level: float) -> pd.DataFrame:
    """Difference of each method to the first one: a row a method, a section (or all of them) and a unit."""
    methods = list(dict.fromkeys(scores["method"]))
    by_gene = {method: _by_gene(scores, method) for method in methods}
    groups = scores.drop_duplicates("section").set_index("section")["group"]
    rows: list[Row] = []
    for method in methods[1:]:
        differences = by_gene[method] - by_gene[methods[0]]
        samples = {
            name: part.samples[method] - part.samples[methods[0]] for name, part in compared.items() if part.samples
        }
        for name in compared:
            of_spots = [samples[name]] if name in samples else []
            rows += [{"method": method, "section": name, **row} for row in _units(differences[[name]], of_spots, level)]
        if len(compared) > 1:
            of_spots = list(samples.values()) if len(samples) == len(compared) else []
            whole = _units(differences, of_spots, level) + _units_of_sections(differences, groups, level)
            rows += [{"method": method, "section": ALL, **row} for row in whole]
    return pd.DataFrame(rows, columns=COLUMNS)


def _by_gene(scores: pd.DataFrame, method: str) -> pd.DataFrame:
    """Correlation of each gene (rows) in each section (columns, in their order)."""
    own = scores[scores["method"] == method]
    return own.pivot(index="gene", columns="section", values="pearson")[list(dict.fromkeys(own["section"]))]


def _units(differences: pd.DataFrame, samples: Sequence[Floats], level: float) -> list[Row]:
    """The mean difference with its interval over genes, and over blocks of spots where there are samples of them."""
    common = {
        "difference": float(differences.mean().mean()),
        "better": float((differences > 0).to_numpy()[differences.notna().to_numpy()].mean()),
    }
    by_gene = differences.mean(axis=1).dropna().to_numpy()
    low, high = _t_interval(common["difference"], by_gene, level)
    rows: list[Row] = [{"unit": "genes", "n": len(by_gene), **common, "low": low, "high": high}]
    if samples:
        low, high = np.quantile(np.mean(samples, axis=0), [(1 - level) / 2, (1 + level) / 2])
        rows.append({"unit": "spots", "n": None, **common, "low": float(low), "high": float(high)})
    return rows


def _units_of_sections(differences: pd.DataFrame, groups: pd.Series, level: float) -> list[Row]:
    """Intervals over sections and over patients, where there are three or more of them."""
    by_section = differences.mean()
    better = float((by_section > 0).mean())
    common = {"difference": float(by_section.mean()), "better": better}
    units = {"sections": pd.Series(by_section.index, index=by_section.index)}
    if groups.notna().all():
        units["patients"] = groups[by_section.index]
    rows: list[Row] = []
    for unit, labels in units.items():
        if labels.nunique() < FEWEST:
            continue
        # Sections of one patient are not independent: their deviations from the mean are added up before they are squared
        sums = (by_section - common["difference"]).groupby(labels.to_numpy()).sum().to_numpy()
        n = len(sums)
        error = float(np.sqrt(n / (n - 1) * (sums**2).sum()) / len(by_section))
        low, high = _around(common["difference"], error, n, level)
        rows.append({"unit": unit, "n": n, **common, "low": low, "high": high})
    return rows


def _t_interval(mean: float, values: Floats, level: float) -> tuple[float, float]:
    """Student's interval around a mean of independent values; NaN for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    return _around(mean, float(values.std(ddof=1)) / len(values) ** 0.5, len(values), level)


def _around(mean: float, error: float, n: int, level: float) -> tuple[float, float]:
    from scipy.stats import t

    step = float(t.ppf((1 + level) / 2, n - 1)) * error
    return mean - step, mean + step


def widest_claim(differences: pd.DataFrame) -> pd.DataFrame:
    """One row a method: over all sections, by the widest unit that has an interval."""
    sections = differences["section"]
    whole = differences[sections.eq(ALL)] if sections.eq(ALL).any() else differences
    order = whole["unit"].map(UNITS.index)
    return whole.assign(order=order).sort_values("order", kind="stable").drop_duplicates("method").set_index("method")
