"""One row a method: means over genes, then over sections."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sthggep._table._verdicts import TRUSTED
from sthggep.tl._comparison._paired import widest_claim
from sthggep.tl._comparison._scored import MEAN
from sthggep.tl._comparison._training_tissue import LEAKS, NONE


def summarize(scores: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Summarize the scores of each method, with its difference to the first one."""
    methods = list(dict.fromkeys(scores["method"]))
    table = pd.DataFrame(
        [_row(scores[scores["method"] == method]) for method in methods], index=pd.Index(methods, name="method")
    )
    claims = widest_claim(differences).reindex(methods)
    return table.join(claims[["difference", "low", "high", "unit", "better"]])


def _row(scores: pd.DataFrame) -> dict[str, object]:
    """Means of one method."""
    by_section = scores.groupby("section", sort=False)
    judged = scores[scores["pearson"].notna() & scores["ceiling"].notna()]
    means = judged.groupby("section", sort=False)[["pearson", "ceiling"]].mean()
    flat = scores["pearson"].eq(0) & scores["spearman"].eq(0)
    return {
        "pearson": by_section["pearson"].mean().mean(),
        "spearman": by_section["spearman"].mean().mean(),
        "ceiling": means["ceiling"].mean(),
        "of_ceiling": (means["pearson"] / means["ceiling"].where(means["ceiling"] > 0)).mean(),
        "n_sections": by_section.ngroups,
        "n_genes": scores["gene"].nunique(),
        "n_constant": int(flat.groupby(scores["section"]).sum().mean()),
        "n_trusted": _n_trusted(scores),
        "leak": min(scores["leak"], key=LEAKS.index),
    }


def _n_trusted(scores: pd.DataFrame) -> float:
    """Mean number of genes with a verdict of trust in a section; NaN where the method has no verdicts."""
    if scores["verdict"].isna().all():
        return float("nan")
    return float(scores["verdict"].isin(TRUSTED).groupby(scores["section"]).sum().mean())


def worst_leaks(scores: pd.DataFrame, of_training: dict[str, dict[str, str]], of_records: pd.Series) -> pd.Series:
    """The worse of what a record and the passed training sections state; a method that states nothing is not known."""
    leaks = []
    for (section, method), stated in zip(
        zip(scores["section"], scores["method"], strict=True), of_records, strict=True
    ):
        passed = of_training.get(method, {}).get(section)
        leaks.append(
            stated if passed is None else passed if stated not in LEAKS[:2] else min(stated, passed, key=LEAKS.index)
        )
    return pd.Series(np.where(scores["method"] == MEAN, NONE, leaks), index=scores.index)
