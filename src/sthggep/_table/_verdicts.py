"""Verdicts: which genes a prediction can be trusted for, and at which scale, by held-out tissue of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sthggep._checks import counted, has_key
from sthggep._keys import prediction_keys
from sthggep._table._evidence import SCALES_UM, UNLIKE, Evidence
from sthggep._table._scores import mean_of_known
from sthggep._table._spatial_null import false_discovery_rates

if TYPE_CHECKING:
    from anndata import AnnData

    from sthggep._slides._slide import Slide

VERDICTS = ("spot", "region", "not predicted", "cannot be judged")
TRUSTED = VERDICTS[:2]
FEWEST_PATIENTS = 3
"""Held-out patients without which nothing is known of an unlike section."""
PRIOR_SECTIONS = 4.0  # that say as much of how a gene varies between sections as the other genes
NOT_MEASURED = "not measured with images: known by the gene programs of sections without images alone"
SETS_ADVICE = "Fit the model with it: `sthggep.tl.fit(slides, gene_sets=...)`."
ONE_SIDED = 1.6449  # 95 % quantile of the standard normal


@dataclass(frozen=True)
class Thresholds:
    """What a verdict asks for."""

    confidence: float = 0.75
    """Probability that a further section shows the correlation, too."""
    fdr: float = 0.05
    """Rate of false discoveries among the genes that count as correlated."""
    share: float = 1 / 3
    """Least share of the noise ceiling for *spot*."""
    region_share: float = 0.5
    """Least share of its noise ceiling that the correlation of means over squares reaches for *region*."""
    ceiling: float = 0.32
    """Noise ceiling below which a gene cannot be judged."""
    detected: float = 0.05
    """Share of spots with counts of the gene below which it cannot be judged."""


def judge(evidence: Evidence, genes: list[str], thresholds: Thresholds, *, unlike: bool) -> pd.DataFrame:
    """Judge each gene of a section, and say why.

    Parameters
    ----------
    evidence
        Of these genes.
    genes
        Their names.
    thresholds
        What the verdicts ask for.
    unlike
        Whether the section's image is unlike that of the training tissue: then only held-out patients tell.
    """
    of_patients = unlike and len(evidence.patient_pearson) >= FEWEST_PATIENTS
    pearson, z = (evidence.patient_pearson, evidence.patient_z) if of_patients else (evidence.pearson, evidence.z)
    mean = mean_of_known(pearson.astype(np.float64))
    low, high = _interval_of_further(np.arctanh(np.clip(pearson, -0.999, 0.999)), z, thresholds.confidence)
    q = _rates_of_known(_upper_tail(mean_of_known(z.astype(np.float64))))
    holds = _further_z(z, thresholds.confidence) >= ONE_SIDED
    correlated = (q < thresholds.fdr) & holds
    reliable = reliable_scale(evidence, thresholds)
    spot = correlated & (mean >= thresholds.share * evidence.ceiling)
    region = correlated & ~spot & np.isfinite(reliable)
    noisy, rare = evidence.ceiling < thresholds.ceiling, evidence.detected < thresholds.detected
    unknown = np.full(len(genes), unlike and not of_patients)
    cases = {
        "measured on no tissue that was held out while other tissue taught the gene": np.isnan(mean),
        "the image is unlike the training tissue, and fewer than three patients were held out in training": unknown,
        "counted in too few spots": rare,
        "the noise of its counts hides whether it is predicted": noisy,
        "correlated spot by spot on held-out tissue": spot,
        "correlated on held-out tissue; means over regions are reliable": region,
        "correlated on held-out tissue, but little of what its noise allows": correlated,
        "correlated on held-out tissue, but too weakly to expect it on a further section": q < thresholds.fdr,
    }
    verdicts = (*[VERDICTS[3]] * 4, "spot", "region", VERDICTS[2], VERDICTS[2])
    conditions = list(cases.values())
    verdict = np.select(conditions, verdicts, VERDICTS[2])
    table = {
        "held_out_pearson": mean,
        "pearson_low": low,
        "pearson_high": high,
        "q_value": q,
        "ceiling": evidence.ceiling,
        "detected": evidence.detected,
        "reliable_at_um": np.where(np.isin(verdict, TRUSTED), reliable, np.nan),
        "verdict": pd.Categorical(verdict, categories=list(VERDICTS)),
        "reason": np.select(conditions, list(cases), "not correlated on held-out tissue"),
    }
    return pd.DataFrame(table, index=pd.Index(genes, name="gene"))


def reliable_scale(evidence: Evidence, thresholds: Thresholds) -> NDArray[np.float64]:
    """Find the smallest scale, in microns, at which predictions and measurements agree; NaN for none."""
    enough = (evidence.scale_ceiling >= thresholds.ceiling) & (
        evidence.scale_pearson >= thresholds.region_share * evidence.scale_ceiling
    )
    return np.where(enough.any(axis=0), np.array(SCALES_UM)[enough.argmax(axis=0)], np.nan)


def _spread_between(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spread of the test statistic between sections, of each gene drawn towards that of all; at least that of chance."""
    n = _n_known(z)
    if len(z) < 2:
        return np.ones(z.shape[1])
    centered = z.astype(np.float64) - mean_of_known(z.astype(np.float64))
    degrees = np.maximum(n - 1, 0)
    variance = np.nansum(np.square(centered), axis=0) / np.maximum(degrees, 1)
    several = variance[n > 1]
    prior = max(1.0, float(several.mean())) if len(several) else 1.0
    return np.asarray(np.sqrt((degrees * variance + PRIOR_SECTIONS * prior) / (degrees + PRIOR_SECTIONS)))


def _further_z(z: NDArray[np.floating], confidence: float) -> NDArray[np.float64]:
    """Lower bound of the test statistic on a further section, which it exceeds with this probability."""
    from scipy.stats import norm

    step = norm.ppf(confidence) * (1 + 1 / np.maximum(_n_known(z), 1)) ** 0.5
    return np.asarray(mean_of_known(z.astype(np.float64)) - step * _spread_between(z))


def _interval_of_further(
    fisher: NDArray[np.floating], z: NDArray[np.floating], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval of the correlation on a further section: one unit of the test statistic is one of chance there."""
    from scipy.stats import norm

    mean, mean_z = (mean_of_known(values.astype(np.float64)) for values in (fisher, z))
    chance = np.abs(mean) / np.maximum(np.abs(mean_z), 1e-3)
    chance = np.clip(chance, 0.02, 0.5)
    step = norm.ppf((1 + confidence) / 2) * (1 + 1 / np.maximum(_n_known(z), 1)) ** 0.5 * _spread_between(z) * chance
    return np.tanh(mean - step), np.tanh(mean + step)


def _n_known(values: NDArray[np.floating]) -> NDArray[np.intp]:
    """Count the sections (or patients) that say something of each gene."""
    return np.asarray((~np.isnan(values)).sum(axis=0), dtype=np.intp)


def _rates_of_known(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust the p values of the genes that were tested; NaN for the others."""
    q, known = np.full(len(p), np.nan), ~np.isnan(p)
    q[known] = false_discovery_rates(p[known])
    return q


def _upper_tail(z: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import norm

    return np.asarray(norm.sf(z))


def describe_verdicts(verdicts: pd.DataFrame, what: str = "gene") -> str:
    """Count the verdicts of a section, in words."""
    counts = verdicts["verdict"].value_counts()
    how = {"spot": "spot by spot", "region": "over regions", VERDICTS[2]: "not predicted", VERDICTS[3]: "not judged"}
    return f"{counted(verdicts, what)}: " + ", ".join(f"{counts.get(name, 0)} {how[name]}" for name in VERDICTS)


def read_evidence(table: AnnData, key: str, n_genes: int) -> Evidence:
    """Read what the model of a prediction knows of held-out tissue.

    Raises
    ------
    ValueError
        It knows nothing.
    """
    record = table.uns[key]
    evidence = record.get("evidence") if isinstance(record, Mapping) else None
    if evidence is None:
        msg = (
            f"The model of the prediction {key!r} holds no predictions of tissue that was held out of its training: it was fitted "
            "with `validation=None`, on very few spots, or by an earlier version. Fit it again with `validation='auto'`, and predict again."
        )
        raise ValueError(msg)
    return Evidence.from_arrays(evidence, n_genes)


def read_set_evidence(table: AnnData, key: str, names: Sequence[str] | None) -> tuple[list[str], Evidence]:
    """Read what the model of a prediction knows of gene sets: of those with these names, or of all.

    Raises
    ------
    KeyError
        The model knows no set of such a name.
    ValueError
        The model knows no gene sets whose genes are predicted.
    """
    record = table.uns[key]
    if "set_evidence" not in record:
        msg = (
            f"The prediction {key!r} holds nothing about gene sets: its model was fitted without, or `genes=` of the prediction left "
            "out genes of each. Fit it with `sthggep.tl.fit(slides, gene_sets=...)`, and predict again."
        )
        raise ValueError(msg)
    known = [str(name) for name in np.atleast_1d(np.asarray(record["gene_sets"], dtype=object))]
    evidence = Evidence.from_arrays(record["set_evidence"], len(known))
    if names is None:
        return known, evidence
    for name in names:
        has_key(dict.fromkeys(known), name, f"the gene sets of the prediction {key!r}", SETS_ADVICE)
    return list(names), evidence.take(np.array([known.index(name) for name in names], dtype=np.intp))


def read_program_evidence(table: AnnData, key: str) -> tuple[list[str], Evidence]:
    """Read what the model of a prediction knows of its gene programs.

    Raises
    ------
    ValueError
        It knows nothing.
    """
    arrays = table.uns[key].get("program_evidence")
    if arrays is None:
        msg = (
            f"The prediction {key!r} holds nothing about gene programs: its model has networks, held no tissue out, or was "
            "fitted by an earlier version. Fit a closed form by `sthggep.tl.fit(slides, n_members=0)`, and predict again."
        )
        raise ValueError(msg)
    n = len(np.atleast_1d(arrays["ceiling"]))
    return [f"program {number}" for number in range(n)], Evidence.from_arrays(arrays, n)


def mean_novelty(table: AnnData, slide: Slide, key: str) -> float:
    """Mean novelty of a section's spots; 0 where it is not known, as of features that no training described."""
    column = prediction_keys(key).novelty
    if column not in table.obs:
        return 0.0
    values = np.asarray(table.obs[column], dtype=np.float64)[slide.rows]
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


def verdicts_of(slide: Slide, key: str, genes: Sequence[str]) -> pd.DataFrame | None:
    """Judge the predicted genes of a section by the default thresholds; ``None`` if the model knows of no held-out tissue."""
    record = slide.adata.uns.get(prediction_keys(key).uns)
    if not isinstance(record, Mapping) or "evidence" not in record:
        return None
    evidence = read_evidence(slide.adata, key, len(genes))
    verdicts = judge(evidence, list(genes), Thresholds(), unlike=mean_novelty(slide.adata, slide, key) > UNLIKE)
    return name_unmeasured(verdicts, record)


def name_unmeasured(verdicts: pd.DataFrame, record: Mapping[str, object]) -> pd.DataFrame:
    """Give genes that no slide with an image measured their reason."""
    if "n_sections" in record:
        verdicts.loc[np.asarray(record["n_sections"]) == 0, "reason"] = NOT_MEASURED
    return verdicts


def set_verdicts_of(slide: Slide, key: str) -> dict[str, pd.DataFrame]:
    """Judge the gene sets and the gene programs that the model of a prediction knows, by ``"gene set"`` and ``"program"``."""
    record, known = slide.adata.uns[prediction_keys(key).uns], {}
    if "set_evidence" in record:
        known["gene set"] = read_set_evidence(slide.adata, key, None)
    if "program_evidence" in record:
        known["program"] = read_program_evidence(slide.adata, key)
    unlike = mean_novelty(slide.adata, slide, key) > UNLIKE
    return {kind: judge(evidence, names, Thresholds(), unlike=unlike) for kind, (names, evidence) in known.items()}
