"""Verdicts, novelty and intervals of regions on sections and patients that training never saw.

    python benchmarks/trust.py --root $STHGGEP_DATA --panel panel_her2.txt

Every fold fits a closed form (`n_members=0`). Verdicts are compared with a test on the held-out section: a gene is really
correlated there if its map differs from unrelated maps of the same smoothness, at a false discovery rate of 5 %. Regions are compact
groups of about 20 and 40 spots (k-means on coordinates, seed 0; groups under 8 spots left out).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from intervals import FOLDS, sections
from scipy.stats import norm
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score

import sthggep

SIZES = (20, 40)
LEVEL = 0.9
DRAWS = 5


def correlated(slide: anndata.AnnData, measured: np.ndarray) -> np.ndarray:
    """Whether each gene's predicted map is correlated with the measured one."""
    from sthggep._table._spatial_null import compare_maps, false_discovery_rates

    test = compare_maps(slide.obsm["spatial"], slide.obsm["hggep"], measured, seed=1)
    return false_discovery_rates(norm.sf(test.z)) < 0.05


def groups(slide: anndata.AnnData, size: int) -> pd.Series:
    """Compact groups of about so many spots."""
    n = max(2, round(slide.n_obs / size))
    labels = pd.Series(
        KMeans(n, random_state=0, n_init=1).fit_predict(slide.obsm["spatial"]).astype(str), slide.obs_names
    )
    return labels.where(labels.map(labels.value_counts()) >= 8)


def score_regions(slide: anndata.AnnData, row: dict) -> None:
    """Coverage and width of intervals of regional means, by the training and by half of the spots."""
    spots = slide.obsm["hggep_upper"] - slide.obsm["hggep_lower"]
    for size in SIZES:
        slide.obs["group"] = groups(slide, size)
        for unlike, what, relative in (
            (0.8, "", False),
            (0.8, " relative", True),
            (1.0, " relative asked anyway", True),
        ):
            means = sthggep.tl.regions(slide, "group", level=LEVEL, unlike=unlike, relative=relative)
            inside = (means["observed"] >= means["lower"]) & (means["observed"] <= means["upper"])
            given = means["lower"].notna()
            row[f"{size}: coverage{what}"] = inside[given].mean() if given.any() else np.nan
            row[f"{size}: width of spots'{what}"] = (means["upper"] - means["lower"]).mean() / spots.mean()
    slide.obs["group"] = groups(slide, SIZES[1])
    covered, ratio = [], []
    for draw in range(DRAWS):
        mask = np.zeros(slide.n_obs, dtype=bool)
        mask[np.random.default_rng(draw).permutation(slide.n_obs)[: slide.n_obs // 2]] = True
        whole = sthggep.tl.regions(slide, "group", level=LEVEL, unlike=1.0)
        half = sthggep.tl.regions(slide, "group", level=LEVEL, measured=mask)
        flat = slide.copy()
        flat.obsm["hggep"] = np.zeros_like(flat.obsm["hggep"])
        alone = sthggep.tl.regions(flat, "group", level=LEVEL, measured=mask)
        used = (half["interval_from"] == "measured spots").to_numpy()
        truth = whole["observed"].to_numpy()
        covered.append(((truth >= half["lower"]) & (truth <= half["upper"])).to_numpy()[used].mean())
        widths = [(part["upper"] - part["lower"]).to_numpy()[used] for part in (half, alone)]
        ratio.append((widths[0].mean() / widths[1].mean(), (widths[0] > 1.05 * widths[1]).mean()))
    row["half measured: coverage"] = np.mean(covered)
    row["half measured: width of measured alone"], row["half measured: wider by 5 %"] = np.mean(ratio, axis=0)


def main() -> None:
    """Fit, predict, judge, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--panel", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    from sthggep._table._counts import log10_cp10k, read_panel_counts

    halves = [("brain", axis, low) for axis in (0, 1) for low in (True, False)]
    brain = options.root / "visium" / "mouse_brain" / "whole_100_genes.h5ad"
    verdicts, means, known, unknown = [], [], [], []
    for what, train, test in [*FOLDS, *(halves if brain.exists() else [])]:
        genes, quiet = None, {"show_progress_bar": False}
        if what == "brain":
            whole = anndata.read_h5ad(brain)
            low = whole.obsm["spatial"][:, train] < np.median(whole.obsm["spatial"][:, train])
            training, tested = [whole[low == test].copy()], [whole[low != test].copy()]
            names, source = [f"{'xy'[train]} {'high' if test else 'low'}"], "other half"
            quiet["mpp"] = 0.725
        else:
            training, tested, names, source = (
                sections(options.root, train),
                sections(options.root, test),
                test,
                "+".join(train),
            )
            genes = None if what == "bulbs" else options.panel.read_text().split()
        model = sthggep.tl.fit(training, genes=genes, n_members=0, **quiet)
        for slide, name in zip(tested, names, strict=True):
            measured = log10_cp10k(read_panel_counts(slide, model.genes))
            sthggep.tl.predict(slide, model, interval=LEVEL, **quiet)
            true, novelty = correlated(slide, measured), slide.obs["hggep_novelty"].to_numpy()
            if what != "brain":
                (unknown if what == "patients" else known).append(novelty)
            for unlike, how in ((0.8, "as it is"), (1.0, "novelty ignored")):
                found = sthggep.tl.trust(slide, unlike=unlike)["verdict"]
                called = found.isin(["spot", "region"]).to_numpy()
                row = {"fold": what, "section": name, "from": source, "novelty": novelty.mean(), "verdicts": how}
                row |= {"correlated": true.sum(), "spot": (found == "spot").sum(), "region": (found == "region").sum()}
                row["not judged"] = (found == "cannot be judged").sum()
                row["precision"] = (called & true).sum() / called.sum() if called.any() else np.nan
                row["recall"] = (called & true).sum() / max(true.sum(), 1)
                verdicts.append(row)
            row = {"fold": what, "section": name, "from": source}
            score_regions(slide, row)
            means.append(row)
    print(pd.DataFrame(verdicts).round(3).to_string(index=False))
    print(pd.DataFrame(means).round(3).to_string(index=False))
    of_patient = [np.concatenate(unknown), np.concatenate(known)]
    area = roc_auc_score(np.repeat([1, 0], list(map(len, of_patient))), np.concatenate(of_patient))
    print(f"Novelty tells spots of held-out patients from those of held-out sections: area under the curve {area:.3f}")


if __name__ == "__main__":
    main()
