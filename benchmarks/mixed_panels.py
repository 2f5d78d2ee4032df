"""Slides of two panels that share half of their genes: the union against the full panel, and against each panel by itself.

    python benchmarks/mixed_panels.py --root $STHGGEP_DATA --panel panel_her2.txt --out mixed_panels.csv   # minutes on two cores
    python benchmarks/mixed_panels.py --root $STHGGEP_DATA --panel panel_her2.txt --outside     # a third of the genes in no slide with an image

The panel is divided at random into three parts: genes that all sections keep, and two parts of which some training sections
lack one and the others the other. Scored is the Pearson correlation of each gene on a section that no model has seen, on
log10(1 + counts per 10,000 of the full panel), mean over genes; a constant prediction counts 0. The closed form alone.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import sthggep
from sthggep._keys import feature_key
from sthggep._table._counts import log10_cp10k
from sthggep._table._scores import column_pearson
from sthggep.tl._cross_validation._baselines import BaselineSample, FeatureView, ridge

# Sections that lack the first part, sections that lack the second part, section that is predicted
ARRANGEMENTS = [
    (("B4", "C2"), ("C3", "C4"), "C5"),
    (("B4", "C3"), ("C2", "C4"), "C5"),
    (("C2", "C3"), ("C4", "C5"), "B4"),
    (("C4",), ("B4", "C3", "C5"), "C2"),
]
ENCODER, SIZES_UM = "shufflenet_he", (80.0, 160.0, 320.0, 640.0)
QUIET: dict[str, Any] = {"show_progress_bar": False}


def parts_of(panel: Sequence[str], seed: int) -> tuple[list[str], list[str], list[str]]:
    """Genes of all sections, and the two parts that some sections lack: a third each."""
    order = np.random.default_rng(seed).permutation(len(panel))
    shared, first, second = (set(each) for each in np.array_split(order, 3))
    return tuple([gene for i, gene in enumerate(panel) if i in part] for part in (shared, first, second))  # type: ignore[return-value]


def expression(slide: anndata.AnnData, genes: Sequence[str]) -> NDArray[np.float32]:
    """Expression on the scale of these genes."""
    counts = slide[:, list(genes)].X
    return log10_cp10k(np.asarray(counts.toarray() if hasattr(counts, "toarray") else counts, dtype=np.float32))


def view(slide: anndata.AnnData) -> FeatureView:
    """Features of a section for the ridge."""
    return FeatureView(slide.n_obs, [slide.obsm[feature_key(ENCODER, size)] for size in SIZES_UM])


def by_ridge(training: Sequence[anndata.AnnData], test: anndata.AnnData, genes: Sequence[str]) -> NDArray[np.float32]:
    """Predict by the ridge of `tl.cross_validate`, trained on sections that hold all of these genes."""
    samples = []
    for slide in training:
        values = expression(slide, genes)
        xy = np.asarray(slide.obsm["spatial"], dtype=float)
        samples.append(BaselineSample(view(slide), values, np.asarray(values.sum(axis=1) > 0), xy))
    return ridge(samples, [view(test)])[0]


def by_model(training: Sequence[anndata.AnnData], test: anndata.AnnData, **options: Any) -> pd.DataFrame:
    """Predict by the closed form of these sections: spots × genes."""
    model = sthggep.tl.fit(training, n_members=0, **options, **QUIET)
    sthggep.tl.predict(test, model, key_added="found", **QUIET)
    return pd.DataFrame(test.obsm["found"], columns=list(test.uns["found"]["genes"]))


# Training sections and the predicted one; counts without images are those of all patients but these
OUTSIDE = [(("B4", "C2", "C3", "C4"), "C5"), (("C2", "C3", "C4", "C5"), "B4"), (("B4",), "C2")]


def outside(slides: dict[str, anndata.AnnData], panel: Sequence[str], root: Path, seed: int) -> pd.DataFrame:
    """Score genes that no slide with an image holds, beside a model whose slides measured them."""
    from accuracy import counted

    shared, first, second = parts_of(panel, seed)
    measured = [gene for gene in panel if gene not in set(second)]
    further = [each for each in counted(root) if each.obs["patient"].iloc[0] not in {"B", "C"}]
    rows = []
    for training, name in OUTSIDE:
        test, every = slides[name], [slides[each] for each in training]
        less = [slide[:, measured].copy() for slide in every]
        predicted = {
            "measured with images": by_model(every, test, genes=panel, expression=further),
            "not measured with images": by_model(less, test, genes=panel, absent="mask", expression=further),
        }
        truth = pd.DataFrame(expression(test, panel), columns=panel)
        for kind, genes in (("genes of the slides", [*shared, *first]), ("genes of expression= alone", second)):
            varying = [gene for gene in genes if truth[gene].nunique() > 1]
            for method, table in predicted.items():
                scores = column_pearson(table[varying].to_numpy(), truth[varying].to_numpy())
                value = float(np.nan_to_num(scores).mean())
                rows.append({"from": "+".join(training), "to": name, "genes": kind, "method": method, "pearson": value})
        print(pd.DataFrame(rows).tail(4).to_string(header=False), flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Score all methods on each arrangement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1, help="divisions of the panel")
    parser.add_argument("--arrangements", type=int, default=len(ARRANGEMENTS))
    parser.add_argument("--outside", action="store_true", help="genes that no slide with an image holds")
    parser.add_argument("--out", type=Path, default=Path("mixed_panels.csv"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    panel = options.panel.read_text().split()
    slides = {
        name: sthggep.datasets.her2st(name, root=options.root / "her2st") for name in ("B4", "C2", "C3", "C4", "C5")
    }
    for slide in slides.values():
        sthggep.pp.features(slide, ENCODER, size_um=SIZES_UM, encoding="tissue", **QUIET)
    if options.outside:
        table = pd.concat(
            [outside(slides, panel, options.root, seed).assign(seed=seed) for seed in range(options.seeds)]
        )
        table.to_csv(options.out, index=False)
        print(table.pivot_table(index=["from", "to", "genes"], columns="method", values="pearson").round(3).to_string())
        return
    rows = []
    for seed in range(options.seeds):
        shared, first, second = parts_of(panel, seed)
        for lack_first, lack_second, name in ARRANGEMENTS[: options.arrangements]:
            test = slides[name]
            held = {each: [g for g in panel if g not in set(first)] for each in lack_first}
            held |= {each: [g for g in panel if g not in set(second)] for each in lack_second}
            every = [slides[each] for each in held]
            mixed = [slides[each][:, genes].copy() for each, genes in held.items()]
            predicted = {
                "full panel": by_model(every, test, genes=panel),
                "union": by_model(mixed, test, genes=panel, absent="mask"),
                "shared genes": by_model(every, test, genes=shared),
            }
            for other, part in ((lack_second, first), (lack_first, second)):
                genes = held[other[0]]
                alone = by_model([slides[each] for each in other], test, genes=genes)
                of_ridge = pd.DataFrame(by_ridge([slides[each] for each in other], test, genes), columns=genes)
                for method, table in (("alone", alone), ("ridge alone", of_ridge)):
                    earlier = predicted.get(method, pd.DataFrame(index=table.index))
                    predicted[method] = pd.concat([earlier, table[part]], axis=1)
            truth = pd.DataFrame(expression(test, panel), columns=panel)
            for kind, genes in (("all", shared), ("some", [*first, *second])):
                varying = [gene for gene in genes if truth[gene].nunique() > 1]
                for method, table in predicted.items():
                    if set(varying) <= set(table):
                        scores = column_pearson(table[varying].to_numpy(), truth[varying].to_numpy())
                        value = float(np.nan_to_num(scores).mean())
                        lacking = "+".join(lack_first), "+".join(lack_second)
                        rows.append((seed, *lacking, name, kind, method, value))
            print(pd.DataFrame(rows).tail(9).to_string(header=False), flush=True)
            columns = ["seed", "lack_first", "lack_second", "to", "genes_of", "method", "pearson"]
            pd.DataFrame(rows, columns=columns).to_csv(options.out, index=False)
    table = pd.DataFrame(rows, columns=columns)
    print(
        table.pivot_table(index=["genes_of", "lack_first", "lack_second", "to"], columns="method", values="pearson")
        .round(4)
        .to_string()
    )


if __name__ == "__main__":
    main()
